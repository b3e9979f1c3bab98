//! The body of `POST /api/spawn`, in upstream's two spellings (spec/api 2.2), as a [`SpawnSpec`].

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use actix_web::http::StatusCode;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use super::{error::ApiError, process_body::ProcessBody};
use crate::{
    command_line,
    config::env::RESULT_SCHEMA,
    harness::DEFAULT_PROGRAM,
    ids::{AgentName, SessionRef},
    messages::{
        pty::TermSize,
        spawn::{Autonomy, SpawnSpec},
    },
};

/// The body. Unknown fields are accepted.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SpawnBody {
    name: Option<String>,
    cli: Option<String>,
    /// The program as it is, blanks and all: our own field, where `cli` is split into words.
    command: Option<String>,
    args: Option<Vec<String>>,
    channels: Option<Vec<String>>,
    task: Option<String>,
    model: Option<String>,
    cwd: Option<String>,
    env: Option<BTreeMap<String, String>>,
    harness: Option<String>,
    autonomy: Option<Autonomy>,
    mcp: Option<bool>,
    runtime: Option<String>,
    transport: Option<String>,
    rows: Option<u16>,
    cols: Option<u16>,
    #[serde(alias = "harnessConfig")]
    harness_config: Option<HarnessConfig>,
    #[serde(alias = "harnessId")]
    harness_id: Option<IgnoredAny>,
    #[serde(alias = "agentToken")]
    agent_token: Option<IgnoredAny>,
    #[serde(alias = "sessionId")]
    session_id: Option<String>,
    #[serde(alias = "idleThresholdSecs")]
    idle_threshold_secs: Option<u64>,
    /// Shown to the agent as it is: nothing here checks a result against it.
    #[serde(alias = "agentResultSchema")]
    agent_result_schema: Option<Value>,
    #[serde(flatten)]
    process: ProcessBody,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct HarnessConfig {
    runtime: Option<String>,
    command: Option<String>,
    args: Option<Vec<String>>,
    cwd: Option<String>,
    env: Option<BTreeMap<String, String>>,
    #[serde(alias = "sessionId")]
    session_id: Option<String>,
}

/// What a spawn gets that does not say.
pub(super) struct Defaults<'a> {
    /// The broker's own directory.
    pub(super) cwd: &'a Path,
    /// Channels to join.
    pub(super) channels: &'a [String],
}

/// A spawn as it was asked for.
#[derive(Debug)]
pub(super) struct Asked {
    /// What to start.
    pub(super) spec: SpawnSpec,
    /// What the caller asked for and does not get.
    pub(super) warning: Option<String>,
}

impl SpawnBody {
    /// With this first task, if there is one.
    pub(super) fn with_task(self, task: Option<String>) -> Self {
        Self { task: task.or(self.task), ..self }
    }

    /// The spec that was meant.
    ///
    /// # Errors
    /// 400 with the field that makes no sense.
    pub(super) fn read(self, defaults: &Defaults<'_>) -> Result<Asked, ApiError> {
        let config = self.harness_config.unwrap_or_default();
        for runtime in [self.runtime, self.transport, config.runtime].into_iter().flatten() {
            if runtime != "pty" {
                let message = format!("runtime `{runtime}` is not supported; agents run in a `pty`");
                return Err(ApiError::new(StatusCode::BAD_REQUEST, "unsupported_runtime", message));
            }
        }
        if self.harness_id.is_some() {
            return Err(ApiError::invalid("harnessId is not supported; name a `harness` or a command"));
        }
        let name = given(self.name).ok_or_else(|| ApiError::invalid("`name` is required"))?;
        let name = AgentName::parse(&name)?;
        let size = match (self.rows, self.cols) {
            (None, None) => TermSize::default(),
            (rows, cols) => {
                let usual = TermSize::default();
                TermSize::new(rows.unwrap_or(usual.rows), cols.unwrap_or(usual.cols))?
            }
        };
        let (program, args) =
            command(given(config.command).or(self.command), config.args, self.cli, self.args)?;
        let mut env = self.env.unwrap_or_default();
        env.extend(config.env.unwrap_or_default());
        if let Some(schema) = self.agent_result_schema {
            env.insert(RESULT_SCHEMA.to_owned(), schema.to_string());
        }
        if let Some(bad) = env.keys().find(|key| key.is_empty() || key.contains(['=', '\0'])) {
            return Err(ApiError::invalid(format!("`{bad}` cannot name an environment variable")));
        }
        let texts = args.iter().chain(env.values()).chain([&program]);
        if texts.into_iter().any(|text| text.contains('\0')) {
            return Err(ApiError::invalid("a program, its arguments and environment cannot hold a NUL"));
        }
        let process = self.process.read()?;
        let channels = self.channels.filter(|channels| !channels.is_empty());
        let spec = SpawnSpec {
            name,
            program,
            args,
            cwd: directory(given(config.cwd).or(given(self.cwd)), defaults.cwd)?,
            env,
            channels: channels.unwrap_or_else(|| defaults.channels.to_vec()),
            task: given(self.task),
            harness: given(self.harness),
            model: given(self.model),
            size,
            session_ref: given(self.session_id).or(given(config.session_id)).map(SessionRef::from),
            idle_after: self.idle_threshold_secs.filter(|secs| *secs > 0).map(Duration::from_secs),
            autonomy: self.autonomy.unwrap_or_default(),
            mcp: self.mcp,
            process,
        };
        let warning = self
            .agent_token
            .map(|_| "agentToken was not used: the broker registers its agents itself".to_owned());
        Ok(Asked { spec, warning })
    }
}

/// A text that says something.
fn given(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.trim().is_empty())
}

