//! The room with real terminals and real children; its doors lead to probes.

mod ends;
mod tools;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::poll_fn,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Poll, Waker},
    time::Duration,
};

use actix::{Actor, Context, Handler};

use super::*;
use crate::{
    ids::{AgentToken, Birth, DeliveryId},
    messages::{
        Answer,
        delivery::{InjectStep, Mode, Note, Rung},
        lifecycle::{ActorId, ActorKind},
        process::{EndedBy, ExitRecord, KnownSession},
        pty::TermSize,
        spawn::Autonomy,
    },
    pty,
    store::AgentFiles,
    supervision::{Child, Directory, FaultPoint, Probe, Seat},
    testing::{PATIENCE, name, until, until_holds},
};

/// Everything a worker said.
#[derive(Default)]
struct Book {
    reports: Vec<InjectReport>,
    ups: Vec<WorkerUp>,
    gone: Vec<String>,
    exits: Vec<ExitRecord>,
    states: Vec<(AgentState, AgentState)>,
    sessions: Vec<KnownSession>,
    chunks: Vec<(String, u64, u64)>,
    waker: Option<Waker>,
}

/// Stands at all doors.
struct Doorman(Rc<RefCell<Book>>);

impl Actor for Doorman {
    type Context = Context<Self>;
}

macro_rules! notes {
    ($($message:ty: |$book:ident, $said:ident| $note:expr;)+) => {
        $(impl Handler<$message> for Doorman {
            type Result = ();
            fn handle(&mut self, $said: $message, _: &mut Context<Self>) {
                let mut $book = self.0.borrow_mut();
                $note;
                if let Some(waker) = $book.waker.take() {
                    waker.wake();
                }
            }
        })+
    };
}
notes! {
    InjectReport: |book, said| book.reports.push(said);
    WorkerUp: |book, said| book.ups.push(said);
    WorkerGone: |book, said| book.gone.push(said.reason);
    FlushAcks: |_book, said| _ = said.0.send(());
    ChildExited: |book, said| book.exits.push(said.exit);
    StateChanged: |book, said| book.states.push((said.from, said.to));
    SessionKnown: |book, said| book.sessions.push(said.session);
    Output: |book, said| book.chunks.push((said.text, said.start, said.end));
}

/// One worker and what it said.
struct Rig {
    child: Child<PtyWorker>,
    book: Rc<RefCell<Book>>,
    view: Arc<WorkerView>,
    stream_wanted: Arc<AtomicUsize>,
    dir: tempfile::TempDir,
    start: Option<Answer<Result<Started, SpawnRefused>>>,
    attempt: u32,
}

fn spec(program: &str, args: &[&str], harness: Option<&str>) -> SpawnSpec {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    let harness = harness.map(str::to_owned);
    SpawnSpec { harness, ..SpawnSpec::new(name("worker"), program, args, "/".as_ref()) }
}

fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/programs/{name}", env!("CARGO_MANIFEST_DIR"))
}

impl Rig {
    fn new(spec: SpawnSpec) -> Self {
        Self::with(spec, |_| {})
    }

    fn with(spec: SpawnSpec, change: impl FnOnce(&mut WorkerConfig)) -> Self {
        let directory = Directory::default();
        let book = Rc::new(RefCell::new(Book::default()));
        let doorman = Doorman(book.clone()).start();
        let probe = Probe::new(ActorId::sole(ActorKind::EventHub));
        macro_rules! post {
            () => {
                Post::new(doorman.clone().recipient(), probe.clone())
            };
        }
        let doors = WorkerDoors {
            report: post!(),
            up: post!(),
            gone: post!(),
            flush: post!(),
            exited: post!(),
            state: post!(),
            session: post!(),
            output: post!(),
        };
        let view = Arc::new(WorkerView::default());
        let stream_wanted = Arc::new(AtomicUsize::new(0));
        let dir = tempfile::tempdir().unwrap();
        let mut config = WorkerConfig {
            name: spec.name.clone(),
            birth: Birth(1),
            spec,
            relay_env: AgentEnv {
                token: AgentToken::from("at_live_test"),
                result_token: "ar_test".into(),
                result_url: "http://broker/api/agent-result".into(),
                base_url: "http://engine".into(),
                workspace: None,
            },
            timings: Timings::default(),
            stream_wanted: stream_wanted.clone(),
            files: AgentFiles::open(dir.path().join("agents"), true).unwrap().of(&"ag_test".into()),
            tools: ToolServer { program: Some("/opt/relay-broker".into()), wanted: None },
            guard: Guard::default(),
            view: view.clone(),
        };
        change(&mut config);
        let (reply, start) = Reply::channel();
        let (child, seat) = Seat::reserve(ActorId::of(ActorKind::PtyWorker, "worker"), &directory);
        seat.start(None, |_, life| PtyWorker::new(life, config, doors, reply));
        Self { child, book, view, stream_wanted, dir, start: Some(start), attempt: 0 }
    }

