//! What the engine asks of this node, turned into a spawn or a release: the rules.
//!
//! An invocation may be repeated (after 30 s without a result, after a reconnect): while it runs a repeat is
//! ignored, and afterwards its result is sent again, from the journal if need be. It never runs twice.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use super::sidecar::Place;
use crate::{
    command_line,
    config::{CommandLine, DeclaredAction},
    ids::{AgentName, InvocationId, SessionRef, SidecarId},
    messages::{
        invoke::{Action, InvocationResult, InvokedSpawn},
        sidecar::{CALLS_MAX, Call},
        spawn::{SpawnRefused, SpawnSpec},
    },
};

/// Commands of declared actions that run at once.
const COMMANDS_MAX: usize = 16;
/// To an engine: not run here, try elsewhere (spec/wire 4.7).
pub(super) const HANDLER_UNAVAILABLE: &str = "handler_unavailable";

/// Invocations under way.
#[derive(Debug, Default)]
pub(super) struct Running(HashMap<InvocationId, Kind>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The life of an agent; its saga brings the end.
    Agent,
    /// A command.
    Command,
    /// A call of this sidecar.
    Call(SidecarId),
}

/// What to do with an invocation.
#[derive(Debug, PartialEq)]
pub(super) enum Plan {
    /// Nothing: it runs already.
    Ignore,
    /// Answer from memory.
    Repeat(InvocationResult),
    /// Start this.
    Spawn(Box<SpawnSpec>),
    /// End this.
    Release(AgentName, Option<String>),
    /// Run the command of a declared action with this input. What stands as its result until it has one is
    /// [`cut_short`]: a broker that is killed meanwhile must not run it again.
    Run {
        /// As it was asked for.
        action: String,
        /// What runs.
        declared: DeclaredAction,
        /// JSON.
        input: String,
    },
    /// Have the sidecar run its handler. Until it has a result, the same stands in its place as for [`Plan::Run`].
    Call(SidecarId, Call),
    /// Nothing here runs it now. That is told and not kept: what could run it may come.
    Unavailable,
    /// It cannot be done.
    Fail(String),
}

/// What the broker fills in where the engine names nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Defaults<'a> {
    /// The working directory.
    pub(super) cwd: &'a Path,
    /// The channels.
    pub(super) channels: &'a [String],
    /// What runs for a harness that is declared.
    pub(super) handlers: &'a BTreeMap<String, CommandLine>,
    /// What runs for an action that is declared.
    pub(super) actions: &'a BTreeMap<String, DeclaredAction>,
    /// Who runs what is not.
    pub(super) sidecar: &'a Place,
}

impl Running {
    /// Plans an invocation, and notes it as running when something is to be done.
    pub(super) fn plan(
        &mut self,
        invocation: &InvocationId,
        known: Option<InvocationResult>,
        action: Action,
        defaults: Defaults<'_>,
    ) -> Plan {
        if self.0.contains_key(invocation) {
            return Plan::Ignore;
        }
        if let Some(result) = known {
            return Plan::Repeat(result);
        }
        let plan = match action {
            Action::Spawn(asked) => match handler(&asked, defaults.sidecar) {
                Some((sidecar, handler)) => self.call(invocation, sidecar, handler, asked.input),
                None => spec(asked, defaults).map_or_else(Plan::Fail, |spec| Plan::Spawn(Box::new(spec))),
            },
            Action::Release { name: None, .. } => Plan::Fail("release_missing_agent_name".to_owned()),
            Action::Release { name: Some(name), reason } => match AgentName::parse(&name) {
                Ok(name) => Plan::Release(name, reason),
                // No agent of ours can have such a name.
                Err(_) => Plan::Fail("release_failed: no such agent on this node".to_owned()),
            },
            Action::Other { name, input } => match defaults.actions.get(&name) {
                None => match defaults.sidecar.runs(&name) {
                    None => Plan::Unavailable,
                    Some(sidecar) => self.call(invocation, sidecar, name, input),
                },
                Some(_) if self.count(|kind| kind == Kind::Command) >= COMMANDS_MAX => too_many(COMMANDS_MAX),
                Some(declared) => Plan::Run { action: name, declared: declared.clone(), input },
            },
        };
        let kind = match plan {
            Plan::Spawn(_) | Plan::Release(..) => Kind::Agent,
            Plan::Run { .. } => Kind::Command,
            Plan::Call(sidecar, _) => Kind::Call(sidecar),
            Plan::Ignore | Plan::Repeat(_) | Plan::Unavailable | Plan::Fail(_) => return plan,
        };
        self.0.insert(invocation.clone(), kind);
        plan
    }

