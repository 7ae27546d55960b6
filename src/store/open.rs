//! Opening a store by its URL.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::disk::{DiskOptions, DiskStore};
use super::memory::MemoryStore;
use super::meter::Meter;
use super::retry::Retrying;
use super::s3::{S3Options, S3Store};
use super::{SharedStore, StoreError, StoreErrorKind};
use crate::retry::RetryOptions;

/// Which store, and how.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// `file:///folder` (an absolute path, taken as it stands: no `%20`), `s3://bucket/prefix`, or `memory:` (tests).
    pub url: String,
    /// For `s3://`. Its `bucket` and `prefix` are replaced by the URL's.
    pub s3: S3Options,
    /// For `file://`.
    pub disk: DiskOptions,
    /// How calls are tried again.
    pub retry: RetryOptions,
    /// Limit on one try of one call, in milliseconds. It bounds how long a store that hangs is believed.
    pub call_timeout_ms: u64,
    /// Where calls are counted.
    pub meter: Meter,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            url: String::new(),
            s3: S3Options::default(),
            disk: DiskOptions::default(),
            retry: RetryOptions::default(),
            call_timeout_ms: 120_000,
            meter: Meter::default(),
        }
    }
}

/// Opens a store, wrapped in [`Retrying`]. `cancel` ends its calls at once, see [`Retrying::new`].
///
/// Opening asks little: a missing folder is noticed here, a missing bucket or refused credentials at the first call.
///
/// # Errors
/// `Config` for a URL or options that cannot be used, and what the kind of store says.
pub async fn open(options: &StoreOptions, cancel: &CancellationToken) -> Result<SharedStore, StoreError> {
    let store: SharedStore = match Place::parse(&options.url)? {
        #[cfg(feature = "simulation")]
        Place::Simulated(name) => simulated::find(name)?,
        Place::Memory => Arc::new(MemoryStore::new()),
        Place::Folder(path) => Arc::new(DiskStore::open(path, &options.disk).await?),
        Place::Bucket { bucket, prefix } => {
            let s3 = S3Options { bucket: bucket.to_owned(), prefix: prefix.to_owned(), ..options.s3.clone() };
            Arc::new(S3Store::open(s3).await?)
        }
    };
    let retrying = Retrying::new(store, options.retry.clone(), options.call_timeout_ms, cancel.clone());
    Ok(Arc::new(retrying.counted(options.meter.clone())))
}

#[derive(Debug, PartialEq, Eq)]
enum Place<'a> {
    Memory,
    Folder(&'a str),
    Bucket {
        bucket: &'a str,
        prefix: &'a str,
    },
    #[cfg(feature = "simulation")]
    Simulated(&'a str),
}

impl<'a> Place<'a> {
    fn parse(url: &'a str) -> Result<Self, StoreError> {
        let wrong = |why: &str| Err(StoreError::new(StoreErrorKind::Config, format!("archive url {url:?}: {why}")));
        if url == "memory:" {
            return Ok(Self::Memory);
        }
        #[cfg(feature = "simulation")]
        if let Some(name) = url.strip_prefix("simulated:") {
            return Ok(Self::Simulated(name));
        }
        if let Some(path) = url.strip_prefix("file://") {
            let path = path.strip_prefix("localhost").unwrap_or(path);
            if !path.starts_with('/') {
                return wrong("the path must be absolute: file:///folder");
            }
            return Ok(Self::Folder(path));
        }
        let Some(rest) = url.strip_prefix("s3://") else {
            return wrong("it must begin with file:// or s3://");
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() || bucket.contains(['@', ':', '?', '#']) {
            return wrong(
                "it must be s3://bucket or s3://bucket/prefix; endpoint and credentials have keys of their own",
            );
        }
        Ok(Self::Bucket { bucket, prefix })
    }
}

/// Stores of a simulated world, by name. A thread's own, as the world is.
#[cfg(feature = "simulation")]
pub mod simulated {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use super::{SharedStore, StoreError, StoreErrorKind};

    thread_local! {
        static STORES: RefCell<BTreeMap<String, SharedStore>> = const { RefCell::new(BTreeMap::new()) };
    }

    /// Puts a store where `simulated:NAME` leads, or takes it away.
    pub fn put(name: &str, store: Option<SharedStore>) {
        STORES.with_borrow_mut(|stores| match store {
            Some(store) => drop(stores.insert(name.to_owned(), store)),
            None => drop(stores.remove(name)),
        });
    }

    pub(super) fn find(name: &str) -> Result<SharedStore, StoreError> {
        let found = STORES.with_borrow(|stores| stores.get(name).cloned());
        found.ok_or_else(|| StoreError::new(StoreErrorKind::NoBucket, format!("there is no simulated store {name:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_understood_or_refused() {
        assert_eq!(Place::parse("memory:").unwrap(), Place::Memory);
        assert_eq!(Place::parse("file:///var/lib/x y").unwrap(), Place::Folder("/var/lib/x y"));
        assert_eq!(Place::parse("file://localhost/var").unwrap(), Place::Folder("/var"));
        assert_eq!(Place::parse("s3://b").unwrap(), Place::Bucket { bucket: "b", prefix: "" });
        assert_eq!(Place::parse("s3://b/p/q").unwrap(), Place::Bucket { bucket: "b", prefix: "p/q" });
        for bad in ["", "file://relative", "/var", "s3://", "s3:///p", "s3://key:secret@b/p", "https://b"] {
            let error = Place::parse(bad).unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Config, "{bad:?}");
        }
    }
}
