//! Where bytes live: one small trait over named, immutable objects, and the stores that implement it.
//!
//! Owns: the [`Store`] trait, object names ([`Key`]), the store's own error, and opening a store by URL ([`open()`]).
//! Does not own: what the objects mean (that is `archive`), or what is in them (that is `chunk`).
//!
//! Invariants: [`Store::put_new`] never changes an object that exists; an object that can be seen is whole;
//! a listing is complete or an error, whatever its size.

pub mod disk;
pub mod faults;
pub mod key;
pub mod memory;
pub mod meter;
mod open;
mod read;
pub mod retry;
pub mod s3;
pub mod spool;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

pub use key::Key;
#[cfg(feature = "simulation")]
pub use open::simulated;
pub use open::{StoreOptions, open};
pub use read::{Entry, Listing, get_all, get_known, list_all, list_collect};

/// How many entries a page of a listing has at most (S3's own limit).
pub const LIST_PAGE_MAX: usize = 1000;

/// A store that may be shared by every task.
pub type SharedStore = Arc<dyn Store>;

/// What [`Store::put_new`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The object was not there; it is now, durably.
    Created,
    /// An object of that name was there already; it was not touched.
    AlreadyThere,
}

/// What a listing says of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// The object's name, relative to the store's root.
    pub key: Key,
    /// Its size in bytes.
    pub size: u64,
    /// When the store last wrote it, microseconds since 1970 UTC; `None` where the store does not say.
    pub modified_us: Option<u64>,
}

/// One page of a listing, in the order of the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListPage {
    /// Objects under the prefix.
    pub objects: Vec<ObjectMeta>,
    /// With [`ListDepth::OneLevel`]: the next path components under the prefix, each with its `/` at the end,
    /// as whole prefixes (`chunks/`, `chunks/<uuid>/`), sorted.
    pub folders: Vec<String>,
    /// Where the next page starts; `None` when this was the last.
    pub next: Option<String>,
}

/// How deep a listing goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListDepth {
    /// Only objects directly under the prefix; deeper ones are named by their folder.
    OneLevel,
    /// Every object under the prefix.
    Everything,
}

/// A place for named, immutable objects. Names are relative to the archive's root.
///
/// Every call may be repeated: a retry, or a lost answer followed by a second call, does no harm.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// The store's URL, for people; holds no secret.
    fn url(&self) -> String;

    /// Writes an object that must not exist yet. When it returns [`Put::Created`] the object is durable and whole.
    async fn put_new(&self, key: &Key, body: Bytes) -> Result<Put, StoreError>;

    /// Writes an object, replacing the one that may be there, atomically. For beacons only.
    async fn put_over(&self, key: &Key, body: Bytes) -> Result<(), StoreError>;

    /// Reads a range: at most `length` bytes from `start`; fewer only where the object ends.
    /// A `start` at or past the end gives no bytes. `NotFound` if there is no such object.
    async fn get_range(&self, key: &Key, start: u64, length: u64) -> Result<Bytes, StoreError>;

    /// Size and age of an object, or `NotFound`.
    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError>;

    /// One page of what lies under `prefix` (which is empty or ends in `/`), from `after` (a former page's `next`).
    async fn list_page(&self, prefix: &str, depth: ListDepth, after: Option<&str>) -> Result<ListPage, StoreError>;

    /// Removes an object; removing one that is not there is no error.
    async fn delete(&self, key: &Key) -> Result<(), StoreError>;

    /// Removes what interrupted writes of *this* kind of store left behind (temporary files, dead multipart uploads),
    /// if it is older than `age_seconds`. Returns how many. Stores without leftovers do nothing.
    async fn sweep(&self, age_seconds: u64) -> Result<u64, StoreError> {
        let _ = age_seconds;
        Ok(0)
    }

    /// Whether `put_new` refuses an existing name atomically (as opposed to a look before the write).
    fn put_new_is_atomic(&self) -> bool {
        true
    }
}

/// What can go wrong in a store. The class decides whether a retry can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StoreErrorKind {
    /// No such object.
    NotFound,
    /// The bucket or the root folder is not there.
    NoBucket,
    /// The credentials are refused, or they may not do this (read-only).
    Denied,
    /// No room left.
    Full,
    /// The store asks to slow down.
    Throttled,
    /// Passing trouble: a timeout, a reset connection, a 5xx.
    Transient,
    /// The store's answer or the object is not what it must be.
    Corrupt,
    /// The configuration cannot be used (bad endpoint, bad CA file).
    Config,
}

impl StoreErrorKind {
    /// As metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::NoBucket => "no_bucket",
            Self::Denied => "denied",
            Self::Full => "full",
            Self::Throttled => "throttled",
            Self::Transient => "transient",
            Self::Corrupt => "corrupt",
            Self::Config => "config",
        }
    }

    /// Whether the same call, repeated, may succeed.
    pub fn is_retryable(self) -> bool {
        match self {
            Self::Full | Self::Throttled | Self::Transient => true,
            Self::NotFound | Self::NoBucket | Self::Denied | Self::Corrupt | Self::Config => false,
        }
    }
}

/// A store's error: what was being done on which object, the class, and the cause.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    /// The class.
    pub kind: StoreErrorKind,
    /// What failed, on which object, without the cause.
    pub message: String,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StoreError {
    /// An error without a cause.
    pub fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Whether there is no such object.
    pub fn is_not_found(&self) -> bool {
        self.kind == StoreErrorKind::NotFound
    }
}

impl From<StoreError> for crate::error::Error {
    fn from(error: StoreError) -> Self {
        use crate::error::{Error, Kind};
        let (kind, hint) = match error.kind {
            StoreErrorKind::NoBucket => (Kind::Store, Some("create the bucket or folder, or correct archive.url")),
            StoreErrorKind::Denied => (
                Kind::Store,
                Some(
                    "the credentials need s3:PutObject, s3:GetObject and s3:ListBucket on the archive's prefix; a folder must be writable",
                ),
            ),
            StoreErrorKind::Full => (Kind::Store, Some("make room where archive.url points to")),
            StoreErrorKind::NotFound | StoreErrorKind::Throttled | StoreErrorKind::Transient => (Kind::Store, None),
            StoreErrorKind::Corrupt => (Kind::Corrupt, None),
            StoreErrorKind::Config => (Kind::Config, None),
        };
        let retryable = error.kind.is_retryable();
        let mut out = Error::new(kind, error.message);
        if let Some(hint) = hint {
            out = out.hint(hint);
        }
        if let Some(source) = error.source {
            out = out.source(source);
        }
        if retryable { out.transient() } else { out.definite() }
    }
}
