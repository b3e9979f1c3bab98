//! The journal on a real disk: what is told when, and what is found again.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::Command,
    time::{Duration, Instant},
};

use actix::{Actor, Context, Handler};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use proptest::prelude::*;

use super::{
    super::state::tests::{fold, record},
    *,
};
use crate::{
    ids::Seq,
    messages::lifecycle::{ActorId, ActorKind},
    store::{Outcome, Seen},
    supervision::Detail,
};

fn settled(seq: u64) -> Record {
    Record::Settled {
        agent: agent(),
        delivery: format!("del_{seq}").into(),
        msg: format!("msg_{seq}").into(),
        seq: Seq(seq),
        outcome: Outcome::Proven(crate::messages::delivery::Rung::Submitted),
    }
}

fn agent() -> AgentId {
    AgentId::from("agent_1")
}

fn seeded() -> Record {
    Record::Seeded { agent: agent(), at: Seq(0) }
}

fn state(journal: &Journal) -> State {
    journal.hold.inner.lock().state.clone()
}

fn fact(journal: &Journal, name: &str) -> u64 {
    let Detail::Facts(facts) = journal.probe().view().detail else { panic!("no facts") };
    facts.iter().find(|(fact, _)| *fact == name).unwrap().1.parse().unwrap()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(10), "never: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Hears [`Journalled`].
struct Ear(Arc<Mutex<Vec<u64>>>);
impl Actor for Ear {
    type Context = Context<Self>;
}
impl Handler<Journalled> for Ear {
    type Result = ();
    fn handle(&mut self, heard: Journalled, _ctx: &mut Context<Self>) {
        lock(&self.0).push(heard.ticket);
    }
}

fn ear() -> (Post<Journalled>, Arc<Mutex<Vec<u64>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let probe = Probe::new(ActorId::of(ActorKind::DeliveryCursor, "ear"));
    (Post::new(Ear(heard.clone()).start().recipient(), probe), heard)
}

#[actix::test]
async fn a_sync_that_would_satisfy_nobody_is_not_begun() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path().join("journal")).unwrap();
    let (post, _heard) = ear();
    let mut shared = journal.hold.inner.lock();
    (shared.appended, shared.written) = (Ticket(2), Ticket(1));
    shared.waiting.push((Ticket(2), post));
    assert!(!shared.is_sync_due(), "what is waited for is not written yet");
    shared.written = Ticket(2);
    assert!(shared.is_sync_due());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_reopened_journal_knows_what_it_knew_compacted_or_not(
        records in prop::collection::vec(record(), 0..120),
        compact_at in prop_oneof![Just(0u64), Just(u64::MAX / 8)],
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let journal = Journal::open_bounded(&path, compact_at).unwrap();
        for record in &records {
            journal.append(record.clone());
        }
        journal.close().unwrap();
        let mut expected = fold(&records);
        prop_assert_eq!(fold(&expected.records().collect::<Vec<_>>()), expected.clone());
        let reopened = Journal::open(&path).unwrap();
        // The stamps of these results are decades old.
        expected.forget_old(now_ms());
        prop_assert_eq!(state(&reopened), expected);
    }
}

#[actix::test]
async fn records_that_arrive_together_share_a_sync_and_everybody_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path().join("journal")).unwrap();
    let (post, heard) = ear();
    for seq in 1..=2000 {
        let ticket = journal.append(settled(seq));
        journal.notify(ticket, post.clone());
    }
    let last = journal.last_ticket();
    for _ in 0..2000 {
        if lock(&heard).len() == 2000 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let heard = lock(&heard).clone();
    assert_eq!(heard.len(), 2000);
    assert!(heard.is_sorted() && heard.last() == Some(&last.0), "told in order, the last at the end");
    journal.close().unwrap();
    assert_eq!(fact(&journal, "records"), 2000);
    let fsyncs = fact(&journal, "fsyncs");
    assert!((1..400).contains(&fsyncs), "{fsyncs} syncs for 2000 records");
    assert!(fact(&journal, "largest_batch") > 10);
}

#[actix::test]
async fn a_ticket_that_is_on_disk_already_is_answered_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path().join("journal")).unwrap();
    let (post, heard) = ear();
    journal.notify(journal.last_ticket(), post);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(*lock(&heard), [0]);
}

#[test]
fn a_record_reaches_the_kernel_at_once_though_nobody_waits_for_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let journal = Journal::open(&path).unwrap();
    journal.append(seeded());
    until("written", || fs::metadata(&path).unwrap().len() > 0);
    // What a SIGKILL leaves is what another reader sees now.
    let mut seen = State::default();
    until("readable", || {
        seen = State::default();
        segment::scan(&fs::read(&path).unwrap(), |record| seen.apply(&record));
        seen.cursor(&agent()).position == Some(Seq(0))
    });
    assert_eq!(journal.hold.inner.lock().synced, Ticket(0));
    until("synced after a while all the same", || journal.hold.inner.lock().synced == Ticket(1));
}