    fn call(&self, invocation: &InvocationId, sidecar: SidecarId, handler: String, input: String) -> Plan {
        // The way to a sidecar has room for so many.
        if self.calls() >= CALLS_MAX {
            return too_many(CALLS_MAX);
        }
        Plan::Call(sidecar, Call { invocation: invocation.clone(), handler, input })
    }

    /// It has its result.
    pub(super) fn ended(&mut self, invocation: &InvocationId) {
        self.0.remove(invocation);
    }

    /// True while any runs.
    pub(super) fn any(&self) -> bool {
        !self.0.is_empty()
    }

    /// Calls of a sidecar that have no result yet.
    pub(super) fn calls(&self) -> usize {
        self.count(|kind| matches!(kind, Kind::Call(_)))
    }

    /// Whether this sidecar owes the result of it.
    pub(super) fn is_called(&self, invocation: &InvocationId, sidecar: SidecarId) -> bool {
        self.0.get(invocation) == Some(&Kind::Call(sidecar))
    }

    /// What this sidecar owes results of.
    pub(super) fn calls_of(&self, sidecar: SidecarId) -> Vec<InvocationId> {
        let its = self.0.iter().filter(|(_, kind)| **kind == Kind::Call(sidecar));
        its.map(|(invocation, _)| invocation.clone()).collect()
    }

    fn count(&self, is: impl Fn(Kind) -> bool) -> usize {
        self.0.values().filter(|kind| is(**kind)).count()
    }

    /// Forgets all: the registry restarted. The sagas bring the ends of agents; commands and calls are returned,
    /// for what waited for them ended with the former life.
    pub(super) fn clear(&mut self) -> Vec<InvocationId> {
        let all = std::mem::take(&mut self.0).into_iter();
        all.filter(|(_, kind)| *kind != Kind::Agent).map(|(invocation, _)| invocation).collect()
    }
}

/// The sidecar's handler for a spawn, if it has one. One that the engine places again comes as a bare `spawn`: then
/// the cli names the harness.
fn handler(asked: &InvokedSpawn, sidecar: &Place) -> Option<(SidecarId, String)> {
    let handler = format!("spawn:{}", asked.harness.as_ref().or(asked.cli.as_ref())?);
    Some((sidecar.runs(&handler)?, handler))
}

fn too_many(at_once: usize) -> Plan {
    Plan::Fail(format!("action_failed: {at_once} actions are running already; try again later"))
}

/// The result of a command or a call that was under way when the broker ended, or the registry restarted, or of a
/// call whose sidecar went away.
pub(super) fn cut_short() -> InvocationResult {
    InvocationResult::failed_action("it was interrupted while it ran; how far it came is not known")
}

/// The failure text of a refused spawn (spec/wire 5.8).
pub(super) fn spawn_failure(refused: &SpawnRefused) -> InvocationResult {
    InvocationResult::Failed(match refused {
        SpawnRefused::NameTaken(_) => "spawn_agent_name_in_use".to_owned(),
        other => format!("spawn_failed: {other}"),
    })
}