/// The program and its arguments: a command as it is, else the words of `cli`.
fn command(
    command: Option<String>,
    config_args: Option<Vec<String>>,
    cli: Option<String>,
    args: Option<Vec<String>>,
) -> Result<(String, Vec<String>), ApiError> {
    let args = config_args.into_iter().chain(args).flatten();
    if let Some(command) = given(command) {
        return Ok((command, args.collect()));
    }
    let cli = given(cli).unwrap_or_else(|| DEFAULT_PROGRAM.to_owned());
    let (program, inline) = command_line::split(&cli)
        .map_err(|bad| ApiError::invalid(format!("`cli` names no program: {bad}")))?;
    Ok((program, inline.into_iter().chain(args).collect()))
}

fn directory(asked: Option<String>, usual: &Path) -> Result<PathBuf, ApiError> {
    let Some(asked) = asked else { return Ok(usual.to_owned()) };
    let path = PathBuf::from(asked);
    if path.is_absolute() {
        return Ok(path);
    }
    let message = format!("cwd `{}` is relative; give an absolute directory", path.display());
    Err(ApiError::new(StatusCode::BAD_REQUEST, "invalid_cwd", message))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(body: Value) -> Result<Asked, ApiError> {
        let channels = ["general".to_owned()];
        let defaults = Defaults { cwd: Path::new("/home/x"), channels: &channels };
        serde_json::from_value::<SpawnBody>(body).unwrap().read(&defaults)
    }

    #[test]
    fn a_bare_name_gets_every_default() {
        let spec = read(json!({"name": "a"})).unwrap().spec;
        assert_eq!((spec.program.as_str(), spec.args.len()), ("claude", 0));
        assert_eq!(spec.cwd, Path::new("/home/x"));
        assert_eq!(spec.channels, ["general"]);
        assert_eq!(spec.size, TermSize::default());
    }

    #[test]
    fn inline_arguments_of_cli_come_before_args() {
        let spec = read(json!({"name": "a", "cli": "sh -c 'echo hi'", "args": ["x", "y z"]})).unwrap().spec;
        assert_eq!(spec.program, "sh");
        assert_eq!(spec.args, ["-c", "echo hi", "x", "y z"]);
    }

    #[test]
    fn a_session_that_is_named_itself_wins_over_the_harness_configs() {
        let session = |body: Value| read(body).unwrap().spec.session_ref.map(|session| session.to_string());
        let config = json!({"sessionId": "config"});
        assert_eq!(session(json!({"name": "a"})), None);
        assert_eq!(session(json!({"name": "a", "harnessConfig": config})).as_deref(), Some("config"));
        let both = json!({"name": "a", "session_id": "itself", "harnessConfig": config});
        assert_eq!(session(both).as_deref(), Some("itself"));
        let blank = json!({"name": "a", "session_id": " ", "harnessConfig": config});
        assert_eq!(session(blank).as_deref(), Some("config"));
    }

    #[test]
    fn a_command_is_taken_as_it_is() {
        let spec = read(json!({"name": "a", "command": "/opt/my cli", "args": ["'x"]})).unwrap().spec;
        assert_eq!((spec.program.as_str(), spec.args.as_slice()), ("/opt/my cli", &["'x".to_owned()][..]));
    }

    #[test]
    fn both_spellings_and_unknown_fields_are_taken() {
        for key in ["harnessConfig", "harness_config"] {
            let config = json!({"runtime": "pty", "command": "/opt/my cli", "args": ["-v"], "cwd": "/tmp",
                "env": {"A": "1"}, "sessionId": "s1", "metadata": {"x": 1}});
            let mut body = json!({"name": "a", "cli": "codex", "spawnMode": "interactive", "team": null});
            body[key] = config;
            let spec = read(body).unwrap().spec;
            assert_eq!(
                (spec.program.as_str(), spec.args.as_slice()),
                ("/opt/my cli", &["-v".to_owned()][..])
            );
            assert_eq!((spec.cwd.as_path(), spec.env["A"].as_str()), (Path::new("/tmp"), "1"));
            assert_eq!(spec.session_ref, Some(SessionRef::from("s1")));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_code() {
        for (body, code) in [
            (json!({}), "invalid_request"),
            (json!({"name": "  "}), "invalid_request"),
            (json!({"name": "../evil"}), "invalid_name"),
            (json!({"name": "x".repeat(65)}), "invalid_name"),
            (json!({"name": "a", "cwd": "here"}), "invalid_cwd"),
            (json!({"name": "a", "cli": "sh 'x"}), "invalid_request"),
            (json!({"name": "a", "cli": "''"}), "invalid_request"),
            (json!({"name": "a", "runtime": "headless"}), "unsupported_runtime"),
            (json!({"name": "a", "transport": "headless"}), "unsupported_runtime"),
            (json!({"name": "a", "harnessConfig": {"runtime": "app_server"}}), "unsupported_runtime"),
            (json!({"name": "a", "harnessId": "h"}), "invalid_request"),
            (json!({"name": "a", "rows": 0, "cols": 80}), "invalid_request"),
            (json!({"name": "a", "args": ["x\u{0}"]}), "invalid_request"),
            (json!({"name": "a", "env": {"A=B": "1"}}), "invalid_request"),
        ] {
            let refused = read(body.clone()).expect_err(&body.to_string());
            assert_eq!(refused.code(), code, "{body}");
        }
    }

    #[test]
    fn a_token_that_is_not_used_is_said_and_not_kept() {
        let asked = read(json!({"name": "a", "agentToken": "at_live_secret"})).unwrap();
        assert!(asked.warning.as_ref().is_some_and(|text| text.contains("agentToken")));
        assert!(!format!("{asked:?}").contains("at_live_secret"));
    }
}
