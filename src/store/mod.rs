//! What outlives the process: private files, the machine's identity, the node token.
//!
//! Everything here blocks and knows no actor; rooms call it on a helper thread.

pub mod identity;
pub mod private_file;
pub mod token_cache;
