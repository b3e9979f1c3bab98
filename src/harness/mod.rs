//! What we know of each program that can be an agent, as data: when it is ready, when it is busy, how a
//! message is typed into it, and what proves that it took it.
//!
//! One TOML file per program in `data/`, compiled in; a user's own files replace them or add to them. Code
//! never names a program. A rule looks at a region of the screen for plain texts; regions keep a rule from
//! being triggered by what a message merely quotes.
//!
//! ```toml
//! name = "otter"                      # `harness` of a spawn
//! version = "1.4.0"                   # whose screens were recorded
//! match = ["otter"]                   # programs it is for
//! inherits = "generic"                # its idle, working and blocked rules come after ours
//! proof = "accepted"                  # consumed | submitted | accepted
//! quit = "ctrl-c ctrl-c"
//!
//! [composer]
//! kind = "always"                     # never | always | seen
//! empty = ["Ask anything"]
//!
//! [ready]
//! needs_paste = true
//!
//! [[ready.rules]]
//! id = "placeholder"
//! region = "bottom:6"
//! any = ["Ask anything"]
//!
//! [submit]
//! newline = "paste"                   # paste | ctrl-j | flatten
//!
//! [busy]
//! queue = "tab"                       # hold, or the key of the program's own queue
//! steer = "interrupt"                 # none | enter | interrupt
//! interrupt = "esc"
//!
//! [[blocked]]
//! id = "trust"
//! region = "bottom:12"
//! all = ["Trust this folder?"]
//! severity = "setup"                  # question | setup | auth
//! answer = { trust = "1", quit = "2" }
//! ```
//!
//! See docs/harness.md for every field.

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

pub use arguments::Start;
pub use catalogue::{AlreadyChosen, BadFile, Catalogue, Entry, Origin};
pub use data::DEFAULT_PROGRAM;
pub use keys::{BadKeys, Keys};
pub use lint::{Fault, read, read_file};
pub use recording::Recording;
pub use rule::{Dialog, Place, Rule, Severity};
pub use schema::{
    Additions, Busy, Composer, ComposerKind, Grants, Harness, Mcp, McpStyle, Newline, Proof, Queue, Ready,
    RecordFormat, Records, Session, Steer, Submit, Text,
};
pub use verdict::Verdict;
