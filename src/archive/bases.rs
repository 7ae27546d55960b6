//! Base backups as they lie in the archive: a folder each, its parts, and the manifest that makes it one.
//!
//! ```text
//!   bases/<started>-<engine>/part-000001.<digest>.zst.age …      the backup's bytes, in order
//!   bases/<started>-<engine>/manifest.json                       written last: without it there is no backup
//! ```
//!
//! Owns: the manifest, listing, and reading a backup's bytes back. Does not own: how a backup is taken (`base`) or put
//! back (`restore`).
//!
//! Invariants: a folder without a manifest is unfinished, whatever lies in it; a manifest is never overwritten; one
//! that cannot be read is named and stands in nobody's way; what is read back is what was sealed, in order, or an error
//! behind the last good byte.

mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Archive;
use crate::chunk::part::{PARTS_MAX, PartName, is_base_id};
use crate::chunk::{FORMAT_VERSION, read_document};
use crate::error::{Context, Error, Kind, Result};
use crate::position::{BinlogFile, CommitTime, GtidSet, Incarnation, Position, ServerUuid};
use crate::store::{self, Key, Put};

pub use read::{BaseReader, WantedPart, read_base, wanted_parts};

/// How the names of all their objects begin.
pub const BASES_FOLDER: &str = "bases/";
/// Name of the object that makes a backup of its folder; written last.
pub const BASE_MANIFEST: &str = "manifest.json";
/// Largest manifest, in bytes: as many parts as there may be, 200 bytes each.
const MANIFEST_BYTES_MAX: u64 = 200 << 20;
/// Manifests read at a time.
const READS: usize = 8;

/// What a backup's bytes are, which says how they are put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BaseContent {
    /// SQL statements for a `mysql` client.
    Sql,
    /// Whatever a configured command wrote; a configured command knows how to put it back.
    Stream,
    /// The answers of a donor in MySQL's CLONE protocol ([`crate::mysql::clone::record`]), of which files are made.
    Clone,
    /// Something of a later version: it can be listed, not restored.
    #[serde(other)]
    Other,
}

/// The place in the server's history that a backup is of: everything before it is in, nothing behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coordinates {
    /// Binlog file.
    pub file: BinlogFile,
    /// Header timestamp of the file's format description event, seconds since 1970; `None` if it could not be learned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_s: Option<u32>,
    /// Offset in the file: where replay begins.
    pub position: u64,
    /// The set executed there. With `gtid_mode` other than `ON` it may lack anonymous transactions.
    pub executed: GtidSet,
    /// The server's `gtid_mode`.
    pub gtid_mode: String,
}

impl Coordinates {
    /// File and offset.
    pub fn position(&self) -> Position {
        Position { file: self.file.clone(), offset: self.position }
    }

    /// The file's incarnation, if it is known.
    pub fn incarnation(&self) -> Option<Incarnation> {
        Some(Incarnation { file: self.file.clone(), created_s: self.created_s? })
    }

    /// Whether every transaction has a GTID, so that `executed` says all.
    pub fn by_gtid(&self) -> bool {
        self.gtid_mode.eq_ignore_ascii_case("ON")
    }
}

/// One part in a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BasePart {
    /// Its name in the backup's folder.
    pub object: String,
    /// Bytes of the backup in it.
    pub raw_bytes: u64,
    /// Bytes of the object.
    pub stored_bytes: u64,
}

/// What is known of a clone without reading it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CloneFacts {
    /// Version of the CLONE protocol that was spoken.
    pub protocol: u32,
    /// `innodb_page_size`, in bytes.
    pub innodb_page_size: u32,
    /// What its files take when they are put back, redo included, in bytes.
    pub disk_bytes: u64,
    /// How many files that are, redo included.
    pub files: u64,
    /// Whether a tablespace is encrypted on the donor: its key is in the backup.
    pub encrypted: bool,
    /// Tablespaces outside the donor's data directory, by their paths there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub external: Vec<String>,
    /// Transactions before its position whose GTIDs it need not know, since they left no trace in InnoDB: OPTIMIZE TABLE, a
    /// CREATE TABLE IF NOT EXISTS that found one, what went to other engines only.
    #[serde(skip_serializing_if = "GtidSet::is_empty")]
    pub unrecorded: GtidSet,
    /// Transactions around its position that were on their way to be committed when it was noted: InnoDB has them or has
    /// them not, and knows their GTIDs if it has.
    #[serde(skip_serializing_if = "GtidSet::is_empty")]
    pub undecided: GtidSet,
    /// The donor's `version_compile_os`.
    pub compile_os: String,
    /// The donor's `version_compile_machine`.
    pub compile_machine: String,
}

