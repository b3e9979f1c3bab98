//! A broker with its engine, a sender, and the programs that it types into.

use std::{cell::Cell, fs, path::PathBuf};

use serde_json::{Value, json};

use crate::support::{House, Proxy, TestEngine, Verdict, events::Events, expect, processes, until};

/// Who sends.
pub(crate) const SENDER: &str = "Alice";

/// A broker, its engine, and somebody who sends.
pub(crate) struct Stage {
    pub(crate) house: House,
    pub(crate) engine: TestEngine,
    pub(crate) events: Events,
    /// The sender's token.
    pub(crate) sender: String,
    node: String,
    /// Goes after the broker.
    _proxy: Option<Proxy>,
}

/// A fake program that runs as an agent.
pub(crate) struct Tui<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) name: String,
    pub(crate) pid: u32,
    sent: Cell<u64>,
}

/// A message on its way.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    /// Its id at the engine.
    pub(crate) id: String,
    pub(crate) body: String,
    /// Its place in the mailbox.
    seq: u64,
}

/// What a program has noted.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    pub(crate) kind: String,
    pub(crate) what: String,
    /// Milliseconds since the Unix epoch.
    pub(crate) at: u64,
}

/// What arrived at a program, in the pieces that a terminal knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Between paste markers.
    Paste(String),
    /// A single carriage return.
    Enter,
    /// Anything else, as it came.
    Keys(String),
}

impl Stage {
    pub(crate) fn new() -> Self {
        let engine = TestEngine::start();
        Self::of(House::at(&engine).start(), engine, None)
    }

    /// One with a rule set of the user's own.
    pub(crate) fn with_rules(name: &str, toml: &str) -> Self {
        let engine = TestEngine::start();
        Self::of(House::at(&engine).rules(name, toml).start(), engine, None)
    }

    /// One whose engine says other things than ours does.
    pub(crate) fn behind(judge: impl Fn(&str) -> Verdict + Send + Sync + 'static) -> Self {
        let engine = TestEngine::start();
        let proxy = Proxy::judging(engine.addr(), judge);
        Self::of(House::behind(&proxy, &engine).start(), engine, Some(proxy))
    }

    fn of(house: House, engine: TestEngine, proxy: Option<Proxy>) -> Self {
        let (_, node) = house.until_live();
        let sender = engine.person(SENDER);
        Self { events: house.events(), house, engine, sender, node, _proxy: proxy }
    }

    /// Starts a program of `tests/fixtures/programs` under the rules for programs that nobody knows.
    pub(crate) fn start(&self, program: &str, args: &[&str]) -> Tui<'_> {
        self.start_as(program, args, "auto")
    }

    /// The same under other rules.
    pub(crate) fn start_as(&self, program: &str, args: &[&str], harness: &str) -> Tui<'_> {
        let file = format!("{}/tests/fixtures/programs/{program}.py", env!("CARGO_MANIFEST_DIR"));
        let name = [&[program], args].concat().join("-");
        let args: Vec<_> = ["-B", &file].iter().chain(args).map(ToString::to_string).collect();
        self.run(&name, "python3", &args, harness, &[])
    }

    /// Starts any program as an agent.
    pub(crate) fn run(
        &self,
        name: &str,
        command: &str,
        args: &[String],
        harness: &str,
        env: &[(&str, &str)],
    ) -> Tui<'_> {
        let mut body = self.house.spawn_request(name, "", env);
        body["command"] = command.into();
        body["args"] = args.into();
        body["harness"] = harness.into();
        let answer = self.house.call("POST", "/api/spawn", Some(&body));
        assert_eq!(answer.status, 200, "{name}: {}", answer.text);
        let pid = answer.json()["pid"].as_u64().unwrap().try_into().unwrap();
        Tui { stage: self, name: name.to_owned(), pid, sent: Cell::new(0) }
    }

    /// Up to where an agent's mailbox is acked.
    pub(crate) fn acked(&self, name: &str) -> u64 {
        self.engine.acked(&self.node, name).unwrap_or(0)
    }

    /// Ends all agents; then nothing of them may be left: no process, no zombie, no descriptor.
    pub(crate) fn over(self) {
        for name in self.house.agents() {
            self.house.release(&name);
        }
        let broker = self.house.pid();
        until("only the broker is left", || {
            let left: Vec<_> = self.house.processes().into_iter().filter(|pid| *pid != broker).collect();
            expect(left.is_empty(), || processes::describe(&left))?;
            let zombies = processes::zombies_of(broker);
            expect(zombies.is_empty(), || format!("zombies: {zombies:?}"))?;
            let open = processes::descriptors(broker);
            let left: Vec<_> = open.iter().filter(|open| is_of_an_agent(open)).collect();
            expect(left.is_empty(), || format!("{left:?}"))
        });
        let log = self.house.log();
        assert!(!log.contains("panicked"), "{log}");
    }
}

