//! The files of a transcript, read as far as they have grown. Only ever read, and never through a link: below
//! the directory that the rule set names, a link is passed over.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{Found, line};
use crate::{
    harness::{Recorded, Records},
    ids::SessionRef,
};

/// Most files that are followed: those written to last.
const FILES: usize = 16;
/// Most entries of directories that one look goes into, newest names first.
const ENTRIES: usize = 4096;
/// Most bytes of one file in one look. A line that is longer is no turn of ours: the longest text that is typed
/// has 16 KiB.
const BYTES: u64 = 1 << 20;

/// Where one child writes its turns down.
#[derive(Clone, Debug)]
pub(super) struct Files {
    rules: &'static Records,
    sessions: Option<&'static Recorded>,
    /// The names of the directory that the child runs in.
    cwds: Vec<String>,
    dirs: Vec<PathBuf>,
    /// Files that were not touched since are of other children.
    since: SystemTime,
    tails: Vec<Tail>,
}

#[derive(Clone, Debug)]
struct Tail {
    path: PathBuf,
    /// Up to here it was looked at; always the end of a line.
    seen: u64,
}

impl Files {
    /// The files below these directories of a child that has started at this time.
    pub(super) fn new(
        rules: &'static Records,
        sessions: Option<&'static Recorded>,
        cwds: Vec<String>,
        dirs: Vec<PathBuf>,
        since: SystemTime,
    ) -> Self {
        Self { rules, sessions, cwds, dirs, since, tails: Vec::new() }
    }

    /// Looks once at what is new, for the turn of the message with this mark. Blocks for as long as the disk takes.
    pub(super) fn look(&mut self, mark: &str) -> Option<Found> {
        let path = self.read(mark).or_else(|| {
            self.discover();
            self.read(mark)
        })?;
        Some(Found { session: self.sessions.and_then(|rules| self.session(&path, rules)) })
    }

    /// The file with the turn.
    fn read(&mut self, mark: &str) -> Option<PathBuf> {
        // A file that has gone has nothing to say any more; it may come back.
        let has_it = |tail: &mut Tail| tail.read(mark, self.rules).unwrap_or(false);
        let nth = self.tails.iter_mut().position(has_it)?;
        self.tails.get(nth).map(|tail| tail.path.clone())
    }

    fn session(&self, path: &Path, rules: &Recorded) -> Option<SessionRef> {
        let mut line = String::new();
        BufReader::new(open(path).ok()?.take(BYTES)).read_line(&mut line).ok()?;
        line::session(&line, rules, &self.cwds)
    }

    fn discover(&mut self) {
        let mut found = Vec::new();
        // The first that is there; it may itself be a link, which its owner made.
        if let Some(dir) = self.dirs.iter().find_map(|dir| dir.canonicalize().ok()) {
            self.walk(&dir, self.rules.depth, &mut ENTRIES.clone(), &mut found);
        }
        found.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        let mut before = std::mem::take(&mut self.tails);
        self.tails.extend(found.into_iter().take(FILES).map(|(_, path)| {
            let known = before.iter().position(|tail| tail.path == path);
            known.map_or(Tail { path, seen: 0 }, |nth| before.swap_remove(nth))
        }));
    }

    fn walk(&self, dir: &Path, depth: u8, left: &mut usize, found: &mut Vec<(SystemTime, PathBuf)>) {
        let Ok(entries) = fs::read_dir(dir) else { return };
        let mut entries: Vec<_> = entries.filter_map(Result::ok).collect();
        // Names begin with a date where there may be many.
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.file_name()));
        entries.truncate(*left);
        *left -= entries.len();
        for entry in entries {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() && depth > 0 {
                self.walk(&entry.path(), depth - 1, left, found);
            } else if kind.is_file() && depth == 0 {
                found.extend(self.candidate(&entry));
            }
        }
    }

    fn candidate(&self, entry: &fs::DirEntry) -> Option<(SystemTime, PathBuf)> {
        if !line::fits(entry.file_name().to_str()?, &self.rules.file) {
            return None;
        }
        let path = entry.path();
        let touched = entry.metadata().and_then(|file| file.modified()).ok()?;
        (touched >= self.since).then_some((touched, path))
    }
}

/// Opens no link, and no pipe that would block.
fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

