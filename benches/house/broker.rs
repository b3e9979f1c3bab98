//! The real broker, in a directory of its own.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::clock;

/// For a start and for an end.
const PATIENCE: Duration = Duration::from_secs(30);
/// Ticks of the CPU times in `/proc`, in milliseconds.
const TICK: f64 = 10.0;

/// The rules for any composer without their pauses between paste and Enter: what is left is the broker's own time.
const BRISK: &str = "name = \"brisk\"\ninherits = \"generic\"\n[composer]\nkind = \"always\"\n\
                     [submit]\nsettle_ms = 0\nsettle_quiet_ms = 0\n";

/// A running broker. Dropped, it is killed, and its agents with it.
pub(crate) struct Broker {
    child: Child,
    dir: PathBuf,
    /// When it was started.
    pub(crate) started: u64,
    api: Option<Api>,
}

#[derive(Clone)]
struct Api {
    port: u16,
    key: String,
}

impl Broker {
    /// Starts one against this engine.
    pub(crate) fn start(dir: &Path, engine: &str) -> Result<Self> {
        let rules = dir.join(".config/relay-broker/harness");
        fs::create_dir_all(&rules)?;
        fs::write(rules.join("brisk.toml"), BRISK)?;
        let program = std::env::var_os("HOUSE_BENCH_BROKER")
            .unwrap_or_else(|| env!("CARGO_BIN_EXE_relay-broker").into());
        let mut command = Command::new(program);
        command
            .args(["up", "--engine", engine, "--workspace-key", "rk_bench", "--port", "0", "--state-dir"])
            .arg(dir.join("state"))
            .current_dir(dir)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", dir)
            .stdout(File::create(dir.join("stdout"))?)
            .stderr(File::create(dir.join("stderr"))?);
        let started = clock::now();
        let child = command.spawn().context("the broker cannot be started")?;
        Ok(Self { child, dir: dir.to_owned(), started, api: None })
    }

    /// Waits until it can be found.
    pub(crate) fn listening(&mut self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Ok(text) = fs::read(self.dir.join("state/connection.json"))
                && let Ok(found) = serde_json::from_slice::<Value>(&text)
                && let (Some(port), Some(key)) = (found["port"].as_u64(), found["api_key"].as_str())
            {
                self.api = Some(Api { port: u16::try_from(port)?, key: key.to_owned() });
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the broker ended with {status}: {}", fs::read_to_string(self.dir.join("stderr"))?);
            }
            thread::sleep(Duration::from_millis(5));
        }
        bail!("the broker does not listen: {}", fs::read_to_string(self.dir.join("stderr"))?)
    }

    /// Spawns an agent under this rule set, and answers its process id and how long the reply took, in milliseconds.
    pub(crate) fn spawn(
        &self,
        name: &str,
        program: &Path,
        args: &[&str],
        harness: &str,
    ) -> Result<(u32, f64)> {
        let body = json!({"name": name, "command": program, "args": args, "harness": harness});
        let before = clock::now();
        let answer = self.call("POST", "/api/spawn", &body)?;
        let took = clock::ms(before, clock::now());
        let pid = answer["pid"].as_u64().context("a spawn without a process")?;
        Ok((u32::try_from(pid)?, took))
    }

    /// How many bytes this agent has written so far.
    pub(crate) fn written_by(&self, name: &str) -> Result<u64> {
        let shot = self.call("GET", &format!("/api/spawned/{name}/snapshot"), &Value::Null)?;
        shot["offset"].as_u64().context("a snapshot without an offset")
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let Api { port, key } = self.api.as_ref().context("the broker does not listen yet")?;
        let mut stream = TcpStream::connect(("127.0.0.1", *port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let body = body.to_string();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {key}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status: u16 = answer.split(' ').nth(1).context("no status")?.parse()?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no body")?;
        ensure!((200..300).contains(&status), "{method} {path}: {status} {body}");
        Ok(serde_json::from_str(body)?)
    }

    /// Its resident memory in KiB.
    pub(crate) fn rss(&self) -> Result<f64> {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()))?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:")).context("no Rss")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// Its own CPU time so far (not its children's), in milliseconds.
    pub(crate) fn cpu(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name in parentheses may hold blanks; utime and stime are the 12th and 13th words after it.
        let (_, words) = stat.rsplit_once(") ").context("no stat")?;
        let words: Vec<_> = words.split(' ').collect();
        let ticks = |index: usize| -> Result<f64> { Ok(words.get(index).context("a short stat")?.parse()?) };
        Ok((ticks(11)? + ticks(12)?) * TICK)
    }

    /// Asks it to end and waits until it has.
    pub(crate) fn stop(mut self) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM)?;
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(5));
        }
        bail!("the broker does not end")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // One that has ended already is no matter.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
