//! A store as it is seen through its spool: what is in either is there.
//!
//! Invariant: a listing names every object once, wherever it is meanwhile: the spool is looked at before the store's page
//! is asked for, so an object on its way is in one of them or in both; and of each page only the names between its first and
//! its last are taken from the spool.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::Spool;
use super::index::Lane;
use crate::store::{Key, ListDepth, ListPage, ObjectMeta, Put, SharedStore, Store, StoreError};

/// A store behind a spool.
#[derive(Debug)]
pub struct Spooled {
    spool: Arc<Spool>,
    store: SharedStore,
}

impl Spooled {
    /// The store as it is seen through the spool.
    pub fn new(spool: Arc<Spool>, store: SharedStore) -> Self {
        Self { spool, store }
    }

    fn takes(&self, key: &Key) -> bool {
        key.as_str().starts_with(self.spool.options.prefix)
    }
}

/// What separates the last name of a page from the store's own mark of the next: no name has it.
const SEPARATOR: char = '\n';

/// An entry of a page: an object, or a folder.
type Entries = BTreeMap<String, Option<ObjectMeta>>;

#[async_trait]
impl Store for Spooled {
    fn url(&self) -> String {
        self.store.url()
    }

    async fn put_new(&self, key: &Key, body: Bytes) -> Result<Put, StoreError> {
        if self.takes(key) { self.spool.put(Lane::Whole, key, body).await } else { self.store.put_new(key, body).await }
    }

    async fn put_over(&self, key: &Key, body: Bytes) -> Result<(), StoreError> {
        self.store.put_over(key, body).await
    }

    async fn get_range(&self, key: &Key, start: u64, length: u64) -> Result<Bytes, StoreError> {
        if self.spool.lock().holds(key) {
            match self.spool.disk.get_range(key, start, length).await {
                // It has left meanwhile: then the store has it.
                Err(error) if error.is_not_found() => {}
                other => return other,
            }
        }
        self.store.get_range(key, start, length).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        if self.spool.lock().holds(key) {
            match self.spool.disk.head(key).await {
                Err(error) if error.is_not_found() => {}
                other => return other,
            }
        }
        self.store.head(key).await
    }

    /// A page may have more entries than the store's own: as many as the spool holds between its first and its last name.
    async fn list_page(&self, prefix: &str, depth: ListDepth, after: Option<&str>) -> Result<ListPage, StoreError> {
        let (last, token) = match after.and_then(|after| after.split_once(SEPARATOR)) {
            Some((last, token)) => (Some(last), Some(token)),
            None => (None, None),
        };
        let mut merged = entries(&self.spool, prefix, depth, last);
        let page = self.store.list_page(prefix, depth, token).await?;
        let names =
            page.objects.iter().map(|object| object.key.as_str()).chain(page.folders.iter().map(String::as_str));
        let upper = names.max().or(last).unwrap_or("").to_owned();
        if page.next.is_some() {
            merged.retain(|name, _| *name <= upper);
        }
        merged.extend(page.objects.into_iter().map(|object| (object.key.as_str().to_owned(), Some(object))));
        merged.extend(page.folders.into_iter().map(|folder| (folder, None)));
        let mut out =
            ListPage { next: page.next.map(|next| format!("{upper}{SEPARATOR}{next}")), ..ListPage::default() };
        for (name, object) in merged {
            match object {
                Some(object) => out.objects.push(object),
                None => out.folders.push(name),
            }
        }
        Ok(out)
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        if self.spool.lock().holds(key) {
            self.spool.remove(vec![key.clone()]).await?;
        }
        self.store.delete(key).await
    }

    async fn sweep(&self, age_seconds: u64) -> Result<u64, StoreError> {
        self.store.sweep(age_seconds).await
    }

    fn put_new_is_atomic(&self) -> bool {
        self.store.put_new_is_atomic()
    }
}

/// What the spool holds under a prefix, behind the name `last`.
fn entries(spool: &Spool, prefix: &str, depth: ListDepth, last: Option<&str>) -> Entries {
    let mut entries = Entries::new();
    for object in spool.lock().objects(prefix, "") {
        let name = object.key.as_str();
        let folder = name.get(prefix.len()..).and_then(|rest| rest.find('/')).filter(|_| depth == ListDepth::OneLevel);
        let folder = folder.and_then(|at| name.get(..prefix.len().saturating_add(at).saturating_add(1)));
        let (name, object) = match folder {
            Some(folder) => (folder.to_owned(), None),
            None => (name.to_owned(), Some(object)),
        };
        if last.is_none_or(|last| name.as_str() > last) {
            entries.insert(name, object);
        }
    }
    entries
}
