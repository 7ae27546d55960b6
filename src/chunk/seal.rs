//! Sealing: metadata, compressed bytes and recipients become an object.

use super::keys::Recipients;
use super::{ChunkMeta, ChunkName, digest_hex, envelope};
use crate::error::Result;

/// Tag of our stanza in the age header.
pub(super) const STANZA_TAG: &str = "binvault-chunk";

/// A chunk ready for the store.
#[derive(Debug)]
pub struct Sealed {
    /// Its name.
    pub name: ChunkName,
    /// The object.
    pub object: Vec<u8>,
}

/// Encrypts a chunk's zstd frames to the recipients, with the metadata in the header, into `object` (cleared first, so
/// that its memory can be used again).
///
/// # Errors
/// If the metadata is impossible or encryption fails.
pub fn seal(meta: &ChunkMeta, recipients: &Recipients, frames: &[u8], object: Vec<u8>) -> Result<Sealed> {
    let range = meta.range()?;
    let object = envelope::wrap(STANZA_TAG, &meta.encode()?, recipients, ([frames], frames.len()), object)?;
    let name = ChunkName {
        server: meta.server,
        incarnation: meta.incarnation(),
        range,
        high_commit: meta.high_commit_us,
        digest: digest_hex(&object),
    };
    Ok(Sealed { name, object })
}
