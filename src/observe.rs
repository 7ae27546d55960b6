//! What an agent tells of itself while it runs: metrics, health, a status page, and what is to be done.
//!
//! ```text
//!   the agent ─► Seen ─┐                       ┌─► /metrics           (metrics)
//!   its counters ──────┼─► Observed, when asked ┼─► /status, and the page at / that draws it   (document, page.html)
//!   archive's survey ──┘                       ├─► /readyz
//!                                              └─► what is to be done (actions) ─► page, notifications
//! ```
//!
//! Owns: names, units and meaning of the metrics (`docs/metrics.md`; they are a contract), the document of `/status`
//! (`docs/JSON.md`), the judgement of what is wrong, and the answer to who asks. Does not own: the numbers.
//!
//! Invariants: nothing is listened to unless it is configured; what has not been measured is left out, never told as zero;
//! nothing secret and nothing of the data is told.

mod actions;
mod document;
mod http;
mod metrics;
mod process;
mod seen;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::archive::{SemiSyncWord, SpoolWord};
use crate::clock;
use crate::error::Result;
use crate::ship::Progress;
use crate::store::meter::Meter;

pub use actions::{Action, Severity, actions};
pub use document::document;
pub use metrics::render;
pub use seen::{Answered, BaseMark, Counted, DrillMark, Outlook, Point, Seen, Trouble};

/// What is told, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// `agent.id`.
    pub agent: String,
    /// Counters since the agent's start, and the durable position.
    pub progress: Arc<Progress>,
    /// Calls to the store.
    pub meter: Meter,
    /// Whether commits wait until they are durable; `None` where that is not asked for.
    pub semi_sync: Option<SemiSyncWord>,
    /// What is durable in the spool only; `None` without one.
    pub spool: Option<SpoolWord>,
    /// The rest.
    pub seen: Seen,
    /// What the archive costs a month; `None` where no price is known.
    pub cost: Option<f64>,
}

/// Asked for with each request.
pub type Observe = Arc<dyn Fn() -> Observed + Send + Sync>;

impl Observed {
    /// Seconds that the archive is behind: 0 if everything is durable that the server had when it was last asked, else the
    /// time since the newest commit that is.
    pub fn lag_seconds(&self) -> Option<f64> {
        let durable = self.progress.durable();
        let answered = self.seen.answered.as_ref()?;
        if durable.position.as_ref().is_some_and(|position| *position >= answered.position) {
            return Some(0.0);
        }
        if durable.commit.is_none() {
            return None;
        }
        Some(since(durable.commit.micros()))
    }

    /// Bytes that the server had when it was last asked and that are not durable.
    pub fn lag_bytes(&self) -> Option<u64> {
        if self.lag_seconds() == Some(0.0) { Some(0) } else { self.seen.answered.as_ref()?.lag_bytes }
    }

    /// Seconds until the server's expiry may reach what is not durable.
    pub fn purge_horizon_seconds(&self) -> Option<f64> {
        let expiry_s = self.seen.answered.as_ref()?.expiry_s?;
        Some((expiry_s as f64 - self.lag_seconds()?).max(0.0))
    }
}

/// Answers the paths of `docs/metrics.md`, until dropped.
///
/// # Errors
/// [`crate::error::Kind::Config`] if the address cannot be listened at.
pub async fn serve(listen: SocketAddr, observe: Observe) -> Result<()> {
    http::serve(listen, observe).await
}

/// Seconds since a moment of the wall clock.
fn since(us: u64) -> f64 {
    seconds(clock::now_us().saturating_sub(us))
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests;
