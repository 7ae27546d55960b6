//! The roads of one generation: which stages there are, and what goes from one to the next.
//!
//! Invariant: the first failure of any stage ends them all, and is the one reported.

use std::sync::Arc;

use futures_util::future::try_join_all;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::buffers::BufferPool;
use super::commit::InFlight;
use super::cut::{CutOptions, Cutter};
use super::lane::Lane;
use super::pieces::Pieces;
use super::progress::Progress;
use super::semi_sync::SemiSync;
use super::upload::Destination;
use super::{ShipOptions, Voyage, commit, seal, upload};
use crate::chunk::compress::CompressOptions;
use crate::error::{Error, Result};

/// Raw bytes of a piece's frame: most pieces are a few commits.
const PIECE_FRAME_BYTES: usize = 256 << 10;
/// Frames between cutter and sealer.
pub(super) const CUT_QUEUE: usize = 4;
/// Sealed objects whose bytes may exist at a time.
const OBJECT_BUDGET_BYTES: usize = 16 << 20;

/// The stages that have been started.
#[derive(Default)]
pub(super) struct Stages(Vec<(&'static str, AbortOnDropHandle<Result<()>>)>);

impl Stages {
    pub(super) fn start(&mut self, name: &'static str, stage: impl Future<Output = Result<()>> + Send + 'static) {
        self.0.push((name, AbortOnDropHandle::new(tokio::spawn(stage))));
    }

    /// Waits for all stages, or for the first failure. A stage that fails drops its channel ends, which makes its
    /// neighbours end quietly: so the failure that is reported is the one that began it.
    pub(super) async fn join(self) -> Result<()> {
        let named = |(name, handle): (&'static str, AbortOnDropHandle<Result<()>>)| async move {
            match handle.await {
                Ok(result) => result,
                Err(panic) => Err(Error::failed(format!("the {name} stage broke down")).source(panic)),
            }
        };
        try_join_all(self.0.into_iter().map(named)).await.map(drop)
    }
}

/// The road of the archive's chunks, and of pieces, if commits wait for the spool. `told` is set when the server will be
/// owed no further acknowledgement.
pub(super) fn build(
    options: &ShipOptions,
    voyage: &Voyage,
    told: &CancellationToken,
    stages: &mut Stages,
) -> (Lane, Option<Lane>) {
    let replica = voyage.semi_sync.clone().filter(|semi_sync| semi_sync.is_replica);
    let Some((spool, semi_sync)) = voyage.spool.clone().zip(replica) else {
        let (to_commit, committing) = mpsc::channel(options.uploads);
        let commit = commit::run(committing, Arc::clone(&voyage.progress), voyage.semi_sync.clone(), None);
        stages.start("commit", then_told(commit, told));
        return (chunks(options, voyage, to_commit, voyage.semi_sync.clone(), stages), None);
    };
    let pieces = Pieces::new(spool);
    let (to_commit, committing) = mpsc::channel(options.uploads);
    stages.start("commit", commit::run(committing, Arc::clone(&voyage.progress), None, Some(Arc::clone(&pieces))));
    let chunks = chunks(options, voyage, to_commit, None, stages);
    let (to_commit, committing) = mpsc::channel(options.uploads);
    stages.start("spool", then_told(Arc::clone(&pieces).run(committing, Arc::clone(&semi_sync)), told));
    let road = Road {
        frame_bytes: options.frame_bytes().min(PIECE_FRAME_BYTES),
        compress: CompressOptions { long_window_log: None, ..options.compress },
        sealers: 1,
        destination: Destination::Pieces(pieces),
        progress: Arc::default(),
        acknowledges: Some(semi_sync),
    };
    (chunks, Some(road.start(options, voyage, to_commit, stages)))
}

fn chunks(
    options: &ShipOptions,
    voyage: &Voyage,
    to_commit: mpsc::Sender<InFlight>,
    acknowledges: Option<Arc<SemiSync>>,
    stages: &mut Stages,
) -> Lane {
    let road = Road {
        frame_bytes: options.frame_bytes(),
        compress: options.compress,
        sealers: options.sealers,
        destination: Destination::Store(Arc::clone(voyage.archive.store())),
        progress: Arc::clone(&voyage.progress),
        acknowledges,
    };
    road.start(options, voyage, to_commit, stages)
}

/// Sets `told` behind the last word of a commit stage.
fn then_told(
    commit: impl Future<Output = Result<()>> + Send + 'static,
    told: &CancellationToken,
) -> impl Future<Output = Result<()>> + Send + 'static {
    let told = told.clone().drop_guard();
    async move {
        let _told = told;
        commit.await
    }
}

/// From the cutter to the uploader.
struct Road {
    frame_bytes: usize,
    compress: CompressOptions,
    sealers: usize,
    destination: Destination,
    progress: Arc<Progress>,
    acknowledges: Option<Arc<SemiSync>>,
}

impl Road {
    /// Starts its stages, the last one first, so that each is given the way into the next.
    fn start(
        self,
        options: &ShipOptions,
        voyage: &Voyage,
        to_commit: mpsc::Sender<InFlight>,
        stages: &mut Stages,
    ) -> Lane {
        let Self { frame_bytes, compress, sealers, destination, progress, acknowledges } = self;
        let (to_upload, uploading) = mpsc::channel(1);
        let (to_seal, sealing) = mpsc::channel(CUT_QUEUE);
        let objects = BufferPool::new(OBJECT_BUDGET_BYTES, OBJECT_BUDGET_BYTES);
        let frames = BufferPool::new(frame_bytes.saturating_mul(options.frames(frame_bytes, sealers)), usize::MAX);
        stages.start("upload", upload::run(uploading, to_commit, destination, options.uploads, Arc::clone(&progress)));
        let seal_options = seal::SealOptions { compress, sealers };
        stages.start("seal", seal::run(seal_options, voyage.recipients.clone(), sealing, to_upload, objects, progress));
        let cut_options = CutOptions { chunk_bytes: options.chunk_bytes, frame_bytes };
        let cutter = Cutter::new(cut_options, voyage.archive.id(), voyage.server, &voyage.from);
        Lane::new(cutter.with_purged(voyage.purged.clone()), frames, frame_bytes, to_seal, acknowledges)
    }
}
