//! Receive: reads the dump's socket and drives the cutters.
//!
//! Owns: the socket's reading half, the flush timer, the dead-peer rule, the orders to stop and to turn, cutting for a server
//! that waits, and the end of a `--once` run.
//! Does not own: what the bytes mean (`mysql::dump`, `cut`), how they get to the sealer (`lane`).
//!
//! Where the server waits for acknowledgements, a chunk, or a piece, is cut as soon as what was read is through and an upload
//! has a place; while none has, or the last cut was a moment ago, more commits gather for the next.
//!
//! Invariant: nothing is read while there is no memory to put it: the socket fills, and the server's dump thread waits.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, ReadHalf};
use tokio_util::sync::CancellationToken;

use super::changes::Follower;
use super::failpoint;
use super::lane::Lane;
use super::progress::Progress;
use super::semi_sync::SemiSync;
use super::{DRAIN_LIMIT, ShipOptions};
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
    /// For the archive's chunks.
    pub(super) chunks: Lane,
    /// For pieces.
    pub(super) pieces: Option<Lane>,
    pub(super) until: Option<Position>,
    pub(super) progress: Arc<Progress>,
    pub(super) orders: Orders,
    pub(super) semi_sync: Option<Arc<SemiSync>>,
}

/// What the stage is told, and tells.
pub(super) struct Orders {
    /// To stop in good order.
    pub(super) stop: CancellationToken,
    /// Set here: the server sends no more.
    pub(super) lost: CancellationToken,
    /// The server takes no acknowledgement any more.
    pub(super) unheard: CancellationToken,
}

/// Why reading paused.
enum Wake {
    Read(usize),
    FlushDue,
    PeerDead,
    /// Stop, or turn.
    End,
    /// Another chunk may be cut, or flushing was asked for.
    Changed,
}

/// The receive and cut stages. What has come before the server failed is cut and handed on like everything else.
pub(super) async fn run(setup: Receive) -> Result<()> {
    let Receive { options, socket, leftover, chunks, pieces, until, progress, orders, semi_sync } = setup;
    let reader = DumpReader::new(&leftover)?;
    let is_replica = semi_sync.as_ref().is_some_and(|semi_sync| semi_sync.is_replica);
    let mut stage = ReceiveStage {
        reader: if is_replica { reader.asked_semi_sync() } else { reader },
        socket,
        changes: semi_sync.as_ref().map(|semi_sync| semi_sync.changes()),
        semi_sync,
        chunks,
        pieces,
        until,
        progress,
        cut_at: None,
        ended: false,
    };
    let Err(error) = stage.take_in(&options, &orders).await else { return Ok(()) };
    orders.lost.cancel();
    // A part of a large event may be in the open chunk before its checksum is found wrong.
    if error.kind() != Kind::Corrupt
        && let Some(Err(other)) = clock::with_timeout(DRAIN_LIMIT, stage.end_here()).await
    {
        tracing::debug!(error = %other.chain(), "the open chunk is not cut");
    }
    Err(error)
}

struct ReceiveStage {
    reader: DumpReader,
    socket: ReadHalf<Stream>,
    semi_sync: Option<Arc<SemiSync>>,
    changes: Option<Follower>,
    chunks: Lane,
    pieces: Option<Lane>,
    until: Option<Position>,
    progress: Arc<Progress>,
    /// When what the server waits for is to be cut; `None` while it waits for nothing, or no upload has a place.
    cut_at: Option<Instant>,
    ended: bool,
}

impl ReceiveStage {
    /// Reads until the end is reached or ordered, or a sealer is gone, which says itself why.
    async fn take_in(&mut self, options: &ShipOptions, orders: &Orders) -> Result<()> {
        let silence_max = options.heartbeat.saturating_mul(HEARTBEATS_MISSED_MAX);
        let mut heard = clock::monotonic();
        loop {
            if !self.cut_if_waited_for().await? {
                return Ok(());
            }
            let flush_at = self.chunks.opened.and_then(|opened| opened.checked_add(options.flush_interval));
            match self.wait(flush_at, heard.checked_add(silence_max), orders).await? {
                Wake::Read(bytes) => {
                    self.progress.received(bytes);
                    self.reader.filled(bytes);
                    if !self.drain(clock::monotonic()).await? || self.ended {
                        return Ok(());
                    }
                    // Waiting for the sealer is no silence of the server's.
                    heard = clock::monotonic();
                }
                Wake::FlushDue => {
                    if !self.chunks.end_chunk_soon().await? {
                        return Ok(());
                    }
                }
                Wake::Changed => {}
                Wake::PeerDead => {
                    let message = format!(
                        "nothing came from the server for {} s, not even a heartbeat",
                        silence_max.as_secs_f32()
                    );
                    return Err(Error::new(Kind::Unreachable, message));
                }
                Wake::End => {
                    self.end_here().await?;
                    return Ok(());
                }
            }
        }
    }

