//! A base backup's bytes back: parts fetched and opened several at a time, handed out in order.
//!
//! Invariant: what has been written is right up to the byte; an error comes in its place, behind everything good before
//! it, and names the object. At most [`PARTS_AT_A_TIME`] objects and a few blocks of each are in memory.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{Archive, BaseManifest, FORMAT_VERSION};
use crate::chunk::OBJECT_BYTES_MAX;
use crate::chunk::keys::Identities;
use crate::chunk::part::{OpenedPart, PartMeta, PartName};
use crate::error::{Context, Error, Result};
use crate::store::{Key, ObjectMeta, get_known};

/// Parts being fetched and opened at a time.
const PARTS_AT_A_TIME: usize = 3;
/// Largest block handed out, in bytes.
const BLOCK_BYTES: usize = 256 << 10;
/// Blocks of a part that wait to be written.
const BLOCKS_WAITING: usize = 8;

/// A part that is wanted: where it lies and what it must be.
#[derive(Debug)]
pub struct WantedPart {
    /// The object.
    pub key: Key,
    /// Its bytes.
    pub stored_bytes: u64,
    name: PartName,
    meta: PartMeta,
}

impl WantedPart {
    /// Gets the object.
    ///
    /// # Errors
    /// Those of the store; [`crate::error::Kind::Corrupt`] if it has another size.
    pub async fn fetch(&self, archive: &Archive) -> Result<Bytes> {
        let meta = ObjectMeta { key: self.key.clone(), size: self.stored_bytes, modified_us: None };
        get_known(archive.store().as_ref(), &meta, OBJECT_BYTES_MAX).await.map_err(Error::from)
    }

    /// Holds an object's digest and what it says of itself against what is wanted. Needs no key.
    ///
    /// # Errors
    /// As [`OpenedPart::check`].
    pub fn check(&self, object: &[u8]) -> Result<()> {
        OpenedPart::check(&self.name, &self.meta, object)
    }

    /// Opens an object and reads it to its end; each block of at most 256 KiB goes to `to`, until that says
    /// `false`.
    ///
    /// # Errors
    /// As [`OpenedPart::new`], and for bytes that cannot be unpacked.
    pub fn open(&self, object: &[u8], keys: &Identities, mut to: impl FnMut(Vec<u8>) -> bool) -> Result<()> {
        let mut part = OpenedPart::new(&self.name, &self.meta, object, keys)?;
        loop {
            let mut block = vec![0_u8; BLOCK_BYTES];
            let mut filled = 0_usize;
            while let Some(room) = block.get_mut(filled..).filter(|room| !room.is_empty()) {
                let got = part.read(room).map_err(|error| Error::corrupt("unpack").source(error))?;
                if got == 0 {
                    break;
                }
                filled = filled.saturating_add(got);
            }
            if filled == 0 {
                return Ok(());
            }
            block.truncate(filled);
            if !to(block) {
                return Ok(());
            }
        }
    }
}

/// A part on its way.
struct Coming {
    blocks: mpsc::Receiver<Result<Bytes>>,
    _task: AbortOnDropHandle<()>,
}

/// A backup's bytes, block by block.
pub struct BaseReader {
    archive: Archive,
    keys: Arc<Identities>,
    wanted: std::vec::IntoIter<WantedPart>,
    coming: VecDeque<Coming>,
}

impl BaseReader {
    /// At the backup's first byte; nothing is fetched before the first block is asked for.
    ///
    /// # Errors
    /// [`crate::error::Kind::Corrupt`] if the manifest names parts that can be none.
    pub fn new(archive: &Archive, manifest: &BaseManifest, keys: Arc<Identities>) -> Result<Self> {
        let wanted = wanted_parts(archive, manifest)?.into_iter();
        Ok(Self { archive: archive.clone(), keys, wanted, coming: VecDeque::new() })
    }

    /// The next block, in order; `None` behind the last one. Safe to cancel.
    ///
    /// # Errors
    /// [`crate::error::Kind::Corrupt`] or [`crate::error::Kind::Store`] naming the part, [`crate::error::Kind::Key`] if no
    /// key opens it.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            while self.coming.len() < PARTS_AT_A_TIME
                && let Some(next) = self.wanted.next()
            {
                self.coming.push_back(start(self.archive.clone(), next, Arc::clone(&self.keys)));
            }
            let Some(part) = self.coming.front_mut() else { return Ok(None) };
            match part.blocks.recv().await {
                Some(block) => return block.map(Some),
                None => drop(self.coming.pop_front()),
            }
        }
    }
}

/// Writes the whole backup to `out`, in order, and flushes it; `on_bytes` is told after each block how many bytes it had.
///
/// # Errors
/// Those of [`BaseReader`], and those of `out`.
pub async fn read_base(
    archive: &Archive,
    manifest: &BaseManifest,
    keys: Arc<Identities>,
    out: &mut (impl AsyncWrite + Unpin),
    mut on_bytes: impl FnMut(u64),
) -> Result<()> {
    let write = || format!("hand on the bytes of base backup {}", manifest.id);
    let mut reader = BaseReader::new(archive, manifest, keys)?;
    while let Some(block) = reader.next().await? {
        out.write_all(&block).await.context(write)?;
        on_bytes(block.len() as u64);
    }
    out.flush().await.context(write)
}

/// Every part of the manifest with what its stanza must say.
///
/// # Errors
/// [`crate::error::Kind::Corrupt`] if the manifest names parts that can be none.
pub fn wanted_parts(archive: &Archive, manifest: &BaseManifest) -> Result<Vec<WantedPart>> {
    let mut offset = 0_u64;
    let count = manifest.parts.len();
    let each = manifest.parts.iter().enumerate().map(|(index, part)| {
        let name = PartName::parse(&part.object)
            .map_err(|error| Error::corrupt(format!("base backup {}", manifest.id)).source(error))?;
        let meta = PartMeta {
            format: FORMAT_VERSION,
            archive: archive.id(),
            base: manifest.id.clone(),
            number: name.number,
            offset,
            raw_bytes: part.raw_bytes,
            last: index.checked_add(1) == Some(count),
        };
        offset = offset.saturating_add(part.raw_bytes);
        Ok(WantedPart { key: manifest.part_key(part)?, stored_bytes: part.stored_bytes, name, meta })
    });
    each.collect()
}

/// Starts fetching and opening a part in the background.
fn start(archive: Archive, wanted: WantedPart, keys: Arc<Identities>) -> Coming {
    let (send, blocks) = mpsc::channel(BLOCKS_WAITING);
    let task = tokio::spawn(async move {
        let what = || format!("read {}", wanted.key);
        let object = match wanted.fetch(&archive).await.context(what) {
            Ok(object) => object,
            Err(error) => return drop(send.send(Err(error)).await),
        };
        let to = send.clone();
        let name = wanted.key.clone();
        let opening = tokio::task::spawn_blocking(move || {
            // Nobody reads any more: no error.
            wanted.open(&object, &keys, |block| send.blocking_send(Ok(Bytes::from(block))).is_ok())
        });
        let opened = opening.await.map_err(|panic| Error::failed("an opening thread broke down").source(panic));
        if let Err(error) = opened.and_then(|result| result) {
            let _ = to.send(Err(error.context(format!("read {name}")))).await;
        }
    });
    Coming { blocks, _task: AbortOnDropHandle::new(task) }
}
