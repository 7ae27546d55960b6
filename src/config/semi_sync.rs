//! `[semi_sync]`: whether commits wait until they are durable, and when they shall no longer.

use std::time::Duration;

use serde::Deserialize;

use super::Config;
use super::values::Span;
use crate::error::Result;

/// When the agent acknowledges a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SemiSyncMode {
    /// Never: it is an ordinary, asynchronous replica.
    #[default]
    Off,
    /// When the store has acknowledged the chunk.
    Store,
    /// When it is durable in the spool; the store gets it later.
    Spool,
}

impl SemiSyncMode {
    /// The name, as in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Store => "store",
            Self::Spool => "spool",
        }
    }
}

/// `[semi_sync]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawSemiSync {
    /// off, store or spool.
    pub mode: SemiSyncMode,
    /// The longest that a commit may wait for us.
    pub wait_limit: Span,
    /// How long the agent stays away after a commit has waited too long.
    pub return_after: Span,
}

impl Default for RawSemiSync {
    fn default() -> Self {
        Self { mode: SemiSyncMode::Off, wait_limit: Span::seconds(3), return_after: Span::seconds(10) }
    }
}

/// How the agent takes part in semi-synchronous replication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SemiSyncOptions {
    /// When it acknowledges.
    pub mode: SemiSyncMode,
    /// When a commit has waited so long, the agent leaves.
    pub wait_limit: Duration,
    /// It comes back so much later at the earliest; doubled each time it has to leave soon again.
    pub return_after: Duration,
}

impl Config {
    /// How the agent takes part in semi-synchronous replication.
    ///
    /// # Errors
    /// If a value is out of range.
    pub fn semi_sync(&self) -> Result<SemiSyncOptions> {
        let RawSemiSync { mode, wait_limit, return_after } = &self.raw.semi_sync;
        Ok(SemiSyncOptions {
            mode: *mode,
            wait_limit: wait_limit.at_least(Duration::from_millis(50), "semi_sync.wait_limit")?,
            return_after: return_after.at_least(Duration::from_millis(100), "semi_sync.return_after")?,
        })
    }
}
