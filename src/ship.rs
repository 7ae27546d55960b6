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
//! Where commits wait for a spool only, a second road runs beside it, for pieces that live until the chunk is durable that
//! holds the same bytes (`pieces`). `road` builds both.
//!
//! Owns: one *generation*: all stages from a resume point to the first failure, the end, or the order to stop; memory
//! between the stages; which position is durable.
//! Does not own: when to start again (`run`), what is in the archive (`archive`), the connection's set-up (`mysql`).
//!
//! Invariants: bytes wait in lent buffers only, so memory has a limit whatever the server sends; the durable position
//! moves over contiguous acknowledged chunks only; the first failure of any stage between cutter and store ends them all and
//! is the one reported; asked to stop, or left by the server, the stages empty themselves in order and nothing received is
//! lost: nobody else may have it any more; the server is told that something is durable only by the commit stage's word.

mod acknowledge;
mod buffers;
mod changes;
mod commit;
mod cut;
mod failpoint;
mod lane;
mod ledger;
mod pieces;
mod progress;
mod receive;
mod road;
mod seal;
mod semi_sync;
mod upload;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::buffers::BufferPool;
use self::cut::{CutOptions, Cutter};
use self::road::Stages;
use crate::archive::{Archive, ResumePoint};
use crate::chunk::compress::CompressOptions;
use crate::chunk::keys::Recipients;
use crate::clock;
use crate::error::Result;
use crate::mysql::RawStream;
use crate::mysql::dump::EventPart;
use crate::position::{GtidSet, Position, ServerUuid};
use crate::store::spool::Spool;

pub use changes::Follower;
pub use cut::Expected;
pub use ledger::Ledger;
pub use pieces::PIECES_AT_A_TIME;
pub use progress::{Durable, Progress, Snapshot, Stage};
pub use semi_sync::SemiSync;

/// Takes what a dump gives, cuts it and throws it away; `false` at what does not fit: the door of `fuzzing`.
pub(crate) fn dry_cutter() -> impl FnMut(EventPart<'_>) -> bool {
    const FRAME_BYTES: usize = 4 << 10;
    let options = CutOptions { chunk_bytes: 16 << 10, frame_bytes: FRAME_BYTES };
    let mut cutter = Cutter::new(options, Uuid::nil(), ServerUuid(Uuid::nil()), &ResumePoint::default());
    let pool = BufferPool::new(16 << 20, 1 << 20);
    move |part| {
        for _ in 0..cutter.spares_wanted() {
            if let Some(spare) = pool.lend(FRAME_BYTES).now_or_never() {
                cutter.give_spare(spare);
            }
        }
        let fits = cutter.accept(part).is_ok();
        while cutter.take().is_some() {}
        fits
    }
}

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

impl ShipOptions {
    /// Raw bytes of a frame: with long-distance matching the whole chunk is one, so that the window has something to
    /// look back on.
    pub fn frame_bytes(&self) -> usize {
        let chunk = usize::try_from(self.chunk_bytes).unwrap_or(usize::MAX);
        if self.compress.long_window_log.is_some() { chunk } else { chunk.min(FRAME_BYTES) }
    }

