//! Words of the engine that more than one side of the door goes by: error codes, a capability, a kind of id.
//!
//! Codes that are only handed through to a person stand where they are made.

/// Error code of a frame that the engine could not read.
pub const INVALID_MESSAGE: &str = "invalid_message";
/// Error code of a name that another agent has (spec/wire 7).
pub const AGENT_EXISTS: &str = "agent_already_exists";
/// Error code of an inventory of which one agent is active on another node; the whole is refused (spec/wire 4.6).
pub const LOCATION_CONFLICT: &str = "agent_location_conflict";
/// Error code of a registration while another instance holds the provider (spec/wire 7).
pub const INSTANCE_CONFLICT: &str = "provider_instance_conflict";
/// Capability of a node that keeps a durable cursor per agent, and wants to hear where each mailbox stands (spec/wire
/// 7, 6.0.3).
pub const CURSOR_CAPABILITY: &str = "relay:delivery-cursor-v1";
/// How the delivery ids begin that come again and again: these events are keyed by the action alone (spec/wire 4.1).
pub const REPEATING_DELIVERY: &str = "evt_action_denied_";
