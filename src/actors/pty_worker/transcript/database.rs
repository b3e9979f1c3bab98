//! A transcript that is a SQLite database: the rule set's query, asked anew at each look. Its program goes on
//! writing meanwhile, which readers do not hold up.
//!
//! The file belongs to the agent, so it is trusted with nothing: it is opened to be read alone and never through a
//! link, what its schema brings along runs no function that acts, and a query has a time and a size.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use rusqlite::{Connection, OpenFlags, Row, config::DbConfig, limits::Limit};

use super::{Found, line};
use crate::{harness::Records, ids::SessionRef};

/// The longest that one look may take.
const LOOK_MAX: Duration = Duration::from_millis(500);
/// Steps of SQLite's machine between two looks at the clock.
const STEPS: i32 = 10_000;
/// The longest that it waits for a lock: there is none for long.
const LOCKED_MAX: Duration = Duration::from_millis(50);
/// Most rows that are read of an answer.
const ROWS: usize = 256;
/// The largest value in bytes. The longest text that is typed has 16 KiB.
const VALUE_MAX: i32 = 1 << 20;

/// Where one child writes its turns down.
#[derive(Clone, Debug)]
pub(super) struct Database {
    dirs: Vec<PathBuf>,
    rules: &'static Records,
    query: &'static str,
    /// The start of the child, in milliseconds of Unix time.
    since: i64,
    /// The names of the directory that it runs in.
    cwds: Vec<String>,
}

impl Database {
    /// The database in the first of these directories of a child that has started at this time.
    pub(super) fn new(
        dirs: Vec<PathBuf>,
        rules: &'static Records,
        query: &'static str,
        since: SystemTime,
        cwds: Vec<String>,
    ) -> Self {
        let since = since.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Self { dirs, rules, query, since: i64::try_from(since).unwrap_or(i64::MAX), cwds }
    }

    /// Looks once for the turn of the message with this mark. Blocks for as long as [`LOOK_MAX`] allows.
    pub(super) fn look(&self, mark: &str) -> Option<Found> {
        // There may be none yet, or it is being made: the next look sees more.
        self.ask(mark).ok().flatten()
    }

    fn ask(&self, mark: &str) -> anyhow::Result<Option<Found>> {
        // The first that is there; it may itself be a link, which its owner made.
        let dir = self.dirs.iter().find_map(|dir| dir.canonicalize().ok());
        let connection = open(&dir.context("no such directory")?.join(&self.rules.file))?;
        let mut query = connection.prepare(self.query)?;
        if let Some(since) = query.parameter_index(":since")? {
            query.raw_bind_parameter(since, self.since)?;
        }
        let columns = query.column_count();
        let mut rows = query.raw_query();
        for _ in 0..ROWS {
            let Some(row) = rows.next()? else { break };
            // What is no text is no turn.
            let text = row.get_ref(0)?.as_str().unwrap_or_default();
            if line::is_turn(text, mark, &self.rules.turns) {
                let session = if columns < 3 { None } else { self.session(row) };
                return Ok(Some(Found { session }));
            }
        }
        Ok(None)
    }

    fn session(&self, row: &Row<'_>) -> Option<SessionRef> {
        let text = |column| row.get_ref(column).ok()?.as_str().ok();
        line::session_of(text(1)?, text(2)?, &self.cwds)
    }
}

