//! A lane: a cutter, the buffers it fills, and its way to the sealer.
//!
//! There is one for the archive's chunks; where commits wait for a spool there is a second, for pieces.
//!
//! Invariant: nothing is taken from the socket before each lane has memory for it.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::buffers::BufferPool;
use super::cut::{Cut, Cutter};
use super::failpoint;
use super::progress::{Progress, Stage};
use super::semi_sync::SemiSync;
use crate::clock::{self, Instant};
use crate::error::Result;
use crate::mysql::dump::EventPart;
use crate::position::Position;

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) cutter: Cutter,
    pub(super) frames: Arc<BufferPool>,
    pub(super) frame_bytes: usize,
    pub(super) to_seal: mpsc::Sender<Cut>,
    /// Told of each chunk that was cut, if acknowledgements wait for this lane's.
    pub(super) acknowledges: Option<Arc<SemiSync>>,
    /// When the open chunk got its first byte; `None` when there is none, or its end has been asked for.
    pub(super) opened: Option<Instant>,
    /// The open chunk holds something that the server waits for.
    pub(super) waited_for: bool,
    /// Whether a chunk was open, and has been since, when reading began.
    was_open: bool,
    /// Something came that does not fit: what is open is not to be stored.
    refused: bool,
}

impl Lane {
    pub(super) fn new(
        cutter: Cutter,
        frames: Arc<BufferPool>,
        frame_bytes: usize,
        to_seal: mpsc::Sender<Cut>,
        acknowledges: Option<Arc<SemiSync>>,
    ) -> Self {
        Self {
            cutter,
            frames,
            frame_bytes,
            to_seal,
            acknowledges,
            opened: None,
            waited_for: false,
            was_open: false,
            refused: false,
        }
    }

    /// Pieces of the stream are about to come.
    pub(super) fn begin(&mut self) {
        self.was_open = self.cutter.chunk_is_open();
    }

    /// They have come, by `now`.
    pub(super) fn through(&mut self, now: Instant) {
        if !self.cutter.chunk_is_open() {
            self.opened = None;
        } else if !self.was_open {
            self.opened = Some(now);
        }
    }

    /// Gets the cutter the buffers it needs. Waiting here is what holds the server back.
    pub(super) async fn refill(&mut self, progress: &Progress) {
        if self.cutter.spares_wanted() == 0 {
            return;
        }
        let since = clock::monotonic();
        for _ in 0..self.cutter.spares_wanted() {
            self.cutter.give_spare(self.frames.lend(self.frame_bytes).await);
        }
        progress.blocked(Stage::Receive, since);
    }

    pub(super) fn accept(&mut self, part: EventPart<'_>) -> Result<()> {
        self.cutter.accept(part).inspect_err(|_| self.refused = true)
    }

    pub(super) fn chunk_is_open(&self) -> bool {
        self.cutter.chunk_is_open()
    }

    /// Up to where the stream has come.
    pub(super) fn reached(&self) -> Option<(u64, u64)> {
        self.cutter.reached()
    }

    /// Whether something waits for the sealer.
    pub(super) fn has_output(&self) -> bool {
        self.cutter.has_output()
    }

    pub(super) fn position(&self) -> Option<(Position, bool)> {
        self.cutter.position()
    }

    /// Ends the open chunk now or, inside a transaction, behind it. `false`: the sealer is gone.
    pub(super) async fn end_chunk_soon(&mut self) -> Result<bool> {
        (self.opened, self.waited_for) = (None, false);
        self.cutter.end_chunk_soon()?;
        Ok(self.hand_on().await)
    }

    /// Ends the open chunk wherever it is. `false`: the sealer is gone.
    pub(super) async fn end_chunk_here(&mut self) -> Result<bool> {
        if !self.refused {
            self.cutter.end_chunk_here()?;
        }
        Ok(self.hand_on().await)
    }

    /// Hands everything that was cut to the sealer. `false`: it is gone, and says itself why.
    pub(super) async fn hand_on(&mut self) -> bool {
        while let Some(cut) = self.cutter.take() {
            self.was_open = false;
            if matches!(cut, Cut::End(_)) {
                failpoint::pass("cut");
                self.waited_for = false;
                if let Some(semi_sync) = &self.acknowledges {
                    semi_sync.cut();
                }
            }
            if self.to_seal.send(cut).await.is_err() {
                return false;
            }
        }
        true
    }
}
