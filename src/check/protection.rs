//! What the archive is good for: a base backup that leads up to now, and the objectives, judged by what was measured.

use std::time::Duration;

use super::survey::Survey;
use super::{Area, Finding};
use crate::archive::{Archive, BaseManifest, Beacon, Drill, History};
use crate::clock;
use crate::config::Objectives;
use crate::error::{Error, Kind, Result};
use crate::objective::{self, MeasuredLag, Objective};
use crate::position::{BinlogFile, Position, ServerUuid};

/// Limit on reading what is judged.
const LIMIT: Duration = Duration::from_secs(60);

/// What the archive tells.
struct Known {
    /// The newest base backup.
    base: Option<BaseManifest>,
    /// The history that it begins in, or the one of the server at hand.
    history: Option<History>,
    beacons: Vec<Beacon>,
    /// The newest drill that held.
    verified: Option<Drill>,
}

/// Judges the archive; one that holds no binlog yet is not judged.
pub(super) async fn judge(
    archive: &Archive,
    objectives: &Objectives,
    survey: Option<&Survey>,
    findings: &mut Vec<Finding>,
) {
    let server = survey.and_then(|survey| survey.facts.server_uuid).map(ServerUuid);
    let known = match clock::with_timeout(LIMIT, Box::pin(read(archive, server))).await {
        Some(known) => known,
        None => Err(Error::new(Kind::Store, "base backups and drills could not be read in time")),
    };
    match known {
        Ok(Some(known)) => {
            findings.push(base_backup(&known));
            let lag = lag(&known, survey);
            let judged = objective::judge(objectives, lag.as_ref(), known.verified.as_ref());
            findings.extend(judged.iter().map(finding));
        }
        Ok(None) => {}
        Err(error) => findings.push(Finding::failure(Area::Archive, "base-backup", &error)),
    }
}

async fn read(archive: &Archive, server: Option<ServerUuid>) -> Result<Option<Known>> {
    let servers = archive.servers().await?;
    let base = archive.bases().await?.complete.pop();
    let wanted = server.or(base.as_ref().map(|base| base.server)).or(servers.last().copied());
    let Some(wanted) = wanted.filter(|wanted| servers.contains(wanted)) else { return Ok(None) };
    let verified = archive.drills().await?.into_iter().rev().find(|drill| drill.ok);
    Ok(Some(Known {
        history: Some(archive.history(&wanted).await?),
        beacons: archive.beacons().await?,
        base,
        verified,
    }))
}

/// Whether there is one to begin a restore with, and the binlog goes on from it.
fn base_backup(known: &Known) -> Finding {
    const ID: &str = "base-backup";
    let Some(base) = &known.base else {
        return Finding::warning(Area::Archive, ID, "there is no base backup yet")
            .detail("binlog alone restores nothing: a restore begins with a base backup")
            .fix("binvault base");
    };
    let problem = match known.history.as_ref().filter(|history| history.server == base.server) {
        None => Some(format!("it is of server {}", base.server)),
        Some(history) => history.in_the_way_of(base),
    };
    match problem {
        None => Finding::ok(Area::Archive, ID, format!("base backup {}, and the binlog from there on", base.id)),
        Some(problem) => {
            Finding::warning(Area::Archive, ID, format!("the newest base backup, {}, does not lead up to now", base.id))
                .detail(problem)
                .fix("binvault base")
        }
    }
}

/// How far the archive is behind: by the server if it was asked, else by an agent's last word.
fn lag(known: &Known, survey: Option<&Survey>) -> Option<MeasuredLag> {
    let history = known.history.as_ref()?;
    let durable = history.position()?;
    let last = history.files.iter().map(|file| file.chunks.high_commit()).max().unwrap_or_default();
    let behind = |position: &Position, as_of_us: u64| match durable >= *position {
        true => Some(0.0),
        false if last.is_none() => None,
        false => Some(Duration::from_micros(as_of_us.saturating_sub(last.micros())).as_secs_f64()),
    };
    if let Some(survey) = survey {
        let status = survey.status.as_ref().ok()?.as_ref()?;
        let name = status.file.rsplit(['/', '\\']).next().unwrap_or(&status.file);
        let position = Position { file: BinlogFile::new(name).ok()?, offset: status.position };
        let seconds = behind(&position, survey.facts.time_us)?;
        return Some(MeasuredLag { seconds, by: "how far the server is ahead" });
    }
    let beacon =
        known.beacons.iter().filter(|beacon| beacon.server == history.server).max_by_key(|beacon| beacon.as_of_us)?;
    let seconds = behind(beacon.server_position.as_ref()?, beacon.as_of_us)?;
    Some(MeasuredLag::of_beacon(seconds, beacon.as_of_us))
}

fn finding(objective: &Objective) -> Finding {
    let (id, fix) = match objective.name {
        "rpo" => ("objective-rpo", "binvault status   # where the archive stands; is `binvault run` running?"),
        _ => ("objective-rto", "binvault drill   # measures it; a newer base backup makes it shorter: binvault base"),
    };
    let wanted = objective.wanted_seconds;
    let title = match objective.measured_seconds {
        Some(seconds) => format!("{}: {seconds:.1} s measured, {wanted} s wanted", objective.name),
        None => format!("{}: nothing measured, {wanted} s wanted", objective.name),
    };
    let found = match objective.met {
        Some(true) => return Finding::ok(Area::Archive, id, title).detail(format!("by {}", objective.by)),
        Some(false) => Finding::warning(Area::Archive, id, title),
        None => Finding::note(Area::Archive, id, title),
    };
    found.detail(format!("by {}", objective.by)).fix(fix)
}
