//! `[restore]`, `[drill]`, `[objectives]`: how to bring data back, how to prove that it works, and how well it should.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::Config;
use super::values::{Lines, Span, de, one_secret, parse_source_url};
use crate::error::{Error, Result};
use crate::mysql::{Address, SourceOptions};
use crate::restore::{Assertion, DatadirOptions};

/// `[restore]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawRestore {
    /// The server's program.
    pub mysqld: Option<PathBuf>,
    /// The client's program.
    pub mysql: Option<PathBuf>,
    /// Further options for the private server.
    pub mysqld_options: Lines,
    /// Where the keyring of a clone with encrypted tablespaces is written.
    pub keyring: Option<PathBuf>,
    /// Appliers; by the number of cores if left out.
    #[serde(deserialize_with = "de::number_opt")]
    pub workers: Option<usize>,
}

/// `[drill]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawDrill {
    /// Folder in which the throw-away data directory is made.
    pub folder: Option<PathBuf>,
    /// CHECK TABLE on every table.
    pub check_tables: super::values::Flag,
    /// The user's assertions.
    pub assertions: Vec<Assertion>,
}

impl Default for RawDrill {
    fn default() -> Self {
        Self { folder: None, check_tables: super::values::Flag(true), assertions: Vec::new() }
    }
}

/// `[objectives]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawObjectives {
    /// Most data that may be lost, as a time.
    pub rpo: Option<Span>,
    /// Longest a restore may take.
    pub rto: Option<Span>,
}

/// What the archive should be good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Objectives {
    /// Most data that may be lost, as a time.
    pub rpo: Option<Duration>,
    /// Longest a restore may take.
    pub rto: Option<Duration>,
}

/// Appliers if none are configured.
fn default_workers() -> usize {
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    cores.saturating_mul(2).clamp(4, 32)
}

impl Config {
    /// How to restore into a data directory.
    ///
    /// # Errors
    /// If a value is out of range.
    pub fn restore(&self, datadir: PathBuf) -> Result<DatadirOptions> {
        let raw = &self.raw.restore;
        Ok(DatadirOptions {
            datadir,
            mysqld: raw.mysqld.clone(),
            mysql: raw.mysql.clone(),
            settings: raw.mysqld_options.0.clone(),
            workers: self.restore_workers()?,
            keyring: raw.keyring.clone(),
            check_space: true,
            keep_running: false,
        })
    }

    /// Appliers.
    ///
    /// # Errors
    /// If the number is out of range.
    pub fn restore_workers(&self) -> Result<usize> {
        let workers = self.raw.restore.workers.unwrap_or_else(default_workers);
        if (1..=1024).contains(&workers) {
            Ok(workers)
        } else {
            Err(Error::config("restore.workers must be from 1 to 1024"))
        }
    }

    /// Where a drill's data directory is made.
    pub fn drill_folder(&self) -> PathBuf {
        self.raw.drill.folder.clone().unwrap_or_else(std::env::temp_dir)
    }

    /// What a drill looks at.
    pub fn drill_examine(&self) -> crate::restore::Examine {
        let drill = &self.raw.drill;
        crate::restore::Examine { check_tables: drill.check_tables.0, assertions: drill.assertions.clone() }
    }

    /// The objectives.
    pub fn objectives(&self) -> Objectives {
        let objectives = &self.raw.objectives;
        Objectives { rpo: objectives.rpo.map(Span::get), rto: objectives.rto.map(Span::get) }
    }
}

/// A server named on the command line: `mysql://user@host:3306` or `/path/of/socket` (as the account `root`).
///
/// # Errors
/// [`crate::error::Kind::Config`] if it cannot be understood or its password cannot be read.
pub fn server_options(url: &str, password_file: Option<&std::path::Path>) -> Result<SourceOptions> {
    let given = one_secret("the server's password", &None, password_file)?;
    if url.starts_with('/') {
        return Ok(SourceOptions::new(Address::Socket(url.into()), "root", given));
    }
    let parsed = parse_source_url(url)?;
    let user = parsed.user.unwrap_or_else(|| "root".to_owned());
    let address = Address::Tcp { host: parsed.host, port: parsed.port };
    Ok(SourceOptions::new(address, user, given.or(parsed.password)))
}
