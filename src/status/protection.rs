//! What the archive is good for: base backups, the last restore that was proven, the objectives. Pure.

use serde::Serialize;

use super::ServerStatus;
use crate::archive::{BaseManifest, Drill};
use crate::config::Objectives;
use crate::objective::{MeasuredLag, Objective, judge};
use crate::position::{CommitTime, Position};

/// Base backups, drills and objectives.
#[derive(Debug, Serialize)]
pub struct Protection {
    /// Finished base backups.
    pub bases: usize,
    /// The newest of them.
    pub newest_base: Option<BaseSummary>,
    /// The newest drill that held.
    pub verified: Option<DrillSummary>,
    /// The newest drill.
    pub last_drill: Option<DrillSummary>,
    /// The configured objectives, judged.
    pub objectives: Vec<Objective>,
}

/// A base backup, in short.
#[derive(Debug, Serialize)]
pub struct BaseSummary {
    /// Its id.
    pub id: String,
    /// When it was begun, RFC 3339.
    pub started: String,
    /// Where replay begins on top of it.
    pub position: Position,
    /// Its bytes, unpacked.
    pub bytes: u64,
}

/// A drill, in short.
#[derive(Debug, Serialize)]
pub struct DrillSummary {
    /// When it began, RFC 3339.
    pub started: String,
    /// Whether everything held.
    pub ok: bool,
    /// What did not.
    pub problem: Option<String>,
    /// The base backup it began with.
    pub base: Option<String>,
    /// Commit time of the last transaction in it, RFC 3339.
    pub reached: Option<String>,
    /// Seconds it took: the measured RTO.
    pub seconds: f64,
}

fn base_summary(base: &BaseManifest) -> BaseSummary {
    BaseSummary {
        id: base.id.clone(),
        started: CommitTime::from_micros(base.started_us).rfc3339(),
        position: base.coordinates.position(),
        bytes: base.raw_bytes,
    }
}

fn drill_summary(drill: &Drill) -> DrillSummary {
    DrillSummary {
        started: drill.started(),
        ok: drill.ok,
        problem: drill.problem.clone(),
        base: drill.base.clone(),
        reached: drill.reached_us.map(|us| CommitTime::from_micros(us).rfc3339()),
        seconds: drill.seconds,
    }
}

/// Judges.
pub(super) fn protection(
    bases: &[BaseManifest],
    drills: &[Drill],
    objectives: &Objectives,
    servers: &[ServerStatus],
) -> Protection {
    let verified = drills.iter().rev().find(|drill| drill.ok);
    Protection {
        bases: bases.len(),
        newest_base: bases.last().map(base_summary),
        verified: verified.map(drill_summary),
        last_drill: drills.last().map(drill_summary),
        objectives: judge(objectives, servers.last().and_then(measured).as_ref(), verified),
    }
}

/// The lag of a server, as an objective is judged by it.
fn measured(server: &ServerStatus) -> Option<MeasuredLag> {
    let lag = &server.lag;
    let seconds = lag.seconds?;
    if lag.from == "server" {
        return Some(MeasuredLag { seconds, by: "how far the server is ahead" });
    }
    Some(MeasuredLag::of_beacon(seconds, lag.as_of_us?))
}
