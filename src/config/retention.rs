//! `[retention]`: what is to be kept.

use std::time::Duration;

use serde::Deserialize;

use super::Config;
use super::values::{Span, de};
use crate::error::{Error, Result};
use crate::retention::Policy;

/// `[retention]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawRetention {
    /// How far back every moment can be restored.
    pub keep: Option<Span>,
    /// At least so many base backups, and every moment since.
    #[serde(deserialize_with = "de::number")]
    pub bases: usize,
    /// The newest base backup of each of so many days.
    #[serde(deserialize_with = "de::number")]
    pub daily: usize,
    /// Of so many weeks.
    #[serde(deserialize_with = "de::number")]
    pub weekly: usize,
    /// Of so many months.
    #[serde(deserialize_with = "de::number")]
    pub monthly: usize,
    /// Longest restore.
    pub grace: Span,
}

impl Default for RawRetention {
    fn default() -> Self {
        Self { keep: None, bases: 0, daily: 0, weekly: 0, monthly: 0, grace: Span::seconds(24 * 3600) }
    }
}

/// Shortest time that is kept: a slip of the pen must not empty an archive.
const KEEP_MIN: Duration = Duration::from_secs(3600);

impl Config {
    /// What is to be kept.
    ///
    /// # Errors
    /// If a value is out of range.
    pub fn retention(&self) -> Result<Policy> {
        let RawRetention { keep, bases, daily, weekly, monthly, grace } = self.raw.retention;
        let keep = keep.map(Span::get);
        if keep.is_some_and(|keep| keep < KEEP_MIN) {
            return Err(Error::config("retention.keep is less than an hour"));
        }
        Ok(Policy { keep, bases, daily, weekly, monthly, grace: grace.get() })
    }
}
