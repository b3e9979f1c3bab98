//! Which token answers a question, and what a failure of the engine means for who asks.
//!
//! pinned > held > cached > minted. A token that the engine refused is never given again, except a pinned one at
//! the slow probe, because nothing else can take its place.

use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::{
    ids::{Generation, NodeId, NodeName},
    messages::token::TokenRefused,
    store::identity::hex_prefix,
    wire::client::{ApiError, ApiErrorKind},
};

/// First pause that is asked of those who wait for a token.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// Longest pause, unless the engine names a longer one.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Longest part of a host name in a node name.
const HOST_MAX: usize = 40;
/// Hex digits of the node id in a default name.
const NAME_HEX: usize = 6;

/// What to do about a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Answer with the token at hand.
    Give,
    /// Look into the cache, then mint.
    Resolve,
    /// Mint: the token at hand is dead.
    Mint,
    /// A pinned token was refused: nobody can mint another.
    RefusePinned,
}

/// What is at hand.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AtHand {
    /// A token is pinned.
    pub(super) pinned: bool,
    /// It was given in this life of the mint.
    pub(super) pinned_given: bool,
    /// The generation of the token that was found or minted.
    pub(super) held: Option<Generation>,
}

/// What to do about a question from somebody whose token of this generation was refused.
pub(super) fn next(at_hand: AtHand, rejected: Option<Generation>) -> Next {
    match (at_hand, rejected) {
        (AtHand { pinned: true, pinned_given: true, .. }, Some(_)) => Next::RefusePinned,
        (AtHand { pinned: true, .. }, _) => Next::Give,
        (AtHand { held: Some(held), .. }, rejected) if rejected.is_none_or(|refused| held > refused) => {
            Next::Give
        }
        (AtHand { held: Some(_), .. }, _) | (_, Some(_)) => Next::Mint,
        (AtHand { held: None, .. }, None) => Next::Resolve,
    }
}

/// The name of a node that was given none. It contains something of the directory: on old engines a second
/// node of the same name takes the first one's token away (spec/wire 1.5).
pub(super) fn default_name(host: &str, node_id: &NodeId) -> NodeName {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let host = host.split('.').next().unwrap_or_default();
    let host: String = host.chars().take(HOST_MAX).map(plain).collect();
    let host = host.trim_matches('-');
    let host = if host.is_empty() { "node" } else { host };
    NodeName::from(format!("{host}-{}", short_id(node_id)))
}

/// The first hex digits of a derived id; of a pinned one, those of its digest.
fn short_id(node_id: &NodeId) -> String {
    let digits = node_id.as_str().strip_prefix("node_").and_then(|rest| rest.get(..NAME_HEX));
    match digits {
        Some(hex) if hex.bytes().all(|c| c.is_ascii_hexdigit()) => hex.to_ascii_lowercase(),
        _ => hex_prefix(&Sha256::digest(node_id.as_str().as_bytes()), NAME_HEX),
    }
}

/// What a failed call means for those who wait. `failures` counts the failures in a row before this one.
pub(super) fn refusal(error: &ApiError, failures: u32) -> TokenRefused {
    let status = error.status.map_or(String::new(), |status| format!(" (status {status})"));
    let why = format!("{error}{status}");
    match (error.kind, error.status) {
        (ApiErrorKind::Unsendable, _) => {
            TokenRefused::KeyRefused { why: format!("the workspace key cannot be sent: {why}") }
        }
        (ApiErrorKind::Status, Some(401)) if error.is("workspace_expired") => TokenRefused::KeyRefused {
            why: format!("the workspace has expired; set the key of another: {why}"),
        },
        (ApiErrorKind::Status, Some(401)) => {
            TokenRefused::KeyRefused { why: format!("the workspace key is refused; set a valid one: {why}") }
        }
        (ApiErrorKind::Status, Some(403)) => {
            TokenRefused::KeyRefused { why: format!("this workspace key may not enrol nodes: {why}") }
        }
        (ApiErrorKind::Status, Some(404)) => later(
            format!("this engine offers no nodes to this workspace: {why}"),
            failures,
            error.retry_after,
        ),
        _ => later(why, failures, error.retry_after),
    }
}

