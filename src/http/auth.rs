//! The API key, and what a guesser gets.

use std::time::{Duration, Instant};

use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Wrong keys in a row that are answered at once.
const FREE_GUESSES: u32 = 10;
/// A spell without wrong keys after which they are forgiven.
const FORGIVEN_AFTER: Duration = Duration::from_secs(10);
/// What each further wrong key costs.
const DELAY: Duration = Duration::from_millis(500);

/// Every key that a request shows, in a header of its own or as `Authorization: Bearer`.
pub(super) fn shown<'a>(headers: &'a HeaderMap, own: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let plain = headers.get_all(own).map(HeaderValue::as_bytes);
    plain.chain(headers.get_all(header::AUTHORIZATION).filter_map(|value| bearer(value.as_bytes())))
}

/// The key in an `Authorization` header.
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = header.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| key.trim_ascii())
}

/// Counts wrong keys. Every peer is this machine, so there is one count for all.
#[derive(Debug, Default)]
pub(super) struct Failures {
    count: u32,
    last: Option<Instant>,
}

impl Failures {
    /// A wrong key came: how long its answer is held back.
    pub(super) fn failed(&mut self, now: Instant) -> Duration {
        let forgiven = self.last.is_none_or(|last| now.saturating_duration_since(last) >= FORGIVEN_AFTER);
        self.count = if forgiven { 1 } else { self.count.saturating_add(1) };
        self.last = Some(now);
        if self.count > FREE_GUESSES { DELAY } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bearer_scheme_is_read_in_any_case_and_no_other_is() {
        assert_eq!(bearer(b"Bearer k"), Some(&b"k"[..]));
        assert_eq!(bearer(b"bearer  k "), Some(&b"k"[..]));
        assert_eq!(bearer(b"Basic k"), None);
        assert_eq!(bearer(b"Bear"), None);
    }

    #[test]
    fn guessing_is_slowed_down_and_forgiven() {
        let mut failures = Failures::default();
        let start = Instant::now();
        for _ in 0..FREE_GUESSES {
            assert_eq!(failures.failed(start), Duration::ZERO);
        }
        assert_eq!(failures.failed(start + Duration::from_secs(1)), DELAY);
        assert_eq!(failures.failed(start + Duration::from_secs(12)), Duration::ZERO);
    }
}
