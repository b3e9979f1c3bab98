//! Identifiers and tokens.
//!
//! Ids are snowflakes: milliseconds since 2025 in the high bits and a counter in the low 22, so that they
//! sort by age. Tokens come from the system's random source, and only their SHA-256 is ever stored.

use std::fmt::Write as _;

use rand::{TryRng, rngs::SysRng};
use sha2::{Digest, Sha256};

use super::error::Failure;

/// 2025-01-01T00:00:00Z in Unix milliseconds.
const EPOCH_MS: i64 = 1_735_689_600_000;
/// Worker and counter bits together; a single engine needs no worker number, so it counts in all of them.
const COUNTER_BITS: u32 = 22;

/// Hands out snowflakes that only ever grow, also when the clock steps back.
#[derive(Debug, Default)]
pub(super) struct Snowflakes {
    last: i64,
}

impl Snowflakes {
    /// Continues after `last`, the highest id that the store holds.
    pub(super) fn after(last: i64) -> Self {
        Self { last }
    }

    /// The next id at `now_ms` (Unix milliseconds).
    pub(super) fn next(&mut self, now_ms: i64) -> i64 {
        let earliest = now_ms.saturating_sub(EPOCH_MS).max(0) << COUNTER_BITS;
        self.last = earliest.max(self.last + 1);
        self.last
    }
}

/// A fresh secret: `prefix` and `bytes` random bytes in hex.
pub(super) fn mint(prefix: &str, bytes: usize) -> Result<String, Failure> {
    let mut secret = vec![0_u8; bytes];
    SysRng.try_fill_bytes(&mut secret).map_err(|_| Failure::Aborted("the system's random source failed"))?;
    Ok(format!("{prefix}{}", hex(&secret)))
}

/// What is stored of a token: its SHA-256 in lower-case hex.
pub(super) fn fingerprint(secret: &str) -> String {
    hex(&Sha256::digest(secret.as_bytes()))
}

/// The conversation of two agents: the same whoever asks (spec/wire 1.3).
pub(super) fn conversation(workspace: i64, one: i64, other: i64) -> String {
    // Ids are compared as the strings that the contract hashes.
    let (mut a, mut b) = (one.to_string(), other.to_string());
    if b < a {
        std::mem::swap(&mut a, &mut b);
    }
    hex(&Sha256::digest(format!("{workspace}:{a}:{b}").as_bytes())[..12])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        write!(text, "{byte:02x}").ok();
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_even_when_the_clock_steps_back() {
        let mut ids = Snowflakes::after(0);
        let first = ids.next(EPOCH_MS + 5_000);
        let second = ids.next(EPOCH_MS + 4_000);
        let third = ids.next(EPOCH_MS + 5_000);
        assert!(first < second && second < third);
        assert_eq!(first >> COUNTER_BITS, 5_000);
    }

    #[test]
    fn an_engine_continues_after_the_ids_it_stored() {
        let stored = Snowflakes::after(0).next(EPOCH_MS + 9_000);
        assert!(Snowflakes::after(stored).next(EPOCH_MS + 1_000) > stored);
    }

    #[test]
    fn tokens_have_the_length_of_their_kind_and_are_never_alike() {
        let one = mint("at_live_", 16).unwrap();
        assert_eq!(one.len(), "at_live_".len() + 32);
        assert_ne!(one, mint("at_live_", 16).unwrap());
        assert_eq!(fingerprint("abc").len(), 64);
        assert!(fingerprint("abc").starts_with("ba7816bf"));
    }

    #[test]
    fn a_conversation_does_not_depend_on_who_began_it() {
        assert_eq!(conversation(1, 9, 10), conversation(1, 10, 9));
        assert_ne!(conversation(1, 9, 10), conversation(2, 9, 10));
        assert_eq!(conversation(1, 9, 10).len(), 24);
    }
}
