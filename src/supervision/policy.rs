//! What to do with an actor that ended: a pure function, and the table of the house in it.
//!
//! | actor | reason | decision |
//! |---|---|---|
//! | any | finished | stop |
//! | node_session | disconnected, refused | restart after 0.5 s × 2^n ± jitter, at most 30 s, for ever |
//! | | superseded | restart after at least 30 s |
//! | | unauthorized | as disconnected; the fifth in a row without a healthy spell: park, probe every 5 min |
//! | | key refused | park, probe every 5 min |
//! | token_mint | key refused | park, probe every 5 min |
//! | delivery_cursor, pty_worker | panic | restart; the fifth in 60 s: quarantine this agent alone |
//! | any other | panic | restart; the fifth in 60 s: escalate |

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::messages::lifecycle::{ActorKind, Decision, ExitReason, ParkReason};

/// First delay of the backoff.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// Longest delay of the backoff, jitter included.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Jitter, as a part of the delay, to either side.
pub const JITTER: f64 = 0.2;
/// Two processes that fight over one node would otherwise take turns (spec/wire 2.8).
pub const SUPERSEDED_WAIT: Duration = Duration::from_secs(30);
/// 401s in a row before the token is no longer minted anew.
pub const UNAUTHORIZED_MAX: u32 = 5;
/// The slow probe of a parked actor.
pub const PARK_RETRY: Duration = Duration::from_secs(300);
/// Panics within [`INTENSITY_PERIOD`] before an actor is given up.
pub const INTENSITY: usize = 5;
/// The period of [`INTENSITY`].
pub const INTENSITY_PERIOD: Duration = Duration::from_secs(60);

/// The failures of one actor that still count.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Ends since the last healthy spell that back off.
    failures: u32,
    /// 401s since the last healthy spell.
    unauthorized: u32,
    /// When it panicked, oldest first, at most [`INTENSITY`].
    panics: VecDeque<Instant>,
}

impl History {
    /// A healthy spell was reached. Panics keep counting by their own clock.
    pub fn healthy(&mut self) {
        self.failures = 0;
        self.unauthorized = 0;
    }
}

/// Decides about an actor of this kind that ended for this reason at `now`; the history takes it in.
/// `jitter` is drawn by the caller from -1.0..=1.0.
pub fn decide(
    kind: ActorKind,
    reason: &ExitReason,
    history: &mut History,
    now: Instant,
    jitter: f64,
) -> Decision {
    match reason {
        ExitReason::Finished => Decision::Stop,
        ExitReason::Panicked(_) => after_panic(kind, history, now),
        ExitReason::Disconnected(_) | ExitReason::Refused(_) => {
            Decision::Restart { after: back_off(history, jitter) }
        }
        ExitReason::AskedToWait { wait, .. } => {
            Decision::Restart { after: back_off(history, jitter).max(*wait) }
        }
        ExitReason::Superseded => Decision::Restart { after: back_off(history, jitter).max(SUPERSEDED_WAIT) },
        ExitReason::Unauthorized { .. } => {
            history.unauthorized += 1;
            let after = back_off(history, jitter);
            if history.unauthorized >= UNAUTHORIZED_MAX {
                Decision::Park { why: ParkReason::AuthFailed, retry: PARK_RETRY }
            } else {
                Decision::Restart { after }
            }
        }
        ExitReason::KeyRefused(_) => Decision::Park { why: ParkReason::KeyRefused, retry: PARK_RETRY },
    }
}

fn back_off(history: &mut History, jitter: f64) -> Duration {
    let doubled = BACKOFF_FIRST.saturating_mul(1 << history.failures.min(16));
    history.failures = history.failures.saturating_add(1);
    doubled.min(BACKOFF_MAX).mul_f64(1.0 + JITTER * jitter.clamp(-1.0, 1.0)).min(BACKOFF_MAX)
}

