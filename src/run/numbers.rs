//! The agent's numbers, for who watches it (`observe`).

use std::sync::Arc;

use super::Agent;
use crate::error::Result;
use crate::observe::{self, Observed};

/// Tells numbers, where that is configured. Never ends but with an error.
pub(super) async fn tell(agent: &Arc<Agent>) -> Result<()> {
    let Some(listen) = agent.options.metrics else { return std::future::pending().await };
    let agent = Arc::clone(agent);
    let observe = move || Observed {
        counts: agent.progress.snapshot(),
        durable: agent.progress.durable(),
        semi_sync: agent.ledger.as_ref().map(|ledger| ledger.word()),
        spool: agent.keeper.word(),
        gaps: agent.manner().gaps,
    };
    observe::serve(listen, Arc::new(observe)).await
}
