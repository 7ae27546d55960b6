//! A store in memory: for tests and dry runs. It keeps every promise of the trait but outliving the process.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Key, LIST_PAGE_MAX, ListDepth, ListPage, ObjectMeta, Put, Store, StoreError, StoreErrorKind};
use crate::clock;

/// Objects in a sorted map.
#[derive(Debug, Default)]
pub struct MemoryStore {
    objects: Mutex<BTreeMap<Key, Object>>,
}

#[derive(Debug, Clone)]
struct Object {
    body: Bytes,
    modified_us: u64,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Object>> {
        // Every change below is one call on the map: a panic elsewhere cannot leave it half done.
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, key: &Key) -> Result<Object, StoreError> {
        let found = self.lock().get(key).cloned();
        found.ok_or_else(|| StoreError::new(StoreErrorKind::NotFound, format!("no object {key} in memory")))
    }
}

/// A copy of its own: a kept object must not hold the (larger) buffer alive that the caller cut it from.
fn object(body: &Bytes) -> Object {
    Object { body: Bytes::copy_from_slice(body), modified_us: clock::now_us() }
}

#[async_trait]
impl Store for MemoryStore {
    fn url(&self) -> String {
        "memory:".into()
    }

    async fn put_new(&self, key: &Key, body: Bytes) -> Result<Put, StoreError> {
        use std::collections::btree_map::Entry;
        match self.lock().entry(key.clone()) {
            Entry::Occupied(_) => Ok(Put::AlreadyThere),
            Entry::Vacant(place) => {
                place.insert(object(&body));
                Ok(Put::Created)
            }
        }
    }

    async fn put_over(&self, key: &Key, body: Bytes) -> Result<(), StoreError> {
        self.lock().insert(key.clone(), object(&body));
        Ok(())
    }

    async fn get_range(&self, key: &Key, start: u64, length: u64) -> Result<Bytes, StoreError> {
        let body = self.find(key)?.body;
        let size = body.len();
        let start = usize::try_from(start).unwrap_or(usize::MAX).min(size);
        let end = start.saturating_add(usize::try_from(length).unwrap_or(usize::MAX)).min(size);
        Ok(body.slice(start..end))
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        let found = self.find(key)?;
        Ok(ObjectMeta { key: key.clone(), size: found.body.len() as u64, modified_us: Some(found.modified_us) })
    }

    async fn list_page(&self, prefix: &str, depth: ListDepth, after: Option<&str>) -> Result<ListPage, StoreError> {
        let mut page = ListPage::default();
        let from = after.filter(|after| *after >= prefix).unwrap_or(prefix);
        let objects = self.lock();
        let mut last: Option<&str> = None;
        for (key, object) in objects.range::<str, _>((Bound::Included(from), Bound::Unbounded)) {
            let name = key.as_str();
            let Some(rest) = name.strip_prefix(prefix) else { break };
            let folder = match (depth, rest.split_once('/')) {
                (ListDepth::OneLevel, Some((first, _))) => name.get(..prefix.len() + first.len() + 1),
                _ => None,
            };
            let entry = folder.unwrap_or(name);
            if after.is_some_and(|after| entry <= after) || last == Some(entry) {
                continue;
            }
            if page.objects.len() + page.folders.len() == LIST_PAGE_MAX {
                page.next = last.map(str::to_owned);
                break;
            }
            last = Some(entry);
            match folder {
                Some(folder) => page.folders.push(folder.to_owned()),
                None => page.objects.push(ObjectMeta {
                    key: key.clone(),
                    size: object.body.len() as u64,
                    modified_us: Some(object.modified_us),
                }),
            }
        }
        Ok(page)
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.lock().remove(key);
        Ok(())
    }
}