    fn shell(script: &str, harness: Option<&str>) -> Self {
        Self::new(spec("sh", &["-c", script], harness))
    }

    fn python(name: &str, args: &[&str], harness: Option<&str>) -> Self {
        let path = fixture(name);
        let args: Vec<&str> = ["-u", &path].into_iter().chain(args.iter().copied()).collect();
        Self::new(spec("python3", &args, harness))
    }

    async fn started(&mut self) -> Result<Started, SpawnRefused> {
        self.start.take().unwrap().await.unwrap()
    }

    /// Waits until the book shows it.
    async fn until<T>(&self, mut look: impl FnMut(&Book) -> Option<T>) -> T {
        let seen = poll_fn(|task| {
            let mut book = self.book.borrow_mut();
            match look(&book) {
                Some(seen) => Poll::Ready(seen),
                None => {
                    book.waker = Some(task.waker().clone());
                    Poll::Pending
                }
            }
        });
        match tokio::time::timeout(PATIENCE, seen).await {
            Ok(seen) => seen,
            Err(_) => {
                let screen = self.screen().await;
                let book = self.book.borrow();
                panic!("nothing came\nreports {:?}\nstates {:?}\n{screen}", book.reports, book.states);
            }
        }
    }

    /// Waits until the screen shows it.
    async fn shows(&self, text: &str) -> Snapshot {
        until(&format!("{text:?} shows"), async || {
            let snapshot = self.child.post::<TakeSnapshot>().ask(TakeSnapshot).await.unwrap();
            if snapshot.plain.contains(text) { Ok(snapshot) } else { Err(snapshot.plain) }
        })
        .await
    }

    async fn screen(&self) -> String {
        match self.child.post::<TakeSnapshot>().ask(TakeSnapshot).await {
            Ok(snapshot) => snapshot.plain.trim_end().to_owned(),
            Err(_) => String::new(),
        }
    }

    fn send(&mut self, id: &str, body: &str) {
        self.send_with(id, body, None);
    }

    fn send_with(&mut self, id: &str, body: &str, reached: Option<Rung>) {
        let inject = self.inject(id, body, reached);
        self.child.post().tell(inject).unwrap();
    }

    fn inject(&mut self, id: &str, body: &str, reached: Option<Rung>) -> Inject {
        self.attempt += 1;
        Inject {
            delivery_id: id.into(),
            attempt: self.attempt,
            mode: Mode::Wait,
            note: Note {
                from: "Alice".into(),
                target: "worker".into(),
                thread: None,
                msg_id: format!("m-{id}").into(),
                body: body.into(),
                sent_at: None,
                system: false,
            },
            reached,
            redelivered: reached.is_some(),
            marked: None,
        }
    }

    async fn proven(&self, id: &str) -> Rung {
        let id = DeliveryId::from(id);
        self.until(|book| {
            book.reports.iter().find_map(|report| match &report.step {
                InjectStep::Proven(rung) if report.delivery_id == id => Some(*rung),
                _ => None,
            })
        })
        .await
    }

    fn steps(&self, id: &str) -> Vec<InjectStep> {
        let id = DeliveryId::from(id);
        let book = self.book.borrow();
        book.reports.iter().filter(|report| report.delivery_id == id).map(|r| r.step.clone()).collect()
    }

    fn terminate(&self, force: bool) {
        let within = Some(Duration::from_secs(2));
        self.child.post().tell(Terminate { by: EndedBy::Release, force, within }).unwrap();
    }

    async fn exit(&self) -> ExitRecord {
        self.until(|book| book.exits.first().cloned()).await
    }

