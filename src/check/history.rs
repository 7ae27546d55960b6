//! The archive's end held against what the server has: the same history, and how long until a part of it is purged.

use std::time::Duration;

use super::archive::Examined;
use super::server::{raise_expiry, span};
use super::survey::Survey;
use super::{Area, Finding};
use crate::archive::{Archive, Continued, ResumeInFile, ResumePoint};
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::mysql::SourceOptions;
use crate::position::{BinlogFile, GtidSet, ServerUuid};

/// Limit on reading the archive's end.
const LIMIT: Duration = Duration::from_secs(60);
const HOUR_S: u64 = 3_600;
const DAY_S: u64 = 86_400;

/// How often it is asked what was executed: a transaction reaches a replica a moment before it reaches the set.
const EXECUTED_TRIES: u32 = 6;
const EXECUTED_WAIT: Duration = Duration::from_millis(500);

/// Judges the archive against the server, which is asked once more for it: an agent may have archived meanwhile.
pub(super) async fn judge(
    survey: &mut Survey,
    source: &SourceOptions,
    examined: &Examined,
    findings: &mut Vec<Finding>,
) {
    let (Some(archive), Some(server)) = (&examined.archive, survey.facts.server_uuid.map(ServerUuid)) else { return };
    let found = match clock::with_timeout(LIMIT, Box::pin(resume(archive, &server))).await {
        Some(found) => found,
        None => Err(Error::new(Kind::Store, "the archive's end could not be found in time")),
    };
    match found {
        Err(error) => findings.push(Finding::failure(Area::Archive, "archive-resume", &error)),
        Ok(Known::Nothing) => {
            findings.push(Finding::ok(Area::Archive, "archive-server", "the archive holds nothing yet"));
        }
        Ok(Known::Others(others)) => findings.push(
            Finding::error(
                Area::Archive,
                "archive-server",
                Kind::Diverged,
                format!("the archive is of server {others}, this one is {server}"),
            )
            .fix("binvault run --adopt   # if this server takes the other's place; else correct source.url or archive.url"),
        ),
        Ok(Known::This(point)) => {
            findings.push(Finding::ok(Area::Archive, "archive-server", format!("the archive knows server {server}")));
            if let Some(inside) = &point.inside {
                if let Err(error) = catch_up(survey, source, inside).await {
                    findings.push(Finding::failure(Area::Archive, "archive-resume", &error));
                    return;
                }
                findings.push(continuity(survey, &point, inside));
                findings.extend(executed(survey, inside));
            }
        }
    }
}

enum Known {
    Nothing,
    Others(String),
    This(Box<ResumePoint>),
}

