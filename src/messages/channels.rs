//! The channels of an agent that lives: http -> registry, which asks the engine with the agent's own token.

use super::{Reply, told};
use crate::ids::AgentName;

/// http -> registry: the agent is to hear these channels, or no more.
#[derive(Debug)]
pub struct ChangeChannels {
    /// Whose.
    pub name: AgentName,
    /// What is to become of its membership.
    pub change: Membership,
    /// By name, with or without `#`. A channel that is joined is made when there is none.
    pub channels: Vec<String>,
    /// Answered with all channels of the agent, once the engine has changed every one or refused one; those
    /// before it are changed.
    pub reply: Reply<Result<Vec<String>, ChannelsRefused>>,
}

/// What is to become of a membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// Begins, or stays.
    Join,
    /// Ends, if there is one.
    Leave,
}

/// Why a membership is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelsRefused {
    /// There is no such agent, or the engine does not know it yet.
    #[error("no registered agent named `{0}`; `relay-broker ps` lists them")]
    NoSuchAgent(AgentName),
    /// The engine cannot be reached now.
    #[error("`#{channel}` is unchanged, the engine cannot be reached: {why}")]
    Unreachable {
        /// Which channel.
        channel: String,
        /// In words.
        why: String,
    },
    /// The engine said no.
    #[error("`#{channel}` is unchanged, the engine refused: {why}")]
    Engine {
        /// Which channel.
        channel: String,
        /// Its words.
        why: String,
    },
}

told!(ChangeChannels);