/// A finished base backup: the content of `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseManifest {
    /// Format version.
    pub format: u32,
    /// The archive.
    pub archive: Uuid,
    /// `<started>-<engine>`, the name of its folder.
    pub id: String,
    /// The engine that took it.
    pub engine: String,
    /// What its bytes are.
    pub content: BaseContent,
    /// The server it is of.
    pub server: ServerUuid,
    /// The server's version.
    pub server_version: String,
    /// When it was begun, microseconds since 1970 by the agent's clock.
    pub started_us: u64,
    /// When its last part was stored.
    pub finished_us: u64,
    /// What it is a copy of.
    pub coordinates: Coordinates,
    /// Its bytes, unpacked.
    pub raw_bytes: u64,
    /// Bytes of all its part objects.
    pub stored_bytes: u64,
    /// The tool that wrote it, as the tool names itself.
    pub tool: String,
    /// What is in the server and, on purpose, not in the backup.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// Settings of the server that one which takes its place must agree with, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    /// Of a clone: what it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clone: Option<CloneFacts>,
    /// Its parts, in order.
    pub parts: Vec<BasePart>,
}

impl BaseManifest {
    /// The id of a backup.
    pub fn id_of(started_us: u64, engine: &str) -> String {
        format!("{}-{engine}", CommitTime::from_micros(started_us))
    }

    /// What it certainly has executed: [`Coordinates::executed`] without what was undecided when its place was noted.
    pub fn certainly_executed(&self) -> GtidSet {
        match &self.clone {
            Some(facts) => self.coordinates.executed.minus(&facts.undecided),
            None => self.coordinates.executed.clone(),
        }
    }

    /// What it may have executed: [`Coordinates::executed`] with what was undecided.
    pub fn possibly_executed(&self) -> GtidSet {
        let mut all = self.coordinates.executed.clone();
        if let Some(facts) = &self.clone {
            all.union_with(&facts.undecided);
        }
        all
    }

    /// How long taking it took.
    pub fn duration(&self) -> std::time::Duration {
        std::time::Duration::from_micros(self.finished_us.saturating_sub(self.started_us))
    }

    /// The full name of a part's object.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if it can be none.
    pub fn part_key(&self, part: &BasePart) -> Result<Key> {
        part_key(&self.id, &part.object)
    }

    /// Reads a manifest that lies in the folder `id`.
    ///
    /// # Errors
    /// [`Kind::Format`] for a newer format, [`Kind::Corrupt`] for anything that does not fit.
    pub(crate) fn decode(id: &str, archive: Uuid, json: &[u8]) -> Result<Self> {
        let manifest: Self = read_document("the manifest", json)?;
        manifest.check(id, archive)?;
        Ok(manifest)
    }

    /// Whether it can be what it says: numbers that add up, parts in order.
    fn check(&self, id: &str, archive: Uuid) -> Result<()> {
        let refuse = |why: String| Err(Error::corrupt(format!("the manifest is impossible: {why}")));
        if self.id != id || self.archive != archive {
            return refuse(format!("it is of {} in archive {}", self.id, self.archive));
        }
        if self.parts.is_empty() || self.parts.len() > usize::try_from(PARTS_MAX).unwrap_or(usize::MAX) {
            return refuse(format!("it has {} parts", self.parts.len()));
        }
        for (index, part) in self.parts.iter().enumerate() {
            let name = PartName::parse(&part.object);
            if name.ok().and_then(|name| usize::try_from(name.number).ok()) != index.checked_add(1) {
                return refuse(format!("{:?} is not part {}", part.object, index.saturating_add(1)));
            }
        }
        let sum = |of: fn(&BasePart) -> u64| self.parts.iter().try_fold(0_u64, |sum, part| sum.checked_add(of(part)));
        let fine = sum(|part| part.raw_bytes) == Some(self.raw_bytes)
            && sum(|part| part.stored_bytes) == Some(self.stored_bytes);
        if fine { Ok(()) } else { refuse("the bytes of its parts do not add up".into()) }
    }
}

/// The full name of a part's object.
///
/// # Errors
/// If it can be none.
pub fn part_key(id: &str, object: &str) -> Result<Key> {
    super::key(format!("{}{object}", base_folder(id)?))
}

/// The folder of a backup's objects, with `/` at its end.
///
/// # Errors
/// If the id can be none.
pub fn base_folder(id: &str) -> Result<String> {
    if !is_base_id(id) {
        return Err(Error::corrupt(format!("{id:?} is no base backup's id")));
    }
    Ok(format!("{BASES_FOLDER}{id}/"))
}

/// What lies under `bases/`.
#[derive(Debug, Clone, Default)]
pub struct Bases {
    /// Finished backups, the oldest first.
    pub complete: Vec<BaseManifest>,
    /// Ids of folders without a manifest: being written at the moment, or given up.
    pub unfinished: Vec<String>,
    /// Those whose manifest cannot be used.
    pub unreadable: Vec<UnreadableBase>,
}