impl Tail {
    fn read(&mut self, mark: &str, rules: &Records) -> io::Result<bool> {
        let mut file = open(&self.path)?;
        let about = file.metadata()?;
        let Some(text) = self.news(&mut file, &about)? else { return Ok(false) };
        let mut at = self.seen;
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            at += line.len() as u64;
            if !line.ends_with(b"\n") {
                break;
            }
            self.seen = at;
            if line::is_turn(&String::from_utf8_lossy(line), mark, &rules.turns) {
                return Ok(true);
            }
        }
        if self.seen + BYTES <= at {
            // No line ends in so much: not what we look for.
            self.seen = at;
        }
        Ok(false)
    }

    /// What was added, as far as one look goes.
    fn news(&mut self, file: &mut File, about: &Metadata) -> io::Result<Option<Vec<u8>>> {
        if about.len() < self.seen {
            // Written anew.
            self.seen = 0;
        }
        if !about.is_file() || about.len() == self.seen {
            return Ok(None);
        }
        if self.seen == 0 && about.len() > BYTES {
            // A session from before that goes on: its past is not ours. The first line that is seen is a part of
            // one, which no turn of ours is.
            self.seen = about.len() - BYTES;
        }
        file.seek(SeekFrom::Start(self.seen))?;
        let mut text = Vec::new();
        file.take(BYTES).read_to_end(&mut text)?;
        Ok(Some(text))
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::fs::symlink, time::Duration};

    use tempfile::TempDir;

    use super::*;

    const RULES: &str = r#"
        dirs = ["~/.tool/sessions"]
        file = "run-*.jsonl"
        depth = 1
        turns = [{ all = ['"role":"user"'] }]
    "#;

    fn rules() -> &'static Records {
        Box::leak(Box::new(toml::from_str(RULES).unwrap()))
    }

    fn recorded() -> &'static Recorded {
        Box::leak(Box::new(Recorded { id: r#""id":"#.into(), cwd: r#""cwd":"#.into() }))
    }

    fn finds(files: &mut Files, mark: &str) -> bool {
        files.look(mark).is_some()
    }

    struct Home(TempDir);

    impl Home {
        fn new() -> Self {
            let home = TempDir::new().unwrap();
            fs::create_dir_all(home.path().join(".tool/sessions/22")).unwrap();
            Self(home)
        }

        fn file(&self, name: &str) -> PathBuf {
            self.0.path().join(".tool/sessions").join(name)
        }

        fn say(&self, name: &str, text: &str) {
            let mut file = OpenOptions::new().create(true).append(true).open(self.file(name)).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }

        fn files(&self) -> Files {
            let cwds = vec![self.0.path().to_str().unwrap().to_owned()];
            let since = SystemTime::now() - Duration::from_secs(1);
            Files::new(rules(), Some(recorded()), cwds, vec![self.0.path().join(".tool/sessions")], since)
        }
    }

    fn turn(id: &str) -> String {
        format!("{{\"role\":\"user\",\"text\":\"[relay DM from a · msg {id} · 1:00]\\nhi\"}}\n")
    }

    #[test]
    fn a_turn_is_found_when_its_line_is_whole() {
        let home = Home::new();
        let mut files = home.files();
        assert!(!finds(&mut files, "msg 7"), "there is no file yet");
        let line = turn("7");
        let (half, rest) = line.split_at(30);
        home.say("22/run-1.jsonl", "{\"first\":1}\n");
        home.say("22/run-1.jsonl", half);
        assert!(!finds(&mut files, "msg 7"));
        home.say("22/run-1.jsonl", rest);
        assert!(finds(&mut files, "msg 7"));
        assert!(!finds(&mut files, "msg 7"), "only what is new is read");
    }

    #[test]
    fn the_session_is_that_of_the_file_with_the_turn() {
        let home = Home::new();
        let begin = |cwd: &Path, id: &str| format!("{{\"id\":\"{id}\",\"cwd\":\"{}\"}}\n", cwd.display());
        home.say("22/run-1.jsonl", &(begin(home.0.path(), "s-1") + &turn("7")));
        home.say("22/run-2.jsonl", &(begin(home.0.path(), "s-2") + &turn("8")));
        home.say("22/run-3.jsonl", &(begin(Path::new("/elsewhere"), "s-3") + &turn("9")));
        home.say("22/run-4.jsonl", &(begin(home.0.path(), "--yolo") + &turn("10")));
        for (mark, session) in
            [("msg 8", Some("s-2")), ("msg 7", Some("s-1")), ("msg 9", None), ("msg 10", None)]
        {
            let found = Found { session: session.map(SessionRef::from) };
            assert_eq!(home.files().look(mark), Some(found), "{mark}");
        }
    }

    #[test]
    fn two_turns_of_one_look_are_both_found() {
        let home = Home::new();
        let mut files = home.files();
        home.say("22/run-1.jsonl", &(turn("7") + &turn("8")));
        assert!(finds(&mut files, "msg 7"));
        assert!(finds(&mut files, "msg 8"));
    }

    #[test]
    fn only_files_of_the_name_the_place_and_the_time_are_read() {
        let home = Home::new();
        let outside = home.0.path().join("outside.jsonl");
        fs::write(&outside, turn("7")).unwrap();
        symlink(&outside, home.file("22/run-link.jsonl")).unwrap();
        symlink(home.0.path(), home.file("23")).unwrap();
        home.say("run-above.jsonl", &turn("7"));
        home.say("22/walk-1.jsonl", &turn("7"));
        home.say("22/run-old.jsonl", &turn("7"));
        let old = SystemTime::now() - Duration::from_secs(60);
        File::options().append(true).open(home.file("22/run-old.jsonl")).unwrap().set_modified(old).unwrap();
        assert!(!finds(&mut home.files(), "msg 7"));
        home.say("22/run-old.jsonl", &turn("8"));
        assert!(finds(&mut home.files(), "msg 8"), "a session that goes on");
    }

    #[test]
    fn of_too_many_entries_the_newest_names_are_looked_at() {
        let home = Home::new();
        for run in 100..200 {
            home.say(&format!("22/run-{run}.jsonl"), "{}\n");
        }
        let (mut found, mut left) = (Vec::new(), 1 + 2);
        home.files().walk(&home.file(""), 1, &mut left, &mut found);
        let names: Vec<_> = found.iter().map(|(_, path)| path.file_name().unwrap()).collect();
        assert_eq!((names, left), (vec!["run-199.jsonl".as_ref(), "run-198.jsonl".as_ref()], 0));
    }

    #[test]
    fn of_many_files_in_one_home_those_that_were_written_last_are_followed() {
        let home = Home::new();
        let mut files = home.files();
        for run in 0..FILES {
            home.say(&format!("22/run-other-{run}.jsonl"), "{}\n");
        }
        assert!(!finds(&mut files, "msg 7"), "others write their turns there too");
        home.say("22/run-ours.jsonl", &turn("7"));
        assert!(finds(&mut files, "msg 7"));
        assert_eq!(files.tails.len(), FILES);
        let old = SystemTime::now() - Duration::from_millis(900);
        for run in 0..FILES {
            let other = home.file(&format!("22/run-other-{run}.jsonl"));
            File::options().append(true).open(other).unwrap().set_modified(old).unwrap();
        }
        home.say("22/run-next.jsonl", &turn("8"));
        assert!(finds(&mut files, "msg 8"), "a session that was begun later");
        assert!(!finds(&mut files, "msg 7"), "what is followed still is read once");
    }

    #[test]
    fn a_file_that_was_swapped_for_a_link_is_not_followed() {
        let home = Home::new();
        let mut files = home.files();
        home.say("22/run-1.jsonl", "{}\n");
        assert!(!finds(&mut files, "msg 7"));
        let outside = home.0.path().join("outside.jsonl");
        fs::write(&outside, turn("7")).unwrap();
        fs::remove_file(home.file("22/run-1.jsonl")).unwrap();
        symlink(&outside, home.file("22/run-1.jsonl")).unwrap();
        assert!(!finds(&mut files, "msg 7"));
    }

    #[test]
    fn of_a_large_file_only_the_end_is_read() {
        let home = Home::new();
        let filler = format!("{{\"x\":\"{}\"}}\n", "y".repeat(1000));
        home.say("22/run-1.jsonl", &turn("6"));
        home.say("22/run-1.jsonl", &filler.repeat(2000));
        home.say("22/run-1.jsonl", &turn("7"));
        let mut files = home.files();
        assert!(!finds(&mut files, "msg 6"));
        let mut files = home.files();
        assert!(finds(&mut files, "msg 7"));
        // A line without an end does not stop it.
        home.say("22/run-1.jsonl", &"z".repeat(3 << 20));
        home.say("22/run-1.jsonl", "\n");
        home.say("22/run-1.jsonl", &turn("8"));
        assert!((0..8).any(|_| finds(&mut files, "msg 8")));
    }
}
