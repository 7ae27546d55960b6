//! Pieces: the quick road to an acknowledgement, where a spool is the level of durability that a commit waits for.
//!
//! ```text
//!   receive ─┬─► cut by size and age ─► seal ─► upload ─► commit ─► durable position      chunks, for the archive
//!            └─► cut when waited for ─► seal ─► spool  ─► here   ─► acknowledge           pieces, until they are covered
//! ```
//!
//! A commit that waits makes an object of its own, and so many small ones would come together that a store would not take
//! them, nor anybody want to pay for them. So they stay in the spool, and go as soon as the chunk that holds the same bytes
//! is durable; only if the generation ends before that do they go to the store as they are.
//!
//! Owns: which pieces are durable and not yet covered. Does not own: the spool's bounds, its folder.
//!
//! Invariant: a piece is removed only when everything in it is in a durable chunk.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::commit::InFlight;
use super::failpoint;
use super::semi_sync::SemiSync;
use crate::error::{Error, Result};
use crate::position::Position;
use crate::store::spool::Spool;
use crate::store::{Key, Put, StoreError};

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

    pub(super) async fn put(&self, key: &Key, body: Bytes) -> Result<Put, StoreError> {
        self.spool.put_piece(self.generation, key, body).await
    }

    /// The commit stage of pieces: takes the spool's answers in order.
    pub(super) async fn run(
        self: Arc<Self>,
        mut pieces: mpsc::Receiver<InFlight>,
        semi_sync: Arc<SemiSync>,
    ) -> Result<()> {
        while let Some(InFlight { meta, key, stored, .. }) = pieces.recv().await {
            stored.await.map_err(|panic| Error::failed("a write to the spool broke down").source(panic))??;
            failpoint::pass("spooled");
            let position = Position { file: meta.file.clone(), offset: meta.end };
            self.uncovered.lock().unwrap_or_else(PoisonError::into_inner).push_back((position, key));
            semi_sync.committed(&meta);
            if self.spool.has_many_pieces() {
                semi_sync.flush();
            }
        }
        Ok(())
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
