//! Beacons: each agent says from time to time up to where it is, and as of when. The only objects that are overwritten.
//!
//! A beacon tells what chunks cannot: that nothing was written on the server since. It is information, never the truth
//! to resume from.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Archive, SemiSyncWord, SpoolWord};
use crate::error::{Context, Error, Result};
use crate::position::{Position, ServerUuid};
use crate::store::{self, ListDepth};

const BYTES_MAX: u64 = 64 << 10;
/// More agents than this on one archive are a mistake.
const AGENTS_MAX: usize = 10_000;

/// What an agent last said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beacon {
    /// Format version.
    pub format: u32,
    /// The agent's id, as configured.
    pub agent: String,
    /// The server it follows.
    pub server: ServerUuid,
    /// The server's version.
    pub server_version: String,
    /// Everything before this is durable in the archive's store.
    pub durable: Option<Position>,
    /// Where the server's binlog ended when the agent last asked.
    pub server_position: Option<Position>,
    /// When it asked, by the agent's clock, microseconds since 1970. If both positions are equal, the archive held
    /// everything at this time.
    pub as_of_us: u64,
    /// Oldest binlog file the server still has.
    pub oldest_file: Option<String>,
    /// Whether the agent had stopped in good order.
    pub stopped: bool,
    /// Version of the agent.
    pub version: String,
    /// Whether commits wait until they are durable; `None` where that is not asked for.
    #[serde(default)]
    pub semi_sync: Option<SemiSyncWord>,
    /// What is durable in the agent's spool only; `None` where there is none.
    #[serde(default)]
    pub spool: Option<SpoolWord>,
    /// When the agent last looked whether all of the archive is whole; `None` if it does not.
    #[serde(default)]
    pub verified: Option<VerifyWord>,
}

/// What came of looking whether all of an archive is whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyWord {
    /// When it was begun, microseconds since 1970.
    pub at_us: u64,
    /// What is not; `None` if everything is.
    pub problem: Option<String>,
}

impl Archive {
    /// Writes an agent's beacon.
    pub async fn put_beacon(&self, beacon: &Beacon) -> Result<()> {
        let key = super::key(format!("agents/{}.json", beacon.agent))?;
        let json =
            serde_json::to_vec_pretty(beacon).map_err(|error| Error::failed("write the beacon").source(error))?;
        self.store().put_over(&key, Bytes::from(json)).await.map_err(Error::from).context(|| format!("write {key}"))
    }

    /// Reads all beacons. One that cannot be read is reported in the log and left out: it is no truth.
    pub async fn beacons(&self) -> Result<Vec<Beacon>> {
        let listing = store::list_collect(self.store().as_ref(), "agents/", ListDepth::OneLevel, AGENTS_MAX).await;
        let listing = listing.map_err(Error::from).context(|| "list agents/".into())?;
        let mut beacons = Vec::new();
        for object in listing.objects {
            // Whole in one read: its size may have changed since it was listed.
            let body = self.store().get_range(&object.key, 0, BYTES_MAX).await.map_err(Error::from)?;
            match serde_json::from_slice::<Beacon>(&body) {
                Ok(beacon) => beacons.push(beacon),
                Err(error) => tracing::warn!(key = %object.key, %error, "a beacon cannot be read"),
            }
        }
        Ok(beacons)
    }
}
