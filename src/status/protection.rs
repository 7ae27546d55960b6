//! What the archive is good for: base backups, the last restore that was proven, the objectives. Pure but for the reading.

use std::time::Duration;

use serde::Serialize;

use super::ServerStatus;
use crate::archive::{Archive, BaseManifest, Drill};
use crate::clock;
use crate::config::Objectives;
use crate::error::Result;
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

/// An objective, judged.
#[derive(Debug, Serialize)]
pub struct Objective {
    /// `rpo` or `rto`.
    pub name: &'static str,
    /// What is wanted, in seconds.
    pub wanted_seconds: f64,
    /// What was measured; `None` if nothing was.
    pub measured_seconds: Option<f64>,
    /// Whether it is met; `None` if nothing was measured.
    pub met: Option<bool>,
    /// What it was judged by, for people.
    pub by: String,
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

/// Reads and judges.
pub(super) async fn protection(
    archive: &Archive,
    objectives: &Objectives,
    servers: &[ServerStatus],
) -> Result<Protection> {
    let bases = archive.bases().await?;
    let drills = archive.drills().await?;
    let verified = drills.iter().rev().find(|drill| drill.ok);
    Ok(Protection {
        bases: bases.complete.len(),
        newest_base: bases.complete.last().map(base_summary),
        verified: verified.map(drill_summary),
        last_drill: drills.last().map(drill_summary),
        objectives: judge(objectives, servers.last(), verified),
    })
}

/// Holds the objectives against what was measured: the lag of the server that is archived now, the time of the last drill
/// that held.
pub(crate) fn judge(
    objectives: &Objectives,
    newest: Option<&ServerStatus>,
    verified: Option<&Drill>,
) -> Vec<Objective> {
    let rpo = objectives.rpo.map(|wanted| {
        let lag = newest.map(|server| &server.lag).filter(|lag| lag.seconds.is_some());
        // What a beacon said is as old as the beacon.
        let age = lag.and_then(|lag| lag.as_of_us).filter(|_| lag.is_some_and(|lag| lag.from == "beacon"));
        let age = age.map_or(Duration::ZERO, |as_of| Duration::from_micros(clock::now_us().saturating_sub(as_of)));
        let measured = lag.and_then(|lag| lag.seconds).map(|seconds| seconds + age.as_secs_f64());
        let by = match lag.map(|lag| lag.from) {
            Some("server") => "how far the server is ahead",
            Some(_) => "an agent's last word, and its age",
            None => "nothing: the server was not asked",
        };
        objective("rpo", wanted, measured, by.to_owned())
    });
    let rto = objectives.rto.map(|wanted| {
        let by = verified.map_or_else(
            || "nothing: no drill has held yet; `binvault drill` runs one".to_owned(),
            |drill| format!("the drill of {}", drill.started()),
        );
        objective("rto", wanted, verified.map(|drill| drill.seconds), by)
    });
    rpo.into_iter().chain(rto).collect()
}

fn objective(name: &'static str, wanted: Duration, measured: Option<f64>, by: String) -> Objective {
    let wanted_seconds = wanted.as_secs_f64();
    Objective { name, wanted_seconds, measured_seconds: measured, met: measured.map(|is| is <= wanted_seconds), by }
}
