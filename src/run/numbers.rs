//! The agent's numbers, for who watches it (`observe`).

use std::sync::Arc;

use super::Agent;
use crate::error::Error;
use crate::observe::{self, Observed, Seen};
use crate::store::meter::Operation;

/// Seconds of a month, by which costs are told.
const MONTH_S: f64 = 30.0 * 86_400.0;
/// Below this a rate says nothing, in microseconds.
const RATE_LEAST_US: u64 = 60_000_000;

/// Tells numbers, where that is configured. Never ends but with an error.
pub(super) async fn tell(agent: &Arc<Agent>) -> Error {
    let Some(listen) = agent.options.upkeep.observe.listen else { return std::future::pending().await };
    let agent = Arc::clone(agent);
    let served = observe::serve(listen, Arc::new(move || agent.observed())).await;
    served.err().unwrap_or_else(|| Error::failed("nobody is answered any more"))
}

impl Agent {
    /// All that there is to tell, at this moment.
    pub(super) fn observed(&self) -> Observed {
        let seen = self.sight.seen().clone();
        Observed {
            agent: self.options.agent.id.clone(),
            progress: Arc::clone(&self.progress),
            meter: self.options.store.meter.clone(),
            semi_sync: self.ledger.as_ref().map(|ledger| ledger.word()),
            spool: self.keeper.word(),
            cost: self.cost(&seen),
            seen,
        }
    }

    /// What the archive costs a month: what it holds, and the PUTs of the last hours for as long as a month.
    fn cost(&self, seen: &Seen) -> Option<f64> {
        let prices = &self.options.upkeep.observe;
        if prices.storage_price == 0.0 && prices.put_price == 0.0 {
            return None;
        }
        let outlook = seen.outlook.as_ref()?;
        let bytes = outlook.chunks.1.saturating_add(outlook.base_objects.1);
        let stored = bytes as f64 / f64::from(1_u32 << 30) * prices.storage_price;
        let oldest = seen.trail.front()?;
        let elapsed_us = crate::clock::now_us().saturating_sub(oldest.at_us);
        if elapsed_us < RATE_LEAST_US {
            return Some(stored);
        }
        let puts = self.options.store.meter.calls(Operation::Put).tries().saturating_sub(oldest.puts);
        Some(stored + puts as f64 / (elapsed_us as f64 / 1e6) * MONTH_S / 1000.0 * prices.put_price)
    }
}
