//! MySQL → store: the road a byte takes on its way to safety.
//!
//! ```text
//!   MySQL ─► receive ─► cut ──(4 items)──► seal ──(1)──► upload ──(uploads)──► commit ─► durable position
//!            socket     pure    frames of  zstd+age       N at     in order      log, status, beacon
//!                              ≤ 1 MiB     2 threads      once
//!     ▲                                                              │
//!     └──────────────────────── acknowledge ◄────────────────────────┘ where the server waits for it (semi-sync)
//! ```
//!
//! Owns: one *generation*: all stages from a resume point to the first failure, the end, or the order to stop; memory
//! between the stages; which position is durable.
//! Does not own: when to start again (`run`), what is in the archive (`archive`), the connection's set-up (`mysql`).
//!
//! Invariants: bytes wait in lent buffers only, so memory has a limit whatever the server sends; the durable position
//! moves over contiguous acknowledged chunks only; the first failure of any stage ends them all and is the one reported;
//! asked to stop, the stages empty themselves in order and nothing received is lost; the server is told that something is
//! durable only by the commit stage's word.

mod acknowledge;
mod buffers;
mod commit;
mod cut;
mod failpoint;
mod ledger;
mod progress;
mod receive;
mod seal;
mod semi_sync;
mod upload;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::buffers::BufferPool;
use self::cut::{CutOptions, Cutter};
use crate::archive::{Archive, ResumePoint};
use crate::chunk::compress::CompressOptions;
use crate::chunk::keys::Recipients;
use crate::error::{Error, Result};
use crate::mysql::RawStream;
use crate::position::{GtidSet, Position, ServerUuid};

pub use ledger::Ledger;
pub use progress::{Durable, Progress, Snapshot, Stage};
pub use semi_sync::SemiSync;

/// How to ship. Sizes in bytes.
#[derive(Debug, Clone)]
pub struct ShipOptions {
    /// Raw bytes of a chunk.
    pub chunk_bytes: u64,
    /// How long bytes may wait before their chunk is cut.
    pub flush_interval: Duration,
    /// Compression.
    pub compress: CompressOptions,
    /// Compression threads.
    pub sealers: usize,
    /// Objects on their way to the store at a time.
    pub uploads: usize,
    /// The server's heartbeat; three of them missed mean a dead peer.
    pub heartbeat: Duration,
}

/// Raw bytes of a frame: what stays in a core's cache while it is compressed.
const FRAME_BYTES: usize = 1 << 20;
/// Frames between cutter and sealer.
const CUT_QUEUE: usize = 4;
/// Sealed objects whose bytes may exist at a time.
const OBJECT_BUDGET_BYTES: usize = 16 << 20;

impl ShipOptions {
    /// Raw bytes of a frame: with long-distance matching the whole chunk is one, so that the window has something to
    /// look back on.
    pub fn frame_bytes(&self) -> usize {
        let chunk = usize::try_from(self.chunk_bytes).unwrap_or(usize::MAX);
        if self.compress.long_window_log.is_some() { chunk } else { chunk.min(FRAME_BYTES) }
    }

    /// Frames that may exist at a time: those the cutter holds, those in the queue and those being compressed.
    fn frames(&self) -> usize {
        let held = cut::spares(self.frame_bytes()).saturating_add(1).saturating_add(self.sealers);
        if self.compress.long_window_log.is_some() { held } else { held.saturating_add(CUT_QUEUE) }
    }
}

/// What one generation needs.
#[derive(Debug)]
pub struct Voyage {
    /// The dump, begun.
    pub stream: RawStream,
    /// The server.
    pub server: ServerUuid,
    /// Where the archive ends.
    pub from: ResumePoint,
    /// The server's `gtid_purged`: what it had executed that none of its binlogs has.
    pub purged: GtidSet,
    /// The archive.
    pub archive: Archive,
    /// Whom chunks are sealed to.
    pub recipients: Recipients,
    /// End, in good order, when everything before this is durable.
    pub until: Option<Position>,
    /// Shared with whoever watches.
    pub progress: Arc<Progress>,
    /// The order to stop in good order.
    pub stop: CancellationToken,
    /// Shared with the guard, where semi-synchronous replication is wanted.
    pub semi_sync: Option<Arc<SemiSync>>,
}

