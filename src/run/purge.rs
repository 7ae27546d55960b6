//! The purge guard: has the server's own binlogs purged when they are safe in the archive, and no sooner.
//!
//! A server that keeps its binlogs long, or for ever, never purges what is not archived; this makes room on it none the less.
//!
//! Owns: which files may go, and the statement. Does not own: what is durable (`watch`), the server's own expiry.
//!
//! Invariants: off unless configured; only files before the one in which the archive's *store* ends, so a spool counts for
//! nothing; only files of which the archive has every byte, and whose successor was begun `min_age` ago; `keep_files` always
//! stay; a few at a time. What a replica
//! reads at the moment the server itself keeps, and everything behind it.

use crate::archive::Archive;
use crate::clock;
use crate::config::PurgeOptions;
use crate::error::{Context, Result};
use crate::mysql::Connection;
use crate::mysql::facts::{BinaryLog, binary_logs};
use crate::position::{BinlogFile, Incarnation, Position, ServerUuid};

use super::start::plain_size;
use super::survey::parse_file;

/// Has files purged, if some may go. Gives how many went.
///
/// # Errors
/// Those of server and store.
pub(super) async fn purge(
    options: &PurgeOptions,
    archive: &Archive,
    asked: &mut Connection,
    server: ServerUuid,
    stored: &Position,
    logs: &[BinaryLog],
) -> Result<u64> {
    // Nothing to ask the store for as long as there are few.
    if logs.len() <= options.keep_files.max(1) {
        return Ok(0);
    }
    let incarnations = archive.incarnations(&server).await?;
    let mut first_kept = None;
    for going in going(options, stored, logs, &incarnations, clock::now_us()) {
        // What was there before archiving began is in nobody's archive.
        if !is_whole(archive, server, &incarnations, going.log).await? {
            break;
        }
        first_kept = Some(going.next);
    }
    let Some(first_kept) = first_kept else { return Ok(0) };
    let statement = format!("PURGE BINARY LOGS TO '{}'", first_kept.as_str().replace('\'', "''"));
    asked.execute(&statement).await.context(|| statement.clone())?;
    // What a replica reads stayed: the server says how much went.
    let left = binary_logs(asked).await?;
    let went = logs.iter().filter(|log| !left.iter().any(|other| other.name == log.name)).count() as u64;
    if went > 0 {
        tracing::info!(files = went, %first_kept, "the server's oldest binlogs were purged: they are in the archive");
    }
    Ok(went)
}

/// A file of the server's, and the one behind it.
struct Going<'a> {
    log: &'a BinaryLog,
    next: BinlogFile,
}

/// The files that may go by their age and place, oldest first. Pure.
fn going<'a>(
    options: &PurgeOptions,
    stored: &Position,
    logs: &'a [BinaryLog],
    archived: &[Incarnation],
    now_us: u64,
) -> Vec<Going<'a>> {
    let may_go = logs.len().saturating_sub(options.keep_files.max(1)).min(options.step.max(1));
    let pairs = logs.iter().zip(logs.iter().skip(1)).take(may_go);
    let goes = |(log, next): (&'a BinaryLog, &BinaryLog)| {
        let next = parse_file(&next.name).ok()?;
        let age_us = now_us.saturating_sub(u64::from(newest(archived, &next)?.created_s).saturating_mul(1_000_000));
        let old = u128::from(age_us) >= options.min_age.as_micros();
        (old && next.base() == stored.file.base() && next <= stored.file).then_some(Going { log, next })
    };
    pairs.map_while(goes).collect()
}

/// The archived file of a name: of several lives of the server, the last one's.
fn newest<'a>(archived: &'a [Incarnation], file: &BinlogFile) -> Option<&'a Incarnation> {
    archived.iter().rfind(|incarnation| incarnation.file == *file)
}

/// Whether the archive has all of a file of the server's.
async fn is_whole(archive: &Archive, server: ServerUuid, archived: &[Incarnation], log: &BinaryLog) -> Result<bool> {
    let Some(incarnation) = newest(archived, &parse_file(&log.name)?) else { return Ok(false) };
    Ok(archive.chunks(&server, incarnation).await?.cover.contiguous_end >= plain_size(log))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW_S: u32 = 1_000_000;

    fn file(number: u32) -> BinlogFile {
        BinlogFile::new(&format!("b.{number:06}")).unwrap()
    }

    /// Files 1 to `count`, each begun a minute behind the one before, the last one now.
    fn logs(count: u32) -> (Vec<BinaryLog>, Vec<Incarnation>) {
        let log = |number| BinaryLog { name: file(number).to_string(), size: 100, encrypted: None };
        let begun = |number| Incarnation { file: file(number), created_s: NOW_S - 60 * (count - number) };
        ((1..=count).map(log).collect(), (1..=count).map(begun).collect())
    }

    fn kept(min_age_s: u64, keep_files: usize, step: usize, stored: u32) -> Option<u64> {
        let (logs, archived) = logs(6);
        let options = PurgeOptions { min_age: Duration::from_secs(min_age_s), keep_files, step };
        let stored = Position { file: file(stored), offset: 4 };
        let going = going(&options, &stored, &logs, &archived, u64::from(NOW_S) * 1_000_000);
        going.last().map(|going| going.next.number())
    }

    #[test]
    fn only_what_is_stored_old_and_spare_goes_and_a_few_at_a_time() {
        assert_eq!(kept(0, 1, 100, 6), Some(6), "all but the one being written");
        assert_eq!(kept(0, 3, 100, 6), Some(4), "three stay");
        assert_eq!(kept(0, 1, 2, 6), Some(3), "two at a time");
        assert_eq!(kept(0, 1, 100, 4), Some(4), "what is not stored stays, and the file in which the store ends");
        assert_eq!(kept(0, 1, 100, 1), None);
        assert_eq!(kept(100, 1, 100, 6), Some(4), "file 4 was begun 120 s ago, file 5 60 s");
        assert_eq!(kept(1000, 1, 100, 6), None, "nothing is old");
        assert_eq!(kept(0, 6, 100, 6), None);
        assert_eq!(kept(0, 0, 0, 6), Some(2), "the one being written always stays, one goes");
    }

    #[test]
    fn what_the_archive_does_not_know_stays() {
        let (logs, mut archived) = logs(4);
        archived.retain(|incarnation| incarnation.file != file(3));
        let options = PurgeOptions { min_age: Duration::ZERO, keep_files: 1, step: 100 };
        let at = |name: &str| Position { file: BinlogFile::new(name).unwrap(), offset: 4 };
        let going = |stored: &str| going(&options, &at(stored), &logs, &archived, u64::MAX).len();
        assert_eq!((going("b.000004"), going("other.000004")), (1, 0));
    }
}
