//! A store in memory that can be made to break down: after so many more removals nothing works but reading.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use binvault::store::memory::MemoryStore;
use binvault::store::{Key, ListDepth, ListPage, ObjectMeta, Put, Store, StoreError, StoreErrorKind};
use bytes::Bytes;

#[derive(Debug, Clone)]
pub(crate) struct Fragile {
    inner: Arc<MemoryStore>,
    names: Arc<Mutex<BTreeSet<String>>>,
    left: Arc<AtomicI64>,
}

impl Fragile {
    pub(crate) fn new() -> Self {
        Self { inner: Arc::default(), names: Arc::default(), left: Arc::new(AtomicI64::new(i64::MAX)) }
    }

    /// Breaks down after so many removals.
    pub(crate) fn break_after(&self, removals: i64) {
        self.left.store(removals, Ordering::SeqCst);
    }

    pub(crate) fn mend(&self) {
        self.break_after(i64::MAX);
    }

    /// Names of chunks and of objects of base backups.
    pub(crate) fn objects(&self) -> BTreeSet<String> {
        let names = self.names.lock().unwrap();
        names.iter().filter(|name| name.starts_with("chunks/") || name.starts_with("bases/")).cloned().collect()
    }
}

#[async_trait::async_trait]
impl Store for Fragile {
    fn url(&self) -> String {
        self.inner.url()
    }

    async fn put_new(&self, key: &Key, body: Bytes) -> Result<Put, StoreError> {
        self.names.lock().unwrap().insert(key.to_string());
        self.inner.put_new(key, body).await
    }

    async fn put_over(&self, key: &Key, body: Bytes) -> Result<(), StoreError> {
        self.inner.put_over(key, body).await
    }

    async fn get_range(&self, key: &Key, start: u64, length: u64) -> Result<Bytes, StoreError> {
        self.inner.get_range(key, start, length).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        self.inner.head(key).await
    }

    async fn list_page(&self, prefix: &str, depth: ListDepth, after: Option<&str>) -> Result<ListPage, StoreError> {
        self.inner.list_page(prefix, depth, after).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        if self.left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            return Err(StoreError::new(StoreErrorKind::Denied, "it broke down"));
        }
        self.names.lock().unwrap().remove(key.as_str());
        self.inner.delete(key).await
    }
}
