//! Watching and driving an agent's terminal: snapshots and streams that join, and `attach` in a real terminal.

use std::{
    fs::File,
    io::{BufReader, Read, Write},
    net::TcpStream,
    os::fd::OwnedFd,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use nix::{
    pty::{OpenptyResult, Winsize, openpty},
    sys::{
        signal::Signal,
        termios::{LocalFlags, Termios, tcgetattr},
    },
};
use relay_broker::{messages::pty::TermSize, screen::Screen};
use serde_json::{Value, json};

use crate::support::{
    Chance, House, agents, expect, figure,
    frames::{Frame, read_head},
    house::program,
    processes::{resident, signal},
    until, until_within,
};

/// A WebSocket that is read when it is asked.
struct Viewer {
    incoming: BufReader<TcpStream>,
}

impl Viewer {
    fn of(house: &House, name: &str) -> Self {
        let key: Value = serde_json::from_slice(&std::fs::read(house.connection_file()).unwrap()).unwrap();
        let (addr, key) = (house.addr(), key["api_key"].as_str().unwrap());
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let request = format!(
            "GET /ws?output={name} HTTP/1.1\r\nHost: {addr}\r\nX-API-Key: {key}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut incoming = BufReader::new(stream);
        let head = String::from_utf8(read_head(&mut incoming).unwrap()).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        Self { incoming }
    }

    /// The next event about output.
    fn output(&mut self) -> Value {
        loop {
            let frame = Frame::read(&mut self.incoming).unwrap();
            let event: Value =
                frame.text().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
            if event["kind"] == "worker_stream" || event["kind"] == "stream_gap" {
                return event;
            }
        }
    }
}

struct Shot {
    ansi: Vec<u8>,
    plain: Value,
    cursor: Value,
    offset: u64,
}

fn snapshot(house: &House, name: &str) -> Shot {
    let shot = house.get(&format!("/api/spawned/{name}/snapshot?format=ansi"));
    Shot {
        ansi: BASE64_STANDARD.decode(shot["screen"].as_str().unwrap()).unwrap(),
        plain: Value::Null,
        cursor: shot["cursor"].clone(),
        offset: shot["offset"].as_u64().unwrap(),
    }
}

/// What it shows, of the same moment as its offset: asked again until nothing has come between.
fn whole(house: &House, name: &str) -> Shot {
    until("a screen that stands still", || {
        let ansi = snapshot(house, name);
        let plain = house.get(&format!("/api/spawned/{name}/snapshot?format=json"));
        expect(plain["offset"] == ansi.offset, || plain["offset"].to_string())?;
        Ok(Shot { plain: plain["screen"].clone(), ..ansi })
    })
}

/// Draws without end: colours, wide characters, margins, jumps, and a line that counts.
const PAINTER: &str = r#"exec python3 -u -c '
import os, random, sys, time
random.seed(7)
n = 0
end = time.monotonic() + 600
while not os.path.exists(os.environ["LOG"] + ".stop") and time.monotonic() < end:
    out = ""
    for _ in range(random.randint(1, 60)):
        n += 1
        out += random.choice([
            "\x1b[%d;%dH" % (random.randint(1, 40), random.randint(1, 120)),
            "\x1b[38;5;%dm" % random.randint(0, 255),
            "\x1b[2;%dr" % random.randint(10, 39), "\x1b[r", "\n", "\r\n", "\x1b[K", "\x1b[m",
            "漢字 é %d " % n, "line %d " % n, "\x1b]2;title %d\x07" % n,
        ])
    data = out.encode()
    while data:
        data = data[os.write(1, data[:random.randint(1, 700)]):]
    if random.random() < 0.02: time.sleep(0.01)
os.write(1, b"\x1b[r\x1b[m\x1b[40;1Hover")
sys.stdin.read()
'"#;

#[test]
fn a_snapshot_and_the_stream_after_it_join_without_gap_or_repeat_wherever_they_are_joined() {
    let house = House::embedded().start();
    house.spawn("painter", PAINTER);
    let mut chance = Chance::new();
    let mut viewers: Vec<(Viewer, Screen, u64)> = Vec::new();
    for _ in 0..8 {
        let mut viewer = Viewer::of(&house, "painter");
        // Some read a while before they take their snapshot, which then lies inside what they have.
        for _ in 0..chance.below(20) {
            viewer.output();
        }
        let shot = snapshot(&house, "painter");
        let mut screen = Screen::new(TermSize::default());
        screen.feed(&shot.ansi);
        viewers.push((viewer, screen, shot.offset));
    }
    std::fs::write(house.dir().join("painter.notes.stop"), "").unwrap();
    until("it has stopped", || {
        let shot = house.get("/api/spawned/painter/snapshot");
        let text = shot["screen"].as_str().unwrap().to_owned();
        expect(text.contains("over"), || text)
    });
    let last = whole(&house, "painter");
    assert!(last.offset > 100_000, "too little to mean anything: {}", last.offset);
    for (mut viewer, mut screen, mut at) in viewers {
        let mut resyncs = 0;
        while at < last.offset {
            let event = viewer.output();
            let (start, end) = (event["start"].as_u64(), event["offset"].as_u64());
            if event["kind"] == "worker_stream" && end <= Some(at) {
                continue;
            }
            if start == Some(at) {
                screen.feed(event["chunk"].as_str().unwrap().as_bytes());
                at = end.unwrap();
                continue;
            }
            // This one was too slow, was told so, and takes a new snapshot.
            assert!(event["kind"] == "stream_gap" || start > Some(at), "a repeat: {event}");
            resyncs += 1;
            let shot = snapshot(&house, "painter");
            screen = Screen::new(TermSize::default());
            screen.feed(&shot.ansi);
            at = shot.offset;
        }
        let shown: Vec<String> = screen.plain().lines().map(str::to_owned).collect();
        assert_eq!(json!(shown), last.plain, "after {resyncs} resyncs");
        let (row, col) = screen.cursor();
        assert_eq!(json!([row + 1, col + 1]), last.cursor);
    }
}

#[test]
fn an_agent_that_floods_and_never_reads_holds_nobody_up_and_fills_no_memory() {
    let house = House::embedded().start();
    house.spawn("flood", "stty raw -echo; yes 'a line of a flood that nobody wants to read to its end'");
    let listener = house.listener("alice");
    let _stalled = Viewer::of(&house, "flood");
    let output = || house.actor("pty_worker/flood")["worker"]["output_bytes"].as_u64().unwrap_or(0);
    house.send("flood", "this is never read");
    let mut peak = 0;
    for n in 1..=20 {
        house.send("alice", &format!("m{n}"));
        assert_eq!(listener.hears(n).last(), Some(&format!("m{n}")));
        peak = peak.max(resident(house.pid()));
    }
    let megabytes = figure(20, 100) as u64;
    until_within(Duration::from_secs(600), "a flood", || {
        peak = peak.max(resident(house.pid()));
        let shot = house.get("/api/spawned/flood/snapshot");
        expect(shot["offset"].as_u64() > Some(megabytes * 1_000_000), || {
            format!("{} of {}", shot["offset"], output())
        })
    });
    assert!(peak < 100 << 20, "{} MiB", peak >> 20);
}

/// A terminal with `relay-broker attach` in it.
struct Desk {
    child: Child,
    master: File,
    /// Kept, so that the terminal can be looked at when its process has gone.
    slave: OwnedFd,
    before: Termios,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Desk {
    fn attach(house: &House, args: &[&str]) -> Self {
        let size = Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(Some(&size), None).unwrap();
        let before = tcgetattr(&slave).unwrap();
        let mut command: Command = program(house.dir());
        command.arg("attach").args(args);
        command.arg("--state-dir").arg(house.connection_file().parent().unwrap());
        let end = || Stdio::from(slave.try_clone().unwrap());
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        drop(command);
        let master = File::from(master);
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut reading, log) = (master.try_clone().unwrap(), Arc::clone(&shown));
        thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(read @ 1..) = reading.read(&mut piece) {
                log.lock().unwrap().extend_from_slice(&piece[..read]);
            }
        });
        Self { child, master, slave, before, shown }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    fn shows(&self, wanted: &str) {
        until(&format!("{wanted:?} is shown"), || expect(self.text().contains(wanted), || self.text()));
    }

    fn types(&mut self, keys: &[u8]) {
        self.master.write_all(keys).unwrap();
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.slave).unwrap().local_flags.contains(LocalFlags::ICANON)
    }

    /// Waits for its end, and looks whether the terminal is what it was.
    fn ends(&mut self) -> ExitStatus {
        let status = until("the end of attach", || {
            self.child.try_wait().unwrap().ok_or_else(|| format!("it runs; shown: {}", self.text()))
        });
        let after = tcgetattr(&self.slave).unwrap();
        assert_eq!(after, self.before, "the terminal is not what it was");
        // The sequences that leave the picture come before the last words.
        self.shows("\x1b[?2004l");
        self.shows("\x1b[?25h");
        status
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

const SHELL: &str = r#"printf 'a prompt> '; while IFS= read -r line; do
    printf '%s\n' "$line" >> "$LOG"; echo "heard $line in $(stty size)"; done"#;

fn mode(house: &House, name: &str) -> String {
    house.get(&format!("/api/spawned/{name}/delivery-mode"))["mode"].as_str().unwrap().to_owned()
}

#[test]
fn whoever_watches_sees_what_is_there_and_what_comes_and_leaves_no_trace() {
    let house = House::embedded().start();
    house.spawn("bob", SHELL);
    let mut desk = Desk::attach(&house, &["bob"]);
    desk.shows("a prompt> ");
    desk.shows("watching bob: ctrl-] detaches");
    assert!(desk.is_raw());
    desk.types(b"not for the agent");
    let typed = house.call("POST", "/api/input/bob", Some(&json!({ "data": "hello\n\u{1b}[6n" })));
    assert_eq!(typed.status, 200, "who watches has no lease: {}", typed.text);
    desk.shows("heard hello in 40 120");
    desk.types(b"\x1d");
    assert_eq!(desk.ends().code(), Some(0));
    desk.shows("detached from bob");
    assert!(!desk.text().contains("\x1b[?1049l"), "there was no other screen to leave");
    assert!(
        !house.get("/api/spawned/bob/snapshot")["screen"].as_str().unwrap().contains("not for the agent")
    );
}

#[test]
fn whoever_drives_has_the_terminal_alone_until_they_are_gone() {
    let house = House::embedded().start();
    house.spawn("bob", SHELL);
    let mut desk = Desk::attach(&house, &["bob", "--drive", "--detach-key", "ctrl-q"]);
    desk.shows("driving bob: ctrl-q detaches");
    assert_eq!(mode(&house, "bob"), "manual_flush");
    desk.types(b"typed\r");
    desk.shows("heard typed in 30 100");
    house.send("bob", "held back");

    let mut second = Desk::attach(&house, &["bob", "--drive"]);
    let status =
        until("the second is refused", || second.child.try_wait().unwrap().ok_or_else(|| second.text()));
    assert_eq!(status.code(), Some(4));
    second.shows("types into `bob` since ");
    let typed = house.call("POST", "/api/input/bob", Some(&json!({ "data": "x" })));
    assert_eq!((typed.status, typed.json()["code"].as_str()), (409, Some("input_leased")));
    let resized = house.call("POST", "/api/resize/bob", Some(&json!({ "rows": 20, "cols": 50 })));
    assert_eq!(resized.status, 409, "{}", resized.text);

    // Killed: the hold and the size end with the connection.
    desk.child.kill().unwrap();
    house.notes("bob").hears(1);
    until("the mode is what it was", || {
        let now = mode(&house, "bob");
        expect(now == "auto_inject", || now)
    });
    until("the size is what it was", || {
        let shot = house.get("/api/spawned/bob/snapshot");
        expect(shot["rows"] == 40 && shot["cols"] == 120, || shot.to_string())
    });
    let mut third = Desk::attach(&house, &["bob", "--drive"]);
    third.shows("driving bob");
    third.types(b"\x1d");
    assert_eq!(third.ends().code(), Some(0));
}

#[test]
fn the_terminal_is_what_it_was_after_a_signal_the_agents_end_and_the_brokers_death() {
    let mut house = House::embedded().start();
    for name in ["bob", "eve", "joe"] {
        house.spawn(name, SHELL);
    }
    let attached = |name: &str| {
        let desk = Desk::attach(&house, &[name, "--drive"]);
        desk.shows(&format!("driving {name}"));
        desk
    };
    for which in [Signal::SIGTERM, Signal::SIGHUP] {
        let mut desk = attached("bob");
        assert!(desk.is_raw());
        signal(desk.child.id(), which);
        assert_eq!(desk.ends().code(), Some(130), "{which}");
    }
    let mut desk = attached("eve");
    house.release("eve");
    assert_eq!(desk.ends().code(), Some(0));
    desk.shows("eve was ended by SIGHUP");

    let mut desk = attached("joe");
    house.kill();
    assert_eq!(desk.ends().code(), Some(1));
    desk.shows("the connection to the broker is lost");
}

#[test]
fn what_an_agent_has_shown_can_be_read_after_its_end() {
    let house = House::embedded().start();
    house.spawn("bob", "printf '\\033[31mred\\033[m\\n'; read -r x; echo bye; exit 3");
    let logs = |args: &[&str]| {
        let mut command = program(house.dir());
        command.arg("logs").args(args).arg("--state-dir").arg(house.connection_file().parent().unwrap());
        crate::support::house::run(&mut command)
    };
    house.call("POST", "/api/input/bob", Some(&json!({ "data": "\n" })));
    // It goes on until the end by itself.
    let (code, text, error) = logs(&["bob", "--follow"]);
    assert_eq!((code, text.as_str()), (Some(0), "red\n\nbye\n"), "{error}");
    let (_, raw, _) = logs(&["bob", "--raw"]);
    assert_eq!(raw, "\u{1b}[31mred\u{1b}[m\r\n\r\nbye\r\n");
    let (_, cast, _) = logs(&["bob", "--cast"]);
    let header: Value = serde_json::from_str(cast.lines().next().unwrap()).unwrap();
    assert_eq!((&header["version"], &header["title"]), (&json!(3), &json!("bob")));
    assert_eq!(header["term"]["cols"], 120);
    let last: Value = serde_json::from_str(cast.lines().last().unwrap()).unwrap();
    assert_eq!((&last[1], &last[2]), (&json!("x"), &json!("3")));
    let (code, _, error) = logs(&["nobody"]);
    assert_eq!(code, Some(6), "{error}");
    assert!(error.contains("nothing is recorded of it"), "{error}");
}

#[test]
fn a_long_message_is_a_file_that_its_agent_can_read() {
    let house = House::embedded().start();
    // It shows a composer, so it is typed 16 KiB at most.
    let script = r#"printf '\033[?2004h> '; stty raw -echo; exec cat >> "$LOG""#;
    let mut body = agents::spawn_body("bob", script);
    body["harness"] = json!("generic");
    body["env"] = house.spawn_request("bob", script, &[])["env"].clone();
    assert_eq!(house.call("POST", "/api/spawn", Some(&body)).status, 200);
    let text = format!("{}<end>", "0123456789abcde\n".repeat(4000));
    let sent = house.call("POST", "/api/send", Some(&json!({ "to": "bob", "text": text })));
    assert_eq!(sent.status, 200, "{}", sent.text);
    let notes = house.dir().join("bob.notes");
    let path = until("the message with its file", || {
        let typed = std::fs::read_to_string(&notes).unwrap_or_default();
        let path = typed.split("all of it is in ").nth(1).and_then(|rest| rest.split(')').next());
        path.map(str::to_owned).ok_or(typed)
    });
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    let typed = std::fs::read_to_string(&notes).unwrap();
    assert!(typed.len() < 2000, "{} bytes", typed.len());
    house.release("bob");
    until("the file goes with its agent", || expect(!std::path::Path::new(&path).exists(), || path.clone()));
}
