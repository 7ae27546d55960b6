//! What `mysqldump` writes around the data, and how it fails. Pure.

use crate::error::{Error, Kind, Result};
use crate::position::{BinlogFile, GtidSet, Position};

/// The beginning of a dump: where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) position: Position,
    /// What the dump says was executed, if it says so there. Versions from 8.0.32 on ask under the same lock as for the
    /// position.
    pub(super) executed: Option<GtidSet>,
}

/// Reads a dump's beginning. `None`: the coordinates have not come yet.
///
/// # Errors
/// If they are there and cannot be read.
pub(super) fn parse_head(text: &[u8]) -> Result<Option<Head>> {
    let text = String::from_utf8_lossy(text);
    let mut before = 0_usize;
    for line in text.split_inclusive('\n') {
        if line.ends_with('\n') && line.starts_with("-- CHANGE ") && line.contains("_LOG_FILE=") {
            let position = position_in(line).ok_or_else(|| {
                Error::corrupt(format!("the dump tells its coordinates in words that are not known: {}", line.trim()))
            })?;
            let executed = executed_in(text.get(..before).unwrap_or(""))?;
            return Ok(Some(Head { position, executed }));
        }
        before = before.saturating_add(line.len());
    }
    Ok(None)
}

/// `-- CHANGE REPLICATION SOURCE TO SOURCE_LOG_FILE='binlog.000001', SOURCE_LOG_POS=3428;`
fn position_in(line: &str) -> Option<Position> {
    let (file, rest) = line.split_once("_LOG_FILE='")?.1.split_once('\'')?;
    let digits = rest.split_once("_LOG_POS=")?.1.trim_end().trim_end_matches(';');
    Some(Position { file: BinlogFile::new(file).ok()?, offset: digits.parse().ok()? })
}

/// `SET @@GLOBAL.GTID_PURGED=/*!80000 '+'*/ 'uuid:1-14,\nuuid:1-3';`
fn executed_in(head: &str) -> Result<Option<GtidSet>> {
    let Some((_, rest)) = head.split_once("@@GLOBAL.GTID_PURGED=") else { return Ok(None) };
    let rest = rest.strip_prefix("/*").and_then(|comment| comment.split_once("*/")).map_or(rest, |(_, rest)| rest);
    let set = rest.split_once('\'').and_then(|(_, rest)| rest.split_once('\'')).map(|(set, _)| set);
    let set: String = set.unwrap_or("?").split_whitespace().collect();
    let set = set.parse().map_err(|error| Error::corrupt("the dump tells a GTID set that is none").source(error))?;
    Ok(Some(set))
}

/// Whether a dump ends as a whole one does.
pub(super) fn is_closed(tail: &[u8]) -> bool {
    let text = String::from_utf8_lossy(tail);
    text.trim_end().lines().next_back().is_some_and(|line| line.starts_with("-- Dump completed"))
}

/// What a failure of the tool means.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server was busy; a little later it may go well.
    Busy(&'static str),
    /// The account may not.
    Refused,
    /// Anything else.
    Other,
}

/// Judges what the tool said on stderr.
pub(super) fn judge_failure(said: &str) -> Failure {
    let code = |code: u16| said.contains(&format!("({code})")) || said.contains(&format!("error: {code}:"));
    if code(1205) {
        Failure::Busy("the read lock was not to be had within base.lock_wait")
    } else if code(1412) || code(1146) || code(1356) {
        Failure::Busy("a table was changed while the dump ran")
    } else if [1044, 1045, 1142, 1143, 1227, 1370].into_iter().any(code) {
        Failure::Refused
    } else {
        Failure::Other
    }
}

