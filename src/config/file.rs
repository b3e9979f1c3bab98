//! `relay-broker.toml`: which keys there are, of which kind, and reading them. Unknown keys and wrong kinds
//! are problems of their own, so that what follows only meets values it can use.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use toml::Value;

use super::resolve::Problem;

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Texts,
    Flag,
    Number { max: u64 },
    Millis,
}

/// Every key, with its table's name before a dot.
const KEYS: &[(&str, Kind)] = &[
    ("name", Kind::Text),
    ("node_name", Kind::Text),
    ("node_id", Kind::Text),
    ("workspace_key", Kind::Text),
    ("engine", Kind::Text),
    ("engine_ws", Kind::Text),
    ("channels", Kind::Texts),
    ("harnesses", Kind::Texts),
    ("max_agents", Kind::Number { max: u32::MAX as u64 }),
    ("record_output", Kind::Flag),
    ("mcp", Kind::Flag),
    ("api.bind", Kind::Text),
    ("api.port", Kind::Number { max: u16::MAX as u64 }),
    ("api.key", Kind::Text),
    ("api.allow_remote", Kind::Flag),
    ("timings.heartbeat_ms", Kind::Millis),
    ("timings.silence_ms", Kind::Millis),
    ("timings.sync_ms", Kind::Millis),
    ("timings.register_ms", Kind::Millis),
    ("timings.agent_register_ms", Kind::Millis),
    ("timings.healthy_ms", Kind::Millis),
    ("timings.survival_ms", Kind::Millis),
];

/// The table of declared handlers.
const HANDLERS: &str = "handlers";
/// Longest period that a file may set: a day.
const MILLIS_MAX: u64 = 86_400_000;

/// A configuration file that was read, or nothing.
#[derive(Debug, Default)]
pub(super) struct File {
    path: PathBuf,
    values: BTreeMap<&'static str, Value>,
    handlers: BTreeMap<String, Handler>,
}

/// `[handlers."<capability>"]`, as it stands there.
#[derive(Debug)]
pub(super) struct Handler {
    /// A program and its arguments.
    pub(super) command: Vec<String>,
    /// Milliseconds.
    pub(super) timeout: Option<u64>,
}

impl File {
    /// Reads a file's text. Keys that cannot be used become problems and are left out.
    pub(super) fn parse(path: &Path, text: &str, problems: &mut Vec<Problem>) -> Self {
        let mut file = Self { path: path.to_owned(), values: BTreeMap::new(), handlers: BTreeMap::new() };
        match text.parse::<toml::Table>() {
            Ok(table) => file.take("", table, problems),
            Err(error) => {
                let line = error.span().map_or(1, |at| 1 + text[..at.start].matches('\n').count());
                let said = error.message().lines().next().unwrap_or("not TOML").to_owned();
                problems.push(Problem::new(format!("{}:{line}", path.display()), said));
            }
        }
        file
    }

    /// How a key is named in a problem.
    pub(super) fn source(&self, key: &str) -> String {
        format!("`{key}` in {}", self.path.display())
    }

    /// A text.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.values.get(key)?.as_str().filter(|text| !text.is_empty())
    }

    /// A list of texts.
    pub(super) fn texts(&self, key: &str) -> Option<Vec<&str>> {
        Some(self.values.get(key)?.as_array()?.iter().filter_map(Value::as_str).collect())
    }

    /// A number, within the bounds of its key.
    pub(super) fn number(&self, key: &str) -> Option<u64> {
        self.values.get(key)?.as_integer()?.try_into().ok()
    }

    /// A yes or no.
    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        self.values.get(key)?.as_bool()
    }

    /// The tables `[handlers."<capability>"]`.
    pub(super) fn handlers(&self) -> &BTreeMap<String, Handler> {
        &self.handlers
    }

    /// The one table whose keys are the user's own.
    fn take_handlers(&mut self, value: Value, problems: &mut Vec<Problem>) {
        const WANTED: &str = "must be a table with `command`, a list of a program and its arguments, and for an action \
                              perhaps `timeout_ms`, a number from 1 to a day";
        let Value::Table(handlers) = value else {
            let said = "must be a table of tables, one for each `spawn:<harness>` or action".to_owned();
            problems.push(Problem::new(self.source(HANDLERS), said));
            return;
        };
        for (name, handler) in handlers {
            match handler_of(&handler) {
                Some(handler) => {
                    self.handlers.insert(name, handler);
                }
                None => problems
                    .push(Problem::new(self.source(&format!("{HANDLERS}.\"{name}\"")), WANTED.to_owned())),
            }
        }
    }

    fn take(&mut self, prefix: &str, table: toml::Table, problems: &mut Vec<Problem>) {
        for (name, value) in table {
            let key = format!("{prefix}{name}");
            if key == HANDLERS {
                self.take_handlers(value, problems);
                continue;
            }
            let is_table = KEYS.iter().any(|(known, _)| known.starts_with(&format!("{key}.")));
            match (KEYS.iter().find(|(known, _)| *known == key), value) {
                (None, Value::Table(inner)) if is_table => self.take(&format!("{key}."), inner, problems),
                (None, _) if is_table => {
                    problems.push(Problem::new(self.source(&key), "must be a table".to_owned()));
                }
                (None, _) => {
                    let said = "no such key; docs/operations.md lists them".to_owned();
                    problems.push(Problem::new(self.source(&key), said));
                }
                (Some((known, kind)), value) => match kind.accepts(&value) {
                    Ok(()) => {
                        self.values.insert(known, value);
                    }
                    Err(wanted) => {
                        problems.push(Problem::new(self.source(&key), format!("must be {wanted}")))
                    }
                },
            }
        }
    }
}

