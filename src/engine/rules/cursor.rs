//! How far an ack moves an agent's cursor.

/// The cursor after an ack of `up_to`, or `None` when it does not move. Numbers that were never given out
/// cannot be acked: a broker with a stale journal would otherwise ack mail that is yet to be written.
pub(in crate::engine) fn advance(cursor: i64, last_seq: i64, up_to: i64) -> Option<i64> {
    let target = up_to.min(last_seq);
    (target > cursor).then_some(target)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::advance;

    #[test]
    fn an_ack_moves_the_cursor_forward_alone() {
        assert_eq!(advance(3, 10, 7), Some(7));
        assert_eq!(advance(7, 10, 7), None);
        assert_eq!(advance(7, 10, 2), None);
    }

    #[test]
    fn mail_that_is_not_written_yet_cannot_be_acked() {
        assert_eq!(advance(3, 10, 4_000), Some(10));
        assert_eq!(advance(10, 10, 4_000), None);
    }

    proptest! {
        #[test]
        fn the_cursor_stays_between_where_it_was_and_the_last_number(
            cursor in 0_i64..100, beyond in 0_i64..100, up_to in 0_i64..400,
        ) {
            let last = cursor + beyond;
            if let Some(moved) = advance(cursor, last, up_to) {
                prop_assert!(moved > cursor && moved <= last && moved <= up_to);
            }
        }
    }
}
