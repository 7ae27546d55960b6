//! Where to begin: the archive's end held against what the server still has.

use std::time::Duration;

use super::survey::parse_file;
use crate::archive::{Continued, ResumeInFile, ResumePoint};
use crate::clock;
use crate::config::StartAt;
use crate::error::{Error, Kind, Result};
use crate::mysql::Connection;
use crate::mysql::event::FIRST_EVENT;
use crate::mysql::facts::{BinaryLog, executed_gtids};
use crate::mysql::semi_sync::SemiSyncState;
use crate::position::{BinlogFile, GtidSet, Position};
use crate::ship::Expected;

/// What to ask the server for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) file: BinlogFile,
    pub(super) position: u64,
    pub(super) from: ResumePoint,
    /// What tells whether the file is the chosen one still.
    pub(super) expected: Expected,
}

/// Chooses the first of the archive's places (never none, the earliest first) that the server can still serve, and tells
/// which it is. Pure.
///
/// # Errors
/// As [`choose`] for the last of them; anything but [`Kind::Purged`] at once.
pub(super) fn choose_first(
    places: Vec<ResumePoint>,
    logs: &[BinaryLog],
    start: StartAt,
    end: &Position,
    by_gtid: bool,
) -> Result<(Start, usize)> {
    let last = places.len().saturating_sub(1);
    for (index, place) in places.iter().cloned().enumerate() {
        // From the server's oldest file, but only if it has what is missing next; and not where archiving was to begin
        // with the current one.
        if place.inside.is_none()
            && let Some(next) = places.get(index.saturating_add(1)).cloned()
            && (start == StartAt::Current || choose(next, logs, start, end, by_gtid).is_err())
        {
            continue;
        }
        match choose(place, logs, start, end, by_gtid) {
            Err(error) if error.kind() == Kind::Purged && index < last => {
                tracing::warn!(
                    error = %error.chain(),
                    "the archive has a hole that this server cannot fill any more; archiving goes on behind it"
                );
            }
            other => return other.map(|start| (start, index)),
        }
    }
    Err(Error::failed("the archive gives no place to go on"))
}

/// An encrypted binlog has this many bytes before its logical first one; SHOW BINARY LOGS counts them.
const ENCRYPTION_HEADER_BYTES: u64 = 512;

/// Bytes of a file's content.
pub(super) fn plain_size(log: &BinaryLog) -> u64 {
    log.size.saturating_sub(if log.encrypted == Some(true) { ENCRYPTION_HEADER_BYTES } else { 0 })
}

/// Chooses the start. Pure.
///
/// # Errors
/// [`Kind::Purged`] if the server no longer has what comes next, [`Kind::Diverged`] if its files are not the archived
/// ones, [`Kind::Unfit`] if it has none.
fn choose(resume: ResumePoint, logs: &[BinaryLog], start: StartAt, end: &Position, by_gtid: bool) -> Result<Start> {
    let oldest =
        logs.first().ok_or_else(|| Error::new(Kind::Unfit, "the server lists no binlog").hint("check log_bin"))?;
    let Some(inside) = resume.inside.clone() else {
        let file = match start {
            StartAt::Oldest => parse_file(&oldest.name)?,
            StartAt::Current => end.file.clone(),
        };
        return Ok(Start { file, position: FIRST_EVENT, from: resume, expected: Expected::default() });
    };
    let mut here = None;
    for log in logs {
        if parse_file(&log.name)? == inside.incarnation.file {
            here = Some(log);
        }
    }
    let oldest = parse_file(&oldest.name)?;
    match (inside.continued(here.is_some(), &oldest), here) {
        (Continued::Here, Some(log)) => inside_listed(resume, &inside, log, end, by_gtid),
        (Continued::InOldest, _) => {
            let from =
                ResumePoint { follows: Some(inside.link()), high_commit: resume.high_commit, ..ResumePoint::default() };
            Ok(Start { file: oldest, position: FIRST_EVENT, from, expected: Expected::default() })
        }
        (Continued::Here | Continued::Purged | Continued::Nowhere, _) => Err(gone(&inside, &oldest)),
    }
}

/// The file is still there.
fn inside_listed(
    resume: ResumePoint,
    inside: &ResumeInFile,
    log: &BinaryLog,
    end: &Position,
    by_gtid: bool,
) -> Result<Start> {
    let file = inside.incarnation.file.clone();
    let mut size = plain_size(log);
    if end.file == file {
        size = size.max(end.offset);
    }
    if size < inside.end {
        return Err(Error::new(
            Kind::Diverged,
            format!("the archive has {} up to {}, the server only up to {size}", file, inside.end),
        )
        .hint("the server's binlogs were reset, or it lost its tail in a crash (sync_binlog <> 1); the archive keeps what it has"));
    }
    // A position beyond 32 bits can only be asked for by the GTID command; else the file is read again from its start.
    let reachable = by_gtid || u32::try_from(inside.resume).is_ok();
    let position = if reachable && inside.resume >= FIRST_EVENT { inside.resume } else { FIRST_EVENT };
    Ok(Start { file, position, from: resume, expected: Expected::default() })
}