/// A backup whose manifest cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnreadableBase {
    /// Its folder's name.
    pub id: String,
    /// Why, for people.
    pub problem: String,
    /// Whether a newer binvault has written it.
    pub is_newer: bool,
}

impl UnreadableBase {
    fn new(id: String, problem: impl Into<String>) -> Self {
        Self { id, problem: problem.into(), is_newer: false }
    }

    /// The kind of the error that it is.
    pub fn kind(&self) -> Kind {
        if self.is_newer { Kind::Format } else { Kind::Corrupt }
    }

    fn error(&self) -> Error {
        Error::new(self.kind(), format!("base backup {}: {}", self.id, self.problem))
    }
}

enum Found {
    Complete(Box<BaseManifest>),
    Unfinished(String),
    Unreadable(UnreadableBase),
}

impl Archive {
    /// Reads all manifests: one listing, and one read a backup.
    ///
    /// # Errors
    /// Those of the store; a manifest that cannot be understood is none.
    pub async fn bases(&self) -> Result<Bases> {
        let ids = self.folders(BASES_FOLDER).await?;
        let mut reads = stream::iter(ids.into_iter().map(|id| self.base_in(id))).buffer_unordered(READS);
        let mut bases = Bases::default();
        while let Some(found) = reads.try_next().await? {
            match found {
                Found::Complete(manifest) => bases.complete.push(*manifest),
                Found::Unfinished(id) => bases.unfinished.push(id),
                Found::Unreadable(base) => bases.unreadable.push(base),
            }
        }
        bases.complete.sort_by(|a, b| (a.started_us, &a.id).cmp(&(b.started_us, &b.id)));
        bases.unfinished.sort();
        bases.unreadable.sort();
        Ok(bases)
    }

    /// One finished backup.
    ///
    /// # Errors
    /// [`Kind::Config`] if there is none of that id; those of reading it.
    pub async fn base(&self, id: &str) -> Result<BaseManifest> {
        let found = if is_base_id(id) { self.base_in(id.to_owned()).await? } else { Found::Unfinished(id.to_owned()) };
        match found {
            Found::Complete(manifest) => Ok(*manifest),
            Found::Unreadable(base) => Err(base.error()),
            Found::Unfinished(id) => Err(Error::config(format!("there is no finished base backup {id:?}"))
                .hint("`binvault list` shows the base backups of the archive")),
        }
    }

    async fn base_in(&self, id: String) -> Result<Found> {
        if !is_base_id(&id) {
            return Ok(Found::Unreadable(UnreadableBase::new(id, "the folder's name is no base backup's")));
        }
        let key = super::key(format!("{BASES_FOLDER}{id}/{BASE_MANIFEST}"))?;
        let body = match store::get_all(self.store().as_ref(), &key, MANIFEST_BYTES_MAX).await {
            Ok(body) => body,
            Err(error) if error.is_not_found() => return Ok(Found::Unfinished(id)),
            Err(error) if error.kind == store::StoreErrorKind::Corrupt => {
                return Ok(Found::Unreadable(UnreadableBase::new(id, error.to_string())));
            }
            Err(error) => return Err(Error::from(error).context(format!("read {key}"))),
        };
        Ok(match BaseManifest::decode(&id, self.id(), &body) {
            Ok(manifest) => Found::Complete(Box::new(manifest)),
            Err(error) => {
                let is_newer = error.kind() == Kind::Format;
                Found::Unreadable(UnreadableBase { is_newer, ..UnreadableBase::new(id, error.chain()) })
            }
        })
    }

    /// Writes the manifest: from then on the backup exists.
    ///
    /// # Errors
    /// Those of the store; [`Kind::Clash`] if another backup has the same id.
    pub async fn put_manifest(&self, manifest: &BaseManifest) -> Result<()> {
        manifest.check(&manifest.id, self.id())?;
        let key = super::key(format!("{BASES_FOLDER}{}/{BASE_MANIFEST}", manifest.id))?;
        let mut json =
            serde_json::to_vec_pretty(manifest).map_err(|error| Error::failed("write the manifest").source(error))?;
        json.push(b'\n');
        let body = Bytes::from(json);
        let put = self.store().put_new(&key, body.clone()).await.map_err(Error::from);
        match put.context(|| format!("store {key}"))? {
            Put::Created => Ok(()),
            // A lost answer: then it is ours.
            Put::AlreadyThere => {
                let there = store::get_all(self.store().as_ref(), &key, MANIFEST_BYTES_MAX).await;
                if there.map_err(Error::from).context(|| format!("read {key}"))? == body {
                    return Ok(());
                }
                Err(Error::new(Kind::Clash, format!("{key} is there already, of another base backup"))
                    .hint("give each agent of the archive an id of its own, and take one base backup at a time"))
            }
        }
    }
}
