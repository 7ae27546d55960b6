//! Objects go, in an order in which what remains makes sense at every moment.

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::OldBase;
use crate::archive::{Archive, BASE_MANIFEST, FileChunks, base_folder};
use crate::error::{Context, Error, Result};
use crate::store::{self, Key, ListDepth, StoreError, StoreErrorKind};

/// Deletes at a time.
const DELETES: usize = 8;
/// Most objects of a base backup.
const ENTRIES_MAX: usize = 1 << 20;

/// Told of objects that are gone.
type OnObjects<'a> = &'a (dyn Fn(u64) + Send + Sync);

/// Removes a base backup: without its manifest it is none.
pub(super) async fn base(archive: &Archive, id: &str, on_objects: OnObjects<'_>) -> Result<()> {
    let (manifest, parts): (Vec<Key>, Vec<Key>) =
        objects(archive, id).await?.into_iter().map(|(key, _)| key).partition(|key| key.file_name() == BASE_MANIFEST);
    all(archive, manifest, on_objects).await?;
    all(archive, parts, on_objects).await
}

/// Removes a file's chunks, from its first byte on: so what is left of it is no beginning of anything.
pub(super) async fn file(archive: &Archive, file: &FileChunks, on_objects: OnObjects<'_>) -> Result<()> {
    let keys = |first: bool| {
        let chunks = file.chunks.iter().filter(move |chunk| (chunk.name.range.start() == 0) == first);
        chunks.map(|chunk| chunk.object.key.clone()).collect::<Vec<Key>>()
    };
    all(archive, keys(true), on_objects).await?;
    all(archive, keys(false), on_objects).await
}

/// What a base backup that was never finished has.
pub(super) async fn left_over(archive: &Archive, id: String) -> Result<OldBase> {
    let objects = objects(archive, &id).await?;
    let stored_bytes = objects.iter().fold(0_u64, |sum, (_, size)| sum.saturating_add(*size));
    Ok(OldBase { id, objects: objects.len() as u64, stored_bytes, left_over: true })
}

async fn objects(archive: &Archive, id: &str) -> Result<Vec<(Key, u64)>> {
    let folder = base_folder(id)?;
    let listing = store::list_collect(archive.store().as_ref(), &folder, ListDepth::Everything, ENTRIES_MAX).await;
    let listing = listing.map_err(Error::from).context(|| format!("list {folder}"))?;
    Ok(listing.objects.into_iter().map(|object| (object.key, object.size)).collect())
}

async fn all(archive: &Archive, keys: Vec<Key>, on_objects: OnObjects<'_>) -> Result<()> {
    let delete = |key: Key| async move {
        archive.store().delete(&key).await.map_err(|error| refused(error, key.as_str()))?;
        on_objects(1);
        Ok::<(), Error>(())
    };
    stream::iter(keys).map(delete).buffer_unordered(DELETES).try_collect::<Vec<()>>().await?;
    Ok(())
}

/// What stands against removing anything, in words of the store's.
fn refused(error: StoreError, what: &str) -> Error {
    let refused = error.kind == StoreErrorKind::Denied;
    let error = Error::from(error).context(format!("remove {what}"));
    if refused {
        return error.hint(
            "removing needs an account of its own that may delete (s3:DeleteObject): the agent's need not; objects under a lock \
             go when it ends",
        );
    }
    error
}