    /// Ends the worker and waits for its goodbye.
    async fn end(&self) -> ExitRecord {
        self.terminate(true);
        let exit = self.exit().await;
        self.until(|book| book.gone.first().cloned()).await;
        exit
    }
}

#[actix::test]
async fn a_line_reader_gets_each_message_as_one_line_and_its_reading_is_the_proof() {
    let mut rig = Rig::shell("stty -echo; while read -r l; do echo \"got<$l>\"; done", Some("plain"));
    let started = rig.started().await.unwrap();
    assert_eq!(started.harness, "plain");
    assert_eq!(rig.until(|book| book.ups.first().copied()).await.window, 64);
    rig.send("d1", "hello\nthere");
    rig.send("d2", "bye");
    assert_eq!(rig.proven("d1").await, Rung::Consumed);
    assert_eq!(rig.proven("d2").await, Rung::Consumed);
    let shown = rig.shows("bye>").await;
    assert!(
        shown.plain.contains("got<[relay DM from Alice · msg m-d1] hello \u{23ce} there>"),
        "{}",
        shown.plain
    );
    assert_eq!(shown.plain.matches("m-d2").count(), 1);
    assert!(rig.until(|book| book.states.first().copied()).await == (AgentState::Starting, AgentState::Idle));
    let exit = rig.end().await;
    assert_eq!((exit.signal.as_deref(), exit.by), (Some("SIGKILL"), EndedBy::Release));
}

#[actix::test]
async fn nothing_is_typed_before_the_mark_of_its_attempt_has_reached_the_kernel() {
    let mut rig = Rig::shell("stty -echo; while read -r l; do echo \"got<$l>\"; done", Some("plain"));
    rig.started().await.unwrap();
    rig.send("d1", "hello");
    rig.proven("d1").await;

    let (mark, marked) = Reply::channel();
    let inject = Inject { marked: Some(marked), ..rig.inject("d2", "not yet", None) };
    rig.child.post().tell(inject).unwrap();
    rig.send("d3", "nor this");
    // Answered after a turn in which they could have been typed.
    rig.screen().await;
    let forgotten = rig.child.post().ask(|reply| CancelInjections { reply }).await.unwrap();
    assert_eq!(forgotten.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["d2", "d3"]);
    mark.send(());

    let (mark, marked) = Reply::channel();
    let inject = Inject { marked: Some(marked), ..rig.inject("d2", "now", None) };
    rig.child.post().tell(inject).unwrap();
    rig.screen().await;
    mark.send(());
    rig.proven("d2").await;
    let shown = rig.shows("now>").await;
    assert!(!shown.plain.contains("nor this"), "{}", shown.plain);
    rig.end().await;
}

#[actix::test]
async fn a_first_task_is_read_before_the_first_message() {
    let script = "stty -echo; while read -r l; do echo \"got<$l>\"; done";
    let task = Some("count the boats".to_owned());
    let mut rig = Rig::new(SpawnSpec { task, ..spec("sh", &["-c", script], Some("plain")) });
    rig.started().await.unwrap();
    rig.send("d1", "bye");
    assert_eq!(rig.proven("d1").await, Rung::Consumed);
    let shown = rig.shows("bye>").await.plain;
    assert!(shown.trim_start().starts_with("got<count the boats>"), "{shown}");
    assert!(rig.steps("task").is_empty(), "the cursor knows nothing of it");
    rig.end().await;
}

#[actix::test]
async fn a_thousand_messages_to_a_raw_reader_arrive_once_and_in_order() {
    let mut rig = Rig::python("raw_reader.py", &[], Some("plain"));
    rig.started().await.unwrap();
    let count = 1000;
    for n in 0..count {
        rig.send(&format!("d{n}"), &format!("body-{n}."));
    }
    rig.proven(&format!("d{}", count - 1)).await;
    let order: Vec<_> = {
        let book = rig.book.borrow();
        let proven = |r: &&InjectReport| matches!(r.step, InjectStep::Proven(_));
        book.reports.iter().filter(proven).map(|r| r.delivery_id.to_string()).collect()
    };
    let wanted: Vec<_> = (0..count).map(|n| format!("d{n}")).collect();
    assert_eq!(order, wanted);
    // The reader tells how many lines it has read and whether they were in order.
    rig.shows(&format!("{count} in order")).await;
    rig.end().await;
}

