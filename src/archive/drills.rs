//! What restore drills found: `drills/<when>.json`, one object a drill, never overwritten.

use serde::{Deserialize, Serialize};

use super::Archive;
use crate::error::Result;
use crate::position::{CommitTime, GtidSet, Position};

const FOLDER: &str = "drills/";

/// A drill's record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drill {
    /// Version of the record's schema: 1.
    pub schema: u32,
    /// When it began, microseconds since 1970.
    pub started_us: u64,
    /// When it ended.
    pub finished_us: u64,
    /// Whether everything held.
    pub ok: bool,
    /// What did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The base backup that was restored.
    pub base: Option<String>,
    /// The target, as it was given.
    pub target: String,
    /// Where the restore ended.
    pub position: Option<Position>,
    /// Commit time of the last transaction in it, microseconds since 1970.
    pub reached_us: Option<u64>,
    /// What was executed.
    pub executed: Option<GtidSet>,
    /// Transactions replayed.
    pub transactions: u64,
    /// Seconds for loading the base.
    pub load_seconds: f64,
    /// Seconds of replay.
    pub replay_seconds: f64,
    /// Seconds in all: the measured RTO.
    pub seconds: f64,
    /// Bytes of the base, unpacked.
    pub base_bytes: u64,
    /// Raw bytes of binlog replayed.
    pub binlog_bytes: u64,
    /// Tables that CHECK TABLE found well.
    pub tables: u64,
    /// Assertions that held.
    pub assertions: u64,
    /// Version of the server it ran on.
    pub server_version: String,
    /// Version of binvault.
    pub version: String,
}

impl Drill {
    /// When it began, RFC 3339.
    pub fn started(&self) -> String {
        CommitTime::from_micros(self.started_us).rfc3339()
    }
}

impl Archive {
    /// Keeps a record.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn put_drill(&self, drill: &Drill) -> Result<()> {
        self.put_record(FOLDER, drill.started_us, drill).await
    }

    /// The records, oldest first; of very many the newest thousand. One that cannot be read is logged.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn drills(&self) -> Result<Vec<Drill>> {
        self.records(FOLDER).await
    }
}