/// "Ask again", after a pause that doubles with the failures in a row.
pub(super) fn later(why: String, failures: u32, asked: Option<Duration>) -> TokenRefused {
    let pause = PAUSE_FIRST.saturating_mul(1 << failures.min(10)).min(PAUSE_MAX);
    TokenRefused::Retry { why, after: asked.map_or(pause, |asked| asked.max(pause)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: ApiErrorKind, status: Option<u16>, code: &str) -> ApiError {
        ApiError { kind, status, code: code.to_owned(), message: "words".to_owned(), retry_after: None }
    }

    #[test]
    fn the_order_is_pinned_then_held_then_cache_then_mint() {
        let g = |n| Some(Generation(n));
        let none = AtHand::default();
        let held = AtHand { held: g(4), ..none };
        let pinned = AtHand { pinned: true, ..none };
        let given = AtHand { pinned_given: true, ..pinned };
        for (at_hand, rejected, expected) in [
            (pinned, None, Next::Give),
            (AtHand { held: g(4), ..pinned }, None, Next::Give),
            (given, None, Next::Give),
            (given, g(0), Next::RefusePinned),
            (pinned, g(0), Next::Give), // the slow probe, in a new life of the mint
            (held, None, Next::Give),
            (held, g(3), Next::Give),
            (held, g(4), Next::Mint),
            (none, None, Next::Resolve),
            (none, g(0), Next::Mint),
        ] {
            assert_eq!(next(at_hand, rejected), expected, "{at_hand:?} {rejected:?}");
        }
    }

    #[test]
    fn the_default_name_carries_the_directory() {
        let id = |id: &str| NodeId::from(id);
        let derived = id("node_7f3c0a91d2b84e65a0c4d9e8b1f26357");
        assert_eq!(default_name("quay.example.net", &derived).as_str(), "quay-7f3c0a");
        assert_eq!(default_name("", &derived).as_str(), "node-7f3c0a");
        assert_eq!(default_name("_ü_", &derived).as_str(), "node-7f3c0a");
        assert_eq!(default_name(&"x".repeat(300), &derived).as_str().len(), HOST_MAX + 1 + NAME_HEX);
        let (a, b) = (default_name("h", &id("node_harbour")), default_name("h", &id("mine")));
        assert_ne!(a, b);
        assert!(a.as_str().len() == "h-".len() + NAME_HEX, "{a}");
    }

    #[test]
    fn only_a_refused_key_is_final() {
        use ApiErrorKind::*;
        for (error, is_final) in [
            (error(Unreachable, None, "unreachable"), false),
            (error(Timeout, None, "timeout"), false),
            (error(Unreadable, Some(200), "unreadable"), false),
            (error(Unsendable, None, "unsendable"), true),
            (error(Status, Some(500), "internal_error"), false),
            (error(Status, Some(429), "rate_limit_exceeded"), false),
            (error(Status, Some(404), "not_found"), false),
            (error(Status, Some(401), "unauthorized"), true),
            (error(Status, Some(401), "workspace_expired"), true),
            (error(Status, Some(403), "forbidden"), true),
        ] {
            let refused = refusal(&error, 0);
            assert_eq!(matches!(refused, TokenRefused::KeyRefused { .. }), is_final, "{error:?}");
        }
    }

    #[test]
    fn the_pause_doubles_and_heeds_the_engine() {
        let mut limited = error(ApiErrorKind::Status, Some(429), "rate_limit_exceeded");
        let pause = |error: &ApiError, failures| match refusal(error, failures) {
            TokenRefused::Retry { after, .. } => after,
            TokenRefused::KeyRefused { why } => panic!("{why}"),
        };
        assert_eq!(pause(&limited, 0), PAUSE_FIRST);
        assert_eq!(pause(&limited, 3), PAUSE_FIRST * 8);
        assert_eq!(pause(&limited, 4_000_000_000), PAUSE_MAX);
        limited.retry_after = Some(Duration::from_secs(90));
        assert_eq!(pause(&limited, 0), Duration::from_secs(90));
    }
}
