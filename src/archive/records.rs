//! Records: small JSON objects in a folder of their own, each named by a time and written once.
//!
//! Used by `drills` and `gaps`. One that cannot be read, or is larger than such a record can be, is reported in the log and left
//! out: it must not stand in the way of the others.

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Archive;
use crate::error::{Context, Error, Result};
use crate::position::CommitTime;
use crate::store::{self, ListDepth, ObjectMeta, Put, StoreErrorKind};

/// Largest record, in bytes.
const BYTES_MAX: u64 = 4 << 20;
/// Records read at a time.
const READS: usize = 8;
/// Names that are tried for a record.
const NAMES_TRIED: usize = 16;
/// Newest records that are read.
const RECORDS_MAX: usize = 1000;
/// Most objects listed.
const ENTRIES_MAX: usize = 1 << 20;

impl Archive {
    /// Keeps a record of a moment, microseconds since 1970. `folder` ends in `/`. Where another one of that very moment is,
    /// from another agent, it gets the name of the next.
    pub(super) async fn put_record(&self, folder: &str, at_us: u64, record: &impl Serialize) -> Result<()> {
        let mut json =
            serde_json::to_vec_pretty(record).map_err(|error| Error::failed("write a record").source(error))?;
        json.push(b'\n');
        let json = Bytes::from(json);
        for name_us in (at_us..=u64::MAX).take(NAMES_TRIED) {
            let key = super::key(format!("{folder}{}.json", CommitTime::from_micros(name_us)))?;
            let what = || format!("store {key}");
            match self.store().put_new(&key, json.clone()).await {
                Ok(Put::Created) => return Ok(()),
                Ok(Put::AlreadyThere) => {}
                Err(error) if error.kind == StoreErrorKind::Corrupt => {}
                Err(error) => return Err(Error::from(error)).context(what),
            }
            // It may be this one, stored by a try whose answer was lost.
            match store::get_all(self.store().as_ref(), &key, BYTES_MAX).await {
                Ok(there) if there == json => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind == StoreErrorKind::Corrupt => {}
                Err(error) => return Err(Error::from(error)).context(what),
            }
        }
        Err(Error::failed(format!("{folder} has {NAMES_TRIED} records of {} already", CommitTime::from_micros(at_us))))
    }

    /// The records of a folder, oldest first; of very many the newest thousand.
    pub(super) async fn records<T: DeserializeOwned>(&self, folder: &str) -> Result<Vec<T>> {
        let listing = store::list_collect(self.store().as_ref(), folder, ListDepth::Everything, ENTRIES_MAX).await;
        let mut objects = listing.map_err(Error::from).context(|| format!("list {folder}"))?.objects;
        objects.sort_by(|a, b| a.key.as_str().cmp(b.key.as_str()));
        let skip = objects.len().saturating_sub(RECORDS_MAX);
        let read = |object: ObjectMeta| async move {
            let unreadable = |error: &dyn std::fmt::Display| {
                tracing::warn!(object = %object.key, %error, "a record cannot be read");
                Ok::<_, Error>(None)
            };
            match store::get_all(self.store().as_ref(), &object.key, BYTES_MAX).await {
                Ok(body) => serde_json::from_slice::<T>(&body).map(Some).or_else(|error| unreadable(&error)),
                Err(error) if error.kind == StoreErrorKind::Corrupt => unreadable(&error),
                Err(error) => Err(Error::from(error).context(format!("read {}", object.key))),
            }
        };
        let all: Vec<Option<T>> =
            stream::iter(objects.into_iter().skip(skip)).map(read).buffered(READS).try_collect().await?;
        Ok(all.into_iter().flatten().collect())
    }
}
