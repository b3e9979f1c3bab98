//! The identities of the house: one newtype per kind, so that no two can be swapped by mistake.
//!
//! Ids that an engine hands out are opaque strings and are never parsed as numbers (the engine's
//! identifiers are snowflakes in decimal, but nothing here may depend on that). Secrets are types without
//! `Display`, whose `Debug` shows nothing.

use std::{fmt, sync::Arc};

use rand::RngExt;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

macro_rules! opaque_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The id as the engine wrote it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(id: &str) -> Self {
                Self(id.into())
            }
        }

        impl From<String> for $name {
            fn from(id: String) -> Self {
                Self(id.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

macro_rules! counter_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The one after this.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(SecretString);

        impl $name {
            /// The secret itself. Every caller of this is a place where it could leak.
            pub fn expose(&self) -> &str {
                self.0.expose_secret()
            }

            /// True when this is it. How long the comparison takes does not tell how much of it was right, or
            /// how long the secret is.
            pub fn is(&self, given: &[u8]) -> bool {
                Sha256::digest(self.expose()).ct_eq(&Sha256::digest(given)).into()
            }
        }

        impl From<String> for $name {
            fn from(secret: String) -> Self {
                Self(SecretString::from(secret))
            }
        }

        impl From<&str> for $name {
            fn from(secret: &str) -> Self {
                Self(SecretString::from(secret))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("<secret>")
            }
        }
    };
}

opaque_id!(
    /// An agent, as the engine knows it. Survives renames, restarts and re-registration.
    AgentId
);
opaque_id!(
    /// A node, `node_` + 32 lowercase hex when derived by us, verbatim when pinned.
    NodeId
);
opaque_id!(
    /// A node's workspace-unique name.
    NodeName
);
opaque_id!(
    /// A workspace.
    WorkspaceId
);
opaque_id!(
    /// One message on its way to one agent. The key of everything that must not happen twice.
    DeliveryId
);
opaque_id!(
    /// A message. Several deliveries (one per member of a channel) share it.
    MsgId
);
opaque_id!(
    /// One question of one process, as it stands: the same dialog with another text is another one.
    DialogId
);
opaque_id!(
    /// An action that the engine asked this node to run.
    InvocationId
);
opaque_id!(
    /// A CLI's own session, by which it can be resumed.
    SessionRef
);

opaque_id!(
    /// One life of an agent's process, drawn when it is started.
    SpawnId
);
opaque_id!(
    /// Something that an agent has handed in, drawn when it is taken.
    ResultId
);

impl SessionRef {
    /// A name for a session that is about to begin.
    pub fn random() -> Self {
        uuid::Uuid::new_v4().to_string().into()
    }
}

impl SpawnId {
    /// A new one.
    pub fn random() -> Self {
        uuid::Uuid::new_v4().to_string().into()
    }
}

impl ResultId {
    /// A new one.
    pub fn random() -> Self {
        uuid::Uuid::new_v4().to_string().into()
    }
}

counter_id!(
    /// Position in an agent's mailbox: dense, first is 1; 0 marks a frame outside the mailbox.
    Seq
);
counter_id!(
    /// One life of the node session: bumped whenever a socket becomes live.
    Epoch
);
counter_id!(
    /// One life of an actor, or one minted token: bumped at each restart or mint. A late answer that
    /// carries an older generation is dropped and counted.
    Generation
);
counter_id!(
    /// Tells an agent of this broker process from another of the same name; restarts of its program keep it.
    Birth
);
counter_id!(
    /// Tells one connection of a sidecar from the next.
    SidecarId
);
counter_id!(
    /// Position in the broker's event stream, first is 1, restarts with the process.
    EventSeq
);

secret!(
    /// `at_…`: speaks as one agent.
    AgentToken
);
secret!(
    /// `nt_…`: opens the node socket and nothing else.
    NodeToken
);
secret!(
    /// `rk_…`: administers a workspace.
    WorkspaceKey
);
secret!(
    /// Guards the local HTTP API of this broker.
    ApiKey
);
secret!(
    /// `ar_…`: hands in results of one life of one agent's process, and nothing else.
    ResultToken
);

impl ResultToken {
    /// A new one, of 128 bits.
    pub fn random() -> Self {
        format!("ar_{:032x}", rand::rng().random::<u128>()).into()
    }
}

/// The longest agent name, in bytes (spec/api: names are `[A-Za-z0-9._-]{1,64}`).
pub const AGENT_NAME_MAX: usize = 64;

/// An agent's workspace-unique name: `[A-Za-z0-9._-]{1,64}`, and neither `.` nor `..`, so that it can be
/// part of a path, a URL and a header without escaping.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AgentName(Arc<str>);

/// Why a string is not an agent name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an agent name: use 1 to 64 letters, digits, dots, dashes or underscores")]
pub struct BadAgentName(String);

impl AgentName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`BadAgentName`] when a character or the length is not allowed.
    pub fn parse(name: &str) -> Result<Self, BadAgentName> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let fits = (1..=AGENT_NAME_MAX).contains(&name.len());
        if fits && name.chars().all(allowed) && name != "." && name != ".." {
            Ok(Self(name.into()))
        } else {
            Err(BadAgentName(name.chars().take(AGENT_NAME_MAX).collect()))
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for AgentName {
    type Error = BadAgentName;
    fn try_from(name: String) -> Result<Self, BadAgentName> {
        Self::parse(&name)
    }
}

impl From<AgentName> for String {
    fn from(name: AgentName) -> Self {
        name.0.to_string()
    }
}

impl fmt::Display for AgentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AgentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_secret_is_it() {
        let key = ApiKey::from("br_0123");
        assert!(key.is(b"br_0123"));
        for wrong in [&b""[..], b"br_012", b"br_01234", b"BR_0123", b"br_0123 "] {
            assert!(!key.is(wrong));
        }
    }

    #[test]
    fn names_that_could_leave_a_directory_or_a_line_are_refused() {
        for bad in ["", ".", "..", "../evil", "a/b", "a b", "a\nb", "é", &"x".repeat(65)] {
            assert!(AgentName::parse(bad).is_err(), "{bad:?} was accepted");
        }
        for good in ["a", "Alice-2", "x.y_z", &"x".repeat(64)] {
            assert_eq!(AgentName::parse(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn a_secret_never_shows_in_debug_output() {
        let token = AgentToken::from("at_live_0123");
        assert_eq!(format!("{token:?}"), "<secret>");
        assert_eq!(token.expose(), "at_live_0123");
    }
}
