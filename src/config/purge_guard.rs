//! `[purge_guard]`: having the server's own binlogs purged when they are safe.

use std::time::Duration;

use serde::Deserialize;

use super::Config;
use super::values::{Flag, Span, de};
use crate::error::{Error, Result};

/// `[purge_guard]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawPurgeGuard {
    /// Whether it does anything.
    pub enabled: Flag,
    /// How long ago a file must have been closed.
    pub min_age: Span,
    /// Files that always stay.
    #[serde(deserialize_with = "de::number")]
    pub keep_files: usize,
    /// Files purged at a time.
    #[serde(deserialize_with = "de::number")]
    pub step: usize,
}

impl Default for RawPurgeGuard {
    fn default() -> Self {
        Self { enabled: Flag(false), min_age: Span::seconds(24 * 3600), keep_files: 2, step: 2 }
    }
}

/// What may be purged on the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PurgeOptions {
    /// How long ago a file must have been closed.
    pub min_age: Duration,
    /// Files that always stay, the one being written among them.
    pub keep_files: usize,
    /// Files purged at a time.
    pub step: usize,
}

impl Config {
    /// What may be purged on the server; `None` if nothing.
    ///
    /// # Errors
    /// If a value is out of range.
    pub fn purge_guard(&self) -> Result<Option<PurgeOptions>> {
        let RawPurgeGuard { enabled, min_age, keep_files, step } = &self.raw.purge_guard;
        if *keep_files == 0 || *step == 0 {
            return Err(Error::config("purge_guard.keep_files and purge_guard.step must be at least 1"));
        }
        Ok(enabled.0.then_some(PurgeOptions { min_age: min_age.get(), keep_files: *keep_files, step: *step }))
    }
}