    /// Frames of a lane that may exist at a time: those the cutter holds, those in the queue and those being compressed.
    fn frames(&self, frame_bytes: usize, sealers: usize) -> usize {
        let held = cut::spares(frame_bytes).saturating_add(1).saturating_add(sealers);
        if self.compress.long_window_log.is_some() { held } else { held.saturating_add(road::CUT_QUEUE) }
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
    /// What the first file must be.
    pub expected: Expected,
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
    /// Set when the server sends no more, and what has come is still on its way.
    pub lost: CancellationToken,
    /// Shared with the guard, where semi-synchronous replication is wanted.
    pub semi_sync: Option<Arc<SemiSync>>,
    /// What commits wait for, instead of the store.
    pub spool: Option<Arc<Spool>>,
}

/// How long what was received of a server that is gone may take on its way to the store. Then it is given up: the next
/// generation asks the server for it again.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(60);

/// Ships until it is told to stop or to turn (`Ok`), has reached `until` (`Ok`), or a stage fails.
///
/// # Errors
/// The first failure. Whatever was acknowledged before it is durable; behind the server's failure so is, within
/// [`DRAIN_LIMIT`], whatever was received.
pub async fn ship(options: &ShipOptions, voyage: Voyage) -> Result<()> {
    voyage.progress.set_reached((0, 0));
    let (mut road, told) = (Stages::default(), CancellationToken::new());
    let (chunks, pieces) = road::build(options, &voyage, &told, &mut road)?;
    let Voyage { stream, until, progress, stop, lost, semi_sync, .. } = voyage;
    let RawStream { stream, leftover, .. } = stream;
    let (socket, back) = tokio::io::split(stream);
    let (mut ends, unheard) = (Stages::default(), CancellationToken::new());
    if let Some(semi_sync) = semi_sync.clone().filter(|semi_sync| semi_sync.is_replica) {
        ends.start("acknowledge", acknowledge::run(back, semi_sync, told, unheard.clone()));
    }
    let options = options.clone();
    let orders = receive::Orders { stop, lost: lost.clone(), unheard };
    let receive = receive::Receive { options, socket, leftover, chunks, pieces, until, progress, orders, semi_sync };
    ends.start("receive", receive::run(receive));
    through(ends, road, lost).await
}

/// A failure on the road ends everything at once. One at the server's end ends what comes; what has come goes its way.
async fn through(ends: Stages, road: Stages, lost: CancellationToken) -> Result<()> {
    let (mut ends, mut road) = (pin!(ends.join()), pin!(road.join()));
    let mut given_up = pin!(async {
        lost.cancelled().await;
        clock::sleep(DRAIN_LIMIT).await;
    });
    let left = tokio::select! {
        biased;
        stored = &mut road => {
            stored?;
            return ends.await;
        }
        left = &mut ends => left,
        // The receiver gives up now, too.
        () = &mut given_up => ends.await,
    };
    let Err(error) = left else { return road.await };
    let why = tokio::select! {
        biased;
        stored = road => stored.err().map(|other| other.chain().to_string()),
        () = given_up => Some(format!("the store has not taken it within {} s", DRAIN_LIMIT.as_secs())),
    };
    if let Some(why) = why {
        tracing::warn!(why, "not all that was received of the server last is stored; it is asked for again");
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, Kind};

    /// A stage that ends so after a time.
    async fn ends_after(seconds: u64, with: Result<()>) -> Result<()> {
        clock::sleep(Duration::from_secs(seconds)).await;
        with
    }

    /// Runs a stage at each end; says with what all ended, and after how many seconds.
    async fn ended(end: (u64, Result<()>), road: (u64, Result<()>)) -> (Option<Kind>, u64) {
        let (mut ends, mut stages, lost) = (Stages::default(), Stages::default(), CancellationToken::new());
        let (began, told) = (clock::monotonic(), lost.clone());
        ends.start("end", async move {
            let left = ends_after(end.0, end.1).await;
            if left.is_err() {
                told.cancel();
            }
            left
        });
        stages.start("road", ends_after(road.0, road.1));
        let ended = through(ends, stages, lost).await;
        (ended.err().map(|error| error.kind()), began.elapsed().as_secs())
    }

    fn gone() -> Result<()> {
        Err(Error::new(Kind::Unreachable, "the server is gone"))
    }

    fn refused() -> Result<()> {
        Err(Error::new(Kind::Store, "the store refuses"))
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_received_goes_its_way_when_the_server_is_gone() {
        assert_eq!(ended((1, gone()), (9, Ok(()))).await, (Some(Kind::Unreachable), 9));
        assert_eq!(ended((1, gone()), (9, refused())).await, (Some(Kind::Unreachable), 9));
        let limit = DRAIN_LIMIT.as_secs();
        assert_eq!(ended((1, gone()), (999, Ok(()))).await, (Some(Kind::Unreachable), 1 + limit));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_on_the_road_ends_all_at_once_and_a_good_end_waits_for_all() {
        assert_eq!(ended((9, gone()), (1, refused())).await, (Some(Kind::Store), 1));
        assert_eq!(ended((999, Ok(())), (1, refused())).await, (Some(Kind::Store), 1));
        assert_eq!(ended((1, Ok(())), (999, Ok(()))).await, (None, 999));
        assert_eq!(ended((5, Ok(())), (1, Ok(()))).await, (None, 5));
    }
}
