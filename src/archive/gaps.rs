//! Recorded breaks in history: `gaps/<when>.json`, one object a break, never overwritten.
//!
//! Listings show where bytes are missing between and inside of files; a record says what happened, when, to whom, and which
//! transactions are concerned. It stays when nothing else tells any more.

use serde::{Deserialize, Serialize};

use super::Archive;
use crate::error::Result;
use crate::position::{CommitTime, GtidSet, Incarnation, Position, ServerUuid};

const FOLDER: &str = "gaps/";

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
        self.put_record(FOLDER, gap.at_us, gap).await?;
        Ok(true)
    }

    /// The records, oldest first; of very many the newest thousand. One that cannot be read is logged.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn gaps(&self) -> Result<Vec<GapRecord>> {
        self.records(FOLDER).await
    }
}
