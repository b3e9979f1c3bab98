//! One agent's life as a saga: every step has its undo, and the undo runs on every failure.
//!
//! ```text
//! Checking --ok--> Registering --registered--> Starting --survived--> Live --release--> Releasing
//!    |                  |                         |                     |                  |
//!    +--refused--> Gone +--refused--> Gone        +--failed--> Gone     +---child ended----+--> Gone
//! ```
//!
//! An agent whose program failed and is to be started again keeps its registration and its mailbox:
//!
//! ```text
//! Live --failed--> Resting --rested--> Starting --survived--> Live
//!                     |                   +--failed--> Resting or Gone
//!                     +--release--> Gone
//! ```
//!
//! A release that comes while the agent is still being made is remembered and carried out as soon as there
//! is something to end. The process always ends before anybody is told that it has: a name is never free
//! while its process lives, unless it is overdue, which is said, or its worker is lost.

use std::time::Duration;

use crate::messages::{
    process::{EndedBy, ExitRecord},
    release::Released,
    session::RegisterRefused,
    spawn::{SpawnRefused, Started},
};

/// The rest that begins again with the registry: nobody knows how much of it was over.
const REST_AGAIN: Duration = Duration::from_secs(2);

/// Where an agent is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its directory is being looked at.
    Checking,
    /// The engine is being asked.
    Registering,
    /// Its process is being started.
    Starting,
    /// It runs.
    Live,
    /// Its program has failed, and the next one is started after a while.
    Resting,
    /// Its process is being ended.
    Releasing,
    /// Nothing of it is left; the entry can go.
    Gone,
}

/// What happens to an agent.
#[derive(Debug)]
pub(super) enum Event {
    /// Its directory was looked at.
    Checked(Result<(), SpawnRefused>),
    /// The engine knows it.
    Registered,
    /// The engine does not.
    NotRegistered(RegisterRefused),
    /// The way over HTTP failed as well.
    NodeOffline {
        /// In words.
        why: String,
    },
    /// It exists at the engine, but its messages would not come to this node, and who asked cannot be warned.
    NotBound {
        /// In words.
        why: String,
    },
    /// The child survived its first moments.
    Survived(Started),
    /// The child did not start.
    NotStarted(SpawnRefused),
    /// Somebody wants it gone.
    ReleaseAsked {
        /// KILL at once.
        force: bool,
        /// Who.
        by: EndedBy,
    },
    /// The child has ended.
    ChildEnded {
        /// How.
        exit: ExitRecord,
        /// The agent gets another one after this long.
        then: Option<Duration>,
    },
    /// It has waited long enough for its next program.
    Rested,
    /// The end was ordered long ago and nothing came of it.
    Overdue,
    /// Its worker is gone for good, and nobody else sees the end of its child.
    Lost,
    /// The registry itself restarted: what was under way is not under way any more.
    Interrupted,
}

/// What is to be done about it, in this order.
#[derive(Debug)]
pub(super) enum Effect {
    /// Look at the directory.
    Check,
    /// Register over the socket.
    Register,
    /// Register over HTTP and bind, because the socket is down.
    RegisterOverHttp,
    /// Build the rooms and start the child.
    Build,
    /// Undo the registration.
    Deregister,
    /// Close the rooms.
    CloseRooms {
        /// They are built again soon.
        returns: bool,
    },
    /// Write down that its program has failed, and tell the world that there will be another one.
    Mourn {
        /// How it ended.
        exit: ExitRecord,
        /// From now to the next one.
        delay: Duration,
    },
    /// Say after this long that it has rested.
    Rest(Duration),
    /// End the child.
    Terminate {
        /// KILL at once.
        force: bool,
        /// Who.
        by: EndedBy,
    },
    /// Put it into the inventory, join its channels, tell the world.
    Announce(Started),
    /// Write its end down, take it out of the inventory, tell the world.
    Bury(Option<ExitRecord>),
    /// Answer who asked for it.
    AnswerSpawn(Result<Started, SpawnRefused>),
    /// Answer all who want it gone.
    AnswerReleases(Released),
}

/// One agent's saga.
#[derive(Debug)]
pub(super) struct Saga {
    phase: Phase,
    registered: bool,
    built: bool,
    /// It has been live: who asked for it has the answer.
    announced: bool,
    /// A release that came before there was a child to end.
    release_wanted: Option<(bool, EndedBy)>,
}

impl Saga {
    /// A new agent, and what to do first.
    pub(super) fn begin() -> (Self, Vec<Effect>) {
        let saga = Self {
            phase: Phase::Checking,
            registered: false,
            built: false,
            announced: false,
            release_wanted: None,
        };
        (saga, vec![Effect::Check])
    }

