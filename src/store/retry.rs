//! A store that tries again: what can pass is retried by the schedule, what looks done is checked.
//!
//! Owns: the limit on the time of one call, the retries, their count, and the checks that an answer is whole.
//!
//! Invariants: a `put_new` that was retried after an unknown outcome and then finds the name taken is still right,
//! because names carry digests; yet the size is compared, and a difference is `Corrupt`. A `get_range` that gives fewer
//! bytes than the object has in that range is never returned.

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::meter::{Meter, Operation};
use super::{Key, ListDepth, ListPage, ObjectMeta, Put, SharedStore, Store, StoreError, StoreErrorKind};
use crate::clock;
use crate::retry::{RetryOptions, Stopped, retry};

/// Wraps a store with retries.
#[derive(Debug)]
pub struct Retrying {
    inner: SharedStore,
    options: RetryOptions,
    call_timeout: Duration,
    cancel: CancellationToken,
    meter: Meter,
}

impl Retrying {
    /// `call_timeout_ms` limits each single try. `cancel` ends every call at once, with an error: it is for the
    /// moment when nobody waits for the store any more, not for the begin of an orderly end.
    pub fn new(inner: SharedStore, options: RetryOptions, call_timeout_ms: u64, cancel: CancellationToken) -> Self {
        let call_timeout = Duration::from_millis(call_timeout_ms.max(1));
        Self { inner, options, call_timeout, cancel, meter: Meter::default() }
    }

    /// Counts its tries there.
    #[must_use]
    pub fn counted(self, meter: Meter) -> Self {
        Self { meter, ..self }
    }

    /// `operation` is what the tries are counted as, if they are.
    async fn run<T, Fut>(
        &self,
        operation: Option<Operation>,
        describe: impl Fn() -> String,
        op: impl Fn() -> Fut,
    ) -> Result<T, StoreError>
    where
        Fut: Future<Output = Result<T, StoreError>>,
    {
        let tries = AtomicU32::new(0);
        let limited = || async {
            let (since, again) = (clock::monotonic(), tries.fetch_add(1, Ordering::Relaxed) > 0);
            let result = clock::with_timeout(self.call_timeout, op()).await.unwrap_or_else(|| {
                let limit_ms = self.call_timeout.as_millis();
                let message = format!("{}: no answer within {limit_ms} ms", describe());
                Err(StoreError::new(StoreErrorKind::Transient, message))
            });
            if let Some(operation) = operation {
                self.meter.tried(operation, since.elapsed(), again, result.as_ref().err());
            }
            result
        };
        let retryable = |error: &StoreError| error.kind.is_retryable();
        match retry(limited, &self.options, retryable, &describe, &self.cancel).await {
            Ok(value) => Ok(value),
            Err(Stopped::Failed { error, tries: 1 }) => Err(error),
            Err(Stopped::Failed { error, tries }) => {
                let message = format!("{} failed after {tries} tries", describe());
                Err(StoreError::new(error.kind, message).with_source(error))
            }
            Err(Stopped::Cancelled(last)) => {
                let error = StoreError::new(StoreErrorKind::Transient, format!("{} was cancelled", describe()));
                Err(match last {
                    Some(last) => error.with_source(last),
                    None => error,
                })
            }
        }
    }

    /// An object of that name was there before our call, or before our answer got lost: it must be as large as ours.
    async fn check_size(&self, key: &Key, size: u64) -> Result<(), StoreError> {
        let found = self.head(key).await?.size;
        if found == size {
            return Ok(());
        }
        let message = format!("{key} is there already with {found} bytes, but the object to put has {size}");
        Err(StoreError::new(StoreErrorKind::Corrupt, message))
    }

    async fn get_whole_range(&self, key: &Key, start: u64, length: u64) -> Result<Bytes, StoreError> {
        let body = self.inner.get_range(key, start, length).await?;
        let got = body.len() as u64;
        if got == length {
            return Ok(body);
        }
        // Either the object ends here, or the answer was cut: its size tells.
        let expected = self.inner.head(key).await?.size.saturating_sub(start).min(length);
        if got == expected {
            return Ok(body);
        }
        let message = format!("{key} gave {got} bytes from {start}, but has {expected} there");
        Err(StoreError::new(StoreErrorKind::Transient, message))
    }
}

#[async_trait]
impl Store for Retrying {
    fn url(&self) -> String {
        self.inner.url()
    }

    async fn put_new(&self, key: &Key, body: Bytes) -> Result<Put, StoreError> {
        let size = body.len() as u64;
        let put =
            self.run(Some(Operation::Put), || format!("put {key}"), || self.inner.put_new(key, body.clone())).await?;
        if put == Put::AlreadyThere {
            self.check_size(key, size).await?;
        }
        Ok(put)
    }

    async fn put_over(&self, key: &Key, body: Bytes) -> Result<(), StoreError> {
        self.run(Some(Operation::Put), || format!("put {key}"), || self.inner.put_over(key, body.clone())).await
    }

    async fn get_range(&self, key: &Key, start: u64, length: u64) -> Result<Bytes, StoreError> {
        self.run(Some(Operation::Get), || format!("get {key}"), || self.get_whole_range(key, start, length)).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        self.run(Some(Operation::Head), || format!("look at {key}"), || self.inner.head(key)).await
    }

    async fn list_page(&self, prefix: &str, depth: ListDepth, after: Option<&str>) -> Result<ListPage, StoreError> {
        self.run(Some(Operation::List), || format!("list {prefix:?}"), || self.inner.list_page(prefix, depth, after))
            .await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.run(Some(Operation::Delete), || format!("remove {key}"), || self.inner.delete(key)).await
    }

    async fn sweep(&self, age_seconds: u64) -> Result<u64, StoreError> {
        self.run(None, || "sweep".to_owned(), || self.inner.sweep(age_seconds)).await
    }

    fn put_new_is_atomic(&self) -> bool {
        self.inner.put_new_is_atomic()
    }
}
