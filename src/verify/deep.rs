//! The deep part: chunks are opened and their bytes walked as one file.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};

use super::walk::FileWalk;
use super::{OnBytes, READS_AT_A_TIME, Report};
use crate::archive::{Archive, FileChunks, StoredChunk};
use crate::chunk::keys::Identities;
use crate::chunk::{ChunkMeta, OpenedChunk};
use crate::error::{Context, Error, Result};

/// Opens every chunk of a file and walks the contiguous ones' bytes in order.
///
/// A chunk that the cover does not need (an overlap) is opened and counted too, and where it overlaps its bytes are
/// compared: two chunks that say different things of one range are a fork.
pub(super) async fn verify_file(
    archive: &Archive,
    chunks: &FileChunks,
    keys: &Identities,
    on_bytes: OnBytes<'_>,
    report: &mut Report,
) {
    let keys = Arc::new(keys.clone());
    let covering: Vec<usize> = chunks.cover.contiguous().iter().map(|piece| piece.index).collect();
    let spare: Vec<usize> = (0..chunks.chunks.len()).filter(|index| !covering.contains(index)).collect();
    let mut walk = Some(Walker { walk: FileWalk::new(), at: 0 });
    let order: Vec<&StoredChunk> =
        covering.iter().chain(&spare).filter_map(|index| chunks.chunks.get(*index)).collect();
    let mut objects = stream::iter(&order)
        .map(|chunk| async move {
            let object = archive.object(chunk).await;
            on_bytes(chunk.object.size);
            object
        })
        .buffered(READS_AT_A_TIME);
    for (number, chunk) in order.iter().enumerate() {
        let what = chunk.name.to_string();
        let object = match objects.next().await {
            Some(Ok(object)) => object,
            Some(Err(error)) => {
                report.add_error(what, &error);
                walk = None;
                continue;
            }
            None => break,
        };
        let walker = if number < covering.len() { walk.take() } else { None };
        match open(chunk, object, Arc::clone(&keys), walker).await {
            Ok(walker) => {
                if walker.is_some() {
                    walk = walker;
                }
            }
            Err(error) => report.add_error(what, &error),
        }
    }
    if let Some(Walker { walk, .. }) = walk {
        report.events = report.events.saturating_add(walk.seen().events);
        report.transactions = report.transactions.saturating_add(walk.seen().transactions);
    }
}

/// A walk and how far it has come.
struct Walker {
    walk: FileWalk,
    at: u64,
}

/// Opens one chunk on a blocking thread and gives its new bytes to the walk.
async fn open(
    chunk: &StoredChunk,
    object: Bytes,
    keys: Arc<Identities>,
    mut walker: Option<Walker>,
) -> Result<Option<Walker>> {
    let name = chunk.name.clone();
    let work = move || {
        let opened = OpenedChunk::new(&name, &object, &keys).context(|| "open".into())?;
        let meta = opened.copy(name.range, |at, bytes| {
            let Some(walker) = walker.as_mut() else { return Ok(()) };
            let old = usize::try_from(walker.at.saturating_sub(at)).unwrap_or(usize::MAX).min(bytes.len());
            walker.walk.feed(bytes.get(old..).unwrap_or(&[]))
        })?;
        if let Some(walker) = walker.as_mut() {
            walker.at = meta.end.max(walker.at);
            agree(&meta, &walker.walk)?;
        }
        Ok(walker)
    };
    tokio::task::spawn_blocking(work).await.map_err(|panic| Error::failed("a thread broke down").source(panic))?
}

/// Holds the metadata against what was walked, at the chunk's end.
fn agree(meta: &ChunkMeta, walk: &FileWalk) -> Result<()> {
    let inside_event = meta.resume != meta.end;
    if inside_event == walk.is_between_events() {
        return Err(Error::corrupt("the metadata is wrong about whether the chunk ends inside an event"));
    }
    let seen = walk.seen();
    if meta.open.is_none() && meta.executed.resolve(&seen.previous) != seen.executed() {
        return Err(Error::corrupt(format!(
            "the metadata tells executed transactions {:?}, the events {}",
            meta.executed,
            seen.executed()
        )));
    }
    Ok(())
}