fn after_panic(kind: ActorKind, history: &mut History, now: Instant) -> Decision {
    history.panics.push_back(now);
    while history.panics.len() > INTENSITY {
        history.panics.pop_front();
    }
    let in_period = history.panics.iter().filter(|at| now.duration_since(**at) < INTENSITY_PERIOD).count();
    if in_period < INTENSITY {
        return Decision::Restart { after: Duration::ZERO };
    }
    match kind {
        ActorKind::DeliveryCursor | ActorKind::PtyWorker => Decision::Quarantine,
        _ => Decision::Escalate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Generation;

    fn lost() -> ExitReason {
        ExitReason::Disconnected("eof".into())
    }
    fn unauthorized() -> ExitReason {
        ExitReason::Unauthorized { token: Generation(1) }
    }
    fn panicked() -> ExitReason {
        ExitReason::Panicked("bug".into())
    }
    fn delay(decision: Decision) -> Duration {
        match decision {
            Decision::Restart { after } => after,
            other => panic!("not a restart: {other:?}"),
        }
    }

    #[test]
    fn the_table_holds() {
        use ActorKind::*;
        let key = || ExitReason::KeyRefused("expired".into());
        let parked = Decision::Park { why: ParkReason::KeyRefused, retry: PARK_RETRY };
        let at_once = Decision::Restart { after: Duration::ZERO };
        let half = Decision::Restart { after: BACKOFF_FIRST };
        let wait = ExitReason::AskedToWait { why: "429".into(), wait: Duration::from_secs(7) };
        let table: Vec<(ActorKind, ExitReason, Decision)> = vec![
            (NodeSession, ExitReason::Finished, Decision::Stop),
            (NodeSession, lost(), half.clone()),
            (NodeSession, ExitReason::Refused("404".into()), half.clone()),
            (NodeSession, wait, Decision::Restart { after: Duration::from_secs(7) }),
            (NodeSession, ExitReason::Superseded, Decision::Restart { after: SUPERSEDED_WAIT }),
            (NodeSession, unauthorized(), half),
            (NodeSession, key(), parked.clone()),
            (TokenMint, key(), parked),
            (TokenMint, panicked(), at_once.clone()),
            (DeliveryCursor, panicked(), at_once.clone()),
            (DeliveryCursor, ExitReason::Finished, Decision::Stop),
            (PtyWorker, panicked(), at_once.clone()),
            (PtyWorker, ExitReason::Finished, Decision::Stop),
            (AgentRegistry, panicked(), at_once.clone()),
            (EventHub, panicked(), at_once.clone()),
            (Supervisor, panicked(), at_once),
        ];
        for (kind, reason, expected) in table {
            let got = decide(kind, &reason, &mut History::default(), Instant::now(), 0.0);
            assert_eq!(got, expected, "{kind:?} {reason:?}");
        }
    }

    #[test]
    fn the_backoff_doubles_to_its_cap_within_its_jitter() {
        for jitter in [-1.0, 0.0, 1.0] {
            let mut history = History::default();
            let mut nominal = BACKOFF_FIRST;
            for _ in 0..40 {
                let after =
                    delay(decide(ActorKind::NodeSession, &lost(), &mut history, Instant::now(), jitter));
                let low = nominal.mul_f64(1.0 - JITTER);
                let high = nominal.mul_f64(1.0 + JITTER).min(BACKOFF_MAX);
                assert!(after >= low.min(BACKOFF_MAX) && after <= high, "{after:?} not near {nominal:?}");
                nominal = (nominal * 2).min(BACKOFF_MAX);
            }
        }
    }

    #[test]
    fn only_a_healthy_spell_resets_the_backoff_and_the_401_count() {
        let mut history = History::default();
        let now = Instant::now();
        for n in 1..UNAUTHORIZED_MAX {
            // Other failures in between (DNS, 5xx) neither count nor reset.
            delay(decide(ActorKind::NodeSession, &lost(), &mut history, now, 0.0));
            delay(decide(ActorKind::NodeSession, &unauthorized(), &mut history, now, 0.0));
            assert_eq!(history.unauthorized, n);
        }
        let park = Decision::Park { why: ParkReason::AuthFailed, retry: PARK_RETRY };
        assert_eq!(decide(ActorKind::NodeSession, &unauthorized(), &mut history, now, 0.0), park);
        assert_eq!(
            decide(ActorKind::NodeSession, &unauthorized(), &mut history, now, 0.0),
            park,
            "the slow probe parks again"
        );
        history.healthy();
        assert_eq!(
            delay(decide(ActorKind::NodeSession, &unauthorized(), &mut history, now, 0.0)),
            BACKOFF_FIRST
        );
    }

    #[test]
    fn the_fifth_panic_in_a_minute_gives_an_agent_up_alone_and_ends_the_house_otherwise() {
        for (kind, last) in [
            (ActorKind::DeliveryCursor, Decision::Quarantine),
            (ActorKind::PtyWorker, Decision::Quarantine),
            (ActorKind::NodeSession, Decision::Escalate),
            (ActorKind::TokenMint, Decision::Escalate),
            (ActorKind::AgentRegistry, Decision::Escalate),
            (ActorKind::EventHub, Decision::Escalate),
            (ActorKind::Supervisor, Decision::Escalate),
        ] {
            let mut history = History::default();
            let start = Instant::now();
            for n in 0..INTENSITY as u32 - 1 {
                let at = start + Duration::from_secs(u64::from(n));
                delay(decide(kind, &panicked(), &mut history, at, 0.0));
            }
            let late = start + INTENSITY_PERIOD + Duration::from_millis(1);
            delay(decide(kind, &panicked(), &mut history.clone(), late, 0.0));
            let soon = start + Duration::from_secs(10);
            assert_eq!(decide(kind, &panicked(), &mut history, soon, 0.0), last, "{kind:?}");
        }
    }
}