#[actix::test]
async fn a_message_that_a_starting_program_throws_away_is_typed_again_and_proven_once() {
    let mut rig = Rig::python("raw_reader.py", &["late"], Some("plain"));
    rig.started().await.unwrap();
    rig.send("d0", "body-0.");
    assert_eq!(rig.proven("d0").await, Rung::Consumed);
    let shown = rig.shows("1 in order").await;
    // The kernel echoed the first one while the program was not ready for it; the program read one.
    assert_eq!(shown.plain.matches("body-0.").count(), 1, "{}", shown.plain);
    assert_eq!(rig.steps("d0").iter().filter(|step| matches!(step, InjectStep::Proven(_))).count(), 1);
    rig.end().await;
}

#[actix::test]
async fn a_child_that_never_reads_proves_nothing_and_is_said_not_to_read() {
    let mut rig = Rig::shell("stty raw -echo; echo ready; exec sleep 1000", Some("plain"));
    rig.started().await.unwrap();
    rig.send("d1", "hello");
    rig.until(|book| book.states.contains(&(AgentState::Idle, AgentState::NotReading)).then_some(())).await;
    assert_eq!(rig.steps("d1"), [InjectStep::Reached(Rung::Written)]);
    let detail = lock(&rig.view.detail).clone();
    assert_eq!(detail.state, Some(AgentState::NotReading));
    assert_eq!(detail.injecting.unwrap().rung, Rung::Written);
    rig.end().await;
}

#[actix::test]
async fn an_exit_code_a_signal_and_the_last_screen_are_told_as_they_were() {
    let mut rig = Rig::shell("echo last words; read -r x; exit 7", Some("plain"));
    rig.started().await.unwrap();
    rig.send("d1", "go");
    let exit = rig.exit().await;
    assert_eq!((exit.code, exit.signal.clone(), exit.by), (Some(7), None, EndedBy::Itself));
    assert!(exit.last_output.starts_with("last words"), "{}", exit.last_output);
    assert_eq!(rig.until(|book| book.gone.first().cloned()).await, "the agent exited (code 7)");
    assert!(
        rig.child.handle().is_gone() || rig.child.post::<TakeSnapshot>().ask(TakeSnapshot).await.is_err()
    );

    let mut rig = Rig::shell("read -r x; kill -SEGV $$", Some("plain"));
    rig.started().await.unwrap();
    rig.send("d1", "go");
    assert_eq!(rig.exit().await.signal.as_deref(), Some("SIGSEGV"));
}

#[actix::test]
async fn a_start_that_cannot_be_is_refused_with_its_reason() {
    let mut nowhere = spec("sh", &[], None);
    nowhere.cwd = "/does/not/exist".into();
    assert!(matches!(Rig::new(nowhere).started().await, Err(SpawnRefused::BadCwd(_))));

    let refused = Rig::new(spec("no-such-program-here", &[], None)).started().await;
    assert!(
        matches!(refused, Err(SpawnRefused::BadProgram { ref program, .. }) if program == "no-such-program-here")
    );

    let refused = Rig::new(spec("sh", &[], Some("nonsense"))).started().await;
    assert_eq!(refused, Err(SpawnRefused::UnknownHarness("nonsense".into())));

    let mut rig = Rig::shell("exit 3", None);
    let Err(SpawnRefused::DiedAtOnce(exit)) = rig.started().await else { panic!("it lives") };
    assert_eq!(exit.how(), "code 3");
    assert!(rig.book.borrow().exits.is_empty(), "nobody was told that it lived");

    let mut rig = Rig::shell("echo no account; sleep 0.01; exit 4", None);
    let Err(SpawnRefused::DiedAtOnce(exit)) = rig.started().await else { panic!("it lives") };
    assert_eq!((exit.how().as_str(), exit.last_output.trim()), ("code 4", "no account"));
}