    async fn wait(&mut self, flush_at: Option<Instant>, dead_at: Option<Instant>, orders: &Orders) -> Result<Wake> {
        let until = |at: Option<Instant>| async move {
            match at {
                Some(at) => clock::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let cut_at = until(self.cut_at);
        let (turn, changes) = (self.semi_sync.as_deref().map(|semi_sync| &semi_sync.turn), &mut self.changes);
        let turned = async {
            match turn {
                Some(turn) => turn.cancelled().await,
                None => std::future::pending().await,
            }
        };
        let changed = async {
            match changes {
                Some(changes) => changes.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = orders.stop.cancelled() => Ok(Wake::End),
            () = turned => Ok(Wake::End),
            () = orders.unheard.cancelled() => {
                Err(Error::new(Kind::Unreachable, "the server takes no acknowledgement"))
            }
            () = until(flush_at) => Ok(Wake::FlushDue),
            () = changed => Ok(Wake::Changed),
            () = cut_at => Ok(Wake::Changed),
            read = self.socket.read(self.reader.space()) => match read {
                Ok(0) => Err(Error::new(Kind::Unreachable, "the server closed the connection")),
                Ok(bytes) => Ok(Wake::Read(bytes)),
                Err(error) => Err(Error::new(Kind::Unreachable, "read from the server").source(error)),
            },
            () = until(dead_at) => Ok(Wake::PeerDead),
        }
    }

    /// Takes everything the reader has. `false`: a sealer is gone.
    async fn drain(&mut self, now: Instant) -> Result<bool> {
        failpoint::pass("receive");
        self.chunks.begin();
        loop {
            self.chunks.refill(&self.progress).await;
            if let Some(pieces) = &mut self.pieces {
                pieces.refill(&self.progress).await;
            }
            match self.reader.next()? {
                None => break,
                Some(DumpItem::Part(part)) => {
                    let asks = part.asks_ack && part.last;
                    self.chunks.accept(part)?;
                    if let Some(pieces) = &mut self.pieces {
                        pieces.accept(part)?;
                    }
                    if (asks || self.has_output()) && !self.hand_on().await {
                        return Ok(false);
                    }
                    if asks {
                        self.is_asked();
                    }
                }
                Some(DumpItem::End) => {
                    return Err(Error::new(
                        Kind::Unreachable,
                        "the server ended the stream (shutdown, or the thread was killed)",
                    ));
                }
            }
        }
        self.chunks.through(now);
        if let Some(reached) = self.chunks.reached() {
            self.progress.set_reached(reached);
        }
        self.end_if_reached().await
    }

    /// The server waits for an acknowledgement of all it has sent so far, and all of it that was cut is handed on.
    fn is_asked(&mut self) {
        let lane = self.pieces.as_mut().unwrap_or(&mut self.chunks);
        if let (Some(semi_sync), Some((position, _))) = (&self.semi_sync, lane.position()) {
            semi_sync.asked(position);
            lane.waited_for = lane.chunk_is_open();
        }
    }

    /// Cuts what the server waits for, if it is time, and the open chunk if that was asked for. `false`: a sealer is gone.
    async fn cut_if_waited_for(&mut self) -> Result<bool> {
        let Some(semi_sync) = &self.semi_sync else { return Ok(true) };
        if let Some(changes) = self.changes.as_mut() {
            changes.mark_unchanged();
        }
        if semi_sync.take_flush() && self.chunks.chunk_is_open() && !self.chunks.end_chunk_soon().await? {
            return Ok(false);
        }
        let lane = self.pieces.as_mut().unwrap_or(&mut self.chunks);
        self.cut_at = if lane.waited_for { semi_sync.next_cut() } else { None };
        match self.cut_at {
            Some(at) if at <= clock::monotonic() => {
                self.cut_at = None;
                lane.end_chunk_soon().await
            }
            _ => Ok(true),
        }
    }

    /// Ends the stage once everything before `until` has come.
    async fn end_if_reached(&mut self) -> Result<bool> {
        let reached = match (&self.until, self.chunks.position()) {
            (Some(until), Some((position, aligned))) => aligned && position >= *until,
            _ => false,
        };
        if reached {
            self.ended = true;
            return self.end_here().await;
        }
        Ok(true)
    }

    /// Ends what is open wherever it is. `false`: a sealer is gone.
    async fn end_here(&mut self) -> Result<bool> {
        let pieces = match &mut self.pieces {
            Some(pieces) => pieces.end_chunk_here().await?,
            None => true,
        };
        Ok(self.chunks.end_chunk_here().await? && pieces)
    }

    /// Whether something waits for a sealer.
    fn has_output(&self) -> bool {
        self.chunks.has_output() || self.pieces.as_ref().is_some_and(Lane::has_output)
    }

    /// Hands everything that was cut to the sealers. `false`: one is gone, and says itself why.
    async fn hand_on(&mut self) -> bool {
        let pieces = match &mut self.pieces {
            Some(pieces) => pieces.hand_on().await,
            None => true,
        };
        self.chunks.hand_on().await && pieces
    }
}
