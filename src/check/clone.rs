//! Which engine takes base backups of this server, and what keeps a clone from it. Pure.

use super::survey::Survey;
use super::{Area, Finding, Level};
use crate::base::{CloneObstacle, EngineName, engine_for};
use crate::error::Kind;

/// Judges for the configured engine, or for none.
pub(super) fn judge(survey: &Survey, engine: Option<EngineName>, findings: &mut Vec<Finding>) {
    let obstacles = match &survey.clone {
        _ if survey.facts.version.is_mariadb => return,
        None => return,
        Some(Ok(obstacles)) => obstacles,
        Some(Err(error)) => {
            let title = format!("whether the server gives a clone cannot be told: {}", error.chain());
            let finding = Finding::new(weight(engine, true), Area::Server, "clone", title);
            findings.push(match error.hint_text() {
                Some(hint) => finding.fix(hint),
                None => finding,
            });
            return;
        }
    };
    findings.extend(obstacles.iter().map(|obstacle| finding(obstacle, engine)));
    let chosen = engine.unwrap_or(engine_for(obstacles).0);
    let title = format!("base backups are taken by {}", chosen.as_str());
    findings.push(match (engine, chosen) {
        (None, EngineName::Mysqldump) => Finding::note(Area::Server, "base-engine", title).detail(
            "a clone would be faster to take and to restore; what keeps the server from giving one is said here",
        ),
        _ => Finding::ok(Area::Server, "base-engine", title),
    });
}

/// An obstacle is an error to whoever wants clones, and information to whoever takes what there is.
fn weight(engine: Option<EngineName>, is_final: bool) -> Level {
    match engine {
        Some(EngineName::Clone) if is_final => Level::Error,
        Some(EngineName::Clone) => Level::Warning,
        _ => Level::Note,
    }
}

fn finding(obstacle: &CloneObstacle, engine: Option<EngineName>) -> Finding {
    let (area, kind) = match obstacle {
        CloneObstacle::Privilege { .. } => (Area::Account, Kind::Refused),
        _ => (Area::Server, Kind::Unfit),
    };
    let level = weight(engine, obstacle.is_final());
    let finding = Finding { kind, ..Finding::new(level, area, obstacle.id(), obstacle.title()) };
    let detail = match obstacle {
        CloneObstacle::Tables { .. } => "a clone has these tables, and they are empty; a dump has their rows",
        CloneObstacle::NoGtids { .. } => {
            "with GTIDs a restore holds every transaction against the plan; a dump is exact without them"
        }
        _ => "without it no base backup can be taken by the engine clone",
    };
    match obstacle.fix() {
        Some(fix) => finding.detail(detail).fix(fix),
        None => finding.detail(detail),
    }
}