/// What comes next is nowhere on the server.
fn gone(inside: &ResumeInFile, oldest: &BinlogFile) -> Error {
    let at = format!("{}:{}", inside.incarnation.file, inside.end);
    if inside.continued(false, oldest) == Continued::Purged {
        return Error::new(Kind::Purged, format!("the archive ends at {at}, the server's oldest binlog is {oldest}"))
            .hint("raise binlog_expire_logs_seconds on the server");
    }
    Error::new(Kind::Diverged, format!("the archive ends at {at}, the server has only {oldest} and later"))
        .hint("the server's binlogs were reset or renamed")
}

/// How often gtid_executed is asked again: a transaction reaches the dump a moment before it reaches the set.
pub(super) const EXECUTED_TRIES: u32 = 6;
/// Pause between.
pub(super) const EXECUTED_PAUSE: Duration = Duration::from_millis(500);

/// Checks that the server has executed everything that is archived of it.
///
/// # Errors
/// [`Kind::Diverged`], naming the transactions it lacks.
pub(super) async fn check_executed(asked: &mut Connection, archived: &GtidSet) -> Result<()> {
    let mut lacking = GtidSet::new();
    for _ in 0..EXECUTED_TRIES {
        lacking = archived.minus(&executed_gtids(asked).await?);
        if lacking.is_empty() {
            return Ok(());
        }
        // A commit that waits for a replica's word is in the binlog, and may be archived, before it is executed.
        if SemiSyncState::ask(asked).await?.is_some_and(|state| state.waiting > 0) {
            tracing::info!(lacking = %lacking.shown(), "archived commits are waiting to be acknowledged on the server");
            return Ok(());
        }
        clock::sleep(EXECUTED_PAUSE).await;
    }
    let shown = lacking.shown();
    Err(Error::new(
        Kind::Diverged,
        format!("the server has not executed transactions that are archived of it: {shown}"),
    )
    .hint("it was reset, restored from a backup, or lost its tail in a crash; the archive keeps what it has"))
}