    /// Where it is.
    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// Takes an event in. An event that has no meaning in this phase changes nothing.
    pub(super) fn step(&mut self, event: Event) -> Vec<Effect> {
        match (self.phase, event) {
            (Phase::Gone, _) => Vec::new(),

            (Phase::Checking, Event::Checked(Ok(()))) => match self.release_wanted {
                None => {
                    self.phase = Phase::Registering;
                    vec![Effect::Register]
                }
                Some(_) => self.give_up(SpawnRefused::Abandoned("released while starting".into())),
            },
            (Phase::Checking, Event::Checked(Err(refused))) => self.give_up(refused),

            (Phase::Registering, Event::Registered) => {
                self.registered = true;
                match self.release_wanted {
                    None => {
                        self.phase = Phase::Starting;
                        self.built = true;
                        vec![Effect::Build]
                    }
                    Some(_) => self.give_up(SpawnRefused::Abandoned("released while starting".into())),
                }
            }
            (Phase::Registering, Event::NotRegistered(RegisterRefused::Offline)) => {
                vec![Effect::RegisterOverHttp]
            }
            (Phase::Registering, Event::NotRegistered(refused)) => {
                self.give_up(SpawnRefused::NotRegistered(refused))
            }
            (Phase::Registering, Event::NodeOffline { why }) => self.give_up(SpawnRefused::NodeOffline {
                why,
                next: "the broker keeps trying; `relay-broker actors` shows when".to_owned(),
            }),

            (Phase::Registering, Event::NotBound { why }) => {
                self.registered = true;
                let next = "ask again once this node is connected".to_owned();
                self.give_up(SpawnRefused::NodeOffline { why, next })
            }

            (Phase::Starting, Event::Survived(started)) => {
                self.phase = Phase::Live;
                let mut effects = vec![Effect::Announce(started.clone())];
                if !std::mem::replace(&mut self.announced, true) {
                    effects.push(Effect::AnswerSpawn(Ok(started)));
                }
                if let Some((force, by)) = self.release_wanted.take() {
                    effects.append(&mut self.step(Event::ReleaseAsked { force, by }));
                }
                effects
            }
            (Phase::Starting, Event::NotStarted(_)) if self.announced => {
                self.bury(None, Released::AlreadyGone)
            }
            (Phase::Starting, Event::NotStarted(refused)) => self.give_up(refused),
            (Phase::Resting, Event::Rested) => {
                self.phase = Phase::Starting;
                vec![Effect::Build]
            }
            (Phase::Resting, Event::ReleaseAsked { .. }) => self.bury(None, Released::AlreadyGone),

            (Phase::Live | Phase::Releasing, Event::ReleaseAsked { force, by }) => {
                let again = self.phase == Phase::Releasing;
                self.phase = Phase::Releasing;
                // A second, polite release waits for the first; a forced one does not.
                if again && !force { Vec::new() } else { vec![Effect::Terminate { force, by }] }
            }
            (_, Event::ReleaseAsked { force, by }) => {
                self.release_wanted = Some((force, by));
                Vec::new()
            }

            (Phase::Starting, Event::ChildEnded { exit, .. }) if !self.announced => {
                self.give_up(SpawnRefused::DiedAtOnce(Box::new(exit)))
            }
            (Phase::Starting | Phase::Live, Event::ChildEnded { exit, then: Some(delay) })
                if self.release_wanted.is_none() =>
            {
                self.phase = Phase::Resting;
                vec![Effect::CloseRooms { returns: true }, Effect::Mourn { exit, delay }, Effect::Rest(delay)]
            }
            (Phase::Starting | Phase::Live | Phase::Releasing, Event::ChildEnded { exit, .. }) => {
                self.bury(Some(exit.clone()), Released::Ended(exit))
            }
            (Phase::Releasing, Event::Overdue) => self.bury(None, Released::Overdue),
            (Phase::Live | Phase::Releasing, Event::Lost) => self.bury(None, Released::AlreadyGone),

            (Phase::Resting, Event::Interrupted) => vec![Effect::Rest(REST_AGAIN)],
            (Phase::Starting, Event::Interrupted) if self.announced => self.bury(None, Released::AlreadyGone),
            (Phase::Checking | Phase::Registering | Phase::Starting, Event::Interrupted) => {
                self.give_up(SpawnRefused::Abandoned("the registry restarted meanwhile".into()))
            }
            (_, _) => Vec::new(),
        }
    }

