//! How far the house has come: written by whoever builds it and by the registry (which hears of each
//! session), read by http. A shared value and not a message, because `/health` and `/readyz` must answer
//! while every actor is stuck.
//!
//! ```text
//! Starting --the house is built--> Offline <--the session comes and goes--> Live
//!                                     any --Shutdown--> Ending
//! ```

use std::sync::Arc;

use serde::Serialize;
use tokio::sync::watch;

use crate::ids::{NodeId, NodeName};

/// How far the house has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Readiness {
    /// Identity and workspace are being found; the API answers nothing but `/health`.
    Starting {
        /// What is being done, in words.
        doing: String,
    },
    /// The API serves; the node has no confirmed session at the engine.
    Offline {
        /// Why, in words.
        why: String,
        /// The next try, or what a person must do.
        next: String,
    },
    /// The engine has confirmed this node.
    Live {
        /// Its id there.
        node_id: NodeId,
        /// Its name there.
        node_name: NodeName,
    },
    /// The house is being closed.
    Ending,
}

impl Readiness {
    /// True while the engine has a confirmed session of this node.
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Live { .. })
    }
}

/// The one [`Readiness`] of the process. Cheap to clone, usable from any thread.
#[derive(Clone, Debug)]
pub struct ReadinessBoard(Arc<watch::Sender<Readiness>>);

impl Default for ReadinessBoard {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Readiness::Starting { doing: "starting".to_owned() })))
    }
}

impl ReadinessBoard {
    /// Replaces the value. Once the house is ending it stays so: a session that is torn down on the way
    /// out is no news.
    pub fn set(&self, now: Readiness) {
        self.0.send_if_modified(|held| {
            let news = *held != now && *held != Readiness::Ending;
            if news {
                *held = now;
            }
            news
        });
    }

    /// The value now.
    pub fn get(&self) -> Readiness {
        self.0.borrow().clone()
    }

    /// A look at the value without copying it.
    pub fn with<T>(&self, look: impl FnOnce(&Readiness) -> T) -> T {
        look(&self.0.borrow())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_house_does_not_come_back() {
        let board = ReadinessBoard::default();
        assert!(matches!(board.get(), Readiness::Starting { .. }));
        board.set(Readiness::Ending);
        board.set(Readiness::Offline { why: "closed".into(), next: "none".into() });
        assert_eq!(board.get(), Readiness::Ending);
    }
}