/// Checks that a file, which has the name of the one that comes next, follows what is archived: its name may have come back
/// after a reset, and files before it be purged already.
///
/// # Errors
/// [`Kind::Purged`] if something lies between them, [`Kind::Diverged`] if it does not know all that is archived.
pub(super) fn check_follows(archived: &GtidSet, before: &GtidSet, file: &BinlogFile) -> Result<()> {
    if archived == before {
        return Ok(());
    }
    let between = before.minus(archived);
    if archived.is_subset_of(before) {
        let message = format!(
            "{file}, the server's oldest binlog, begins behind transactions that are not archived: {}",
            between.shown()
        );
        return Err(Error::new(Kind::Purged, message).hint("raise binlog_expire_logs_seconds on the server"));
    }
    let lacking = archived.minus(before);
    let message = format!(
        "{file}, the server's oldest binlog, does not follow what is archived: it begins without {}",
        lacking.shown()
    );
    Err(Error::new(Kind::Diverged, message).hint("the server's binlogs were reset, or it was restored from a backup"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::Close;
    use crate::position::Incarnation;

    fn file(name: &str) -> BinlogFile {
        BinlogFile::new(name).unwrap()
    }

    fn log(name: &str, size: u64) -> BinaryLog {
        BinaryLog { name: name.into(), size, encrypted: Some(false) }
    }

    fn at(name: &str, end: u64, resume: u64, closes: Option<Close>) -> ResumePoint {
        let incarnation = Incarnation { file: file(name), created_s: 1 };
        let inside = ResumeInFile {
            incarnation,
            end,
            resume,
            open: None,
            previous: GtidSet::new(),
            since_start: GtidSet::new(),
            closes,
            torn: false,
        };
        ResumePoint { inside: Some(inside), ..ResumePoint::default() }
    }

    fn chosen(resume: ResumePoint, logs: &[BinaryLog], by_gtid: bool) -> Result<(String, u64)> {
        let end = Position { file: parse_file(&logs.last().unwrap().name)?, offset: logs.last().unwrap().size };
        choose(resume, logs, StartAt::Oldest, &end, by_gtid).map(|start| (start.file.to_string(), start.position))
    }

    #[test]
    fn an_empty_archive_begins_where_it_is_told() {
        let logs = [log("b.000003", 100), log("b.000004", 200)];
        let end = Position { file: file("b.000004"), offset: 200 };
        for (start, wanted) in [(StartAt::Oldest, "b.000003"), (StartAt::Current, "b.000004")] {
            let start = choose(ResumePoint::default(), &logs, start, &end, true).unwrap();
            assert_eq!((start.file.as_str(), start.position), (wanted, 4));
        }
    }

    #[test]
    fn it_goes_on_at_the_last_event_boundary() {
        let logs = [log("b.000003", 1000)];
        assert_eq!(chosen(at("b.000003", 500, 450, None), &logs, true).unwrap(), ("b.000003".into(), 450));
        let far = [log("b.000003", 6 << 32)];
        let resume = || at("b.000003", 5 << 32, 5 << 32, None);
        assert_eq!(chosen(resume(), &far, true).unwrap(), ("b.000003".into(), 5 << 32));
        assert_eq!(chosen(resume(), &far, false).unwrap(), ("b.000003".into(), 4));
    }

    #[test]
    fn a_purged_but_complete_file_is_followed_by_the_next() {
        let logs = [log("b.000004", 100)];
        let start = |closes| chosen(at("b.000003", 500, 500, closes), &logs, true);
        assert_eq!(start(Some(Close::Rotate(file("b.000004")))).unwrap(), ("b.000004".into(), 4));
        assert_eq!(start(Some(Close::Stop)).unwrap(), ("b.000004".into(), 4));
        assert_eq!(start(None).unwrap_err().kind(), Kind::Purged);
        let logs = [log("b.000005", 100)];
        let gone = chosen(at("b.000003", 500, 500, Some(Close::Rotate(file("b.000004")))), &logs, true);
        assert_eq!(gone.unwrap_err().kind(), Kind::Purged);
    }

    #[test]
    fn a_file_of_the_next_name_must_begin_with_what_is_archived() {
        let set = |runs: &str| format!("aaaaaaaa-0000-0000-0000-000000000001:{runs}").parse::<GtidSet>().unwrap();
        let kind =
            |before: &GtidSet| check_follows(&set("1-5"), before, &file("b.000002")).map_err(|error| error.kind());
        assert_eq!(kind(&set("1-5")), Ok(()));
        assert_eq!(kind(&set("1-9")), Err(Kind::Purged));
        assert_eq!(kind(&set("1-3:7-9")), Err(Kind::Diverged));
        assert_eq!(kind(&GtidSet::new()), Err(Kind::Diverged));
    }

    #[test]
    fn a_hole_that_cannot_be_filled_does_not_stop_the_newest() {
        let logs = [log("b.000005", 900), log("b.000006", 900)];
        let end = Position { file: file("b.000006"), offset: 900 };
        let places = |ends: &[(&str, u64)]| ends.iter().map(|(name, end)| at(name, *end, *end, None)).collect();
        let chosen = |ends: &[(&str, u64)]| {
            choose_first(places(ends), &logs, StartAt::Oldest, &end, true).map(|(start, _)| start.file.to_string())
        };
        assert_eq!(chosen(&[("b.000005", 100), ("b.000006", 200)]).unwrap(), "b.000005");
        assert_eq!(chosen(&[("b.000002", 100), ("b.000006", 200)]).unwrap(), "b.000006");
        assert_eq!(chosen(&[("b.000002", 100), ("b.000003", 200)]).unwrap_err().kind(), Kind::Purged);
        assert_eq!(chosen(&[("b.000005", 9000), ("b.000006", 200)]).unwrap_err().kind(), Kind::Diverged);
    }

    #[test]
    fn what_came_before_a_file_that_is_missing_as_a_whole_is_fetched_too() {
        let end = Position { file: file("b.000006"), offset: 900 };
        let places = || vec![ResumePoint::default(), at("b.000005", 0, 0, None), at("b.000006", 200, 200, None)];
        let chosen = |oldest: &str, start| {
            let logs = [log(oldest, 900), log("b.000005", 900), log("b.000006", 900)];
            let logs = if oldest == "b.000006" { &logs[2..] } else { &logs[..] };
            choose_first(places(), logs, start, &end, true).map(|(start, _)| start.file.to_string()).unwrap()
        };
        assert_eq!(chosen("b.000004", StartAt::Oldest), "b.000004");
        assert_eq!(
            chosen("b.000004", StartAt::Current),
            "b.000005",
            "where it began is not known, but what is missing is"
        );
        assert_eq!(chosen("b.000006", StartAt::Oldest), "b.000006", "it is gone");
    }

    #[test]
    fn a_server_that_went_back_is_noticed() {
        assert_eq!(
            chosen(at("b.000003", 500, 500, None), &[log("b.000001", 900)], true).unwrap_err().kind(),
            Kind::Diverged
        );
        assert_eq!(
            chosen(at("b.000003", 500, 500, None), &[log("b.000003", 499)], true).unwrap_err().kind(),
            Kind::Diverged
        );
    }
}