#[actix::test]
async fn what_a_rule_set_adds_stands_before_what_the_caller_said() {
    let mut full = spec("the-program", &["and", "mine"], Some("qwen"));
    full.autonomy = Autonomy::Full;
    // Shows the command line that it was to run.
    full.process.wrapper = ["sh", "-c", "echo \"[$*]\"; exec sleep 1000", "sh"].map(str::to_owned).to_vec();
    let mut rig = Rig::new(full);
    rig.started().await.unwrap();
    let screen = rig.shows("]").await.plain;
    let mut words = screen.split_whitespace();
    // The name of the session that it is in is ours, and another one each time.
    assert_eq!([words.next(), words.next()], [Some("[the-program"), Some("--session-id")], "{screen}");
    let rest: Vec<_> = words.skip(1).collect();
    assert_eq!(rest, ["--yolo", "and", "mine]"], "{screen}");
    rig.end().await;
}

#[actix::test]
async fn an_agent_gets_its_own_identity_and_nothing_of_the_brokers() {
    let script = "env | grep -E '^(RELAY|AGENT_RELAY)' | sort; echo end; read x";
    let mut agent = spec("sh", &["-c", script], Some("plain"));
    agent.env.insert("RELAY_AGENT_NAME".into(), "somebody-else".into());
    agent.env.insert("EXTRA".into(), "1".into());
    let mut rig = Rig::new(agent);
    rig.started().await.unwrap();
    let shown = rig.shows("end").await.plain;
    for wanted in [
        "AGENT_RELAY_RESULT_TOKEN=ar_test",
        "AGENT_RELAY_RESULT_URL=http://broker/api/agent-result",
        "RELAY_AGENT_NAME=worker",
        "RELAY_AGENT_TOKEN=at_live_test",
        "RELAY_AGENT_TYPE=agent",
        "RELAY_BASE_URL=http://engine",
        "RELAY_SKIP_BOOTSTRAP=1",
        "RELAY_STRICT_AGENT_NAME=1",
    ] {
        assert!(shown.contains(wanted), "{wanted} in\n{shown}");
    }
    rig.end().await;
}

#[actix::test]
async fn a_restart_keeps_the_child_and_never_types_twice() {
    let mut rig = Rig::python("raw_reader.py", &["slow"], Some("plain"));
    let pid = rig.started().await.unwrap().pid;
    rig.send("d0", "body-0.");
    rig.proven("d0").await;
    for n in 1..40 {
        rig.send(&format!("d{n}"), &format!("body-{n}."));
    }
    rig.proven("d3").await;
    rig.child.probe().arm(FaultPoint::Handler);
    rig.send("d40", "body-40.");
    let up = rig.until(|book| book.ups.get(1).copied()).await;
    assert_eq!(up.worker.0, 1);
    // What a cursor does: everything without proof again, in order.
    for n in 0..=40 {
        let id = DeliveryId::from(format!("d{n}"));
        let proof = |r: &InjectReport| r.delivery_id == id && matches!(r.step, InjectStep::Proven(_));
        if !rig.book.borrow().reports.iter().any(proof) {
            rig.send(&format!("d{n}"), &format!("body-{n}."));
        }
    }
    rig.proven("d40").await;
    rig.shows("41 in order").await;
    assert_eq!(rig.view.pid.load(Ordering::Relaxed), pid);
    rig.end().await;
}

#[actix::test]
async fn a_child_asked_to_end_gets_a_hangup_first_and_its_escapees_are_swept() {
    let script = "trap 'exit 5' HUP; setsid sh -c 'echo ready; sleep 1000' & while :; do sleep 0.05; done";
    let mut rig = Rig::shell(script, Some("plain"));
    rig.started().await.unwrap();
    rig.shows("ready").await;
    rig.terminate(false);
    let exit = rig.exit().await;
    assert_eq!((exit.code, exit.by), (Some(5), EndedBy::Release));
    assert!(!exit.swept.is_empty());
    for pid in exit.swept {
        let alive = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), None);
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(alive.is_err() || state.contains(") Z "), "{pid} lives");
    }
}

#[actix::test]
async fn a_start_that_is_released_or_given_up_leaves_no_child() {
    let mut rig = Rig::shell("exec sleep 1000", Some("plain"));
    rig.terminate(true);
    assert!(matches!(rig.started().await, Err(SpawnRefused::Abandoned(_))));
    let pid = rig.view.pid.load(Ordering::Relaxed);
    assert!(pid > 0 && pty::start_tick(pid).is_none(), "{pid} lives");

    let mut rig = Rig::shell("exec sleep 1000", Some("plain"));
    drop(rig.start.take());
    assert_eq!(rig.exit().await.by, EndedBy::Release);
}

