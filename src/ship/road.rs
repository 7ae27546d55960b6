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
use super::cut::{Cut, CutOptions, Cutter};
use super::lane::Lane;
use super::pieces::{Pieces, Press};
use super::semi_sync::SemiSync;
use super::{ShipOptions, Voyage, commit, seal, upload};
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
///
/// # Errors
/// If there is no memory for a compressor.
pub(super) fn build(
    options: &ShipOptions,
    voyage: &Voyage,
    told: &CancellationToken,
    stages: &mut Stages,
) -> Result<(Lane, Option<Lane>)> {
    let replica = voyage.semi_sync.clone().filter(|semi_sync| semi_sync.is_replica);
    let Some((spool, semi_sync)) = voyage.spool.clone().zip(replica) else {
        let (to_commit, committing) = mpsc::channel(options.uploads);
        let commit = commit::run(committing, Arc::clone(&voyage.progress), voyage.semi_sync.clone(), None);
        stages.start("commit", then_told(commit, told));
        return Ok((chunks(options, voyage, to_commit, voyage.semi_sync.clone(), stages), None));
    };
    let pieces = Pieces::new(spool);
    let (to_commit, committing) = mpsc::channel(options.uploads);
    stages.start("commit", commit::run(committing, Arc::clone(&voyage.progress), None, Some(Arc::clone(&pieces))));
    let chunks = chunks(options, voyage, to_commit, None, stages);
    let press = Press::new(options.compress, voyage.recipients.clone())?;
    let (to_press, cuts) = mpsc::channel(CUT_QUEUE);
    stages.start("spool", then_told(pieces.run(press, cuts, Arc::clone(&semi_sync)), told));
    let frame_bytes = options.frame_bytes().min(PIECE_FRAME_BYTES);
    let pieces = lane(options, voyage, (frame_bytes, 1), to_press, Some(semi_sync));
    Ok((chunks, Some(pieces)))
}

/// From the cutter to the uploader. The last stage is started first, so that each is given the way into the next.
fn chunks(
    options: &ShipOptions,
    voyage: &Voyage,
    to_commit: mpsc::Sender<InFlight>,
    acknowledges: Option<Arc<SemiSync>>,
    stages: &mut Stages,
) -> Lane {
    let (to_upload, uploading) = mpsc::channel(1);
    let (to_seal, sealing) = mpsc::channel(CUT_QUEUE);
    let objects = BufferPool::new(OBJECT_BUDGET_BYTES, OBJECT_BUDGET_BYTES);
    let (store, progress) = (Arc::clone(voyage.archive.store()), || Arc::clone(&voyage.progress));
    stages.start("upload", upload::run(uploading, to_commit, store, options.uploads, progress()));
    let seal_options = seal::SealOptions { compress: options.compress, sealers: options.sealers };
    stages.start("seal", seal::run(seal_options, voyage.recipients.clone(), sealing, to_upload, objects, progress()));
    lane(options, voyage, (options.frame_bytes(), options.sealers), to_seal, acknowledges)
}

/// A lane of frames of so many bytes, which so many sealers work on at a time.
fn lane(
    options: &ShipOptions,
    voyage: &Voyage,
    (frame_bytes, sealers): (usize, usize),
    to_seal: mpsc::Sender<Cut>,
    acknowledges: Option<Arc<SemiSync>>,
) -> Lane {
    let frames = BufferPool::new(frame_bytes.saturating_mul(options.frames(frame_bytes, sealers)), usize::MAX);
    let cut_options = CutOptions { chunk_bytes: options.chunk_bytes, frame_bytes };
    let cutter = Cutter::new(cut_options, voyage.archive.id(), voyage.server, &voyage.from);
    let cutter = cutter.with_purged(voyage.purged.clone()).expecting(voyage.expected.clone());
    Lane::new(cutter, frames, frame_bytes, to_seal, acknowledges)
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
