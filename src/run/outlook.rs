//! Looks at the archive from time to time, for what only it can tell, and keeps the trail of lag and throughput.
//!
//! Owns: when it is looked at. Does not own: what there is to see (`status`).
//!
//! Invariant: it is looked at only where somebody is told of it; whatever goes wrong here is logged, and archiving goes on.

use std::sync::Arc;
use std::time::Duration;

use crate::archive::{Archive, BaseManifest, Drill};
use crate::clock;
use crate::error::{Error, Result};
use crate::observe::{BaseMark, DrillMark, Outlook, Point};
use crate::status::{StatusReport, Survey, survey};
use crate::store::meter::Operation;
use crate::store::open as open_store;

use super::Agent;

/// Between two points of the trail.
const POINT_INTERVAL: Duration = Duration::from_secs(30);
/// After a look that failed.
const AGAIN: Duration = Duration::from_secs(15);
/// Looks are at least so far apart: changes come in swarms.
const LEAST: Duration = Duration::from_secs(2);

/// Follows the agent's lag and throughput. Never ends.
pub(super) async fn trail(agent: &Agent) {
    let mut first = true;
    loop {
        let counts = agent.progress.snapshot();
        let point = Point {
            at_us: clock::now_us(),
            lag_seconds: agent.observed().lag_seconds(),
            received_bytes: counts.received_bytes,
            durable_bytes: counts.raw_bytes,
            puts: agent.options.store.meter.calls(Operation::Put).tries(),
        };
        agent.sight.seen().add_point(point);
        // The second point soon: a rate needs two.
        clock::sleep(if first { POINT_INTERVAL / 6 } else { POINT_INTERVAL }).await;
        first = false;
    }
}

/// Looks at the archive again and again. Never ends.
pub(super) async fn run(agent: &Agent) {
    loop {
        let pause = match Box::pin(look(agent)).await {
            Ok(outlook) => {
                agent.sight.seen().outlook = Some(Arc::new(outlook));
                agent.options.upkeep.observe.survey_interval
            }
            Err(error) => {
                // At the very start there may be no archive yet: the agent makes it.
                tracing::debug!(error = %error.chain(), "the archive cannot be looked at now");
                AGAIN
            }
        };
        clock::sleep(LEAST).await;
        tokio::select! {
            () = clock::sleep(pause) => {}
            () = agent.sight.archive_changed.notified() => {}
        }
    }
}

async fn look(agent: &Agent) -> Result<Outlook> {
    let store = open_store(&agent.options.store, &agent.hard_stop).await?;
    let archive = Archive::open(store, false).await?;
    let Survey { report, bases, drills } = survey(&archive, None, &agent.options.upkeep.objectives).await?;
    outlook(&report, &bases.complete, &drills)
}

fn outlook(report: &StatusReport, bases: &[BaseManifest], drills: &[Drill]) -> Result<Outlook> {
    let losses = || report.recorded_gaps.iter().filter(|gap| gap.is_loss);
    let restorable_from_us = report.servers.last().and_then(|server| server.restorable_from_us);
    // What a base backup leads across keeps nothing from being restored: a failover that lost transactions, say.
    let blocking = losses().filter(|gap| !gap.base_behind && restorable_from_us.is_none());
    // A manifest is an object, too.
    let base_objects = bases.iter().fold((0_u64, 0_u64), |(objects, bytes), base| {
        (objects.saturating_add(base.parts.len() as u64).saturating_add(1), bytes.saturating_add(base.stored_bytes))
    });
    let chunks = report.servers.iter().fold((0_u64, 0_u64), |(objects, bytes), server| {
        (objects.saturating_add(server.chunks as u64), bytes.saturating_add(server.stored_bytes))
    });
    let unmet = report.protection.objectives.iter().filter(|objective| objective.met == Some(false));
    Ok(Outlook {
        as_of_us: clock::now_us(),
        report: serde_json::to_value(report).map_err(|error| Error::failed("write the status").source(error))?,
        bases: bases.iter().map(base_mark).collect(),
        drills: drills.iter().map(drill_mark).collect(),
        chunks,
        base_objects,
        gaps: losses().count() as u64,
        gaps_without_base: blocking.count() as u64,
        holes: report.servers.iter().flat_map(|server| &server.gaps).filter(|gap| !gap.recorded).count() as u64,
        restorable_from_us,
        unmet: unmet
            .map(|objective| {
                format!(
                    "the objective {} ({} s) is not met: {:.0} s, by {}",
                    objective.name,
                    objective.wanted_seconds,
                    objective.measured_seconds.unwrap_or_default(),
                    objective.by
                )
            })
            .collect(),
    })
}

fn base_mark(base: &BaseManifest) -> BaseMark {
    BaseMark {
        id: base.id.clone(),
        engine: base.engine.clone(),
        server: base.server,
        started_us: base.started_us,
        finished_us: base.finished_us,
        stored_bytes: base.stored_bytes,
    }
}

fn drill_mark(drill: &Drill) -> DrillMark {
    DrillMark { started_us: drill.started_us, ok: drill.ok, seconds: drill.seconds, problem: drill.problem.clone() }
}
