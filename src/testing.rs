//! What the tests of several modules share: names, and waits that end.

use std::time::Duration;

use tokio::time::Instant;

use crate::ids::AgentName;

/// Longest wait for something that must happen, on a busy machine too; a test that comes near it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(2);

/// The name of an agent.
pub(crate) fn name(name: &str) -> AgentName {
    AgentName::parse(name).unwrap()
}

/// What becomes of `work`, which must not take longer than [`PATIENCE`].
pub(crate) async fn within<F: Future>(what: &str, work: F) -> F::Output {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

/// Looks until there is a `T`, for [`PATIENCE`]. `look` says what it sees instead as long as there is none.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let began = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if began.elapsed() >= PATIENCE => {
                panic!("not within {PATIENCE:?}: {what}; seen last: {seen}")
            }
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

/// [`until`] for what either holds or does not.
pub(crate) async fn until_holds(what: &str, holds: impl Fn() -> bool) {
    until(what, async || if holds() { Ok(()) } else { Err("it does not hold".to_owned()) }).await;
}
