//! The document of `/status`: all that the status page draws, and whoever else asks. A contract: `docs/JSON.md`.

use serde_json::{Value, json};

use super::{Observed, Point, Trouble, actions};
use crate::clock;
use crate::ship::Durable;

/// Version of the document.
const SCHEMA: u32 = 1;

/// The document, at this moment.
pub fn document(observed: &Observed) -> Value {
    let outlook = observed.seen.outlook.as_deref();
    json!({
        "schema": SCHEMA,
        "now_us": clock::now_us(),
        "agent": agent(observed),
        "archive_as_of_us": outlook.map(|outlook| outlook.as_of_us),
        "archive": outlook.map(|outlook| &outlook.report),
        "cost_per_month": observed.cost,
        "bases": outlook.map(|outlook| outlook.bases.as_slice()).unwrap_or_default(),
        "drills": outlook.map(|outlook| outlook.drills.as_slice()).unwrap_or_default(),
        "history": history(observed),
        "actions": actions(observed),
    })
}

fn agent(observed: &Observed) -> Value {
    let (counts, seen) = (observed.progress.snapshot(), &observed.seen);
    let Durable { position, commit } = observed.progress.durable();
    let answered = seen.answered.as_ref();
    let trouble = |trouble: &Trouble| json!({"at_us": trouble.at_us, "text": trouble.text, "hint": trouble.hint});
    json!({
        "id": observed.agent,
        "version": env!("CARGO_PKG_VERSION"),
        "started_us": seen.started_us,
        "state": if seen.streaming { "streaming" } else { "connecting" },
        "ready": seen.streaming,
        "since_us": seen.since_us,
        "server": seen.server,
        "server_version": seen.server_version,
        "durable": position,
        "durable_commit_us": (!commit.is_none()).then(|| commit.micros()),
        "server_position": answered.map(|answered| &answered.position),
        "asked_us": answered.map(|answered| answered.as_of_us),
        "lag_seconds": observed.lag_seconds(),
        "lag_bytes": observed.lag_bytes(),
        "received_bytes": counts.received_bytes,
        "durable_bytes": counts.raw_bytes,
        "stored_bytes": counts.stored_bytes,
        "transactions": counts.transactions,
        "semi_sync": observed.semi_sync,
        "spool": observed.spool,
        "purge_margin_files": answered.and_then(|answered| answered.margin_files),
        "purge_horizon_seconds": observed.purge_horizon_seconds(),
        "gaps": seen.gaps,
        "interruptions": seen.interruptions,
        "trouble": seen.trouble.as_ref().map(trouble),
        "base_due_us": seen.base_due_us,
        "base_trouble": seen.bases.trouble.as_ref().map(trouble),
        "prune_due_us": seen.prune_due_us,
        "prune_trouble": seen.prunes.trouble.as_ref().map(trouble),
        "verify": seen.verified.as_ref().map(|verified| {
            json!({"at_us": verified.at_us, "ok": verified.problem.is_none(), "problem": verified.problem})
        }),
    })
}

/// Lag, and bytes a second between one point and the next.
fn history(observed: &Observed) -> Vec<Value> {
    let trail = &observed.seen.trail;
    let pairs = trail.iter().zip(trail.iter().skip(1));
    pairs.map(|(before, at)| point(before, at)).collect()
}

fn point(before: &Point, at: &Point) -> Value {
    let seconds = super::seconds(at.at_us.saturating_sub(before.at_us)).max(1e-3);
    let rate = |before: u64, at: u64| at.saturating_sub(before) as f64 / seconds;
    json!({
        "at_us": at.at_us,
        "lag_seconds": at.lag_seconds,
        "received_per_second": rate(before.received_bytes, at.received_bytes),
        "durable_per_second": rate(before.durable_bytes, at.durable_bytes),
    })
}
