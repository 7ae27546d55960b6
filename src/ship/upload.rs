//! Upload: several objects on their way at a time, their order kept for the commit.
//!
//! Owns: how many are on their way.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::AbortOnDropHandle;

use super::commit::InFlight;
use super::failpoint;
use super::progress::{Progress, Stage};
use super::seal::SealedChunk;
use crate::clock;
use crate::error::{Context, Error, Result};
use crate::store::{Key, Put, SharedStore};

/// The upload stage. Ends when the sealer has.
pub(super) async fn run(
    mut chunks: mpsc::Receiver<SealedChunk>,
    to_commit: mpsc::Sender<InFlight>,
    store: SharedStore,
    uploads: usize,
    progress: Arc<Progress>,
) -> Result<()> {
    let places = Arc::new(Semaphore::new(uploads.max(1)));
    while let Some(SealedChunk { meta, name, object }) = chunks.recv().await {
        let since = clock::monotonic();
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
        progress.blocked(Stage::Upload, since);
        let key = Key::new(name.to_string())?;
        let object_bytes = object.len() as u64;
        let store = Arc::clone(&store);
        let put = tokio::spawn(async move {
            failpoint::pass("upload");
            let put = store.put_new(&key, Bytes::from_owner(object)).await.map_err(Error::from);
            failpoint::pass("uploaded");
            if put.context(|| format!("store {key}"))? == Put::AlreadyThere {
                // The name ends in the digest of the bytes: this is our own earlier try.
                tracing::debug!(%key, "the chunk was stored already");
            }
            drop(place);
            Ok(())
        });
        let in_flight = InFlight { meta, object_bytes, stored: AbortOnDropHandle::new(put) };
        if to_commit.send(in_flight).await.is_err() {
            // The commit stage has failed and says why.
            return Ok(());
        }
    }
    Ok(())
}
