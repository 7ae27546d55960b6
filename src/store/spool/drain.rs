//! Draining: what is in the folder goes to the store, several objects at a time, begun in order.
//!
//! Invariants: an object is checked against its name before it goes; trouble with the store is waited out, for ever; an entry
//! that cannot be read, or is not what its name says, ends the draining with an error, and is left where it is.

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::index::{Due, SpoolState};
use super::{Spool, cut_off};
use crate::clock;
use crate::retry::{RetryOptions, Schedule};
use crate::store::{SharedStore, StoreError, StoreErrorKind, get_all};

/// How to drain.
#[derive(Debug, Clone, Copy)]
pub struct DrainOptions {
    /// Objects on their way at a time.
    pub uploads: usize,
    /// Bytes of objects in memory at a time; one that is larger goes alone.
    pub memory_bytes: u32,
    /// The largest object.
    pub object_bytes_max: u64,
    /// Whether trouble with the store is waited out, or ends the draining.
    pub patient: bool,
}

impl Spool {
    /// Waits until everything that is not held is in the store. Somebody must drain it meanwhile.
    pub async fn drained(&self) {
        let mut changed = self.changed.subscribe();
        while !self.lock().is_drained() {
            let _ = changed.changed().await;
        }
    }

    /// Follows every change of what it holds.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Drains until dropped. May be called again after an end.
    ///
    /// # Errors
    /// An entry that is not what it was when it was put; without patience also the store's errors.
    pub async fn drain(self: &Arc<Self>, store: &SharedStore, options: DrainOptions) -> Result<(), StoreError> {
        let memory = Arc::new(Semaphore::new(usize::try_from(options.memory_bytes).unwrap_or(1)));
        let mut changed = self.changed.subscribe();
        let mut on_way = JoinSet::new();
        loop {
            changed.mark_unchanged();
            while on_way.len() < options.uploads.max(1) {
                let Some(due) = self.lock().take_due() else { break };
                let bytes = u32::try_from(due.size).unwrap_or(u32::MAX).clamp(1, options.memory_bytes.max(1));
                let Ok(permit) = Arc::clone(&memory).acquire_many_owned(bytes).await else { return Ok(()) };
                let back = PutBack { spool: Arc::clone(self), due: Some(due) };
                let store = Arc::clone(store);
                on_way.spawn(async move {
                    let _permit = permit;
                    back.send(&store, options).await
                });
            }
            tokio::select! {
                biased;
                Some(sent) = on_way.join_next(), if !on_way.is_empty() => sent.map_err(cut_off)??,
                _ = changed.changed() => {}
            }
        }
    }
}

/// An entry on its way, which waits for its turn again if it is given up.
struct PutBack {
    spool: Arc<Spool>,
    due: Option<Due>,
}

impl Drop for PutBack {
    fn drop(&mut self) {
        if let Some(due) = self.due.take() {
            self.spool.lock().put_back(due);
            self.spool.changed.send_replace(());
        }
    }
}

impl PutBack {
    async fn send(mut self, store: &SharedStore, options: DrainOptions) -> Result<(), StoreError> {
        let Some(Due { key, .. }) = self.due.clone() else { return Ok(()) };
        let spool = Arc::clone(&self.spool);
        let spoilt = |why: String| StoreError::new(StoreErrorKind::Corrupt, format!("spooled {key}: {why}"));
        let body = get_all(&spool.disk, &key, options.object_bytes_max).await;
        let body = body.map_err(|error| spoilt("it cannot be read back".into()).with_source(error))?;
        if !(spool.options.is_whole)(&key, &body) {
            return Err(spoilt("its bytes have changed since it was written".into()));
        }
        let mut schedule = Schedule::new(&RetryOptions { first_ms: 1000, max_ms: 30_000, ..RetryOptions::default() });
        loop {
            match store.put_new(&key, body.clone()).await {
                Ok(_) => break,
                Err(error) if !options.patient => return Err(error),
                Err(error) => {
                    let SpoolState { objects, bytes, .. } = spool.state();
                    tracing::warn!(%error, objects, bytes, "the store takes nothing; what comes is kept in the spool");
                    clock::sleep(schedule.next_delay()).await;
                }
            }
        }
        spool.remove(vec![key]).await?;
        self.due = None;
        Ok(())
    }
}
