//! What is durable: the archive's identity, which bytes of which files it holds, where to go on, and the beacon.
//!
//! Owns: reading the listing into files and ranges, the resume point, gaps between and inside files, a range of a file
//! as bytes, `binvault.json`, `agents/`, the manifests of base backups in `bases/`, `drills/`.
//! Does not own: how bytes get in (`ship`) or what is done with them (`export`, `verify`, `status`).
//!
//! Invariants: the chunk objects are the truth, everything else can be rebuilt from them; nothing is ever overwritten
//! but beacons; what is not understood is counted and shown, never silently passed over.

mod bases;
mod beacon;
mod cover;
mod drills;
mod files;
mod gaps;
mod history;
mod identity;
mod order;
mod prunes;
mod reader;
mod records;
mod resume;
mod semi_sync;
mod spool;

use uuid::Uuid;

use crate::error::{Context, Result};
use crate::store::{self, Key, ListDepth, SharedStore};

pub use bases::{
    BASE_MANIFEST, BASES_FOLDER, BaseContent, BaseManifest, BasePart, BaseReader, Bases, CloneFacts, Coordinates,
    UnreadableBase, WantedPart, base_folder, part_key, read_base, wanted_parts,
};
pub use beacon::{Beacon, VerifyWord};
pub use cover::{Cover, Piece};
pub use drills::Drill;
pub use files::{FileChunks, StoredChunk};
pub use gaps::{BreakKind, GapRecord};
pub use history::{FileState, History, Seam};
pub use identity::Identity;
pub use prunes::{PruneRecord, PrunedFile};
pub use reader::{Block, RangeReader, ReadOptions};
pub use resume::{Continued, ResumeInFile, ResumePoint, Run, archived_at};
pub use semi_sync::{Lapse, SemiSyncWord};
pub use spool::{CHUNKS, SpoolWord, chunk_spool, drain_options};

/// Most entries of one folder that are held in memory: a file of 1 TiB in chunks of 8 MiB has 131,072 chunks.
const ENTRIES_MAX: usize = 1 << 20;

/// An archive in a store.
#[derive(Debug, Clone)]
pub struct Archive {
    store: SharedStore,
    identity: Identity,
}

impl Archive {
    /// Opens the archive in a store, or makes one if the store holds none and `create` says so.
    ///
    /// # Errors
    /// [`crate::error::Kind::Config`] if there is none; [`crate::error::Kind::Format`] if it is newer than this program.
    pub async fn open(store: SharedStore, create: bool) -> Result<Self> {
        let identity = identity::open(&store, create).await?;
        Ok(Self { store, identity })
    }

    /// Its id.
    pub fn id(&self) -> Uuid {
        self.identity.archive
    }

    /// Its identity file.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The store it lives in.
    pub fn store(&self) -> &SharedStore {
        &self.store
    }

    /// Names of the folders directly under `prefix`, without the prefix and without `/`.
    async fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        let listing = store::list_collect(self.store.as_ref(), prefix, ListDepth::OneLevel, ENTRIES_MAX).await;
        let listing = listing.map_err(crate::error::Error::from).context(|| format!("list {prefix}"))?;
        let name = |folder: &String| Some(folder.strip_prefix(prefix)?.strip_suffix('/')?.to_owned());
        Ok(listing.folders.iter().filter_map(name).collect())
    }
}

/// An object name made of parts that are known to be good.
fn key(name: String) -> Result<Key> {
    Ok(Key::new(name)?)
}