fn open(file: &Path) -> anyhow::Result<Connection> {
    // SQLite would wait for the other end of a pipe.
    if !fs::symlink_metadata(file)?.is_file() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput).into());
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW
        | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let connection = Connection::open_with_flags(file, flags)?;
    let end = Instant::now() + LOOK_MAX;
    connection.progress_handler(STEPS, Some(move || Instant::now() >= end))?;
    connection.busy_timeout(LOCKED_MAX)?;
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, VALUE_MAX)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    const QUERY: &str = "SELECT turn.data, session.id, session.directory FROM turn \
                         JOIN session ON session.id = turn.session WHERE turn.time >= :since";
    const SCHEMA: &str = "PRAGMA journal_mode = WAL;
        CREATE TABLE session (id TEXT, directory TEXT);
        CREATE TABLE turn (session TEXT, time INTEGER, data TEXT);
        INSERT INTO session VALUES ('ses_1', '/work'), ('ses_2', '/elsewhere'), ('--yolo', '/work');";

    struct Home {
        dir: TempDir,
        writer: Connection,
    }

    impl Home {
        fn new() -> Self {
            let dir = TempDir::new().unwrap();
            let writer = Connection::open(dir.path().join("turns.db")).unwrap();
            writer.execute_batch(SCHEMA).unwrap();
            Self { dir, writer }
        }

        fn say(&self, session: &str, time: i64, id: &str) {
            let text = format!("{{\"role\":\"user\",\"text\":\"[relay DM from a · msg {id} · 1:00]\\nhi\"}}");
            self.writer.execute("INSERT INTO turn VALUES (?, ?, ?)", (session, time, text)).unwrap();
        }

        fn database(&self, name: &str, query: &'static str) -> Database {
            let rules = format!("dirs = []\nfile = '{name}'\nturns = [{{ all = ['\"role\":\"user\"'] }}]");
            let rules = Box::leak(Box::new(toml::from_str(&rules).unwrap()));
            let since = UNIX_EPOCH + Duration::from_millis(1000);
            Database::new(vec![self.dir.path().to_owned()], rules, query, since, vec!["/work".to_owned()])
        }

        fn finds(&self, mark: &str) -> Option<Option<SessionRef>> {
            self.database("turns.db", QUERY).look(mark).map(|found| found.session)
        }
    }

    #[test]
    fn a_turn_is_found_while_its_program_writes_and_with_it_the_session_of_the_directory() {
        let home = Home::new();
        assert_eq!(home.finds("msg 7"), None);
        home.say("ses_1", 1000, "7");
        home.say("ses_2", 1001, "8");
        home.say("--yolo", 1001, "9");
        home.writer.execute_batch("BEGIN IMMEDIATE").unwrap();
        home.say("ses_1", 1002, "10");
        assert_eq!(home.finds("msg 7"), Some(Some(SessionRef::from("ses_1"))));
        assert_eq!(home.finds("msg 8"), Some(None), "a session of another directory is not the agent's");
        assert_eq!(home.finds("msg 9"), Some(None), "it would be an option");
        assert_eq!(home.finds("msg 10"), None, "it may yet be taken back");
        home.writer.execute_batch("COMMIT").unwrap();
        assert_eq!(home.finds("msg 10"), Some(Some(SessionRef::from("ses_1"))));
    }

    #[test]
    fn what_was_there_before_the_program_proves_nothing() {
        let home = Home::new();
        home.say("ses_1", 999, "7");
        assert_eq!(home.finds("msg 7"), None);
    }

    #[test]
    fn nothing_is_written_whatever_the_query_says() {
        let home = Home::new();
        home.say("ses_1", 1000, "7");
        let spoil = "DELETE FROM turn RETURNING data";
        assert_eq!(home.database("turns.db", spoil).look("msg 7"), None);
        assert!(home.finds("msg 7").is_some());
    }

    #[test]
    fn no_link_no_pipe_and_nothing_else_is_opened() {
        let home = Home::new();
        home.say("ses_1", 1000, "7");
        symlink(home.dir.path().join("turns.db"), home.dir.path().join("link.db")).unwrap();
        nix::unistd::mkfifo(&home.dir.path().join("pipe.db"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::write(home.dir.path().join("text.db"), "[relay DM from a · msg 7 · 1:00]").unwrap();
        for name in ["link.db", "pipe.db", "text.db", "none.db"] {
            assert_eq!(home.database(name, QUERY).look("msg 7"), None, "{name}");
        }
        assert!(!home.dir.path().join("none.db").exists());
    }

    #[test]
    fn a_query_without_an_end_is_ended() {
        let home = Home::new();
        let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
                       SELECT '' FROM n WHERE i < 0";
        assert_eq!(home.database("turns.db", endless).look("msg 7"), None);
    }
}
