//! Agents: shell scripts that write down what they were told, so that what reached a program, how often and
//! in which order is counted from its own notes.
//!
//! A message says its text between `<<` and `>>`; a header may surround it.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use super::{expect, until};

/// An agent that writes every line it reads into a file.
pub(crate) struct Listener {
    pub(crate) name: String,
    log: PathBuf,
}

impl Listener {
    pub(crate) fn new(name: &str, log: PathBuf) -> Self {
        Self { name: name.to_owned(), log }
    }

    /// Allows a [`RATIONED`] one so many lines in all.
    pub(crate) fn allow(&self, lines: usize) {
        let quota = self.log.with_extension("notes.quota");
        // Never seen half written.
        fs::write(quota.with_extension("new"), lines.to_string()).unwrap();
        fs::rename(quota.with_extension("new"), quota).unwrap();
    }

    /// What it was told, oldest first, in all its lives.
    pub(crate) fn heard(&self) -> Vec<String> {
        texts(&fs::read_to_string(&self.log).unwrap_or_default())
    }

    /// The same, each with its whole line, which may hold several: the header says whether it may be there already.
    pub(crate) fn heard_lines(&self) -> Vec<(String, String)> {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let of_line =
            |line: &str| texts(line).into_iter().map(|text| (text, line.to_owned())).collect::<Vec<_>>();
        log.lines().flat_map(of_line).collect()
    }

    /// The lines in which a program of `tests/fixtures/programs` has noted its turns.
    pub(crate) fn turn_lines(&self) -> Vec<String> {
        let notes = fs::read_to_string(&self.log).unwrap_or_default();
        notes.lines().filter(|line| line.contains(r#""kind": "turn""#)).map(str::to_owned).collect()
    }

    /// What such a program was told in its turns, oldest first.
    pub(crate) fn turns(&self) -> Vec<String> {
        self.turn_lines().iter().flat_map(|line| texts(line)).collect()
    }

    /// It was told `0..sent`, in order. How many came again: each is marked as that.
    pub(crate) fn repeats(&self, sent: usize) -> usize {
        let (mut seen, mut repeats) = (0, 0);
        for (text, line) in self.heard_lines() {
            let n: usize = text.parse().unwrap();
            if n < seen {
                let marked = line.contains("redelivered");
                assert!(marked, "{} was told {n} twice and not told so: {line}", self.name);
                repeats += 1;
            } else {
                assert_eq!(n, seen, "{}: out of order or lost", self.name);
                seen += 1;
            }
        }
        assert_eq!(seen, sent, "{} missed something", self.name);
        repeats
    }

    /// Whether its notes say this anywhere.
    pub(crate) fn has(&self, wanted: &str) -> bool {
        fs::read_to_string(&self.log).unwrap_or_default().contains(wanted)
    }

    /// Waits until it was told exactly so many messages.
    pub(crate) fn hears(&self, count: usize) -> Vec<String> {
        until(&format!("{} hears {count} messages", self.name), || {
            let heard = self.heard();
            expect(heard.len() >= count, || {
                format!("{} messages, the last {:?}", heard.len(), heard.last())
            })?;
            Ok(heard)
        })
    }
}

/// The texts between `<<` and `>>`.
fn texts(log: &str) -> Vec<String> {
    let marked = log.split("<<").skip(1);
    marked.filter_map(|rest| Some(rest.split_once(">>")?.0.to_owned())).collect()
}

/// The text of a message as [`Listener`] finds it.
pub(crate) fn text(inner: impl std::fmt::Display) -> String {
    format!("<<{inner}>>")
}

/// Reads as fast as it comes.
pub(crate) const READER: &str = r#"exec cat >> "$LOG""#;
/// Reads as fast as it comes, and still writes down what it has read when the broker is killed: that ends the shell,
/// and its child sees the end of the terminal.
pub(crate) const SURVIVOR: &str = r#"trap '' HUP; exec 3<&0; cat <&3 >> "$LOG" & wait"#;
/// Reads fifty lines a second.
pub(crate) const SLOW_READER: &str =
    r#"while IFS= read -r line; do printf '%s\n' "$line" >> "$LOG"; sleep 0.02; done"#;
/// Reads as many lines as `$LOG.quota` allows, and looks again now and then whether it allows more.
pub(crate) const RATIONED: &str = r#"n=0; while [ "$n" -ge "$(cat "$LOG.quota")" ] && sleep 0.02 || IFS= read -r line; do
    [ -z "$line" ] || { printf '%s\n' "$line" >> "$LOG"; n=$((n + 1)); line=; }
done"#;
/// Never reads.
pub(crate) const DEAF: &str = "exec sleep 1000";
/// Ends with the code that it is told.
pub(crate) const QUITTER: &str = r#"IFS= read -r line; line=${line##*<<}; exit "${line%%>>*}""#;
/// Hears no HUP and no TERM, and has left a daemon behind that has nothing to do with its terminal.
pub(crate) const STUBBORN: &str =
    r#"trap '' HUP TERM INT; setsid sleep 1000 </dev/null >/dev/null 2>&1 & while :; do sleep 1; done"#;

/// The body of a spawn.
pub(crate) fn spawn_body(name: &str, script: &str) -> Value {
    // Who is to write down what it has read when the broker is killed must not be ended with it.
    let keep_daemons = script == SURVIVOR;
    json!({
        "name": name, "command": "sh", "args": ["-c", script], "harness": "plain", "channels": ["general"],
        "keep_daemons": keep_daemons,
    })
}
