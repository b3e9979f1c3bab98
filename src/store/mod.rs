//! What outlives the process: the journal, the tokens and the machine's identity.

mod agent_files;
pub mod identity;
mod journal;
pub mod private_file;
mod record;
mod seen;
mod segment;
mod spans;
mod state;
pub mod token_cache;

pub use crate::messages::dead_letter::DeadLetter;
pub use agent_files::{AgentDir, AgentFiles, BODY_MAX, recordings};
pub use journal::{Journal, JournalError, Ticket};
pub use record::{LiveAgent, Outcome, Record};
pub use seen::{SEEN_MAX, Seen};
pub use spans::Spans;
pub use state::{
    ABSENT_CURSORS_MAX, AGENTS_KNOWN_MAX, Attempt, CursorState, DEAD_LETTERS_MAX, EXITS_MAX,
    INVOCATION_KEPT_MS, INVOCATIONS_MAX,
};