#[test]
fn a_file_that_grows_past_its_bound_is_compacted_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let journal = Journal::open_bounded(&path, 64 << 10).unwrap();
    journal.append(seeded());
    for seq in 1..=20_000 {
        journal.append(settled(seq));
        if seq % 500 == 0 {
            let last = journal.last_ticket();
            until("written", || journal.hold.inner.lock().written == last);
        }
    }
    let before = state(&journal);
    journal.close().unwrap();
    assert!(fact(&journal, "compactions") >= 2);
    assert!(fs::metadata(&path).unwrap().len() < 512 << 10);
    let reopened = Journal::open(&path).unwrap();
    assert_eq!(state(&reopened), before);
    assert_eq!(reopened.cursor(&agent()).position, Some(Seq(20_000)));
    assert_eq!(reopened.cursor(&agent()).messages.len(), crate::store::SEEN_MAX);
    assert_ne!(reopened.cursor(&agent()).messages, Seen::default());
}

#[test]
fn damage_is_counted_and_the_rest_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let journal = Journal::open(&path).unwrap();
    for seq in 1..=3 {
        journal.append(Record::GapSkipped { agent: agent(), from: Seq(seq), to: Seq(seq) });
    }
    journal.append(seeded());
    journal.close().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let third = bytes.windows(2).enumerate().filter(|(_, mark)| *mark == [0xFF, 0xFA]).nth(2).unwrap().0;
    bytes[third + 20] ^= 4;
    bytes.extend_from_slice(&[0xFF, 0xFA, 9, 0]);
    fs::write(&path, bytes).unwrap();
    let reopened = Journal::open(&path).unwrap();
    assert_eq!(reopened.cursor(&agent()).position, Some(Seq(2)), "the third record alone is lost");
    reopened.close().unwrap();
    assert_eq!(fact(&reopened, "damaged"), 2);
    assert_eq!(Journal::open(&path).unwrap().cursor(&agent()).position, Some(Seq(2)));
}

#[test]
fn the_file_is_private_whatever_it_was_before_and_a_link_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    Journal::open(&path).unwrap().close().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(matches!(Journal::open(&link), Err(JournalError::Io { .. })));
}

const FULL_DISK: &str = "JOURNAL_TEST_FULL_DISK";

/// The limit on file sizes is the process's own, so this test runs itself again under one.
#[test]
fn on_a_full_disk_nobody_is_told_nothing_panics_and_it_goes_on_once_there_is_room() {
    if std::env::var_os(FULL_DISK).is_some() {
        return on_a_full_disk();
    }
    let name = "store::journal::tests::on_a_full_disk_nobody_is_told_nothing_panics_and_it_goes_on_once_there_is_room";
    let run = "trap '' XFSZ; ulimit -S -f 16; exec \"$0\" --exact \"$1\" --nocapture";
    let test = std::env::current_exe().unwrap();
    let output =
        Command::new("sh").args(["-c", run]).arg(test).arg(name).env(FULL_DISK, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{:?}", output.stderr);
}

fn on_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let journal = Journal::open(&path).unwrap();
    journal.append(seeded());
    for seq in 1..=1000 {
        journal.append(settled(seq));
    }
    until("it says so", || journal.probe().view().state == "failed");
    assert!(journal.failure().unwrap().starts_with("write: "));
    let last = journal.last_ticket();
    assert!(journal.hold.inner.lock().synced < last);
    assert_eq!(journal.cursor(&agent()).position, Some(Seq(1000)), "the state goes on");
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();
    until("it recovers", || journal.failure().is_none());
    journal.close().unwrap();
    assert_eq!(Journal::open(&path).unwrap().cursor(&agent()).position, Some(Seq(1000)));

    let other = dir.path().join("other");
    let journal = Journal::open(&other).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, 100, hard).unwrap();
    for seq in 1..=10 {
        journal.append(settled(seq));
    }
    assert!(matches!(journal.close(), Err(JournalError::Unwritten { .. })), "closing never hangs");
    setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();
}

#[test]
fn a_failed_sync_is_mended_by_writing_everything_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let journal = Journal::open(&path).unwrap();
    journal.append(settled(1));
    until("synced", || journal.hold.inner.lock().synced == Ticket(1));
    // A pipe takes no sync.
    let (_reader, writer) = std::io::pipe().unwrap();
    let pipe: std::os::fd::OwnedFd = writer.into();
    journal.hold.inner.lock().file = Arc::new(pipe.into());
    journal.append(settled(2));
    until("mended", || journal.hold.inner.lock().synced == Ticket(2));
    until("and said so", || journal.failure().is_none());
    assert_eq!(fact(&journal, "compactions"), 1);
    journal.close().unwrap();
    let messages = Journal::open(&path).unwrap().cursor(&agent()).messages;
    assert_eq!(Vec::from(messages), ["msg_1".into(), "msg_2".into()]);
}

#[actix::test]
async fn a_record_is_in_the_file_once_it_is_said_to_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.log");
    let journal = Journal::open(&path).unwrap();
    for n in 0..50u64 {
        let ticket = journal.append(Record::Seeded { agent: format!("a{n}").as_str().into(), at: Seq(n) });
        if let Some(written) = journal.written(ticket) {
            written.await.unwrap();
        }
        let mut seen = 0;
        assert!(segment::scan(&Segment::read(&path).unwrap(), |_| seen += 1).is_empty());
        assert!(seen > n, "{seen} records of {}", n + 1);
        assert!(journal.written(ticket).is_none(), "it is still waited for");
    }
}
