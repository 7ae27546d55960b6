//! `[retention]`: what is to be kept.

use std::time::Duration;

use serde::Deserialize;

use super::Config;
use super::values::{Span, de};
use crate::error::{Error, Result};
use crate::retention::Policy;
use crate::schedule::Schedule;

/// `[retention]`
#[derive(Debug, Clone, Deserialize)]
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
    /// When `run` prunes.
    pub schedule: Option<String>,
}

impl Default for RawRetention {
    fn default() -> Self {
        Self { keep: None, bases: 0, daily: 0, weekly: 0, monthly: 0, grace: Span::seconds(24 * 3600), schedule: None }
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
        let RawRetention { keep, bases, daily, weekly, monthly, grace, .. } = self.raw.retention.clone();
        let keep = keep.map(Span::get);
        if keep.is_some_and(|keep| keep < KEEP_MIN) {
            return Err(Error::config("retention.keep is less than an hour"));
        }
        Ok(Policy { keep, bases, daily, weekly, monthly, grace: grace.get() })
    }

    /// What `run` removes, and when; `None` if it removes nothing.
    ///
    /// # Errors
    /// If a value is out of range, or a schedule is given and nothing says what is to be kept.
    pub fn prune(&self) -> Result<Option<(Policy, Schedule)>> {
        let policy = self.retention()?;
        let Some(schedule) = self.schedule("retention.schedule", self.raw.retention.schedule.as_deref())? else {
            return Ok(None);
        };
        policy.check()?;
        Ok(Some((policy, schedule)))
    }
}
