//! A chunk's metadata: the JSON body of our stanza in the age header.
//!
//! Readable without a key; once a key is at hand the header's MAC vouches for it. Unknown fields are ignored, so that
//! later versions may add some; a change of meaning raises [`super::FORMAT_VERSION`], which older readers refuse.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::position::{BinlogFile, ByteRange, ChecksumAlgorithm, CommitTime, Gtid, GtidSet, Incarnation, ServerUuid};

/// What a chunk holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkMeta {
    /// Format version, [`super::FORMAT_VERSION`].
    pub format: u32,
    /// The archive it belongs to.
    pub archive: uuid::Uuid,
    /// The server whose file it is.
    pub server: ServerUuid,
    /// The file.
    pub file: BinlogFile,
    /// Header timestamp of the file's format description event, seconds since 1970: names the incarnation.
    pub created_s: u32,
    /// First byte, from the file's start.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// First and last commit in the chunk, microseconds; 0 if it has none.
    pub first_commit_us: CommitTime,
    /// See `first_commit_us`.
    pub last_commit_us: CommitTime,
    /// The highest commit time in the server's history up to `end`; 0 if none is known. Also in the name.
    pub high_commit_us: CommitTime,
    /// Transactions that end in the chunk.
    pub transactions: u64,
    /// Their GTIDs; anonymous ones have none.
    pub gtids: GtidSet,
    /// What was executed at the end of the last transaction that ends in or before the chunk.
    pub executed: Executed,
    /// In a file's first chunk: what was executed before the file, from its PREVIOUS_GTIDS event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<GtidSet>,
    /// In a file's first chunk: what was executed before the file although no binlog of the server tells it: a restored
    /// or cloned server begins with transactions that stand in its tables only (its `gtid_purged`).
    #[serde(default, skip_serializing_if = "GtidSet::is_empty")]
    pub unlogged: GtidSet,
    /// In a file's first chunk: the file it follows, and where that one ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<Link>,
    /// The chunk begins inside a transaction.
    pub starts_inside: bool,
    /// The chunk ends inside a transaction: which one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<OpenTransaction>,
    /// Where reading can start again after this chunk: the last event boundary at or before `end`.
    pub resume: u64,
    /// How the file ends, if it ends with this chunk by an event that says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closes: Option<Close>,
    /// Checksum algorithm of the file's events.
    pub checksum: ChecksumAlgorithm,
    /// The server's version, from the format description event.
    pub server_version: String,
}

/// The executed set at a chunk's end: whole where it is small, else as what the file added to its `previous`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Executed {
    /// The whole set.
    Whole(GtidSet),
    /// All that the file added from its start to here; add it to the first chunk's `previous`.
    SinceFileStart(GtidSet),
}

/// Longest text of an executed set that stands whole in every chunk, in bytes.
const WHOLE_BYTES_MAX: usize = 8 << 10;

impl Executed {
    /// Chooses the form.
    pub fn new(previous: &GtidSet, since_start: &GtidSet) -> Self {
        let mut whole = previous.clone();
        whole.union_with(since_start);
        if whole.to_string().len() <= WHOLE_BYTES_MAX {
            Self::Whole(whole)
        } else {
            Self::SinceFileStart(since_start.clone())
        }
    }

    /// The whole set, given the `previous` set of the file's first chunk.
    pub fn resolve(&self, previous: &GtidSet) -> GtidSet {
        match self {
            Self::Whole(set) => set.clone(),
            Self::SinceFileStart(set) => {
                let mut whole = previous.clone();
                whole.union_with(set);
                whole
            }
        }
    }
}

/// The file that came before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its name.
    pub file: BinlogFile,
    /// Its incarnation's time.
    pub created_s: u32,
    /// Its length.
    pub end: u64,
}

impl Link {
    /// The file.
    pub fn incarnation(&self) -> Incarnation {
        Incarnation { file: self.file.clone(), created_s: self.created_s }
    }
}

/// A transaction that a chunk ends inside of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenTransaction {
    /// Its GTID, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "gtid_text")]
    pub gtid: Option<Gtid>,
    /// When it was committed.
    pub commit_us: CommitTime,
    /// Offset of its end, where the server tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<u64>,
}

/// How a file ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Close {
    /// By a ROTATE event that names the next file.
    Rotate(BinlogFile),
    /// By a STOP event: the server was shut down.
    Stop,
}

mod gtid_text {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::position::Gtid;

    pub(super) fn serialize<S: Serializer>(gtid: &Option<Gtid>, to: S) -> Result<S::Ok, S::Error> {
        match gtid {
            Some(gtid) => to.collect_str(gtid),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Gtid>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| text.parse().map_err(serde::de::Error::custom)).transpose()
    }
}

impl ChunkMeta {
    /// The file's incarnation.
    pub fn incarnation(&self) -> Incarnation {
        Incarnation { file: self.file.clone(), created_s: self.created_s }
    }

    /// The bytes it holds.
    ///
    /// # Errors
    /// If they are inverted or more than a chunk may have.
    pub fn range(&self) -> Result<ByteRange> {
        ByteRange::new(self.start, self.end)
            .filter(|range| !range.is_empty() && range.len() <= super::CHUNK_BYTES_MAX)
            .ok_or_else(|| {
                Error::corrupt(format!("chunk metadata has an impossible range {}-{}", self.start, self.end))
            })
    }

    /// As it stands in the header.
    ///
    /// # Errors
    /// Only if JSON cannot be written, which would be a bug.
    pub fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| Error::failed("write chunk metadata").source(error))
    }

    /// Reads the JSON of a header.
    ///
    /// # Errors
    /// [`crate::error::Kind::Format`] for a newer format, [`crate::error::Kind::Corrupt`] for anything else that does not fit.
    pub fn decode(json: &[u8]) -> Result<Self> {
        let meta: Self = super::read_document("chunk metadata", json)?;
        let range = meta.range()?;
        if meta.resume > range.end() {
            return Err(Error::corrupt(format!(
                "chunk metadata resumes at {}, behind its end {}",
                meta.resume,
                range.end()
            )));
        }
        Ok(meta)
    }
}
