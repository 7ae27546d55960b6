//! Whole objects and whole listings, with limits: what callers want, made of what a store offers.
//!
//! Invariants: nothing here holds more than the caller's limit; a listing that does not advance is an error.

use bytes::Bytes;

use super::{Key, ListDepth, ObjectMeta, Store, StoreError, StoreErrorKind};

/// Reads a whole object of at most `bytes_max` bytes.
///
/// # Errors
/// Besides the store's own: `Corrupt` if the object is larger than `bytes_max` or ends early.
pub async fn get_all(store: &dyn Store, key: &Key, bytes_max: u64) -> Result<Bytes, StoreError> {
    let meta = store.head(key).await?;
    get_known(store, &meta, bytes_max).await
}

/// Reads a whole object whose size is known from a listing: one request.
///
/// # Errors
/// As [`get_all`].
pub async fn get_known(store: &dyn Store, meta: &ObjectMeta, bytes_max: u64) -> Result<Bytes, StoreError> {
    let (key, size) = (&meta.key, meta.size);
    if size > bytes_max {
        let message = format!("{key} has {size} bytes, more than the {bytes_max} that such an object may have");
        return Err(StoreError::new(StoreErrorKind::Corrupt, message));
    }
    let body = store.get_range(key, 0, size).await?;
    if body.len() as u64 != size {
        let message = format!("{key} gave {} bytes, but its size is {size}", body.len());
        return Err(StoreError::new(StoreErrorKind::Corrupt, message));
    }
    Ok(body)
}

/// One entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// An object.
    Object(ObjectMeta),
    /// A folder (only with [`ListDepth::OneLevel`]): its whole prefix, ending in `/`.
    Folder(String),
}

/// A whole listing, in the order of the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Objects under the prefix.
    pub objects: Vec<ObjectMeta>,
    /// With [`ListDepth::OneLevel`], the folders under the prefix: whole prefixes ending in `/`.
    pub folders: Vec<String>,
}

/// Lists everything under `prefix`, page by page, and hands each object and each folder's prefix to `each`.
///
/// # Errors
/// The store's, those of `each`, and `Corrupt` if the store's pages do not advance.
pub async fn list_all(
    store: &dyn Store,
    prefix: &str,
    depth: ListDepth,
    mut each: impl FnMut(Entry) -> Result<(), StoreError> + Send,
) -> Result<(), StoreError> {
    let mut after: Option<String> = None;
    loop {
        let page = store.list_page(prefix, depth, after.as_deref()).await?;
        page.objects.into_iter().map(Entry::Object).try_for_each(&mut each)?;
        page.folders.into_iter().map(Entry::Folder).try_for_each(&mut each)?;
        match page.next {
            None => return Ok(()),
            Some(next) if after.as_ref() == Some(&next) => {
                let message = format!("the listing of {prefix:?} gives the same page again and again");
                return Err(StoreError::new(StoreErrorKind::Corrupt, message));
            }
            next => after = next,
        }
    }
}

/// Lists everything under `prefix` into memory, if it is at most `entries_max` objects and folders.
///
/// # Errors
/// As [`list_all`], and `Config` if there is more.
pub async fn list_collect(
    store: &dyn Store,
    prefix: &str,
    depth: ListDepth,
    entries_max: usize,
) -> Result<Listing, StoreError> {
    let mut listing = Listing::default();
    let mut left = entries_max;
    list_all(store, prefix, depth, |entry| {
        left = left.checked_sub(1).ok_or_else(|| {
            let message = format!("there are more than {entries_max} entries under {prefix:?}");
            StoreError::new(StoreErrorKind::Config, message)
        })?;
        match entry {
            Entry::Object(object) => listing.objects.push(object),
            Entry::Folder(folder) => listing.folders.push(folder),
        }
        Ok(())
    })
    .await?;
    Ok(listing)
}