/// The tool's version in what `--version` prints: `mysqldump  Ver 9.7.4 for Linux …`, and before 8.0
/// `mysqldump  Ver 10.13 Distrib 5.7.44, for Linux …`.
///
/// # Errors
/// [`Kind::Config`] if it is no mysqldump of MySQL's.
pub(super) fn parse_version(line: &str) -> Result<(u16, u16, u16)> {
    let unknown = |why: &str| {
        Err(Error::new(Kind::Config, format!("{why}: {line:?}"))
            .hint("set base.mysqldump to the mysqldump of MySQL (package mysql-client), not MariaDB's"))
    };
    if line.to_ascii_lowercase().contains("mariadb") {
        return unknown("MariaDB's dump knows neither MySQL's GTIDs nor its accounts");
    }
    let behind = |word: &str| line.split_once(word).map(|(_, rest)| rest.trim_start());
    let Some(text) = behind("Distrib ").or_else(|| behind("Ver ")) else { return unknown("not a mysqldump") };
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u16>().ok());
    match (numbers.next().flatten(), numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor), patch) => Ok((major, minor, patch.unwrap_or(0))),
        _ => unknown("a mysqldump without a version"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: &str = "-- MySQL dump 10.13  Distrib 9.7.4\n--\n-- GTID state at the beginning of the backup \n--\n\n\
        SET @@GLOBAL.GTID_PURGED=/*!80000 '+'*/ '3e11fa47-71ca-11e1-9e33-c80aa9429562:1-14:nightly:1-2,\n\
        4e11fa47-71ca-11e1-9e33-c80aa9429562:1';\n\n--\n-- Position to start replication or point-in-time recovery from\n--\n\n\
        -- CHANGE REPLICATION SOURCE TO SOURCE_LOG_FILE='binlog.000001', SOURCE_LOG_POS=3428;\n\n";

    #[test]
    fn the_head_tells_both_coordinates() {
        let head = parse_head(HEAD.as_bytes()).unwrap().unwrap();
        assert_eq!(head.position.to_string(), "binlog.000001:3428");
        assert_eq!(head.executed.unwrap().count(), 17);
        for length in 0..HEAD.len() - 2 {
            assert_eq!(parse_head(&HEAD.as_bytes()[..length]).unwrap(), None, "{length}");
        }
        let old = "-- CHANGE MASTER TO MASTER_LOG_FILE='mysql-bin.000009', MASTER_LOG_POS=154;\n";
        let head = parse_head(old.as_bytes()).unwrap().unwrap();
        assert_eq!((head.position.offset, head.executed), (154, None));
        assert!(parse_head(b"-- CHANGE MASTER TO MASTER_LOG_FILE='x', MASTER_LOG_POS=154;\n").is_err());
    }

    #[test]
    fn only_a_closed_dump_is_whole() {
        assert!(is_closed(b"/*!40111 SET SQL_NOTES=@OLD_SQL_NOTES */;\n\n-- Dump completed on 2026-11-23  0:20:18\n"));
        assert!(!is_closed(b"INSERT INTO t VALUES ('-- Dump completed"));
        assert!(!is_closed(b"-- Dump completed\nINSERT INTO"));
        assert!(!is_closed(b""));
    }

    #[test]
    fn failures_are_told_apart() {
        let said =
            "mysqldump: Couldn't execute 'FLUSH TABLES': Lock wait timeout exceeded; try restarting transaction (1205)";
        assert!(matches!(judge_failure(said), Failure::Busy(_)));
        let said = "mysqldump: Error 1412: Table definition has changed, please retry transaction when dumping table `t` (1412)";
        assert!(matches!(judge_failure(said), Failure::Busy(_)));
        let said = "mysqldump: Got error: 1045: Access denied for user 'x'@'localhost' (using password: YES) when trying to connect";
        assert!(matches!(judge_failure(said), Failure::Refused));
        assert!(matches!(judge_failure("Killed"), Failure::Other));
    }

    #[test]
    fn versions_are_read() {
        let read = |line| parse_version(line).ok();
        assert_eq!(read("mysqldump  Ver 9.7.4-2 for Linux on x86_64 ((Debian))"), Some((9, 7, 4)));
        assert_eq!(read("mysqldump  Ver 10.13 Distrib 5.7.44, for Linux (x86_64)"), Some((5, 7, 44)));
        assert_eq!(read("mysqldump from 11.4.2-MariaDB, client 10.19 for Linux (x86_64)"), None);
        assert_eq!(read("something else"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in "[ -~\n]{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_head(format!("SET @@GLOBAL.GTID_PURGED={text}\n-- CHANGE X_LOG_FILE={text}\n").as_bytes());
            let _ = (parse_head(&bytes).is_ok(), is_closed(&bytes), parse_version(&text).is_ok(), judge_failure(&text));
        }
    }
}
