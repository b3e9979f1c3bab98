//! node_session asks token_mint for the node token; token_mint answers once for all who wait.

use std::time::Duration;

use super::{Reply, told};
use crate::ids::{Generation, NodeId, NodeName, NodeToken};

/// node_session -> token_mint: the token, please.
#[derive(Debug)]
pub struct GetToken {
    /// The generation that the engine refused with a 401, if that is why we ask. A newer token that is
    /// already there is answered as it is; else one is minted, once for all who ask.
    pub rejected: Option<Generation>,
    /// Answered exactly once.
    pub reply: Reply<Result<TokenGrant, TokenRefused>>,
}

/// A usable token and the identity it belongs to.
#[derive(Clone, Debug)]
pub struct TokenGrant {
    /// The token.
    pub token: NodeToken,
    /// Bumped at each mint; 0 for one that was configured or cached.
    pub generation: Generation,
    /// The node that the token opens.
    pub node_id: NodeId,
    /// The node's name at the engine.
    pub node_name: NodeName,
}

/// Why there is no token now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefused {
    /// Trouble that passes: engine unreachable, 5xx, 429.
    #[error("no node token yet: {why}; trying again in {after:?}")]
    Retry {
        /// In words.
        why: String,
        /// Ask again after this long.
        after: Duration,
    },
    /// The workspace key was refused or has expired, or a pinned token was refused: a person must act.
    #[error("no node token: {why}")]
    KeyRefused {
        /// In words, with the next step.
        why: String,
    },
}

/// node_session -> token_mint: the engine does not accept our id under this name (`node_id_mismatch`,
/// `node_not_found`, `node_name_conflict`): enrol again, under another name if need be.
#[derive(Debug)]
pub struct EnrolAgain {
    /// The engine's error code.
    pub code: String,
    /// Answered exactly once.
    pub reply: Reply<Result<TokenGrant, TokenRefused>>,
}

told!(GetToken, EnrolAgain);
