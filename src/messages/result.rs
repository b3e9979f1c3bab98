//! What an agent hands in to whoever spawned it: http -> registry, which tells it as an event. What it is, nobody here
//! reads.

use serde_json::value::RawValue;

use super::{Reply, told};
use crate::ids::{AgentName, ResultId, ResultToken};

/// http -> registry: an agent hands something in.
#[derive(Debug)]
pub struct SubmitResult {
    /// What it shows: may be anybody's, or nobody's.
    pub token: ResultToken,
    /// Who it says it is, if it says so.
    pub agent: Option<String>,
    /// What it hands in: anything.
    pub data: Box<RawValue>,
    /// Whether nothing will follow.
    pub is_final: bool,
    /// What it says about it.
    pub metadata: Option<Box<RawValue>>,
    /// `None` when the token is not that of such an agent whose process runs.
    pub reply: Reply<Option<ResultTaken>>,
}

/// It was taken, and told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultTaken {
    /// Whose it is.
    pub name: AgentName,
    /// What it is called from now on.
    pub id: ResultId,
}

told!(SubmitResult);