    /// Undoes whatever was done for an agent that never came to life.
    fn give_up(&mut self, refused: SpawnRefused) -> Vec<Effect> {
        self.phase = Phase::Gone;
        let mut effects = Vec::new();
        if std::mem::take(&mut self.built) {
            effects.push(Effect::CloseRooms { returns: false });
        }
        if std::mem::take(&mut self.registered) {
            effects.push(Effect::Deregister);
        }
        effects.push(Effect::AnswerSpawn(Err(refused)));
        effects.push(Effect::AnswerReleases(Released::AlreadyGone));
        effects
    }

    fn bury(&mut self, exit: Option<ExitRecord>, released: Released) -> Vec<Effect> {
        self.phase = Phase::Gone;
        vec![
            Effect::CloseRooms { returns: false },
            Effect::Deregister,
            Effect::Bury(exit),
            Effect::AnswerReleases(released),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(effects: &[Effect]) -> Vec<String> {
        let name = |effect: &Effect| {
            let text = format!("{effect:?}");
            text.split(['(', ' ', '{']).next().unwrap_or_default().to_owned()
        };
        effects.iter().map(name).collect()
    }

    fn started() -> Started {
        Started { pid: 7, harness: "plain".into(), spawn: "s".into(), at_tick: 1 }
    }

    fn exit() -> ExitRecord {
        ExitRecord::with_code(EndedBy::Itself, 7)
    }

    fn ended(then: Option<Duration>) -> Event {
        Event::ChildEnded { exit: exit(), then }
    }

    fn release(force: bool) -> Event {
        Event::ReleaseAsked { force, by: EndedBy::Release }
    }

    /// Steps a fresh saga through these events and returns what the last one asked for.
    fn after(events: Vec<Event>) -> (Phase, Vec<String>) {
        let (mut saga, mut last) = Saga::begin();
        for event in events {
            last = saga.step(event);
        }
        (saga.phase(), names(&last))
    }

    fn live() -> Vec<Event> {
        vec![Event::Checked(Ok(())), Event::Registered, Event::Survived(started())]
    }

    #[test]
    fn an_agent_is_checked_registered_started_and_announced_in_this_order() {
        let mut seen = Vec::new();
        let (mut saga, first) = Saga::begin();
        seen.extend(names(&first));
        for event in live() {
            seen.extend(names(&saga.step(event)));
        }
        assert_eq!(seen, ["Check", "Register", "Build", "Announce", "AnswerSpawn"]);
        assert_eq!(saga.phase(), Phase::Live);
    }

    #[test]
    fn every_failure_undoes_exactly_what_was_done() {
        let bad_cwd = || SpawnRefused::BadCwd("no such directory".into());
        let refused = || RegisterRefused::Engine { code: "x".into(), message: "y".into() };
        for (events, undone) in [
            (vec![Event::Checked(Err(bad_cwd()))], vec![]),
            (vec![Event::Checked(Ok(())), Event::NotRegistered(refused())], vec![]),
            (vec![Event::Checked(Ok(())), Event::NotRegistered(RegisterRefused::TimedOut)], vec![]),
            (
                vec![
                    Event::Checked(Ok(())),
                    Event::NotRegistered(RegisterRefused::Offline),
                    Event::NodeOffline { why: "refused".into() },
                ],
                vec![],
            ),
            (
                vec![
                    Event::Checked(Ok(())),
                    Event::NotRegistered(RegisterRefused::Offline),
                    Event::NotBound { why: "refused".into() },
                ],
                vec!["Deregister"],
            ),
            (
                vec![Event::Checked(Ok(())), Event::Registered, Event::NotStarted(bad_cwd())],
                vec!["CloseRooms", "Deregister"],
            ),
            (vec![Event::Checked(Ok(())), Event::Registered, ended(None)], vec!["CloseRooms", "Deregister"]),
            (vec![Event::Checked(Ok(())), Event::Interrupted], vec![]),
            (
                vec![Event::Checked(Ok(())), Event::Registered, Event::Interrupted],
                vec!["CloseRooms", "Deregister"],
            ),
        ] {
            let story = format!("{events:?}");
            let (phase, mut effects) = after(events);
            assert_eq!(phase, Phase::Gone, "{story}");
            assert_eq!(effects.split_off(effects.len() - 2), ["AnswerSpawn", "AnswerReleases"], "{story}");
            assert_eq!(effects, undone, "{story}");
        }
    }

    #[test]
    fn http_is_the_way_to_register_only_when_the_socket_is_down() {
        let offline = Event::NotRegistered(RegisterRefused::Offline);
        assert_eq!(after(vec![Event::Checked(Ok(())), offline]).1, ["RegisterOverHttp"]);
    }

    #[test]
    fn a_release_ends_the_process_before_anybody_is_told() {
        let mut events = live();
        events.push(release(false));
        assert_eq!(after(events), (Phase::Releasing, vec!["Terminate".to_owned()]));
        let mut events = live();
        events.extend([release(false), ended(None)]);
        assert_eq!(
            after(events),
            (Phase::Gone, ["CloseRooms", "Deregister", "Bury", "AnswerReleases"].map(String::from).to_vec())
        );
    }

    #[test]
    fn a_release_that_nothing_comes_of_is_answered_as_overdue_and_a_lost_worker_is_not() {
        for (last, overdue) in [(Event::Overdue, true), (Event::Lost, false)] {
            let (mut saga, _) = Saga::begin();
            for event in live() {
                saga.step(event);
            }
            saga.step(release(false));
            let effects = saga.step(last);
            let Some(Effect::AnswerReleases(released)) = effects.last() else { panic!("{effects:?}") };
            assert_eq!(matches!(released, Released::Overdue), overdue, "{released:?}");
            assert_eq!(saga.phase(), Phase::Gone);
        }
    }

    #[test]
    fn a_second_release_waits_for_the_first_unless_it_is_forced() {
        for (force, expected) in [(false, vec![]), (true, vec!["Terminate".to_owned()])] {
            let mut events = live();
            events.extend([release(false), release(force)]);
            assert_eq!(after(events).1, expected);
        }
    }

    #[test]
    fn a_release_while_starting_is_carried_out_as_soon_as_there_is_something_to_end() {
        let early = |n: usize| {
            let mut events = live();
            events.insert(n, release(false));
            events.truncate(n + 2);
            after(events)
        };
        assert_eq!(early(0).1, ["AnswerSpawn", "AnswerReleases"]);
        assert_eq!(early(1).1, ["Deregister", "AnswerSpawn", "AnswerReleases"]);
        assert_eq!(
            early(2),
            (Phase::Releasing, ["Announce", "AnswerSpawn", "Terminate"].map(String::from).to_vec())
        );
    }

    #[test]
    fn an_ended_child_is_buried_once_and_nothing_follows() {
        let mut events = live();
        events.push(ended(None));
        assert_eq!(after(events).1, ["CloseRooms", "Deregister", "Bury", "AnswerReleases"]);
        let mut events = live();
        events.extend([ended(None), ended(None)]);
        assert_eq!(after(events), (Phase::Gone, vec![]));
    }

    #[test]
    fn a_failed_agent_rests_starts_again_and_is_announced_without_another_answer() {
        let again = || ended(Some(Duration::from_secs(2)));
        let mut events = live();
        events.push(again());
        assert_eq!(
            after(events),
            (Phase::Resting, ["CloseRooms", "Mourn", "Rest"].map(String::from).to_vec())
        );
        let back = |more: Vec<Event>| {
            let mut events = live();
            events.extend([again(), Event::Rested]);
            events.extend(more);
            after(events)
        };
        assert_eq!(back(vec![]), (Phase::Starting, vec!["Build".to_owned()]));
        assert_eq!(back(vec![Event::Survived(started())]), (Phase::Live, vec!["Announce".to_owned()]));
        assert_eq!(back(vec![again()]).0, Phase::Resting);
        let buried = ["CloseRooms", "Deregister", "Bury", "AnswerReleases"].map(String::from).to_vec();
        let bad = || SpawnRefused::BadCwd("gone".into());
        for last in [ended(None), Event::NotStarted(bad()), Event::Interrupted] {
            assert_eq!(back(vec![last]), (Phase::Gone, buried.clone()));
        }
        assert_eq!(back(vec![release(false), again()]), (Phase::Gone, buried));
    }

    #[test]
    fn a_release_ends_the_rest_and_a_restart_of_the_registry_begins_it_again() {
        let resting = |last| {
            let mut events = live();
            events.extend([ended(Some(Duration::from_secs(2))), last]);
            after(events)
        };
        let buried = ["CloseRooms", "Deregister", "Bury", "AnswerReleases"].map(String::from).to_vec();
        assert_eq!(resting(release(false)), (Phase::Gone, buried));
        assert_eq!(resting(Event::Interrupted), (Phase::Resting, vec!["Rest".to_owned()]));
        assert_eq!(resting(ended(None)), (Phase::Resting, vec![]));
    }
}
