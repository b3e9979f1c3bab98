//! A recorded screen: what a program showed, and what it must be judged.

use serde::{Deserialize, Serialize};

/// One screen. Stands in `fixtures/harness/<rule set>/<what it shows>.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recording {
    /// The rule set that judges it.
    pub harness: String,
    /// The version of the program; `?` until somebody has filled it in.
    pub version: String,
    /// What it must be judged: `not_ready`, `idle`, `working` or `blocked:<rule id>`; `?` until somebody has
    /// looked at it.
    pub state: String,
    /// A message was typed before.
    pub typed: bool,
    /// Rows of the terminal.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
    /// Cursor row and column, first is 1.
    pub cursor: (u16, u16),
    /// Terminal modes that are on, by the names of a snapshot.
    pub modes: Vec<String>,
    /// Window title.
    pub title: String,
    /// The rows from the first to the last that shows anything, trailing blanks cut.
    pub screen: Vec<String>,
}
