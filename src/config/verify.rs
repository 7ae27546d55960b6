//! `[verify]`: looking whether all of the archive is whole, inside `run`.

use serde::Deserialize;

use super::Config;
use crate::error::Result;
use crate::schedule::Schedule;

/// `[verify]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawVerify {
    /// When `run` does.
    pub schedule: Option<String>,
    /// Whether it reads base backups too.
    pub bases: bool,
}

impl Default for RawVerify {
    fn default() -> Self {
        Self { schedule: None, bases: true }
    }
}

/// When `run` verifies the archive, and what of it.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    /// When.
    pub schedule: Schedule,
    /// Whether it reads base backups too.
    pub bases: bool,
}

impl Config {
    /// How `run` verifies the archive; `None` if it does not.
    ///
    /// # Errors
    /// If it is no schedule.
    pub fn verify(&self) -> Result<Option<VerifyOptions>> {
        let bases = self.raw.verify.bases;
        let schedule = self.schedule("verify.schedule", self.raw.verify.schedule.as_deref())?;
        Ok(schedule.map(|schedule| VerifyOptions { schedule, bases }))
    }

    /// Checks what is done by schedule.
    pub(super) fn upkeep_schedules(&self) -> Result<()> {
        self.prune()?;
        self.verify()?;
        Ok(())
    }
}
