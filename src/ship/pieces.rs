//! Pieces: the quick road to an acknowledgement, where a spool is the level of durability that a commit waits for.
//!
//! ```text
//!   receive ─┬─► cut by size and age ─► seal ─► upload ─► commit ─► durable position      chunks, for the archive
//!            └─► cut when waited for ─► here: sealed, in the spool, acknowledged           pieces, until they are covered
//! ```
//!
//! A commit that waits makes an object of its own, and so many small ones would come together that a store would not take
//! them, nor anybody want to pay for them. So they stay in the spool, and go as soon as the chunk that holds the same bytes
//! is durable; only if the generation ends before that do they go to the store as they are.
//!
//! One piece is made at a time, in one go on one thread: what counts here is how soon a thread gets its turn on a busy
//! machine. While it is written, the commits that come gather for the next one.
//!
//! Owns: sealing and writing pieces, which of them are durable and not yet covered. Does not own: the spool's bounds, its
//! folder; when a piece is cut (`receive`).
//!
//! Invariant: a piece is removed only when everything in it is in a durable chunk.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use super::buffers::Buffer;
use super::cut::Cut;
use super::failpoint;
use super::semi_sync::SemiSync;
use crate::chunk::compress::{CompressOptions, Compressor};
use crate::chunk::keys::Recipients;
use crate::chunk::{ChunkMeta, seal};
use crate::error::{Error, Result};
use crate::position::Position;
use crate::store::Key;
use crate::store::spool::Spool;
use crate::threads;

/// Of a piece, which does not live long: as quick as the chunks' level or quicker.
const LEVEL_MAX: i32 = 1;

/// How many may be on their way when another is cut: none, they are made one at a time.
pub const PIECES_AT_A_TIME: usize = 1;

/// The pieces of one generation.
#[derive(Debug)]
pub(super) struct Pieces {
    spool: Arc<Spool>,
    generation: u64,
    /// Durable, and not covered yet: where each ends, in order.
    uncovered: Mutex<VecDeque<(Position, Key)>>,
}

impl Pieces {
    /// Begins a generation.
    pub(super) fn new(spool: Arc<Spool>) -> Arc<Self> {
        let generation = spool.release_pieces();
        Arc::new(Self { spool, generation, uncovered: Mutex::default() })
    }

    /// Makes pieces of what is cut, and has them acknowledged. Ends when the cutter has.
    pub(super) async fn run(
        self: Arc<Self>,
        mut press: Press,
        mut cuts: mpsc::Receiver<Cut>,
        semi_sync: Arc<SemiSync>,
    ) -> Result<()> {
        // The newest frame waits for the next word: mostly it is the only one of its piece, and goes with its end.
        let mut newest: Option<Buffer> = None;
        while let Some(cut) = cuts.recv().await {
            match cut {
                Cut::Frame(raw) => {
                    if let Some(full) = newest.replace(raw) {
                        press = threads::run(move || press.add(&full)).await.map_err(broke_down)??;
                    }
                }
                Cut::End(cut_meta) => {
                    let (meta, key);
                    (press, meta, key) = self.make(press, newest.take(), cut_meta).await?;
                    failpoint::pass("spooled");
                    let position = Position { file: meta.file.clone(), offset: meta.end };
                    self.uncovered.lock().unwrap_or_else(PoisonError::into_inner).push_back((position, key));
                    semi_sync.committed(&meta);
                    if self.spool.has_many_pieces() {
                        semi_sync.flush();
                    }
                }
            }
        }
        Ok(())
    }

    /// Seals a piece and makes it durable; gives back what it was given, and the name.
    async fn make(
        &self,
        mut press: Press,
        last: Option<Buffer>,
        meta: Box<ChunkMeta>,
    ) -> Result<(Press, Box<ChunkMeta>, Key)> {
        let (spool, generation) = (Arc::clone(&self.spool), self.generation);
        let made = threads::run(move || {
            if let Some(raw) = last {
                press = press.add(&raw)?;
            }
            let (key, object) = press.seal(&meta)?;
            let put = spool.put_piece_now(generation, &key, &object);
            Ok::<_, Error>((press, meta, key, object, put))
        });
        let (mut press, meta, key, object, put) = made.await.map_err(broke_down)??;
        match put {
            Some(Ok(_)) => press.object = object,
            Some(Err(error)) if !error.kind.is_retryable() => return Err(error.into()),
            // There is no room for it now.
            Some(Err(_)) | None => drop(self.spool.put_piece(self.generation, &key, object.into()).await?),
        }
        Ok((press, meta, key))
    }

    /// Everything before a position is in durable chunks.
    pub(super) async fn covered(&self, durable: &Position) -> Result<()> {
        let mut keys = Vec::new();
        {
            let mut uncovered = self.uncovered.lock().unwrap_or_else(PoisonError::into_inner);
            while uncovered.front().is_some_and(|(end, _)| end <= durable) {
                keys.extend(uncovered.pop_front().map(|(_, key)| key));
            }
        }
        if keys.is_empty() { Ok(()) } else { Ok(self.spool.remove(keys).await?) }
    }
}

impl Drop for Pieces {
    /// What is not covered goes to the store as it is.
    fn drop(&mut self) {
        self.spool.release_pieces();
    }
}

/// What makes a piece of frames, and the memory for it.
pub(super) struct Press {
    compressor: Compressor,
    recipients: Recipients,
    frame: Vec<u8>,
    /// The open piece's frames, compressed.
    body: Vec<u8>,
    object: Vec<u8>,
}

impl Press {
    /// # Errors
    /// If there is no compressor of these options.
    pub(super) fn new(options: CompressOptions, recipients: Recipients) -> Result<Self> {
        let options = CompressOptions { long_window_log: None, level: options.level.min(LEVEL_MAX) };
        let compressor = Compressor::new(options)?;
        Ok(Self { compressor, recipients, frame: Vec::new(), body: Vec::new(), object: Vec::new() })
    }

    /// Adds a frame to the open piece.
    fn add(mut self, raw: &[u8]) -> Result<Self> {
        failpoint::pass("seal");
        self.compressor.frame(raw, &mut self.frame)?;
        self.body.extend_from_slice(&self.frame);
        Ok(self)
    }

    /// Ends the open piece.
    fn seal(&mut self, meta: &ChunkMeta) -> Result<(Key, Vec<u8>)> {
        failpoint::pass("seal");
        let sealed = seal(meta, &self.recipients, &self.body, std::mem::take(&mut self.object))?;
        self.body.clear();
        Ok((Key::new(sealed.name.to_string())?, sealed.object))
    }
}

fn broke_down(panic: tokio::task::JoinError) -> Error {
    Error::failed("a thread that makes pieces broke down").source(panic)
}
