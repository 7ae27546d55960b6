//! Whether a place is fit for a restore: versions, room, emptiness. Pure but for asking the file system.

use std::path::Path;

use serde::Serialize;

use crate::archive::{BaseContent, BaseManifest};
use crate::error::{Error, Kind, Result};
use crate::mysql::Version;
use crate::timeline::Plan;

/// What a restore will need, estimated.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Needs {
    /// Bytes on disk: the data, the redo log, the relay logs that wait.
    pub disk_bytes: u64,
    /// Seconds; a rough guess until a drill has measured this archive.
    pub seconds: f64,
}

/// Disk that a server without data takes, in bytes.
const EMPTY_SERVER_BYTES: u64 = 300 << 20;
/// Most bytes of relay logs that wait to be applied.
pub(super) const RELAY_BYTES: u64 = 1 << 30;
/// A guess at how fast statements of a dump are loaded, in bytes a second.
const LOAD_RATE: f64 = 20e6;
/// A guess at how fast files are put back, in bytes a second.
const FILES_RATE: f64 = 150e6;
/// A guess at how fast binlog is replayed, in bytes a second.
const REPLAY_RATE: f64 = 10e6;

/// Estimates what a plan needs.
pub fn needs(plan: &Plan) -> Needs {
    let base = match plan.base.content {
        // Text and its tables differ: indexes and half-filled pages weigh more than the digits they replace.
        BaseContent::Sql => plan.base.raw_bytes.saturating_add(plan.base.raw_bytes / 2),
        // Pages that changed meanwhile are in it twice.
        BaseContent::Clone => plan.base.clone.as_ref().map_or(plan.base.raw_bytes, |facts| facts.disk_bytes),
        _ => plan.base.raw_bytes,
    };
    let relay = plan.raw_bytes.min(RELAY_BYTES);
    // Row images that are inserted are about what they add.
    let added = plan.raw_bytes / 4;
    let disk_bytes = EMPTY_SERVER_BYTES.saturating_add(base).saturating_add(relay).saturating_add(added);
    let rate = if plan.base.content == BaseContent::Sql { LOAD_RATE } else { FILES_RATE };
    #[expect(clippy::cast_precision_loss, reason = "a rough guess")]
    let seconds = 10.0 + plan.base.raw_bytes as f64 / rate + plan.raw_bytes as f64 / REPLAY_RATE;
    Needs { disk_bytes, seconds }
}

/// Whether a server of this version can take what one of the archived version wrote.
pub(super) fn judge_version(restoring: &Version, archived: &str) -> Result<()> {
    let archived = Version::parse(archived);
    let unfit = |why: String, hint: &str| Err(Error::new(Kind::Unfit, why).hint(hint));
    if restoring.is_mariadb != archived.is_mariadb {
        return unfit(
            format!("the restoring server is {restoring}, the archive is of {archived}"),
            "give a MySQL server with --mysqld",
        );
    }
    let series = |version: &Version| (version.major, version.minor);
    if series(restoring) < series(&archived) {
        return unfit(
            format!("the restoring server is {restoring}, older than the archived one ({archived})"),
            "give a mysqld of the archived version, or a later one, with --mysqld",
        );
    }
    if restoring.major > archived.major.saturating_add(1) {
        return unfit(
            format!("the restoring server is {restoring}, too far ahead of the archived one ({archived})"),
            "give a mysqld of the archived version with --mysqld, and upgrade step by step from there",
        );
    }
    Ok(())
}

/// Whether there is room.
pub(super) fn judge_space(needed: u64, free: u64, place: &Path) -> Result<()> {
    if free >= needed {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    Err(Error::config(format!(
        "{} has {} MiB free, the restore needs about {} MiB",
        place.display(),
        mib(free),
        mib(needed)
    ))
    .hint("give a --datadir on a larger disk; --no-space-check goes on all the same"))
}

/// Bytes free where `place`, or the nearest folder above it that exists, lies.
pub(super) fn free_bytes(place: &Path) -> Result<u64> {
    let there = place.ancestors().find(|folder| folder.exists()).unwrap_or_else(|| Path::new("/"));
    let found = rustix::fs::statvfs(there)
        .map_err(|error| Error::failed(format!("ask for the room at {}", there.display())).source(error))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Settings of the archived server that a server must have before its first start, or by which statements mean other
/// things. What an event carries itself (`sql_mode`, character sets, time zone) need not be here.
const KEPT_SETTINGS: &[&str] = &[
    "lower_case_table_names",
    "innodb_page_size",
    "character_set_server",
    "collation_server",
    "explicit_defaults_for_timestamp",
    "default_storage_engine",
    "innodb_default_row_format",
    "innodb_strict_mode",
    "log_bin_trust_function_creators",
];

/// Options for the restoring server so that it agrees with the archived one.
pub(super) fn initial_options(base: &BaseManifest) -> Vec<String> {
    let plain = |value: &str| !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let kept = KEPT_SETTINGS.iter().filter_map(|name| Some((name, base.settings.get(*name)?)));
    kept.filter(|(_, value)| plain(value))
        .map(|(name, value)| format!("--{}={value}", name.replace('_', "-")))
        .collect()
}

/// Whether a server id is free.
pub(super) fn judge_server_id(own: u32, archived: u32) -> Result<()> {
    if own != archived {
        return Ok(());
    }
    Err(Error::new(Kind::Unfit, format!("the restoring server has server_id {own}, as the archived one has")).hint(
        "a replica silently discards events of its own id: SET GLOBAL server_id to another number, and run again",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_judged_by_series() {
        let judge = |restoring: &str, archived: &str| judge_version(&Version::parse(restoring), archived);
        assert!(judge("9.7.4", "9.7.9").is_ok());
        assert!(judge("9.7.4", "8.4.2").is_ok());
        assert_eq!(judge("8.0.36", "8.4.0").unwrap_err().kind(), Kind::Unfit);
        assert_eq!(judge("9.7.4", "5.7.44").unwrap_err().kind(), Kind::Unfit);
        assert_eq!(judge("11.8.6-MariaDB", "9.7.4").unwrap_err().kind(), Kind::Unfit);
    }

    #[test]
    fn too_little_room_is_said_in_numbers() {
        assert!(judge_space(10, 10, Path::new("/x")).is_ok());
        let error = judge_space(3 << 30, 1 << 30, Path::new("/x")).unwrap_err();
        assert_eq!(error.to_string(), "/x has 1024 MiB free, the restore needs about 3072 MiB");
    }

    #[test]
    fn its_own_id_is_refused() {
        assert!(judge_server_id(1, 2).is_ok());
        assert_eq!(judge_server_id(7, 7).unwrap_err().kind(), Kind::Unfit);
    }
}
