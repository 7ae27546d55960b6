//! Recorded breaks in history: `gaps/<when>.json`, one object a break, never overwritten.
//!
//! Listings show where bytes are missing between and inside of files; a record says what happened, when, to whom, and which
//! transactions are concerned. It stays when nothing else tells any more.

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use super::Archive;
use crate::error::{Context, Error, Result};
use crate::position::{CommitTime, GtidSet, Incarnation, Position, ServerUuid};
use crate::store::{self, ListDepth};

const FOLDER: &str = "gaps/";
/// Largest record, in bytes.
const RECORD_BYTES_MAX: u64 = 1 << 20;
/// Records read at a time.
const READS: usize = 8;
/// Newest records that are read.
const RECORDS_MAX: usize = 1000;
/// Most objects listed.
const ENTRIES_MAX: usize = 1 << 20;

/// What broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakKind {
    /// Binlogs were purged before they were archived.
    Purged,
    /// The server's binlogs begin anew: reset, re-cloned or restored under the same uuid, or renamed without GTIDs.
    Reset,
    /// The server lost the tail of its last file in a crash; the archive has it.
    LostTail,
    /// Another server took the place of the archived one, without some of its transactions, or with some that nobody has.
    Failover,
}

impl BreakKind {
    /// The name, as in the record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Purged => "purged",
            Self::Reset => "reset",
            Self::LostTail => "lost_tail",
            Self::Failover => "failover",
        }
    }
}

/// One break.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapRecord {
    /// Version of the record's schema: 1.
    pub schema: u32,
    /// When it was found, microseconds since 1970.
    pub at_us: u64,
    /// The agent that found it.
    pub agent: String,
    /// What broke.
    pub kind: BreakKind,
    /// The same for people.
    pub problem: String,
    /// The server that was archived until then.
    pub server: ServerUuid,
    /// Where that archive ends.
    pub ends: Position,
    /// The server that is archived from then on.
    pub goes_on_with: ServerUuid,
    /// Where archiving begins anew.
    pub goes_on_at: Position,
    /// Transactions of the new history that nobody has archived and that the server no longer has; `None`: without GTIDs
    /// nobody can tell.
    pub missing: Option<GtidSet>,
    /// Archived transactions that the server no longer has.
    pub lost: Option<GtidSet>,
}

impl GapRecord {
    /// When it was found, RFC 3339.
    pub fn at(&self) -> String {
        CommitTime::from_micros(self.at_us).rfc3339()
    }

    /// Whether something is missing, or lost, or may be.
    pub fn is_loss(&self) -> bool {
        [&self.missing, &self.lost].iter().any(|set| set.as_ref().is_none_or(|set| !set.is_empty()))
    }

    /// Whether it tells why a file of a server's begins without a link to another.
    pub fn explains(&self, server: &ServerUuid, incarnation: &Incarnation) -> bool {
        let begun_us = u64::from(incarnation.created_s).saturating_mul(1_000_000);
        self.goes_on_with == *server && self.goes_on_at.file == incarnation.file && begun_us <= self.at_us
    }

    /// Whether both tell the same.
    fn repeats(&self, other: &Self) -> bool {
        let Self { kind, server, ends, goes_on_with, goes_on_at, missing, lost, .. } = self;
        *kind == other.kind
            && (server, ends, goes_on_with, goes_on_at)
                == (&other.server, &other.ends, &other.goes_on_with, &other.goes_on_at)
            && (missing, lost) == (&other.missing, &other.lost)
    }
}

impl Archive {
    /// Keeps a record, unless the newest one tells the same already. Returns whether it is news.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn put_gap(&self, gap: &GapRecord) -> Result<bool> {
        if self.gaps().await?.last().is_some_and(|last| gap.repeats(last)) {
            return Ok(false);
        }
        let key = super::key(format!("{FOLDER}{}.json", CommitTime::from_micros(gap.at_us)))?;
        let mut json =
            serde_json::to_vec_pretty(gap).map_err(|error| Error::failed("write a gap's record").source(error))?;
        json.push(b'\n');
        self.store().put_new(&key, Bytes::from(json)).await.map_err(Error::from).context(|| format!("store {key}"))?;
        Ok(true)
    }

    /// The records, oldest first; of very many the newest thousand. One that cannot be read is logged.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn gaps(&self) -> Result<Vec<GapRecord>> {
        let listing = store::list_collect(self.store().as_ref(), FOLDER, ListDepth::Everything, ENTRIES_MAX).await;
        let mut objects = listing.map_err(Error::from).context(|| format!("list {FOLDER}"))?.objects;
        objects.sort_by(|a, b| a.key.as_str().cmp(b.key.as_str()));
        let skip = objects.len().saturating_sub(RECORDS_MAX);
        let read = |object: store::ObjectMeta| async move {
            let body = store::get_all(self.store().as_ref(), &object.key, RECORD_BYTES_MAX).await;
            let body = body.map_err(Error::from).context(|| format!("read {}", object.key))?;
            let parsed = serde_json::from_slice::<GapRecord>(&body);
            if let Err(error) = &parsed {
                tracing::warn!(object = %object.key, %error, "a gap's record cannot be read");
            }
            Ok::<_, Error>(parsed.ok())
        };
        let all: Vec<Option<GapRecord>> =
            stream::iter(objects.into_iter().skip(skip)).map(read).buffered(READS).try_collect().await?;
        Ok(all.into_iter().flatten().collect())
    }
}