fn handler_of(value: &Value) -> Option<Handler> {
    let keys = value.as_table()?;
    let timeout = match keys.get("timeout_ms") {
        Some(given) => Some(given.as_integer()?.try_into().ok().filter(|ms| (1..=MILLIS_MAX).contains(ms))?),
        None => None,
    };
    let known = 1 + usize::from(timeout.is_some());
    let command = keys.get("command").and_then(texts_of)?;
    (keys.len() == known).then_some(Handler { command, timeout })
}

fn texts_of(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
}

impl Kind {
    fn accepts(self, value: &Value) -> Result<(), String> {
        let within = |low: u64, high: u64| {
            let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
            number.is_some_and(|number| (low..=high).contains(&number))
        };
        let (fits, wanted) = match self {
            Self::Text => (value.is_str(), "a text in quotes".to_owned()),
            Self::Texts => {
                let all = value.as_array().is_some_and(|items| items.iter().all(Value::is_str));
                (all, "a list of texts in quotes".to_owned())
            }
            Self::Flag => (value.is_bool(), "true or false".to_owned()),
            Self::Number { max } => (within(0, max), format!("a whole number from 0 to {max}")),
            Self::Millis => {
                (within(1, MILLIS_MAX), format!("a whole number of milliseconds from 1 to {MILLIS_MAX}"))
            }
        };
        if fits { Ok(()) } else { Err(wanted) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (File, Vec<String>) {
        let mut problems = Vec::new();
        let file = File::parse(Path::new("rb.toml"), text, &mut problems);
        (file, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn every_bad_key_of_a_file_is_reported_and_the_good_ones_are_kept() {
        let (file, problems) = parse(
            "name = 'n'\nport = 1\nchannels = 'general'\napi.port = 70000\ntimings = 3\n\
             [api2]\nx = 1\n",
        );
        assert_eq!(file.text("name"), Some("n"));
        assert_eq!(file.number("api.port"), None);
        assert_eq!(problems.len(), 5, "{problems:#?}");
        for wanted in ["`port`", "`channels`", "`api.port`", "`timings`", "`api2`"] {
            assert!(problems.iter().any(|problem| problem.contains(wanted)), "{wanted}: {problems:#?}");
        }
    }

    #[test]
    fn a_file_that_is_not_toml_is_reported_with_its_line() {
        let (_, problems) = parse("name = 'n'\nwhat is this\n");
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("rb.toml:2: "), "{problems:?}");
    }

    #[test]
    fn a_file_cannot_speak_to_the_terminal_through_a_problem() {
        let (_, problems) = parse("\"a\\nb\\u001b[2J\" = 1\n");
        assert_eq!(problems.len(), 1);
        assert!(!problems[0].contains(char::is_control), "{problems:?}");
    }

    #[test]
    fn a_period_of_nothing_is_refused() {
        let (file, problems) = parse("timings.heartbeat_ms = 0\ntimings.silence_ms = 40\n");
        assert_eq!(file.number("timings.silence_ms"), Some(40));
        assert_eq!(problems.len(), 1);
    }
}
