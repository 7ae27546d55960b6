//! How base backups are taken: the engines' settings, filled by the configuration.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::schedule::Schedule;

/// Which engine takes a base backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineName {
    /// MySQL's own CLONE protocol.
    Clone,
    /// The stock `mysqldump`.
    Mysqldump,
    /// A configured command.
    Command,
}

impl EngineName {
    /// Its name in the configuration, and in a backup's id.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clone => "clone",
            Self::Mysqldump => "mysqldump",
            Self::Command => "command",
        }
    }
}

impl std::str::FromStr for EngineName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Self::Clone, Self::Mysqldump, Self::Command].into_iter().find(|name| name.as_str() == text).ok_or_else(|| {
            Error::config(format!("there is no engine {text:?} for base backups"))
                .hint("use clone, mysqldump or command")
        })
    }
}

/// What is done about DDL while a backup is taken: `mysqldump` does not notice every change of a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DdlRule {
    /// The binlog is watched; a statement that may spoil the dump ends it, and it begins again. A clone of 8.0.27 or
    /// later takes DDL in.
    Watch,
    /// LOCK INSTANCE FOR BACKUP: DDL waits until the backup is through.
    Lock,
}

/// The command engine's settings.
#[derive(Debug, Clone)]
pub struct CommandOptions {
    /// Writes the backup to stdout; run by `sh -c`.
    pub backup: String,
    /// Where the coordinates come from.
    pub coordinates: CoordinatesFrom,
    /// Run at the end, whatever happened.
    pub cleanup: Option<String>,
}

/// Where a command's coordinates come from.
#[derive(Debug, Clone)]
pub enum CoordinatesFrom {
    /// Its stderr, where the pattern fits.
    Stderr {
        /// The pattern.
        pattern: String,
    },
    /// What another command prints, after the backup.
    Output {
        /// The command.
        command: String,
        /// The pattern.
        pattern: String,
    },
    /// The server, asked under a read lock, in which the snapshot is taken.
    Lock {
        /// The command that takes the snapshot.
        snapshot: String,
        /// How long it may take.
        timeout: Duration,
    },
}

/// How base backups are taken.
#[derive(Debug, Clone)]
pub struct BaseOptions {
    /// The engine; `None`: a clone where the server gives one that is all of it, else mysqldump.
    pub engine: Option<EngineName>,
    /// The mysqldump program.
    pub mysqldump: PathBuf,
    /// More options for it.
    pub mysqldump_options: Vec<String>,
    /// The command engine's settings, if it is configured.
    pub command: Option<CommandOptions>,
    /// How long a lock is waited for.
    pub lock_wait: Duration,
    /// No lock is tried while a statement has been running for this long.
    pub long_query: Duration,
    /// What is done about DDL.
    pub ddl: DdlRule,
    /// How long a failing backup is tried again.
    pub give_up_after: Duration,
    /// Unpacked bytes of a part, from 64 KiB to 256 MiB.
    pub part_bytes: u64,
    /// Bytes a second that are taken of the server, by the clone engine; `None`: as many as come.
    pub max_rate: Option<u64>,
    /// Where the clone engine keeps what comes faster than the store takes it.
    pub spool_dir: PathBuf,
    /// How much of it, in bytes; 0: nothing, the server waits.
    pub spool_max: u64,
    /// When `run` takes them.
    pub schedule: Option<Schedule>,
}
