//! The part of a spawn's body that says how the process is run: our own fields, and upstream's
//! `restartPolicy` (spec/api 2.2), as a [`ProcessSpec`].

use std::time::Duration;

use serde::Deserialize;

use super::error::ApiError;
use crate::messages::process::{Limits, ProcessSpec, RestartPolicy, RestartWhen};

/// The fields. Unknown ones are accepted.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ProcessBody {
    restart: Option<Restart>,
    #[serde(alias = "restartPolicy")]
    restart_policy: Option<UpstreamRestart>,
    limits: LimitsBody,
    wrapper: Vec<String>,
    #[serde(alias = "envAllow")]
    env_allow: Option<Vec<String>>,
    #[serde(alias = "keepDaemons")]
    keep_daemons: bool,
}

/// A word, or a word with its numbers.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "`restart` is `never`, `on_failure` or `resume`, or one of them as `when` with the numbers `max`, `backoff_ms` and `loop_after`"
)]
enum Restart {
    When(RestartWhen),
    Policy { when: RestartWhen, max: Option<u32>, backoff_ms: Option<u64>, loop_after: Option<u32> },
}

/// As upstream words it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct UpstreamRestart {
    enabled: bool,
    #[serde(alias = "maxRestarts")]
    max_restarts: Option<u32>,
    #[serde(alias = "cooldownMs")]
    cooldown_ms: Option<u64>,
    #[serde(alias = "maxConsecutiveFailures")]
    max_consecutive_failures: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LimitsBody {
    max_runtime_secs: Option<u64>,
    idle_secs: Option<u64>,
    output_bytes: Option<u64>,
}

impl ProcessBody {
    /// The spec that was meant.
    ///
    /// # Errors
    /// 400 with what makes no sense.
    pub(super) fn read(self) -> Result<ProcessSpec, ApiError> {
        let restart = match (self.restart, self.restart_policy) {
            (Some(_), Some(_)) => {
                return Err(ApiError::invalid("give `restart` or `restartPolicy`, not both"));
            }
            (Some(Restart::When(when)), None) => policy(when, None, None, None),
            (Some(Restart::Policy { when, max, backoff_ms, loop_after }), None) => {
                policy(when, max, backoff_ms, loop_after)
            }
            (None, Some(theirs)) => {
                let when = if theirs.enabled { RestartWhen::OnFailure } else { RestartWhen::Never };
                policy(when, theirs.max_restarts, theirs.cooldown_ms, theirs.max_consecutive_failures)
            }
            (None, None) => RestartPolicy::default(),
        };
        let spec = ProcessSpec {
            restart,
            limits: Limits {
                max_runtime: self.limits.max_runtime_secs.map(Duration::from_secs),
                idle: self.limits.idle_secs.map(Duration::from_secs),
                output_bytes: self.limits.output_bytes,
            },
            wrapper: self.wrapper,
            env_allow: self.env_allow,
            keep_daemons: self.keep_daemons,
        };
        spec.check().map_err(|bad| ApiError::invalid(bad.to_string()))?;
        Ok(spec)
    }
}

fn policy(
    when: RestartWhen,
    max: Option<u32>,
    backoff_ms: Option<u64>,
    loop_after: Option<u32>,
) -> RestartPolicy {
    let usual = RestartPolicy::default();
    RestartPolicy {
        when,
        max: max.unwrap_or(usual.max),
        backoff: backoff_ms.map_or(usual.backoff, Duration::from_millis),
        loop_after: loop_after.unwrap_or(usual.loop_after),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(body: Value) -> Result<ProcessSpec, ApiError> {
        serde_json::from_value::<ProcessBody>(body).unwrap().read()
    }

    #[test]
    fn a_policy_that_is_none_is_told_what_there_is() {
        for wrong in [json!("sometimes"), json!({"when": "on_failure", "max": 1u64 << 40}), json!(3)] {
            let body = serde_json::from_value::<ProcessBody>(json!({ "restart": wrong }));
            let said = body.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(said.contains("`on_failure`") && said.contains("`max`"), "{wrong}: {said}");
        }
    }

    #[test]
    fn nothing_said_is_a_process_that_is_left_to_itself() {
        assert_eq!(read(json!({})).unwrap(), ProcessSpec::default());
    }

    #[test]
    fn restarts_are_understood_in_both_spellings() {
        let restart = |body| read(body).unwrap().restart;
        let on_failure = RestartPolicy { when: RestartWhen::OnFailure, ..RestartPolicy::default() };
        assert_eq!(restart(json!({"restart": "on_failure"})), on_failure);
        assert_eq!(restart(json!({"restart": {"when": "on_failure"}})), on_failure);
        assert_eq!(restart(json!({"restartPolicy": {"enabled": true}})), on_failure);
        assert_eq!(restart(json!({"restart_policy": {"enabled": false}})), RestartPolicy::default());
        let numbers = RestartPolicy {
            when: RestartWhen::OnFailure,
            max: 9,
            backoff: Duration::from_millis(70),
            loop_after: 4,
        };
        let ours = json!({"when": "on_failure", "max": 9, "backoff_ms": 70, "loop_after": 4});
        assert_eq!(restart(json!({"restart": ours})), numbers);
        let theirs = json!({"enabled": true, "max_restarts": 9, "cooldown_ms": 70,
            "max_consecutive_failures": 4});
        assert_eq!(restart(json!({"restartPolicy": theirs})), numbers);
        assert_eq!(restart(json!({"restart": "resume"})).when, RestartWhen::Resume);
    }

    #[test]
    fn limits_wrapper_and_environment_come_as_they_are() {
        let spec = read(
            json!({"limits": {"max_runtime_secs": 60, "output_bytes": 7}, "wrapper": ["nice", "-n", "5"],
            "envAllow": ["PATH"], "keep_daemons": true}),
        )
        .unwrap();
        assert_eq!(spec.limits.max_runtime, Some(Duration::from_secs(60)));
        assert_eq!((spec.limits.idle, spec.limits.output_bytes), (None, Some(7)));
        assert_eq!(spec.wrapper, ["nice", "-n", "5"]);
        assert_eq!((spec.env_allow, spec.keep_daemons), (Some(vec!["PATH".to_owned()]), true));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for body in [
            json!({"restart": "resume", "restartPolicy": {"enabled": true}}),
            json!({"limits": {"idle_secs": 0}}),
            json!({"wrapper": [""]}),
            json!({"env_allow": ["A=B"]}),
            json!({"restart": {"when": "on_failure", "max": 5000}}),
        ] {
            assert_eq!(read(body.clone()).expect_err(&body.to_string()).code(), "invalid_request");
        }
    }
}
