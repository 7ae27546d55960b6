//! The raw bytes of a range of an archived file, in order: chunks are fetched and opened in parallel, ahead of the
//! reader, within bounds.
//!
//! Owns: which chunks a range needs, how far ahead they are read, and that the bytes come out contiguous.
//! Does not own: what the bytes mean, nor the decoding itself ([`OpenedChunk::copy`]).
//!
//! Invariants: at most [`ReadOptions::chunks_at_a_time`] objects are held, and of each only a few decoded blocks, however
//! large the chunk is; an error comes in its place, behind every byte that stands before it; dropping the reader ends
//! its tasks.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{Archive, FileChunks, Piece};
use crate::chunk::OpenedChunk;
use crate::chunk::keys::Identities;
use crate::error::{Context, Error, Kind, Result};
use crate::position::ByteRange;

/// Decoded blocks that wait for the reader, for each chunk; together with the one in the decoder's hands and the one it
/// waits to put down, a chunk has at most 1.5 MiB decoded.
const BLOCKS_AHEAD: usize = 4;

/// How to read.
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// The private keys.
    pub keys: Arc<Identities>,
    /// Chunks fetched and opened at a time; at least one.
    pub chunks_at_a_time: usize,
}

impl ReadOptions {
    /// With these keys, four chunks at a time: enough to keep a few cores busy and to hide a store's latency.
    pub fn new(keys: Arc<Identities>) -> Self {
        Self { keys, chunks_at_a_time: 4 }
    }
}

/// Some bytes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Offset of the first in the file.
    pub offset: u64,
    /// The bytes: at least one, at most 1 MiB.
    pub bytes: Bytes,
}

/// Reads a range. See [`Archive::read_range`].
#[derive(Debug)]
pub struct RangeReader {
    archive: Archive,
    chunks: Arc<FileChunks>,
    options: ReadOptions,
    range: ByteRange,
    /// Index of the next piece that no task reads yet.
    next_piece: usize,
    ahead: VecDeque<PieceReader>,
    /// Offset of the next byte to come out.
    at: u64,
    failed: bool,
}

/// A task that reads one piece.
#[derive(Debug)]
struct PieceReader {
    blocks: mpsc::Receiver<Result<Block>>,
    end: u64,
    _task: AbortOnDropHandle<()>,
}

impl Archive {
    /// Reads a range of a file. Must be called within a Tokio runtime.
    pub fn read_range(&self, chunks: Arc<FileChunks>, range: ByteRange, options: &ReadOptions) -> RangeReader {
        let next_piece = chunks.cover.contiguous().partition_point(|piece| piece.take.end() <= range.start());
        RangeReader {
            archive: self.clone(),
            options: options.clone(),
            next_piece,
            chunks,
            range,
            ahead: VecDeque::new(),
            at: range.start(),
            failed: false,
        }
    }
}

impl RangeReader {
    /// The next bytes; `None` behind the last one.
    ///
    /// # Errors
    /// What keeps a chunk from being fetched or opened, naming it; [`Kind::Gap`] where the range goes beyond the file's
    /// contiguous bytes. Every byte before that was handed out.
    pub async fn next(&mut self) -> Result<Option<Block>> {
        if self.failed {
            return Err(Error::failed("read on after an error"));
        }
        let next = self.read().await;
        if next.is_err() {
            self.failed = true;
            self.ahead.clear();
        }
        next
    }

    async fn read(&mut self) -> Result<Option<Block>> {
        while self.at < self.range.end() {
            self.look_ahead();
            let Some(piece) = self.ahead.front_mut() else { return Err(self.gap()) };
            match piece.blocks.recv().await {
                Some(block) => {
                    let block = block?;
                    self.at = block.offset.saturating_add(block.bytes.len() as u64);
                    return Ok(Some(block));
                }
                // Without an error and without all of its bytes: the thread broke down.
                None if self.at < piece.end => {
                    return Err(Error::failed("a thread that opens chunks broke down").definite());
                }
                None => drop(self.ahead.pop_front()),
            }
        }
        Ok(None)
    }

    /// Sets tasks to work on the pieces that come next.
    fn look_ahead(&mut self) {
        while self.ahead.len() < self.options.chunks_at_a_time.max(1) {
            let Some(piece) = self.chunks.cover.contiguous().get(self.next_piece) else { return };
            let start = piece.take.start().max(self.range.start());
            let Some(take) = ByteRange::new(start, piece.take.end().min(self.range.end())).filter(|t| !t.is_empty())
            else {
                return;
            };
            let piece = Piece { take, ..*piece };
            let (sender, blocks) = mpsc::channel(BLOCKS_AHEAD);
            let (archive, chunks) = (self.archive.clone(), Arc::clone(&self.chunks));
            let work = read_piece(archive, chunks, piece, Arc::clone(&self.options.keys), sender);
            let task = AbortOnDropHandle::new(tokio::spawn(work));
            self.ahead.push_back(PieceReader { blocks, end: take.end(), _task: task });
            self.next_piece = self.next_piece.saturating_add(1);
        }
    }

    fn gap(&self) -> Error {
        let (file, end) = (&self.chunks.incarnation.file, self.chunks.cover.contiguous_end);
        Error::new(
            Kind::Gap,
            format!("{file} is archived without a hole only up to {end}, not up to {}", self.range.end()),
        )
        .hint("`binvault status` shows the gaps; `binvault run` fetches what is missing if the server still has it")
    }
}

/// Fetches a piece's chunk, opens it and sends its blocks, or the error.
async fn read_piece(
    archive: Archive,
    chunks: Arc<FileChunks>,
    piece: Piece,
    keys: Arc<Identities>,
    blocks: mpsc::Sender<Result<Block>>,
) {
    let fetched = match chunks.chunks.get(piece.index) {
        Some(chunk) => archive.object(chunk).await.map(|object| (chunk.name.clone(), object)),
        None => Err(Error::failed("a piece of no chunk")),
    };
    let (name, object) = match fetched {
        Ok(fetched) => fetched,
        Err(error) => {
            // A closed channel means that nobody wants to know.
            let _ = blocks.send(Err(error)).await;
            return;
        }
    };
    let opening = tokio::task::spawn_blocking(move || {
        let mut wanted = true;
        let copied = OpenedChunk::new(&name, &object, &keys).and_then(|opened| {
            opened.copy(piece.take, |offset, bytes| {
                let block = Block { offset, bytes: Bytes::copy_from_slice(bytes) };
                wanted = blocks.blocking_send(Ok(block)).is_ok();
                if wanted { Ok(()) } else { Err(Error::failed("nobody reads on")) }
            })
        });
        if let Err(error) = copied.context(|| format!("open {name}"))
            && wanted
        {
            let _ = blocks.blocking_send(Err(error));
        }
    });
    // If the thread broke down, its end of the channel is gone: the reader notices that bytes are missing.
    let _ = opening.await;
}

#[cfg(test)]
mod tests;