/// True for a terminal and for the handle of a process.
fn is_of_an_agent(open: &str) -> bool {
    ["/dev/ptmx", "/dev/pts", "pidfd"].iter().any(|part| open.contains(part))
}

impl Tui<'_> {
    /// Sends it a message.
    pub(crate) fn tell(&self, body: &str) -> Told {
        self.tell_in_mode(body, "wait")
    }

    /// The same in a mode: `wait`, or `steer` to change the course of a turn.
    pub(crate) fn tell_in_mode(&self, body: &str, mode: &str) -> Told {
        let message = json!({ "to": self.name, "text": body, "mode": mode });
        let sent = self.stage.engine.post("/v1/dm", &self.stage.sender, message);
        let id = sent["id"].as_str().unwrap().to_owned();
        self.sent.set(self.sent.get() + 1);
        Told { id, body: body.to_owned(), seq: self.sent.get() }
    }

    /// Sends it a message and waits until it is acked; the rungs that were told on the way.
    pub(crate) fn takes(&self, body: &str) -> (Told, Vec<String>) {
        let told = self.tell(body);
        let rungs = self.acks(&told);
        (told, rungs)
    }

    /// Waits until a message is acked, here and at the engine; the rungs that were told on the way.
    pub(crate) fn acks(&self, told: &Told) -> Vec<String> {
        self.event_of("delivery_ack", told);
        until("the engine has its ack", || {
            let acked = self.stage.acked(&self.name);
            expect(acked >= told.seq, || format!("acked up to {acked} of {}", told.seq))
        });
        let rung = |kind: &str, field: &str| {
            let events = self.events_of(kind, told);
            events.iter().map(|event| event[field].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let (injected, verified) =
            (rung("delivery_injected", "rung"), rung("delivery_verified", "verification"));
        let acked = rung("delivery_ack", "evidence");
        assert_eq!((injected.len(), verified.len(), acked.len()), (1, 1, 1), "of {told:?}");
        assert_eq!(verified, acked);
        let order = |kind: &str| self.events_of(kind, told)[0]["seq"].as_u64().unwrap();
        let steps = ["delivery_queued", "delivery_injected", "delivery_verified", "delivery_ack"].map(order);
        assert!(steps.is_sorted(), "{steps:?}");
        [injected, verified].concat()
    }

    /// Nothing is acked, and the program has been given nothing.
    pub(crate) fn has_nothing(&self) {
        assert_eq!(self.stage.acked(&self.name), 0, "acked");
        assert_eq!(self.turns(), [""; 0], "turns");
    }

    /// Waits for an event about a message.
    pub(crate) fn event_of(&self, kind: &str, told: &Told) -> Value {
        until(&format!("{kind} of {:.60}", told.body), || {
            let found = self.events_of(kind, told).into_iter().next();
            found.ok_or_else(|| format!("notes {:?}; {}", self.last_notes(), self.explained()))
        })
    }

    fn events_of(&self, kind: &str, told: &Told) -> Vec<Value> {
        let events = self.stage.events.of(kind).into_iter();
        events.filter(|event| event["event_id"] == told.id && event["name"] == self.name).collect()
    }

    fn last_notes(&self) -> Vec<Note> {
        let notes = self.notes();
        notes[notes.len().saturating_sub(6)..].to_vec()
    }

    /// What the broker says of it.
    pub(crate) fn explained(&self) -> Value {
        self.stage.house.get(&format!("/debug/agents/{}", self.name))
    }

    /// Waits until the broker says that it does what it does for this reason.
    pub(crate) fn until_because(&self, because: &str) {
        until(&format!("{} because {because}", self.name), || {
            let explained = self.explained().to_string();
            expect(explained.contains(because), || explained.clone())
        });
    }

    /// Waits until the broker says that it does this.
    pub(crate) fn until_state(&self, state: &str) {
        until(&format!("{} is {state}", self.name), || {
            let list = self.stage.house.get("/api/spawned");
            let agents = list["agents"].as_array().unwrap();
            let found = agents.iter().find(|agent| agent["name"] == self.name.as_str());
            let seen = found.map(|agent| agent["state"].clone()).unwrap_or_default();
            expect(seen == state, || format!("{seen}; {}", self.explained()))
        });
    }

    /// A person's keystrokes.
    pub(crate) fn types(&self, keys: &str) {
        let body = json!({ "data": keys });
        let answer = self.stage.house.call("POST", &format!("/api/input/{}", self.name), Some(&body));
        assert_eq!(answer.status, 200, "{}", answer.text);
    }

    fn notes_file(&self) -> PathBuf {
        self.stage.house.dir().join(format!("{}.notes", self.name))
    }

    /// All that it has noted.
    pub(crate) fn notes(&self) -> Vec<Note> {
        let text = fs::read_to_string(self.notes_file()).unwrap_or_default();
        // The last line may be half written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let note = |line: &str| {
            let note: Value = serde_json::from_str(line).unwrap();
            let part = |key: &str| note[key].as_str().unwrap().to_owned();
            Note { kind: part("kind"), what: part("what"), at: note["at"].as_u64().unwrap() }
        };
        whole.lines().map(note).collect()
    }

    /// What it has noted of a kind.
    pub(crate) fn noted(&self, kind: &str) -> Vec<String> {
        let notes = self.notes().into_iter().filter(|note| note.kind == kind);
        notes.map(|note| note.what).collect()
    }

    /// Waits until it has noted so many of a kind.
    pub(crate) fn until_noted(&self, kind: &str, count: usize) -> Vec<String> {
        until(&format!("{count} notes of {kind}"), || {
            let noted = self.noted(kind);
            expect(noted.len() >= count, || format!("{:?}; {}", self.last_notes(), self.explained()))?;
            Ok(noted)
        })
    }

    /// The turns that it was given.
    pub(crate) fn turns(&self) -> Vec<String> {
        self.noted("turn")
    }

    /// Every byte that it has read.
    pub(crate) fn read(&self) -> Vec<u8> {
        self.noted("read").iter().flat_map(|hex| unhex(hex)).collect()
    }

    /// The same in pieces.
    pub(crate) fn pieces(&self) -> Vec<Piece> {
        pieces(&String::from_utf8(self.read()).unwrap())
    }

    /// Each message was submitted as a turn of its own, whole and once; no byte came that is not theirs, and
    /// no ack is older than the turn that it is for.
    pub(crate) fn got_each_in_a_paste(&self, messages: &[&Told]) {
        let turns: Vec<_> = self.notes().into_iter().filter(|note| note.kind == "turn").collect();
        assert_eq!(turns.len(), messages.len(), "{turns:?}");
        for (turn, told) in turns.iter().zip(messages) {
            assert_shows(&turn.what, told);
            self.acked_after(turn, told);
        }
        let mut pieces = self.pieces().into_iter().peekable();
        for told in messages {
            let paste = pieces.next();
            assert!(
                matches!(&paste, Some(Piece::Paste(text)) if shows(text, told)),
                "{paste:?} for {told:?}"
            );
            assert_eq!(pieces.next(), Some(Piece::Enter));
            // An Enter that was ignored is pressed again, twice at most.
            for _ in 0..2 {
                pieces.next_if_eq(&Piece::Enter);
            }
        }
        assert_eq!(pieces.next(), None, "nobody sent this");
    }

    /// No ack of this message is older than the note.
    pub(crate) fn acked_after(&self, note: &Note, told: &Told) {
        let ack = self.event_of("delivery_ack", told);
        let acked_at = ack["timestamp"].as_u64().unwrap();
        assert!(acked_at >= note.at, "acked at {acked_at}: {note:?}");
    }

    /// So many Enters came.
    pub(crate) fn enters(&self) -> usize {
        self.pieces().iter().filter(|piece| **piece == Piece::Enter).count()
    }
}

