//! Receive: reads the dump's socket and drives the cutter.
//!
//! Owns: the socket's reading half, the flush timer, the dead-peer rule, the orders to stop and to turn, cutting for a server
//! that waits, and the end of a `--once` run.
//! Does not own: what the bytes mean (`mysql::dump`, `cut`).
//!
//! Where the server waits for acknowledgements, a chunk is cut as soon as what was read is through and an upload has a
//! place; while none has, more commits gather for the next chunk.
//!
//! Invariant: nothing is read while there is no memory to put it: the socket fills, and the server's dump thread waits.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, ReadHalf};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::ShipOptions;
use super::buffers::BufferPool;
use super::cut::{Cut, Cutter};
use super::failpoint;
use super::progress::{Progress, Stage};
use super::semi_sync::SemiSync;
use crate::clock::{self, Instant};
use crate::error::{Error, Kind, Result};
use crate::mysql::dump::{DumpItem, DumpReader};
use crate::mysql::stream::Stream;
use crate::position::Position;

/// Heartbeats that may be missed before the peer is taken for dead.
const HEARTBEATS_MISSED_MAX: u32 = 3;

/// What the stage needs.
pub(super) struct Receive {
    pub(super) options: ShipOptions,
    pub(super) socket: ReadHalf<Stream>,
    pub(super) leftover: BytesMut,
    pub(super) cutter: Cutter,
    pub(super) frames: Arc<BufferPool>,
    pub(super) until: Option<Position>,
    pub(super) progress: Arc<Progress>,
    pub(super) stop: CancellationToken,
    pub(super) semi_sync: Option<Arc<SemiSync>>,
}

/// Why reading paused.
enum Wake {
    Read(usize),
    FlushDue,
    PeerDead,
    /// Stop, or turn.
    End,
    /// Another chunk may be on its way, or flushing was asked for.
    Changed,
}

/// The receive and cut stages.
pub(super) async fn run(setup: Receive, to_seal: mpsc::Sender<Cut>) -> Result<()> {
    let Receive { options, socket, leftover, cutter, frames, until, progress, stop, semi_sync } = setup;
    let reader = DumpReader::new(&leftover)?;
    let is_replica = semi_sync.as_ref().is_some_and(|semi_sync| semi_sync.is_replica);
    let mut stage = ReceiveStage {
        reader: if is_replica { reader.asked_semi_sync() } else { reader },
        socket,
        changes: semi_sync.as_ref().map(|semi_sync| semi_sync.changes()),
        semi_sync,
        waited_for: false,
        cutter,
        frames,
        frame_bytes: options.frame_bytes(),
        to_seal,
        until,
        progress,
        chunk_opened: None,
        ended: false,
    };
    let silence_max = options.heartbeat.saturating_mul(HEARTBEATS_MISSED_MAX);
    let mut heard = clock::monotonic();
    loop {
        if !stage.cut_if_waited_for().await? {
            return Ok(());
        }
        let flush_at = stage.chunk_opened.and_then(|opened| opened.checked_add(options.flush_interval));
        match stage.wait(flush_at, heard.checked_add(silence_max), &stop).await? {
            Wake::Read(bytes) => {
                stage.progress.received(bytes);
                stage.reader.filled(bytes);
                if !stage.drain(clock::monotonic()).await? || stage.ended {
                    return Ok(());
                }
                // Waiting for the sealer is no silence of the server's.
                heard = clock::monotonic();
            }
            Wake::FlushDue => {
                if !stage.end_chunk_soon().await? {
                    return Ok(());
                }
            }
            Wake::Changed => {}
            Wake::PeerDead => {
                let message =
                    format!("nothing came from the server for {} s, not even a heartbeat", silence_max.as_secs_f32());
                return Err(Error::new(Kind::Unreachable, message));
            }
            Wake::End => {
                stage.cutter.end_chunk_here()?;
                stage.hand_on().await;
                return Ok(());
            }
        }
    }
}

struct ReceiveStage {
    reader: DumpReader,
    socket: ReadHalf<Stream>,
    semi_sync: Option<Arc<SemiSync>>,
    changes: Option<watch::Receiver<()>>,
    /// The open chunk holds something that the server waits for.
    waited_for: bool,
    cutter: Cutter,
    frames: Arc<BufferPool>,
    frame_bytes: usize,
    to_seal: mpsc::Sender<Cut>,
    until: Option<Position>,
    progress: Arc<Progress>,
    /// When the open chunk got its first byte; `None` when there is none, or its end has been asked for.
    chunk_opened: Option<Instant>,
    ended: bool,
}

