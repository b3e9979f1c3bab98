//! placeholder
use super::store::OpenRow;
pub(super) fn deliver(_agent: i64, _row: &OpenRow<'_>) -> String {
    String::new()
}
