//! Bodies of the engine's HTTP API (spec/wire 1). The client reads them leniently: what a body cannot do
//! without is required, everything else has a default, unknown keys are ignored. The embedded engine writes
//! the same types, so every key that its clients expect is there, null where the contract says null.

mod agents;
mod messages;
mod nodes;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

pub use self::{agents::*, messages::*, nodes::*};
use super::{
    frames::{AcceptedCapability, Provider},
    json::{null_as_default, number_or_null, secret},
};
use crate::{
    ids::{AgentId, AgentToken, MsgId, NodeId, NodeName, NodeToken, Seq, WorkspaceId, WorkspaceKey},
    messages::delivery::Mode,
};

/// The body of a success.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound(deserialize = "T: DeserializeOwned"))]
pub struct Success<T> {
    /// True.
    pub ok: bool,
    /// The result.
    pub data: T,
    /// Where a list goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
}

impl<T> Success<T> {
    /// A success with this result.
    pub fn new(data: T) -> Self {
        Self { ok: true, data, cursor: None }
    }
}

/// Where a list goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cursor {
    /// Pass it on to get more.
    pub next: Option<String>,
    /// Whether there is more.
    pub has_more: bool,
}

/// Why a request failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FailureCause {
    /// What to decide on.
    pub code: String,
    /// For people.
    pub message: String,
}

/// `GET /health`; the one answer without `data`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// True.
    pub ok: bool,
    /// The engine's version.
    pub version: String,
    /// Its build.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build: Option<Value>,
}

/// `POST /v1/workspaces`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateWorkspace {
    /// Its name.
    pub name: String,
}

/// Answer of `POST /v1/workspaces`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CreatedWorkspace {
    /// Its id.
    pub workspace_id: WorkspaceId,
    /// Its key.
    #[serde(default, with = "secret::optional", skip_serializing_if = "Option::is_none")]
    pub api_key: Option<WorkspaceKey>,
    /// ISO 8601.
    #[serde(default)]
    pub created_at: String,
}

/// `GET /v1/workspace`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Workspace {
    /// Its id.
    pub id: WorkspaceId,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// `free`, `pro` or `enterprise`.
    #[serde(default)]
    pub plan: String,
    /// For agents.
    #[serde(default)]
    pub system_prompt: Option<String>,
    /// ISO 8601.
    #[serde(default)]
    pub created_at: String,
    /// Anything.
    #[serde(default, deserialize_with = "null_as_default")]
    pub metadata: Map<String, Value>,
    /// 64 hex digits. Not in the schema, and yet clients written in Rust fail without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_hash: Option<String>,
}
