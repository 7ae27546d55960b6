//! Commit: takes the store's answers in the order of the stream and moves the durable position.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::failpoint;
use super::pieces::Pieces;
use super::progress::Progress;
use super::semi_sync::SemiSync;
use crate::chunk::ChunkMeta;
use crate::error::{Error, Result};
use crate::position::Position;
use crate::simulation::{Bug, planted};

/// A chunk on its way to the store.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) meta: Box<ChunkMeta>,
    /// Bytes of the object.
    pub(super) object_bytes: u64,
    /// Ends when the store has acknowledged it.
    pub(super) stored: AbortOnDropHandle<Result<()>>,
}

/// The commit stage. Ends when the uploader has.
pub(super) async fn run(
    mut chunks: mpsc::Receiver<InFlight>,
    progress: Arc<Progress>,
    semi_sync: Option<Arc<SemiSync>>,
    pieces: Option<Arc<Pieces>>,
) -> Result<()> {
    while let Some(InFlight { meta, object_bytes, stored, .. }) = chunks.recv().await {
        if planted(Bug::AckBeforeDurable) {
            stored.detach();
        } else {
            stored.await.map_err(|panic| Error::failed("an upload broke down").source(panic))??;
        }
        failpoint::pass("commit");
        if let Some(semi_sync) = &semi_sync {
            semi_sync.committed(&meta);
        }
        if let Some(pieces) = &pieces {
            pieces.covered(&Position { file: meta.file.clone(), offset: meta.end }).await?;
        }
        tracing::debug!(
            file = %meta.file, start = meta.start, end = meta.end, object_bytes, transactions = meta.transactions,
            "chunk durable"
        );
        progress.committed(&meta, object_bytes);
    }
    Ok(())
}
