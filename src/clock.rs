//! The only door to time. Everything else asks here, so that a simulation can put its own time behind it.
//!
//! Owns: wall clock, monotonic clock, sleeping and deadlines. Clippy forbids going round it.

use std::future::Future;
use std::time::Duration;

use crate::simulation;

/// A point on the monotonic clock.
pub type Instant = tokio::time::Instant;

/// Now on the monotonic clock.
#[expect(clippy::disallowed_methods, reason = "this is the seam")]
pub fn monotonic() -> Instant {
    tokio::time::Instant::now()
}

/// Wall clock: microseconds since 1970, UTC. Zero if the clock stands before that.
#[expect(clippy::disallowed_methods, reason = "this is the seam")]
pub fn now_us() -> u64 {
    if let Some(simulated) = simulation::now_us() {
        return simulated;
    }
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// Wall clock in the zone of this host: what times without a zone are meant in.
pub fn zoned_now() -> jiff::Zoned {
    let now = i64::try_from(now_us()).ok().and_then(|us| jiff::Timestamp::from_microsecond(us).ok());
    now.unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_zoned(jiff::tz::TimeZone::system())
}

/// Waits for a while.
#[expect(clippy::disallowed_methods, reason = "this is the seam")]
pub async fn sleep(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// Waits until a point in time.
#[expect(clippy::disallowed_methods, reason = "this is the seam")]
pub async fn sleep_until(deadline: Instant) {
    tokio::time::sleep_until(deadline).await;
}

/// Runs a future with a limit; `None` when the limit came first.
#[expect(clippy::disallowed_methods, reason = "this is the seam")]
pub async fn with_timeout<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    tokio::time::timeout(limit, future).await.ok()
}
