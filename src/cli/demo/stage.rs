//! The demonstration's directory and broker, and how both go away.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    cli::{
        Exit, Failure,
        client::Api,
        find::{Found, Where},
        spawn,
    },
    config::{Env, env},
    store::private_file::private_dir,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const PLAYER: &str = include_str!("player.sh");
/// Between two looks at something that is about to happen; the caller bounds the whole.
const LOOK: Duration = Duration::from_millis(10);
/// A broker ends its agents within 5 s.
const ENDING: Duration = Duration::from_secs(6);
/// Lines of the broker's log in an error.
const LAST_WORDS: usize = 4;

/// The directory, and the broker once it runs. Dropping it ends the broker and removes the directory.
pub(super) struct Stage {
    dir: PathBuf,
    program: PathBuf,
    child: Option<Child>,
    kept: bool,
}

impl Stage {
    /// Makes the directory and what is in it.
    pub(super) fn build() -> Result<Self, Failure> {
        let program = std::env::current_exe()?;
        let tail = uuid::Uuid::new_v4().simple().to_string();
        let dir = std::env::temp_dir().join(format!("relay-broker-demo-{}", &tail[..8]));
        private_dir(&dir).map_err(|error| {
            let said = format!("cannot make {}: {error}; set TMPDIR to a directory of yours", dir.display());
            Failure::new(Exit::Failed, said)
        })?;
        let stage = Self { dir, program, child: None, kept: false };
        fs::create_dir(stage.work_dir())?;
        fs::write(stage.script(), PLAYER)?;
        Ok(stage)
    }

    /// The directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The broker's state.
    pub(super) fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    fn work_dir(&self) -> PathBuf {
        self.dir.join("work")
    }

    fn script(&self) -> PathBuf {
        self.dir.join("player.sh")
    }

    fn log(&self) -> PathBuf {
        self.dir.join("broker.log")
    }

    /// How a player is started.
    pub(super) fn command_line(&self) -> String {
        format!("sh {}", self.script().display())
    }

    /// The order to start a player.
    pub(super) fn player(&self, name: &str, peer: &str, hits: usize) -> spawn::Request {
        let env = [
            ("DEMO_BROKER", self.program.display().to_string()),
            ("DEMO_PEER", peer.to_owned()),
            ("DEMO_LAST", hits.to_string()),
        ];
        spawn::Request {
            name: name.to_owned(),
            command: "sh".to_owned(),
            args: vec![self.script().display().to_string()],
            cwd: self.work_dir(),
            env: env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<BTreeMap<_, _>>(),
            ..spawn::Request::default()
        }
    }

    /// Starts the broker, and returns when it can be found.
    pub(super) async fn start(&mut self) -> Result<Found, Failure> {
        let mut command = Command::new(&self.program);
        command.args(["up", "--name", "demo", "--embedded", "--state-dir"]).arg(self.state_dir());
        for name in env::ALL {
            command.env_remove(name);
        }
        command
            .envs([env::HOME, env::XDG_DATA_HOME, env::XDG_CONFIG_HOME].map(|name| (name, &self.dir)))
            .current_dir(self.work_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(self.log())?)
            // Ctrl-C is for us; we end the broker in our order.
            .process_group(0);
        self.child = Some(command.spawn()?);
        loop {
            if let Ok(found) = self.broker() {
                return Ok(found);
            }
            self.still_runs()?;
            actix_rt::time::sleep(LOOK).await;
        }
    }

    /// The broker, once it can be found.
    pub(super) fn broker(&self) -> Result<Found, Failure> {
        Where { state_dir: Some(self.state_dir()) }.find(&Env::default())
    }

    /// Returns when the broker's node is registered at the engine.
    pub(super) async fn until_live(&mut self, api: &Api) -> Result<(), Failure> {
        loop {
            if api.get("/readyz").await.is_ok() {
                return Ok(());
            }
            self.still_runs()?;
            actix_rt::time::sleep(LOOK).await;
        }
    }

    fn still_runs(&mut self) -> Result<(), Failure> {
        let ended = match &mut self.child {
            Some(child) => child.try_wait()?,
            None => None,
        };
        match ended {
            None => Ok(()),
            Some(status) => {
                let said = format!("the broker ended ({status}): {}", self.last_words());
                Err(Failure::new(Exit::Failed, said))
            }
        }
    }

    /// The end of the broker's log.
    pub(super) fn last_words(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = log.lines().filter(|line| !line.trim().is_empty()).collect();
        let tail = lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n  ");
        if tail.is_empty() { "none".to_owned() } else { format!("\n  {tail}") }
    }

    /// Leaves everything as it is.
    pub(super) fn keep(mut self) {
        self.kept = true;
    }

    /// Ends the broker and removes the directory.
    pub(super) fn clear(mut self) -> io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        if let Some(mut child) = self.child.take() {
            end(&mut child)?;
        }
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = self.end()
        {
            tracing::warn!(%error, dir = %self.dir.display(), "the demo left something behind");
        }
    }
}

/// Asks the broker to end, which ends its agents, and waits; one that does not is killed, and the kernel
/// ends its agents.
fn end(child: &mut Child) -> io::Result<()> {
    let pid = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    let began = Instant::now();
    if child.try_wait()?.is_none() {
        kill(pid, Signal::SIGTERM)?;
    }
    while child.try_wait()?.is_none() {
        if began.elapsed() > ENDING {
            child.kill()?;
            child.wait()?;
            break;
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}
