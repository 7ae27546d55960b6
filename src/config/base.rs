//! `[base]`: base backups, how and when.
//!
//! Owns: names, defaults and checks of the section. Does not own: what the engines do (`base`).

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::values::{Lines, Size, Span};
use super::{Config, values};
use crate::base::{BaseOptions, CommandOptions, CoordinatesFrom, DdlRule, EngineName};
use crate::error::{Error, Result};
use crate::schedule::Schedule;

/// `[base]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawBase {
    /// clone, mysqldump or command; chosen by what the server can if left out.
    pub engine: Option<String>,
    /// Cron expression: when `run` takes base backups; never if left out.
    pub schedule: Option<String>,
    /// IANA name of the schedule's time zone; the system's if left out.
    pub time_zone: Option<String>,
    /// Each scheduled backup begins up to this much later.
    pub jitter: Span,
    /// The mysqldump program.
    pub mysqldump: PathBuf,
    /// More options for it.
    pub mysqldump_options: Lines,
    /// How long a lock is waited for.
    pub lock_wait: Span,
    /// No lock is tried while a statement has been running for this long.
    pub long_query: Span,
    /// watch or lock: what is done about DDL during a dump.
    pub ddl: Option<String>,
    /// How long a failing backup is tried again.
    pub give_up_after: Span,
    /// Unpacked bytes of a part.
    pub part_size: Size,
    /// Bytes a second that the clone engine takes of the server.
    pub max_rate: Option<Size>,
    /// Where the clone engine keeps what comes faster than the store takes it.
    pub spool_dir: PathBuf,
    /// How much of it; 0 for none.
    pub spool_max: Size,
    /// The command engine.
    pub command: RawBaseCommand,
}

impl Default for RawBase {
    fn default() -> Self {
        Self {
            engine: None,
            schedule: None,
            time_zone: None,
            jitter: Span::seconds(0),
            mysqldump: "mysqldump".into(),
            mysqldump_options: Lines::default(),
            lock_wait: Span::seconds(5),
            long_query: Span::seconds(10),
            ddl: None,
            give_up_after: Span::seconds(3600),
            part_size: Size::mebibytes(8),
            max_rate: None,
            spool_dir: "/var/tmp".into(),
            spool_max: Size::mebibytes(1024),
            command: RawBaseCommand::default(),
        }
    }
}

/// `[base.command]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawBaseCommand {
    /// Writes the backup to stdout.
    pub backup: Option<String>,
    /// Where `{file}` and `{position}` stand in the text that tells the coordinates.
    pub coordinates: Option<String>,
    /// Tells the coordinates on stdout, after the backup; without it they are looked for in the backup's stderr.
    pub coordinates_command: Option<String>,
    /// Run under a short read lock, under which the coordinates are taken; the backup follows.
    pub snapshot: Option<String>,
    /// How long the snapshot may take: production's writes wait for it.
    pub snapshot_timeout: Span,
    /// Run at the end, whatever happened.
    pub cleanup: Option<String>,
    /// Puts the backup back: gets it on stdin.
    pub restore: Option<String>,
    /// What `restore` needs: datadir or server.
    pub restore_into: Option<String>,
}

impl Default for RawBaseCommand {
    fn default() -> Self {
        Self {
            backup: None,
            coordinates: None,
            coordinates_command: None,
            snapshot: None,
            snapshot_timeout: Span::seconds(30),
            cleanup: None,
            restore: None,
            restore_into: None,
        }
    }
}

/// What a restore command needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestoreInto {
    /// An empty data directory, which it fills before the server starts.
    DataDir,
    /// A running, empty server, which it loads.
    Server,
}

/// How a command's backup is put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreCommand {
    /// Gets the backup on stdin; run by `sh -c`.
    pub command: String,
    /// What it needs.
    pub into: RestoreInto,
}

