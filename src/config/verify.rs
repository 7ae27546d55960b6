//! `[verify]`: looking whether all of the archive is whole, inside `run`.

use serde::Deserialize;

use super::Config;
use crate::error::Result;
use crate::schedule::Schedule;

/// `[verify]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawVerify {
    /// When `run` does.
    pub schedule: Option<String>,
}

impl Config {
    /// When `run` verifies the archive; `None` if it does not.
    ///
    /// # Errors
    /// If it is no schedule.
    pub fn verify(&self) -> Result<Option<Schedule>> {
        self.schedule("verify.schedule", self.raw.verify.schedule.as_deref())
    }

    /// Checks what is done by schedule.
    pub(super) fn upkeep_schedules(&self) -> Result<()> {
        self.prune()?;
        self.verify()?;
        Ok(())
    }
}
