//! Which broker a client talks to: `--state-dir` > `AGENT_RELAY_STATE_DIR` > `RELAY_BROKER_URL` with
//! `RELAY_BROKER_API_KEY` > the nearest `.agentworkforce/relay/connection.json` from here upwards.

use std::path::{Path, PathBuf};

use super::{
    Exit, Failure,
    connection::{Connection, FILE_NAME, Unreadable},
};
use crate::{
    config::{Env, STATE_BELOW_CWD as STATE_BELOW, env},
    ids::ApiKey,
};

/// The options of every client command.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Where {
    /// The state directory of the broker to talk to.
    #[arg(long, value_name = "DIR", global = true)]
    pub(super) state_dir: Option<PathBuf>,
}

/// A broker to talk to.
#[derive(Debug)]
pub(super) struct Found {
    /// `http://…` without a trailing slash.
    pub(super) url: String,
    /// Opens its API.
    pub(super) api_key: ApiKey,
    /// Its process, when it runs on this machine.
    pub(super) pid: Option<u32>,
}

impl Where {
    /// Finds it.
    pub(super) fn find(&self, env: &Env) -> Result<Found, Failure> {
        let cwd = std::env::current_dir().map_err(|error| {
            let said = format!("the working directory cannot be read ({error}); go to one that exists");
            Failure::new(Exit::Failed, said)
        })?;
        find(self.state_dir.as_deref(), env, &cwd)
    }
}

fn find(state_dir: Option<&Path>, env: &Env, cwd: &Path) -> Result<Found, Failure> {
    if let Some(dir) = state_dir {
        return from_dir(&cwd.join(dir));
    }
    if let Some(dir) = env.path(env::STATE_DIR) {
        return from_dir(&cwd.join(dir));
    }
    if let Some(url) = env.text(env::BROKER_URL) {
        let Some(key) = env.text(env::API_KEY) else {
            let said = format!("{} is set but {} is not; set both", env::BROKER_URL, env::API_KEY);
            return Err(Failure::new(Exit::Config, said));
        };
        let url = url.trim_end_matches('/').to_owned();
        return Ok(Found { url, api_key: ApiKey::from(key), pid: None });
    }
    for dir in cwd.ancestors().map(|dir| dir.join(STATE_BELOW)) {
        if dir.join(FILE_NAME).exists() {
            return from_dir(&dir);
        }
    }
    let said = format!(
        "no broker runs here: neither {} nor a directory above it has {STATE_BELOW}/{FILE_NAME}; start one \
         with `relay-broker up`, or name its --state-dir",
        cwd.display()
    );
    Err(Failure::new(Exit::NotFound, said))
}

fn from_dir(dir: &Path) -> Result<Found, Failure> {
    let connection = Connection::read(dir).map_err(|error| match error {
        Unreadable::Missing(_) => {
            let said = format!("no broker runs here: {error}; start one with `relay-broker up`");
            Failure::new(Exit::NotFound, said)
        }
        Unreadable::Io { .. } => Failure::new(Exit::Failed, error.to_string()),
        Unreadable::Foreign { .. } => {
            Failure::new(Exit::Failed, format!("{error}; remove it if no broker runs there"))
        }
    })?;
    if !connection.is_alive() {
        let said = format!(
            "the broker of {} (pid {}) is no longer running; start one with `relay-broker up`",
            dir.join(FILE_NAME).display(),
            connection.pid
        );
        return Err(Failure::new(Exit::NotFound, said));
    }
    Ok(Found {
        url: connection.url.trim_end_matches('/').to_owned(),
        api_key: ApiKey::from(connection.api_key),
        pid: Some(connection.pid),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn broker_in(dir: &Path, url: &str, pid: u32) {
        fs::create_dir_all(dir).unwrap();
        let text = format!(r#"{{"url":"{url}","port":1,"api_key":"k","pid":{pid},"operation_mode":"x"}}"#);
        fs::write(dir.join(FILE_NAME), text).unwrap();
    }

    #[test]
    fn a_broker_is_found_by_flag_then_environment_then_address_then_upwards() {
        let root = tempfile::tempdir().unwrap();
        let me = std::process::id();
        let below = root.path().join("a/b");
        broker_in(&root.path().join("flag"), "http://flag", me);
        broker_in(&root.path().join("env"), "http://env", me);
        broker_in(&root.path().join(STATE_BELOW), "http://up", me);
        fs::create_dir_all(&below).unwrap();
        let env_dir = root.path().join("env");
        let all = Env::from([
            ("AGENT_RELAY_STATE_DIR", env_dir.to_str().unwrap()),
            ("RELAY_BROKER_URL", "http://url/"),
            ("RELAY_BROKER_API_KEY", "k"),
        ]);
        let url = Env::from([("RELAY_BROKER_URL", "http://url/"), ("RELAY_BROKER_API_KEY", "k")]);
        let flag = root.path().join("flag");
        assert_eq!(find(Some(&flag), &all, &below).unwrap().url, "http://flag");
        assert_eq!(find(None, &all, &below).unwrap().url, "http://env");
        assert_eq!(find(None, &url, &below).unwrap().url, "http://url");
        assert_eq!(find(None, &Env::default(), &below).unwrap().url, "http://up");
    }

    #[test]
    fn an_address_without_its_key_is_a_mistake_in_the_configuration() {
        let env = Env::from([("RELAY_BROKER_URL", "http://url")]);
        assert_eq!(find(None, &env, Path::new("/")).unwrap_err().exit(), Exit::Config);
    }

    #[test]
    fn a_file_whose_broker_is_gone_is_called_stale() {
        let root = tempfile::tempdir().unwrap();
        // Linux gives no process a number this high (PID_MAX_LIMIT is 2^22).
        broker_in(root.path(), "http://x", (1 << 22) + 1);
        let failure = find(Some(root.path()), &Env::default(), Path::new("/")).unwrap_err();
        assert_eq!(failure.exit(), Exit::NotFound);
        assert!(failure.to_string().contains("no longer running"), "{failure}");
    }
}