impl ReceiveStage {
    async fn wait(
        &mut self,
        flush_at: Option<Instant>,
        dead_at: Option<Instant>,
        stop: &CancellationToken,
    ) -> Result<Wake> {
        let until = |at: Option<Instant>| async move {
            match at {
                Some(at) => clock::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let (turn, changes) = (self.semi_sync.as_deref().map(|semi_sync| &semi_sync.turn), &mut self.changes);
        let turned = async {
            match turn {
                Some(turn) => turn.cancelled().await,
                None => std::future::pending().await,
            }
        };
        let changed = async {
            // The sender lives as long as we do.
            let changed = match changes {
                Some(changes) => changes.changed().await.is_ok(),
                None => false,
            };
            if !changed {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(Wake::End),
            () = turned => Ok(Wake::End),
            () = until(flush_at) => Ok(Wake::FlushDue),
            () = changed => Ok(Wake::Changed),
            read = self.socket.read(self.reader.space()) => match read {
                Ok(0) => Err(Error::new(Kind::Unreachable, "the server closed the connection")),
                Ok(bytes) => Ok(Wake::Read(bytes)),
                Err(error) => Err(Error::new(Kind::Unreachable, "read from the server").source(error)),
            },
            () = until(dead_at) => Ok(Wake::PeerDead),
        }
    }

    /// Takes everything the reader has. `false`: the sealer is gone.
    async fn drain(&mut self, now: Instant) -> Result<bool> {
        failpoint::pass("receive");
        let mut was_open = self.cutter.chunk_is_open();
        loop {
            if self.cutter.spares_wanted() > 0 {
                self.refill().await;
            }
            match self.reader.next()? {
                None => break,
                Some(DumpItem::Part(part)) => {
                    let asks = part.asks_ack && part.last;
                    self.cutter.accept(part)?;
                    if asks && !self.is_asked().await {
                        return Ok(false);
                    }
                }
                Some(DumpItem::End) => {
                    self.cutter.end_chunk_here()?;
                    self.hand_on().await;
                    return Err(Error::new(
                        Kind::Unreachable,
                        "the server ended the stream (shutdown, or the thread was killed)",
                    ));
                }
            }
            if self.cutter.has_output() {
                was_open = false;
                if !self.hand_on().await {
                    return Ok(false);
                }
            }
        }
        if !self.cutter.chunk_is_open() {
            self.chunk_opened = None;
        } else if !was_open {
            self.chunk_opened = Some(now);
        }
        self.end_if_reached().await
    }

    /// The server waits for an acknowledgement of all it has sent so far. `false`: the sealer is gone.
    async fn is_asked(&mut self) -> bool {
        if !self.hand_on().await {
            return false;
        }
        if let (Some(semi_sync), Some((position, _))) = (&self.semi_sync, self.cutter.position()) {
            semi_sync.asked(position);
            self.waited_for = self.cutter.chunk_is_open();
        }
        true
    }

    /// Cuts the open chunk if the server waits for it and an upload has a place, or if that was asked for. `false`: the
    /// sealer is gone.
    async fn cut_if_waited_for(&mut self) -> Result<bool> {
        let Some(semi_sync) = &self.semi_sync else { return Ok(true) };
        if let Some(changes) = self.changes.as_mut() {
            changes.mark_unchanged();
        }
        let asked = semi_sync.take_flush() && self.cutter.chunk_is_open();
        if asked || (self.waited_for && semi_sync.has_slot()) { self.end_chunk_soon().await } else { Ok(true) }
    }

    /// Ends the open chunk now or, inside a transaction, behind it. `false`: the sealer is gone.
    async fn end_chunk_soon(&mut self) -> Result<bool> {
        (self.chunk_opened, self.waited_for) = (None, false);
        self.cutter.end_chunk_soon()?;
        Ok(self.hand_on().await)
    }

    /// Ends the stage once everything before `until` has come.
    async fn end_if_reached(&mut self) -> Result<bool> {
        let reached = match (&self.until, self.cutter.position()) {
            (Some(until), Some((position, aligned))) => aligned && position >= *until,
            _ => false,
        };
        if reached {
            self.ended = true;
            self.cutter.end_chunk_here()?;
            return Ok(self.hand_on().await);
        }
        Ok(true)
    }

    /// Gets the cutter the buffers it needs. Waiting here is what holds the server back.
    async fn refill(&mut self) {
        let since = clock::monotonic();
        for _ in 0..self.cutter.spares_wanted() {
            self.cutter.give_spare(self.frames.lend(self.frame_bytes).await);
        }
        self.progress.blocked(Stage::Receive, since);
    }

    /// Hands everything that was cut to the sealer. `false`: it is gone, and says itself why.
    async fn hand_on(&mut self) -> bool {
        while let Some(cut) = self.cutter.take() {
            if matches!(cut, Cut::End(_)) {
                failpoint::pass("cut");
                self.waited_for = false;
                if let Some(semi_sync) = &self.semi_sync {
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