#[actix::test]
async fn no_byte_of_a_hostile_message_reaches_a_child_as_a_key() {
    let mut rig = Rig::python("byte_counter.py", &[], Some("plain"));
    rig.started().await.unwrap();
    // A start that is slower than the patience with a silent program would be typed to in line mode.
    rig.shows("ready").await;
    let mut hostile: String = (0..=0x9f).filter_map(char::from_u32).collect();
    hostile.push_str("\u{1b}[201~\u{1b}]52;c;AAAA\u{7}\u{1b}[2\u{1b}[201~01~\u{202e}");
    rig.send("d1", &hostile);
    rig.send("d2", &format!("\r\n{hostile}{}", "x".repeat(20_000)));
    assert_eq!(rig.proven("d2").await, Rung::Consumed);
    rig.shows("enters 2, other controls 0").await;
    rig.end().await;
}

#[actix::test]
async fn a_program_that_asks_its_terminal_is_answered() {
    let mut rig = Rig::python("asks.py", &[], None);
    rig.started().await.unwrap();
    let shown = rig.shows("asked").await.plain;
    for answer in ["[?62;22c", "[?0u", "]11;rgb:1010/1010/1010", "[1;4R"] {
        assert!(shown.contains(answer), "{answer} in\n{shown}");
    }
    rig.end().await;
}

#[actix::test]
async fn keystrokes_and_a_new_size_reach_the_child() {
    let script = "echo ready; while read -r l; do echo \"$l\" $(stty size); done";
    let mut rig = Rig::shell(script, Some("plain"));
    rig.started().await.unwrap();
    rig.shows("ready").await;
    let size = TermSize::new(30, 90).unwrap();
    rig.child.post::<Resize>().ask(|reply| Resize { size, reply }).await.unwrap().unwrap();
    let sent = rig.child.post::<Input>().ask(|reply| Input { bytes: b"typed\n".to_vec(), reply }).await;
    assert_eq!(sent.unwrap(), Ok(6));
    let shown = rig.shows("typed 30 90").await;
    assert_eq!(shown.size, size);
    rig.end().await;
}

#[actix::test]
async fn those_who_watch_get_all_output_with_its_offsets_and_others_cost_nothing() {
    let script =
        "read -r a; i=0; while [ $i -lt 200 ]; do echo line-$i; i=$((i+1)); done; echo done; read -r b";
    let mut rig = Rig::shell(script, Some("plain"));
    rig.started().await.unwrap();
    rig.child.post::<Input>().ask(|reply| Input { bytes: b"x".to_vec(), reply }).await.unwrap().unwrap();
    rig.shows("x").await;
    assert!(rig.book.borrow().chunks.is_empty(), "nobody watches");
    rig.stream_wanted.store(1, Ordering::Relaxed);
    let from = rig.shows("x").await.offset;
    rig.child.post::<Input>().ask(|reply| Input { bytes: b"\n".to_vec(), reply }).await.unwrap().unwrap();
    rig.until(|book| book.chunks.iter().any(|(text, _, _)| text.contains("done")).then_some(())).await;
    let end = rig.shows("done").await.offset;
    let chunks = rig.book.borrow().chunks.clone();
    let text: String = chunks.iter().map(|(text, _, _)| text.as_str()).collect();
    assert!((0..200).all(|n| text.contains(&format!("line-{n}\r\n"))));
    assert_eq!(from + text.len() as u64, end);
    assert_eq!(chunks.last().unwrap().2, end);
    let mut at = from;
    for (_, start, end) in chunks {
        assert_eq!(start, at, "a gap or a repeat");
        at = end;
    }
    rig.end().await;
}

#[actix::test]
async fn what_was_shown_is_recorded_to_the_end() {
    let mut rig = Rig::shell("printf 'h\\303\\251llo\\n'; read -r x; printf '\\033[1mbye\\n'", Some("plain"));
    rig.started().await.unwrap();
    let size = TermSize { rows: 30, cols: 90 };
    rig.child.post::<Resize>().ask(|reply| Resize { size, reply }).await.unwrap().unwrap();
    rig.child.post::<Input>().ask(|reply| Input { bytes: b"\n".to_vec(), reply }).await.unwrap().unwrap();
    rig.until(|book| book.exits.first().cloned()).await;
    let file = rig.dir.path().join("agents/ag_test/output.cast");
    let recording = until("the recording ends", async || {
        let text = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
        if text.contains("\"x\"") { Ok(text) } else { Err(text) }
    })
    .await;
    let events: Vec<(f64, String, String)> =
        recording.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
    let shown: String =
        events.iter().filter(|(_, code, _)| code == "o").map(|(_, _, data)| &**data).collect();
    assert_eq!(shown, "héllo\r\n\r\n\u{1b}[1mbye\r\n", "{recording}");
    assert!(events.iter().any(|(_, code, data)| code == "r" && data == "90x30"), "{recording}");
    assert_eq!(events.last().unwrap().2, "0");
}

