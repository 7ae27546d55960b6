//! Sealing: metadata, compressed bytes and recipients become an object.

use std::collections::HashSet;
use std::io::Write;

use age_core::format::{FileKey, Stanza};

use super::keys::Recipients;
use super::{ChunkMeta, ChunkName, digest_hex};
use crate::error::{Error, Result};

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

/// A recipient that wraps nothing: it adds the metadata to the header. Stock age steps over stanzas it does not know.
struct MetaStanza(Vec<u8>);

impl age::Recipient for MetaStanza {
    fn wrap_file_key(&self, _: &FileKey) -> Result<(Vec<Stanza>, HashSet<String>), age::EncryptError> {
        let args = vec![super::FORMAT_VERSION.to_string()];
        Ok((vec![Stanza { tag: STANZA_TAG.to_owned(), args, body: self.0.clone() }], HashSet::new()))
    }
}

/// Encrypts a chunk's zstd frames to the recipients, with the metadata in the header, into `object` (cleared first, so
/// that its memory can be used again).
///
/// # Errors
/// If the metadata is impossible or encryption fails.
pub fn seal(meta: &ChunkMeta, recipients: &Recipients, frames: &[u8], mut object: Vec<u8>) -> Result<Sealed> {
    let range = meta.range()?;
    let stanza = MetaStanza(meta.encode()?);
    let ours: &dyn age::Recipient = &stanza;
    let encryptor = age::Encryptor::with_recipients(recipients.iter().chain([ours]))
        .map_err(|error| Error::failed("prepare encryption").source(error))?;
    object.clear();
    // Header, 16 bytes of nonce, and 16 bytes of tag for each 64 KiB.
    object.reserve(frames.len().saturating_add(frames.len() / 4096).saturating_add(stanza.0.len() * 2 + 1024));
    let failed = |error: std::io::Error| Error::failed("encrypt").source(error);
    let mut writer = encryptor.wrap_output(object).map_err(failed)?;
    writer.write_all(frames).map_err(failed)?;
    let object = writer.finish().map_err(failed)?;
    let name = ChunkName {
        server: meta.server,
        incarnation: meta.incarnation(),
        range,
        high_commit: meta.high_commit_us,
        digest: digest_hex(&object),
    };
    Ok(Sealed { name, object })
}
