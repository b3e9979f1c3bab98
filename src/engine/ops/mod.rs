//! What the engine does when asked, one transaction each. Routes and frames end here; what is decided comes
//! from `rules`, what is kept goes to `store`, what must leave the engine is noted as an effect.

pub(super) mod access;
mod agents;
mod invocations;
mod messages;
mod nodes;
mod sweep;

pub(super) use self::{agents::GENERAL, messages::Draft};