#[actix::test]
async fn a_long_body_is_in_a_file_and_its_beginning_in_the_composer() {
    let mut rig = Rig::python("composer.py", &[], Some("generic"));
    rig.started().await.unwrap();
    let body = "0123456789abcde\n".repeat(3000);
    rig.send("d1", &body);
    rig.send("d2", "and this comes after it");
    assert_eq!(rig.proven("d1").await, Rung::Submitted);
    assert_eq!(rig.proven("d2").await, Rung::Submitted);
    let bodies = rig.dir.path().join("agents/ag_test/bodies");
    let files: Vec<_> = std::fs::read_dir(&bodies).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [file] = &files[..] else { panic!("{files:?}") };
    assert_eq!(std::fs::read_to_string(file).unwrap(), body.trim_end());
    rig.shows("submitted 2").await;
    rig.end().await;
    until_holds("the body goes with its agent", || !bodies.exists()).await;
}

#[actix::test]
async fn a_flood_neither_stops_the_worker_nor_spoils_the_screen() {
    let mut rig = Rig::shell("echo go; yes flooded | head -c 5000000; echo over; read -r x", Some("plain"));
    rig.started().await.unwrap();
    let shown = rig.shows("over").await;
    assert!(shown.offset > 5_000_000);
    rig.end().await;
}

#[actix::test]
async fn a_message_waits_in_a_composer_and_leaves_it_by_one_enter() {
    let mut rig = Rig::python("composer.py", &[], Some("generic"));
    rig.started().await.unwrap();
    rig.send("d1", "please look\nat the build");
    assert_eq!(rig.proven("d1").await, Rung::Submitted);
    let shown = rig.shows("submitted 1").await;
    assert!(shown.plain.contains("3 newlines, 1 enters"), "{}", shown.plain);
    let mut steps = rig.steps("d1");
    // How long the program takes to start is its own affair.
    steps.retain(|step| !matches!(step, InjectStep::Waiting(_)));
    assert_eq!(
        steps,
        [
            InjectStep::Reached(Rung::Written),
            InjectStep::Reached(Rung::Consumed),
            InjectStep::Reached(Rung::Landed),
            InjectStep::Proven(Rung::Submitted),
        ]
    );
    rig.send("d2", "and again");
    assert_eq!(rig.proven("d2").await, Rung::Submitted);
    rig.shows("submitted 2").await;
    rig.end().await;
}

#[actix::test]
async fn a_composer_that_ignores_enter_after_a_paste_is_asked_again_and_gets_the_text_once() {
    let mut rig = Rig::python("composer.py", &["deaf"], None);
    let started = rig.started().await.unwrap();
    assert_eq!(started.harness, "auto");
    rig.send("d1", "please look at the build");
    assert_eq!(rig.proven("d1").await, Rung::Submitted);
    let shown = rig.shows("submitted 1").await;
    assert!(shown.plain.contains("2 enters"), "{}", shown.plain);
    assert_eq!(shown.plain.matches("pasted 1").count(), 1, "{}", shown.plain);
    rig.end().await;
}

#[actix::test]
async fn an_interactive_shell_is_known_by_what_it_does_and_control_bytes_do_not_end_it() {
    let mut rig = Rig::new(spec("bash", &["--norc", "--noprofile", "-i"], None));
    rig.started().await.unwrap();
    rig.send("d1", "\u{1b}[201~\u{3}\u{4}\u{15}: hello");
    assert_eq!(rig.proven("d1").await, Rung::Submitted);
    rig.send("d2", "still there");
    assert_eq!(rig.proven("d2").await, Rung::Submitted);
    rig.end().await;
}