fn spec(asked: InvokedSpawn, defaults: Defaults<'_>) -> Result<SpawnSpec, String> {
    let name = asked.name.ok_or("spawn_missing_agent_name")?;
    let name = AgentName::parse(&name).map_err(|bad| format!("spawn_failed: {bad}"))?;
    let cli = asked.cli.ok_or("spawn_missing_cli")?;
    // A spawn that the engine places again comes as a bare `spawn`: then the cli names the harness.
    let (program, args) = match defaults.handlers.get(asked.harness.as_ref().unwrap_or(&cli)) {
        Some(declared) => (declared.program.clone(), declared.args.clone()),
        None => command_line::split(&cli).map_err(|bad| format!("spawn_failed: {bad}"))?,
    };
    let channels = if asked.channels.is_empty() { defaults.channels.to_vec() } else { asked.channels };
    let cwd = asked.cwd.map_or_else(|| defaults.cwd.to_owned(), Into::into);
    Ok(SpawnSpec {
        channels,
        task: asked.task,
        model: asked.model,
        session_ref: asked.session_ref.map(SessionRef::from),
        ..SpawnSpec::new(name, &program, args, &cwd)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::{super::sidecar::Declared, *};
    use crate::messages::sidecar::{HandlerSpec, Manifest};

    fn defaults() -> Defaults<'static> {
        static NONE: BTreeMap<String, CommandLine> = BTreeMap::new();
        static NO_ACTIONS: BTreeMap<String, DeclaredAction> = BTreeMap::new();
        static NO_SIDECAR: LazyLock<Place> = LazyLock::new(Place::default);
        let (cwd, sidecar) = (Path::new("/srv"), &*NO_SIDECAR);
        Defaults { cwd, channels: &[], handlers: &NONE, actions: &NO_ACTIONS, sidecar }
    }

    /// A sidecar that has these handlers ready.
    fn sidecar(names: &[&str]) -> (Place, SidecarId) {
        let mut place = Place::default();
        let handler = |name: &&str| HandlerSpec { name: (*name).to_owned(), metadata: None };
        let handlers = names.iter().map(handler).collect();
        let manifest = Manifest { name: "quay".to_owned(), handlers, ..Manifest::default() };
        let Defaults { handlers, actions, .. } = defaults();
        let calls = tokio::sync::mpsc::channel(1).0;
        let id = place.register(manifest, calls, Declared { handlers, actions }).unwrap();
        place.offer(id, names.iter().map(|name| (*name).to_owned()).collect()).unwrap();
        (place, id)
    }

    fn plan(action: Action) -> Plan {
        Running::default().plan(&InvocationId::from("inv_1"), None, action, defaults())
    }

    fn asked(name: Option<&str>, cli: Option<&str>) -> Action {
        Action::Spawn(InvokedSpawn {
            name: name.map(str::to_owned),
            cli: cli.map(str::to_owned),
            ..InvokedSpawn::default()
        })
    }

    fn other(name: &str) -> Action {
        Action::Other { name: name.to_owned(), input: "{}".to_owned() }
    }

    #[test]
    fn a_declared_action_runs_its_command_and_no_more_than_so_many_at_once() {
        let command = CommandLine { program: "/opt/tide".into(), args: Vec::new() };
        let declared = DeclaredAction { command, timeout: std::time::Duration::from_secs(1) };
        let actions = BTreeMap::from([("tide".to_owned(), declared.clone())]);
        let defaults = Defaults { actions: &actions, ..defaults() };
        let mut running = Running::default();
        let id = |n: usize| InvocationId::from(format!("inv_{n}"));
        for n in 0..COMMANDS_MAX {
            let wanted = Plan::Run { action: "tide".into(), declared: declared.clone(), input: "{}".into() };
            assert_eq!(running.plan(&id(n), None, other("tide"), defaults), wanted);
        }
        assert_eq!(running.plan(&id(0), None, other("tide"), defaults), Plan::Ignore);
        let spare = id(COMMANDS_MAX);
        let Plan::Fail(why) = running.plan(&spare, None, other("tide"), defaults) else { panic!("it runs") };
        assert!(why.starts_with("action_failed: 16 actions"), "{why}");
        running.ended(&id(3));
        assert!(matches!(running.plan(&spare, None, other("tide"), defaults), Plan::Run { .. }));
        assert!(matches!(
            running.plan(&id(99), None, asked(Some("a"), Some("cat")), defaults),
            Plan::Spawn(_)
        ));
        assert_eq!(running.clear().len(), COMMANDS_MAX, "the commands alone");
        assert!(!running.any());
    }

    #[test]
    fn a_sidecar_is_called_for_what_it_offers_and_for_no_more_than_it_has_room_for() {
        let (place, id) = sidecar(&["echo", "spawn:otter"]);
        let defaults = Defaults { sidecar: &place, ..defaults() };
        let spawn = |harness: Option<&str>, cli: &str| {
            Action::Spawn(InvokedSpawn {
                name: Some("a".into()),
                harness: harness.map(str::to_owned),
                cli: Some(cli.to_owned()),
                input: "{}".to_owned(),
                ..InvokedSpawn::default()
            })
        };
        let mut running = Running::default();
        for (n, (action, called)) in [
            (other("echo"), Some("echo")),
            (spawn(Some("otter"), "heron"), Some("spawn:otter")),
            (spawn(None, "otter"), Some("spawn:otter")),
            (spawn(Some("heron"), "otter"), None),
        ]
        .into_iter()
        .enumerate()
        {
            let invocation = InvocationId::from(format!("inv_{n}"));
            match (running.plan(&invocation, None, action, defaults), called) {
                (Plan::Call(sidecar, call), Some(handler)) => {
                    let wanted = Call { invocation, handler: handler.into(), input: "{}".into() };
                    assert_eq!((sidecar, call), (id, wanted));
                }
                (Plan::Spawn(_), None) => {}
                (plan, _) => panic!("{plan:?} instead of {called:?}"),
            }
        }
        assert!(running.is_called(&"inv_0".into(), id) && !running.is_called(&"inv_0".into(), id.next()));
        assert_eq!(running.plan(&"inv_0".into(), None, other("echo"), defaults), Plan::Ignore);
        assert_eq!((running.calls_of(id).len(), running.calls_of(id.next()).len()), (3, 0));

        for n in 4..=CALLS_MAX {
            let plan = running.plan(&format!("inv_{n}").into(), None, other("echo"), defaults);
            assert!(matches!(plan, Plan::Call(..)), "{plan:?}");
        }
        let Plan::Fail(why) = running.plan(&"late".into(), None, other("echo"), defaults) else { panic!() };
        assert!(why.starts_with("action_failed: 64 actions"), "{why}");
        assert_eq!(running.clear().len(), CALLS_MAX, "all but the spawn");
    }

    #[test]
    fn what_is_missing_is_a_typed_failure() {
        for (action, failure) in [
            (asked(None, Some("cat")), "spawn_missing_agent_name"),
            (asked(Some("a"), None), "spawn_missing_cli"),
            (Action::Release { name: None, reason: None }, "release_missing_agent_name"),
        ] {
            assert_eq!(plan(action), Plan::Fail(failure.to_owned()));
        }
        assert_eq!(plan(other("dance")), Plan::Unavailable);
        let Plan::Fail(text) = plan(asked(Some("../evil"), Some("cat"))) else { panic!("planned") };
        assert!(text.starts_with("spawn_failed: "), "{text}");
    }

    #[test]
    fn a_spawn_takes_the_brokers_directory_and_channels_where_it_names_none() {
        let channels = ["general".to_owned()];
        let defaults = Defaults { channels: &channels, ..defaults() };
        let id = InvocationId::from("inv_1");
        let Plan::Spawn(spec) =
            Running::default().plan(&id, None, asked(Some("a"), Some("cat -u")), defaults)
        else {
            panic!("not a spawn");
        };
        assert_eq!((spec.program.as_str(), spec.args.as_slice()), ("cat", &["-u".to_owned()][..]));
        assert_eq!(spec.cwd, Path::new("/srv"));
        assert_eq!(spec.channels, channels);
    }

    #[test]
    fn a_declared_handler_runs_instead_of_the_cli_of_the_input_and_others_run_directly() {
        let declared = CommandLine { program: "/opt/stub".into(), args: vec!["--quiet".into()] };
        let handlers = BTreeMap::from([("otter".to_owned(), declared)]);
        let defaults = Defaults { handlers: &handlers, ..defaults() };
        for (harness, cli, wanted) in [
            (Some("otter"), "otter", "/opt/stub --quiet"),
            (Some("otter"), "heron --fast", "/opt/stub --quiet"),
            (None, "otter", "/opt/stub --quiet"),
            (Some("heron"), "heron", "heron"),
            (Some("heron"), "otter", "otter"),
            (None, "heron --fast", "heron --fast"),
        ] {
            let asked = InvokedSpawn {
                name: Some("a".into()),
                harness: harness.map(str::to_owned),
                cli: Some(cli.to_owned()),
                ..InvokedSpawn::default()
            };
            let spec = spec(asked, defaults).unwrap();
            assert_eq!([vec![spec.program], spec.args].concat().join(" "), wanted, "{harness:?} {cli}");
        }
    }

    #[test]
    fn an_invocation_runs_once_and_its_repeat_is_answered_from_memory() {
        let mut running = Running::default();
        let id = InvocationId::from("inv_1");
        let action = || asked(Some("a"), Some("cat"));
        assert!(matches!(running.plan(&id, None, action(), defaults()), Plan::Spawn(_)));
        assert_eq!(running.plan(&id, None, action(), defaults()), Plan::Ignore);
        assert!(running.any());
        running.ended(&id);
        let done = InvocationResult::Failed("spawn_failed: no".into());
        assert_eq!(running.plan(&id, Some(done.clone()), action(), defaults()), Plan::Repeat(done));
        assert!(!running.any());
    }
}