async fn resume(archive: &Archive, server: &ServerUuid) -> Result<Known> {
    let servers = archive.servers().await?;
    if servers.is_empty() {
        return Ok(Known::Nothing);
    }
    if !servers.contains(server) {
        return Ok(Known::Others(servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")));
    }
    // The newest place: older ones stand before holes, which `status` shows.
    Ok(Known::This(Box::new(archive.resume_points(server).await?.pop().unwrap_or_default())))
}

/// Asks the server until it has executed what is archived of it, for as long as that may take.
async fn catch_up(survey: &mut Survey, source: &SourceOptions, inside: &ResumeInFile) -> Result<()> {
    for tries in 1..=EXECUTED_TRIES {
        survey.how_far(source).await?;
        if tries == EXECUTED_TRIES || lacking(survey, inside).is_none_or(|lacking| lacking.is_empty()) {
            break;
        }
        clock::sleep(EXECUTED_WAIT).await;
    }
    Ok(())
}

/// What is archived and not executed; `None` where sets do not tell.
fn lacking(survey: &Survey, inside: &ResumeInFile) -> Option<GtidSet> {
    let server: GtidSet = survey.facts.gtid_executed.as_deref()?.parse().ok()?;
    (survey.facts.gtid_mode.as_deref() == Some("ON")).then(|| inside.executed().minus(&server))
}

/// Whether the server still has what comes next, and for how long.
fn continuity(survey: &Survey, point: &ResumePoint, inside: &ResumeInFile) -> Finding {
    const ID: &str = "archive-resume";
    let at = format!("{}:{}", inside.incarnation.file, inside.end);
    let (Ok(logs), Ok(Some(status))) = (&survey.logs, &survey.status) else {
        return Finding::note(Area::Archive, ID, format!("the archive ends at {at}"))
            .detail("what the server has next could not be asked");
    };
    let names: Vec<BinlogFile> = logs.iter().filter_map(|log| bare(&log.name)).collect();
    let file = &inside.incarnation.file;
    let Some(oldest) = names.first() else {
        return Finding::ok(Area::Archive, ID, format!("the archive ends at {at}"));
    };
    match inside.continued(names.contains(file), oldest) {
        Continued::Here | Continued::InOldest => {}
        Continued::Purged => return purged(survey, &at, oldest),
        Continued::Nowhere => return diverged(&at, oldest),
    }
    let current = bare(&status.file);
    if current.as_ref() == Some(file) {
        if status.position < inside.end {
            let title =
                format!("the archive has {file} up to {}, the server only up to {}", inside.end, status.position);
            return Finding::error(Area::Archive, ID, Kind::Diverged, title).detail(
                "the server's binlogs were reset, or it lost its tail in a crash (sync_binlog <> 1); the archive keeps what it has",
            );
        }
        let behind = status.position.saturating_sub(inside.end);
        return Finding::ok(
            Area::Archive,
            ID,
            format!("the archive ends at {at}, {behind} bytes behind, in the current file"),
        );
    }
    closed_file(survey, point, &at)
}

/// The next bytes are in a file that the server may purge.
fn closed_file(survey: &Survey, point: &ResumePoint, at: &str) -> Finding {
    const ID: &str = "archive-resume";
    let title = format!("the archive ends at {at}, files behind the server");
    let Some(expiry) = survey.facts.expiry_s() else {
        return Finding::ok(Area::Archive, ID, title).detail("the server purges nothing by age");
    };
    // The file was written at least until its last archived commit, and its age counts from its last byte.
    let age = survey.facts.time_us.saturating_sub(point.high_commit.micros()) / 1_000_000;
    let left = expiry.saturating_sub(if point.high_commit.is_none() { 0 } else { age });
    let title = format!("{title}; the server may purge what comes next in {}", span(left));
    let finding = if left < HOUR_S {
        Finding::error(Area::Archive, ID, Kind::Unfit, title)
    } else if left < DAY_S {
        Finding::warning(Area::Archive, ID, title)
    } else {
        return Finding::ok(Area::Archive, ID, title);
    };
    finding.detail("what is purged before it is archived is lost").fix(raise_expiry(&survey.facts))
}

fn purged(survey: &Survey, at: &str, oldest: &BinlogFile) -> Finding {
    let title = format!("the archive ends at {at}, the server's oldest binlog is {oldest}: the files between are lost");
    Finding::error(Area::Archive, "archive-resume", Kind::Purged, title)
        .detail("the agent records the gap and archives what is left; nothing behind it can be restored without a new base backup")
        .fix(format!("binvault run      # and then: binvault base; and on the server:\n{}", raise_expiry(&survey.facts)))
}

fn diverged(at: &str, oldest: &BinlogFile) -> Finding {
    let title = format!("the archive ends at {at}, the server has only {oldest} and later");
    Finding::error(Area::Archive, "archive-resume", Kind::Diverged, title)
        .detail("the server's binlogs were reset or renamed: the agent records it, and archives the new history beside the old one")
        .fix("binvault run      # and then: binvault base")
}

/// Whether the server has executed all that is archived of it.
fn executed(survey: &Survey, inside: &ResumeInFile) -> Option<Finding> {
    let lacking = lacking(survey, inside)?;
    if lacking.is_empty() {
        return Some(Finding::ok(
            Area::Archive,
            "archive-executed",
            "the server has executed all that is archived of it",
        ));
    }
    let shown: String = lacking.to_string().chars().take(300).collect();
    Some(
        Finding::error(
            Area::Archive,
            "archive-executed",
            Kind::Diverged,
            "the server has not executed transactions that are archived of it",
        )
        .detail(format!("{shown}: it was reset, restored, or lost its tail in a crash; the archive keeps what it has"))
        .fix("binvault run      # it records the break and archives the new history beside the old one; then: binvault base"),
    )
}

/// A file name without the folder that old servers put before it.
fn bare(name: &str) -> Option<BinlogFile> {
    BinlogFile::new(name.rsplit(['/', '\\']).next().unwrap_or(name)).ok()
}
