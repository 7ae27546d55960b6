//! Opening: reading a chunk's metadata without a key, and its bytes with one, both within bounds.

use std::io::{self, Read};

use super::envelope::{self, Payload};
use super::keys::Identities;
use super::seal::STANZA_TAG;
use super::{ChunkMeta, ChunkName, digest_hex};
use crate::error::{Error, Result};
use crate::position::ByteRange;

/// Bytes decoded at a time: two zstd blocks, and they stay in a core's cache.
const DECODE_BYTES: usize = 256 << 10;

/// What to do about an object that is not what its name says.
const DAMAGED: &str = "move the object out of the archive: if the server still has the binlog, `binvault run` fetches the bytes again; \
    else look for them in a copy of this archive or an older version of the object";

/// What the head of an object gave.
#[derive(Debug)]
pub enum HeaderRead {
    /// The metadata.
    Whole(Box<ChunkMeta>),
    /// The header is longer than the bytes given.
    NeedsMore,
}

/// Reads the metadata from an object's first bytes, without a key. Not authenticated until the chunk is opened.
///
/// # Errors
/// [`crate::error::Kind::Corrupt`] if the bytes are no age header or it has no stanza of ours,
/// [`crate::error::Kind::Format`] for a newer format.
pub fn read_header(head: &[u8]) -> Result<HeaderRead> {
    match envelope::peek(head, STANZA_TAG, "chunk")? {
        Some(json) => ChunkMeta::decode(&json).map(|meta| HeaderRead::Whole(Box::new(meta))),
        None => Ok(HeaderRead::NeedsMore),
    }
}

/// A chunk being opened: gives exactly the raw bytes that its name promises, or an error.
///
/// Every check that can be made before the first byte is made by [`OpenedChunk::new`]; that no byte is missing or too
/// many shows at the end of reading, so use what was read only after [`Read`] has returned 0.
pub struct OpenedChunk<'a> {
    meta: ChunkMeta,
    payload: Payload<'a>,
}

impl<'a> OpenedChunk<'a> {
    /// Checks an object against its name's digest and metadata, and prepares to read it.
    ///
    /// # Errors
    /// [`crate::error::Kind::Corrupt`] if the object is not the one its name says, [`crate::error::Kind::Key`] if no
    /// identity opens it, [`crate::error::Kind::Format`] if its format is newer.
    pub fn new(name: &ChunkName, object: &'a [u8], identities: &Identities) -> Result<Self> {
        let meta = Self::check(name, object)?;
        let payload = Payload::open(object, name.range.len(), identities, "chunk")?;
        Ok(Self { meta, payload })
    }

    /// Whether an object is the one that its name says, by its digest and its metadata (not authenticated yet, but
    /// covered by the digest). Needs no key.
    ///
    /// # Errors
    /// [`crate::error::Kind::Corrupt`] if it is not, [`crate::error::Kind::Format`] if its format is newer.
    pub fn check(name: &ChunkName, object: &[u8]) -> Result<ChunkMeta> {
        let digest = digest_hex(object);
        if digest != name.digest {
            return Err(Error::corrupt(format!(
                "the object's {} bytes have digest {digest}, its name says {}: it was damaged or exchanged",
                object.len(),
                name.digest
            ))
            .hint(DAMAGED));
        }
        let HeaderRead::Whole(meta) = read_header(object)? else {
            return Err(Error::corrupt("the age header is cut short"));
        };
        let same = meta.server == name.server
            && meta.incarnation() == name.incarnation
            && meta.range()? == name.range
            && meta.high_commit_us == name.high_commit;
        if !same {
            return Err(Error::corrupt(
                "name and metadata disagree: the object stands under a name that is not its own",
            )
            .hint(DAMAGED));
        }
        Ok(*meta)
    }

    /// The metadata, authenticated.
    pub fn meta(&self) -> &ChunkMeta {
        &self.meta
    }

    /// Hands the bytes of `take`, a part of the chunk's range, to `sink`, at most 256 KiB at a time, with their offset in
    /// the file. Reads to the chunk's end, with all checks there, if `take` goes so far. Gives the metadata back.
    ///
    /// Each byte handed out is authentic; but only a return without error says that they are all.
    ///
    /// # Errors
    /// [`crate::error::Kind::Corrupt`] if the bytes are not what the name promises; what `sink` returns.
    pub fn copy(mut self, take: ByteRange, mut sink: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<ChunkMeta> {
        let mut buffer = vec![0; DECODE_BYTES];
        let (mut at, end) = (self.meta.start, self.meta.end);
        // What stands before or behind the part is another chunk's to give.
        let within = |offset: u64, at: u64| usize::try_from(offset.saturating_sub(at)).unwrap_or(usize::MAX);
        while at < take.end() || take.end() >= end {
            let got = self.fill(&mut buffer).map_err(|error| Error::corrupt("decode").source(error))?;
            if got == 0 {
                break;
            }
            let from = within(take.start(), at).min(got);
            let until = within(take.end(), at).min(got);
            if let Some(wanted) = buffer.get(from..until).filter(|wanted| !wanted.is_empty()) {
                sink(at.saturating_add(from as u64), wanted)?;
            }
            at = at.saturating_add(got as u64);
        }
        Ok(self.meta)
    }

    /// Reads until the buffer is full or nothing is left.
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0_usize;
        while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
            match self.read(room)? {
                0 => break,
                got => filled = filled.saturating_add(got),
            }
        }
        Ok(filled)
    }
}

impl Read for OpenedChunk<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.payload.read(out)
    }
}

impl std::fmt::Debug for OpenedChunk<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenedChunk")
            .field("meta", &self.meta)
            .field("left", &self.payload.left())
            .finish_non_exhaustive()
    }
}
