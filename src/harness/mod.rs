//! What we know of each program that can be an agent, as data: when it is ready, when it is busy, how a
//! message is typed into it, and what proves that it took it.
//!
//! One TOML file per program in `data/`, compiled in; a user's own files replace them or add to them. Code
//! never names a program. A rule looks at a region of the screen for plain texts; regions keep a rule from
//! being triggered by what a message merely quotes.
//!
//! See docs/harness.md for every field and an example.

mod arguments;
mod catalogue;
mod data;
mod keys;
mod lint;
mod recording;
mod rule;
mod schema;
#[cfg(test)]
mod tests;
mod verdict;

pub use arguments::{SessionStart, Start};
pub use catalogue::{AlreadyChosen, BadFile, Catalogue, Entry, Origin};
pub use data::DEFAULT_PROGRAM;
pub use keys::{BadKeys, Keys};
pub use lint::{Fault, read, read_file};
pub use recording::Recording;
pub use rule::{Dialog, Place, Rule, Severity};
pub use schema::{
    Additions, Busy, Composer, ComposerKind, Grants, Harness, Mcp, Newline, Proof, Queue, Ready, Recorded,
    Records, Session, Steer, Submit, Text, TurnRule,
};
pub use verdict::Verdict;
