//! What restore drills found: `drills/<when>.json`, one object a drill, never overwritten.

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use super::Archive;
use crate::error::{Context, Error, Result};
use crate::position::{CommitTime, GtidSet, Position};
use crate::store::{self, ListDepth};

const FOLDER: &str = "drills/";
/// Largest record, in bytes.
const RECORD_BYTES_MAX: u64 = 4 << 20;
/// Records read at a time.
const READS: usize = 8;
/// Newest records that are read: a drill a day makes three years.
const RECORDS_MAX: usize = 1000;
/// Most objects listed.
const ENTRIES_MAX: usize = 1 << 20;

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
        let key = super::key(format!("{FOLDER}{}.json", CommitTime::from_micros(drill.started_us)))?;
        let mut json =
            serde_json::to_vec_pretty(drill).map_err(|error| Error::failed("write a drill's record").source(error))?;
        json.push(b'\n');
        self.store().put_new(&key, Bytes::from(json)).await.map_err(Error::from).context(|| format!("store {key}"))?;
        Ok(())
    }

    /// The records, oldest first; of very many the newest thousand. One that cannot be read is logged.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn drills(&self) -> Result<Vec<Drill>> {
        let listing = store::list_collect(self.store().as_ref(), FOLDER, ListDepth::Everything, ENTRIES_MAX).await;
        let mut objects = listing.map_err(Error::from).context(|| format!("list {FOLDER}"))?.objects;
        objects.sort_by(|a, b| a.key.as_str().cmp(b.key.as_str()));
        let skip = objects.len().saturating_sub(RECORDS_MAX);
        let read = |object: store::ObjectMeta| async move {
            let unreadable = |error: &dyn std::fmt::Display| {
                tracing::warn!(object = %object.key, %error, "a drill's record cannot be read");
                Ok::<_, Error>(None)
            };
            match store::get_all(self.store().as_ref(), &object.key, RECORD_BYTES_MAX).await {
                Ok(body) => serde_json::from_slice::<Drill>(&body).map(Some).or_else(|error| unreadable(&error)),
                Err(error) if error.kind == store::StoreErrorKind::Corrupt => unreadable(&error),
                Err(error) => Err(Error::from(error).context(format!("read {}", object.key))),
            }
        };
        let all: Vec<Option<Drill>> =
            stream::iter(objects.into_iter().skip(skip)).map(read).buffered(READS).try_collect().await?;
        Ok(all.into_iter().flatten().collect())
    }
}
