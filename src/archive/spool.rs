//! The archive behind a spool: chunks are durable in a folder first, and in the store later.
//!
//! Owns: which objects a spool takes (chunks, and nothing else), how they are known to be whole, what an agent says of its
//! spool. Does not own: the spool itself (`store::spool`).

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Archive;
use crate::chunk::{ChunkName, OBJECT_BYTES_MAX, digest_hex};
use crate::store::Key;
use crate::store::spool::{DrainOptions, Spool, SpoolOptions, SpoolState, Spooled};

/// Names of chunks begin so.
pub const CHUNKS: &str = "chunks/";
/// Bytes of objects in memory while a spool is drained; a larger object goes alone.
const DRAIN_MEMORY_BYTES: u32 = 16 << 20;

/// What an agent's spool held when it last spoke.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolWord {
    /// The folder, on the agent's host.
    pub dir: PathBuf,
    /// What was in it and not in the store yet.
    #[serde(flatten)]
    pub state: SpoolState,
}

/// A spool for chunks.
pub fn chunk_spool(dir: PathBuf, bytes_max: u64, entries_max: usize) -> SpoolOptions {
    SpoolOptions { dir, bytes_max, entries_max, prefix: CHUNKS, is_whole }
}

/// How chunks are drained.
pub fn drain_options(uploads: usize, patient: bool) -> DrainOptions {
    DrainOptions { uploads, memory_bytes: DRAIN_MEMORY_BYTES, object_bytes_max: OBJECT_BYTES_MAX, patient }
}

/// A chunk's name ends in the digest of its bytes.
fn is_whole(key: &Key, object: &[u8]) -> bool {
    ChunkName::parse(key.as_str()).is_ok_and(|name| name.digest == digest_hex(object))
}

impl Archive {
    /// The same archive as it is seen through a spool.
    #[must_use]
    pub fn through(&self, spool: Arc<Spool>) -> Self {
        let store = Arc::new(Spooled::new(spool, Arc::clone(&self.store)));
        Self { store, identity: self.identity.clone() }
    }
}