/// True when this is the message as a program is shown it on several lines: a header of ours, the body, and
/// nothing else but, now and then, a hint.
pub(crate) fn shows(text: &str, told: &Told) -> bool {
    let Some((header, rest)) = text.split_once('\n') else { return false };
    let rest = rest.split_once("\n[reply: ").map_or(rest, |(body, _)| body);
    is_header(header, told) && rest == told.body
}

/// The same on one line, where a tab would be a key.
pub(crate) fn shows_flat(text: &str, told: &Told) -> bool {
    let Some(end) = text.find("] ") else { return false };
    let (header, rest) = text.split_at(end + 1);
    let rest = rest.split_once(" \u{23ce} [reply: ").map_or(rest, |(body, _)| body);
    is_header(header, told) && rest[1..] == told.body.replace('\n', " \u{23ce} ").replace('\t', "    ")
}

fn is_header(header: &str, told: &Told) -> bool {
    header.starts_with(&format!("[relay DM from {SENDER} · msg {} · ", told.id)) && header.ends_with(']')
}

pub(crate) fn assert_shows(text: &str, told: &Told) {
    assert!(shows(text, told) || shows_flat(text, told), "{text:?} is not {told:?}");
}

/// What a terminal knows of these bytes.
pub(crate) fn pieces(mut bytes: &str) -> Vec<Piece> {
    const START: &str = "\u{1b}[200~";
    const END: &str = "\u{1b}[201~";
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        let (piece, rest) = if let Some(rest) = bytes.strip_prefix(START) {
            let (text, rest) = rest.split_once(END).expect("a paste that does not end");
            (Piece::Paste(text.to_owned()), rest)
        } else if let Some(rest) = bytes.strip_prefix('\r') {
            (Piece::Enter, rest)
        } else {
            let end = bytes.find('\r').into_iter().chain(bytes.find(START)).min().unwrap_or(bytes.len());
            (Piece::Keys(bytes[..end].to_owned()), &bytes[end..])
        };
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.chars().map(|c| c.to_digit(16).unwrap()).collect();
    digits.chunks(2).map(|two| u8::try_from(two[0] * 16 + two[1]).unwrap()).collect()
}
