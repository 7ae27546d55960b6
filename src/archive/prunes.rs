//! What was removed on purpose: `prunes/<when>.json`, written before the first object is removed.
//!
//! So that what is not there any more is never taken for a gap: a file that follows a removed one is where the archive
//! begins. A record replaces the older ones, whose files it names too, as long as another file still follows them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Archive;
use crate::error::{Context, Error, Result};
use crate::position::{CommitTime, Incarnation, ServerUuid};

const FOLDER: &str = "prunes/";

/// A file that was removed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PrunedFile {
    /// Its server.
    pub server: ServerUuid,
    /// File name and time, as the folder is named.
    #[serde(with = "text")]
    pub file: Incarnation,
}

/// A record of what was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneRecord {
    /// Version of the record's schema: 1.
    pub schema: u32,
    /// When it was begun, microseconds since 1970.
    pub at_us: u64,
    /// From when on every moment can be restored, as far as it could before, microseconds since 1970.
    pub since_us: u64,
    /// Version of binvault.
    pub version: String,
    /// The files, and those of former records that a file which is still there follows.
    pub files: Vec<PrunedFile>,
    /// Ids of the base backups.
    pub bases: Vec<String>,
    /// How many objects that were.
    pub objects: u64,
    /// And how many bytes they had.
    pub stored_bytes: u64,
}

impl Archive {
    /// Keeps a record.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn put_prune(&self, record: &PruneRecord) -> Result<()> {
        self.put_record(FOLDER, record.at_us, record).await
    }

    /// The records, oldest first: the last one, and those that it has not replaced yet.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn prunes(&self) -> Result<Vec<PruneRecord>> {
        self.records(FOLDER).await
    }

    /// Removes the records before this one, which names all that they are still needed for.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn replace_prunes(&self, by: &PruneRecord, former: &[PruneRecord]) -> Result<()> {
        for record in former.iter().filter(|record| record.at_us != by.at_us) {
            let key = super::key(format!("{FOLDER}{}.json", CommitTime::from_micros(record.at_us)))?;
            self.store().delete(&key).await.map_err(Error::from).context(|| format!("remove {key}"))?;
        }
        Ok(())
    }

    /// The files that were removed, of those that anything may still follow.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn pruned_files(&self) -> Result<BTreeSet<PrunedFile>> {
        Ok(self.prunes().await?.into_iter().flat_map(|record| record.files).collect())
    }

    /// Whether a file was removed. One listing, and one read: ask it only of what is missing.
    pub(super) async fn is_pruned(&self, server: &ServerUuid, file: &Incarnation) -> Result<bool> {
        Ok(self.pruned_files().await?.contains(&PrunedFile { server: *server, file: file.clone() }))
    }
}

/// An incarnation as text.
mod text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::position::Incarnation;

    pub(super) fn serialize<S: Serializer>(file: &Incarnation, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(file)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Incarnation, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}
