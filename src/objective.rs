//! Objectives: how much may be lost and how long a restore may take, held against what was measured. Pure.
//!
//! Owns: the judgement, the same in `status` and in `check`.
//! Does not own: the configured values (`config`), the measuring: the lag of the server that is archived now, the time
//! of the last drill that held.
//!
//! Invariant: what was not measured is never called met.

use std::time::Duration;

use serde::Serialize;

use crate::archive::Drill;
use crate::clock;
use crate::config::Objectives;

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

/// How far the archive is behind its server.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeasuredLag {
    /// Seconds.
    pub seconds: f64,
    /// How that is known, for people.
    pub by: &'static str,
}

impl MeasuredLag {
    /// What an agent's beacon said: as old as the beacon.
    pub fn of_beacon(seconds: f64, as_of_us: u64) -> Self {
        let age = Duration::from_micros(clock::now_us().saturating_sub(as_of_us));
        Self { seconds: seconds + age.as_secs_f64(), by: "an agent's last word, and its age" }
    }
}

/// Holds the objectives against what was measured; those that are not configured are not judged.
pub fn judge(objectives: &Objectives, lag: Option<&MeasuredLag>, verified: Option<&Drill>) -> Vec<Objective> {
    let rpo = objectives.rpo.map(|wanted| {
        let by = lag.map_or("nothing: the server was not asked", |lag| lag.by);
        objective("rpo", wanted, lag.map(|lag| lag.seconds), by.to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_configured_is_judged_and_what_was_not_measured_is_unknown() {
        assert!(judge(&Objectives::default(), None, None).is_empty());
        let objectives = Objectives { rpo: Some(Duration::from_secs(10)), rto: Some(Duration::from_secs(60)) };
        let met = |lag: Option<f64>| {
            let lag = lag.map(|seconds| MeasuredLag { seconds, by: "a test" });
            let judged = judge(&objectives, lag.as_ref(), None);
            (judged[0].met, judged[1].met)
        };
        assert_eq!(met(None), (None, None));
        assert_eq!(met(Some(10.0)), (Some(true), None));
        assert_eq!(met(Some(10.5)), (Some(false), None));
        let old = MeasuredLag::of_beacon(1.0, clock::now_us().saturating_sub(60_000_000));
        assert!(old.seconds >= 61.0, "a beacon's word is as old as the beacon");
    }
}
