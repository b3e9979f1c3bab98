//! A sidecar is another program that handles invocations of this node: http -> registry, and the calls back.
//!
//! ```text
//! http ─RegisterSidecar─▶ registry             one at a time
//!      ─OfferHandlers───▶          ─SetOffer─▶ node_session
//!      ◀─Call───────────                       the engine has invoked a handler
//!      ─EndCall─────────▶
//!      ─SidecarGone─────▶                      it said goodbye, or its socket ended
//! ```

use tokio::sync::mpsc;

use super::{Reply, told};
use crate::ids::{InvocationId, SidecarId};

/// Calls of one sidecar that are under way at once.
pub const CALLS_MAX: usize = 64;

/// What a sidecar says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Its own name, for display: the node keeps the name that its token was made for.
    pub name: String,
    /// What it can handle.
    pub handlers: Vec<HandlerSpec>,
    /// Most agents at once, if it limits them: below what the node's own configuration says.
    pub max_agents: Option<u32>,
    /// Free words, added to the node's own.
    pub tags: Vec<String>,
}

/// One handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandlerSpec {
    /// `spawn:<harness>`, or the name of an action.
    pub name: String,
    /// A JSON object, shown by the engine.
    pub metadata: Option<String>,
}

/// What the node offers to the engine for its sidecar.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// What is handled.
    pub handlers: Vec<HandlerSpec>,
    /// Most agents at once.
    pub max_agents: Option<u32>,
    /// Further words about the node.
    pub tags: Vec<String>,
}

/// http -> registry: a sidecar has come. Nothing is offered to the engine yet.
#[derive(Debug)]
pub struct RegisterSidecar {
    /// What it says about itself.
    pub manifest: Manifest,
    /// The way to it, with room for [`CALLS_MAX`]. Closed when its socket is.
    pub calls: mpsc::Sender<Call>,
    /// Answered with what its further messages carry.
    pub reply: Reply<Result<SidecarId, SidecarRefused>>,
}

/// http -> registry: its handlers of these names are ready; no others are offered any more.
#[derive(Debug)]
pub struct OfferHandlers {
    /// Whose.
    pub sidecar: SidecarId,
    /// Each is in its manifest.
    pub names: Vec<String>,
    /// Answered when the engine has taken them, or is away and will be offered them when it is back.
    pub reply: Reply<Result<(), SidecarRefused>>,
}

/// registry -> http: run a handler. Each invocation is called once, whatever the engine repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Names it in [`EndCall`].
    pub invocation: InvocationId,
    /// Which handler.
    pub handler: String,
    /// JSON.
    pub input: String,
}

/// http -> registry: a call has ended.
#[derive(Debug)]
pub struct EndCall {
    /// Whose.
    pub sidecar: SidecarId,
    /// Which.
    pub invocation: InvocationId,
    /// JSON, or an error in words.
    pub outcome: Result<String, String>,
    /// Answered when the engine is being told.
    pub reply: Reply<Result<(), SidecarRefused>>,
}

/// http -> registry: it handles nothing any more. The agents of this node, and its session, go on.
#[derive(Debug)]
pub struct SidecarGone {
    /// Which.
    pub sidecar: SidecarId,
    /// Answered when nothing comes to it any more.
    pub reply: Reply<()>,
}

/// Why a sidecar does not get what it asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are in the texts")]
pub enum SidecarRefused {
    /// There is one already.
    #[error("the sidecar `{name}` is connected already; end it first")]
    Occupied { name: String },
    /// A name that cannot be offered, or a manifest beyond its bounds.
    #[error("handler `{name}`: {why}")]
    InvalidHandler { name: String, why: &'static str },
    /// The manifest as a whole cannot be.
    #[error("{0}")]
    InvalidManifest(String),
    /// The same name twice in a manifest.
    #[error("handler `{0}` is in the manifest twice")]
    Duplicate(String),
    /// The node's operator has decided what runs for it.
    #[error(
        "handler `{0}` is declared in the broker's configuration; take it out of there, or out of the manifest"
    )]
    Declared(String),
    /// Not in the manifest.
    #[error("handler `{0}` is not in the manifest that was registered")]
    NotInManifest(String),
    /// It has not registered, or has left.
    #[error("this sidecar is not registered; send register_node first")]
    NotRegistered,
    /// Nobody waits for a result of this invocation: it has one, or was never called.
    #[error("no call `{0}` is under way")]
    UnknownInvocation(InvocationId),
    /// The call has failed by this.
    #[error("an output of {0} bytes is too long; at most {1} are kept")]
    OutputTooLong(usize, usize),
    /// The engine does not take the handlers; they are not offered.
    #[error(transparent)]
    NotTaken(#[from] super::session::OfferRefused),
}

told!(RegisterSidecar, OfferHandlers, EndCall, SidecarGone);