impl Config {
    /// How base backups are taken; `engine` comes from the command line.
    ///
    /// # Errors
    /// If a value cannot be used, or the engine is not configured.
    pub fn base(&self, engine: Option<EngineName>) -> Result<BaseOptions> {
        let base = &self.raw.base;
        let command = command_options(&base.command)?;
        let engine = match (engine, &base.engine) {
            (Some(engine), _) => Some(engine),
            (None, Some(name)) => Some(name.parse()?),
            (None, None) => None,
        };
        if engine == Some(EngineName::Command) && command.is_none() {
            return Err(Error::config("the engine command is chosen, but base.command.backup is not set")
                .hint("give the command that writes a backup to stdout, in [base.command]"));
        }
        let part_bytes = base.part_size.get();
        if !(64 << 10..=256 << 20).contains(&part_bytes) {
            return Err(Error::config("base.part_size must be from 64KiB to 256MiB"));
        }
        let max_rate = base.max_rate.map(Size::get);
        if max_rate.is_some_and(|rate| rate < 64 << 10) {
            return Err(Error::config("base.max_rate must be at least 64KiB, which is meant a second"));
        }
        let schedule = self.schedule("base.schedule", base.schedule.as_deref())?;
        Ok(BaseOptions {
            engine,
            mysqldump: base.mysqldump.clone(),
            mysqldump_options: base.mysqldump_options.0.clone(),
            command,
            lock_wait: base.lock_wait.at_least(Duration::from_secs(1), "base.lock_wait")?,
            long_query: base.long_query.at_least(Duration::from_secs(1), "base.long_query")?,
            ddl: values::named(
                "base.ddl",
                Some(base.ddl.as_deref().unwrap_or("watch")),
                &[("watch", DdlRule::Watch), ("lock", DdlRule::Lock)],
            )?,
            give_up_after: base.give_up_after.get(),
            part_bytes,
            max_rate,
            spool_dir: base.spool_dir.clone(),
            spool_max: base.spool_max.get(),
            schedule,
        })
    }

    /// When something is due, by `setting`, in `base.time_zone` and with `base.jitter`.
    pub(super) fn schedule(&self, setting: &str, expression: Option<&str>) -> Result<Option<Schedule>> {
        let (base, agent) = (&self.raw.base, &self.raw.agent.id);
        let read = |text| Schedule::new(setting, text, base.time_zone.as_deref(), base.jitter.get(), agent);
        expression.map(read).transpose()
    }

    /// How a command's backup is put back, if that is configured.
    ///
    /// # Errors
    /// If `base.command.restore_into` is unknown.
    pub fn base_restore(&self) -> Result<Option<RestoreCommand>> {
        let raw = &self.raw.base.command;
        let into = values::named(
            "base.command.restore_into",
            Some(raw.restore_into.as_deref().unwrap_or("datadir")),
            &[("datadir", RestoreInto::DataDir), ("server", RestoreInto::Server)],
        )?;
        Ok(raw.restore.clone().map(|command| RestoreCommand { command, into }))
    }
}

fn command_options(raw: &RawBaseCommand) -> Result<Option<CommandOptions>> {
    let Some(backup) = raw.backup.clone() else { return Ok(None) };
    let pattern = || {
        let pattern = raw.coordinates.clone().ok_or_else(|| {
            Error::config("base.command.coordinates is not set").hint(
                "say how the tool tells its binlog position, as in \"filename '{file}', position '{position}'\"; \
                 or set base.command.snapshot, and the position is taken under a read lock",
            )
        })?;
        let names = ["{file}", "{position}"];
        if names.iter().all(|name| pattern.contains(name)) {
            Ok(pattern)
        } else {
            Err(Error::config(format!("base.command.coordinates {pattern:?} lacks {{file}} or {{position}}")))
        }
    };
    let coordinates = match (&raw.snapshot, &raw.coordinates_command) {
        (Some(_), Some(_)) => {
            return Err(Error::config("base.command.snapshot and base.command.coordinates_command are both set")
                .hint("under a snapshot's lock the coordinates are taken from the server: keep one of them"));
        }
        (Some(snapshot), None) => CoordinatesFrom::Lock {
            snapshot: snapshot.clone(),
            timeout: raw.snapshot_timeout.at_least(Duration::from_secs(1), "base.command.snapshot_timeout")?,
        },
        (None, Some(command)) => CoordinatesFrom::Output { command: command.clone(), pattern: pattern()? },
        (None, None) => CoordinatesFrom::Stderr { pattern: pattern()? },
    };
    Ok(Some(CommandOptions { backup, coordinates, cleanup: raw.cleanup.clone() }))
}