/// Ships until it is told to stop or to turn (`Ok`), has reached `until` (`Ok`), or a stage fails.
///
/// # Errors
/// The first failure. Whatever was acknowledged before it is durable.
pub async fn ship(options: &ShipOptions, voyage: Voyage) -> Result<()> {
    let Voyage { stream, server, from, purged, archive, recipients, until, progress, stop, semi_sync } = voyage;
    let RawStream { stream, leftover, .. } = stream;
    let (socket, back) = tokio::io::split(stream);
    let frame_bytes = options.frame_bytes();
    let frames = BufferPool::new(frame_bytes.saturating_mul(options.frames()), usize::MAX);
    let objects = BufferPool::new(OBJECT_BUDGET_BYTES, OBJECT_BUDGET_BYTES);
    let cut_options = CutOptions { chunk_bytes: options.chunk_bytes, frame_bytes };
    let cutter = Cutter::new(cut_options, archive.id(), server, &from).with_purged(purged);

    // Last stage first, so that each is built with the way into the next.
    let (to_commit, committing) = mpsc::channel(options.uploads);
    let (to_upload, uploading) = mpsc::channel(1);
    let (to_seal, sealing) = mpsc::channel(CUT_QUEUE);
    let all_told = CancellationToken::new();
    let acknowledge = match semi_sync.clone().filter(|semi_sync| semi_sync.is_replica) {
        Some(semi_sync) => spawn(acknowledge::run(back, semi_sync, all_told.clone())),
        None => spawn(async { Ok(()) }),
    };
    let committed = commit::run(committing, Arc::clone(&progress), semi_sync.clone());
    let commit = spawn(async move {
        let _told = all_told.drop_guard();
        committed.await
    });
    let upload = spawn(upload::run(uploading, to_commit, archive.clone(), options.uploads, Arc::clone(&progress)));
    let seal_options = seal::SealOptions { compress: options.compress, sealers: options.sealers };
    let seal = spawn(seal::run(seal_options, recipients, sealing, to_upload, objects, Arc::clone(&progress)));
    let receive = spawn(receive::run(
        receive::Receive {
            options: options.clone(),
            socket,
            leftover,
            cutter,
            frames,
            until,
            progress,
            stop,
            semi_sync,
        },
        to_seal,
    ));
    join(receive, seal, upload, commit, acknowledge).await
}

fn spawn(stage: impl Future<Output = Result<()>> + Send + 'static) -> AbortOnDropHandle<Result<()>> {
    AbortOnDropHandle::new(tokio::spawn(stage))
}

/// Waits for all stages, or for the first failure. A stage that fails drops its channel ends, which makes its
/// neighbours end quietly: so the failure that is reported is the one that began it.
async fn join(
    receive: AbortOnDropHandle<Result<()>>,
    seal: AbortOnDropHandle<Result<()>>,
    upload: AbortOnDropHandle<Result<()>>,
    commit: AbortOnDropHandle<Result<()>>,
    acknowledge: AbortOnDropHandle<Result<()>>,
) -> Result<()> {
    let named = |name: &'static str, handle: AbortOnDropHandle<Result<()>>| async move {
        match handle.await {
            Ok(result) => result,
            Err(panic) => Err(Error::failed(format!("the {name} stage broke down")).source(panic)),
        }
    };
    tokio::try_join!(
        named("receive", receive),
        named("seal", seal),
        named("upload", upload),
        named("commit", commit),
        named("acknowledge", acknowledge),
    )?;
    Ok(())
}
