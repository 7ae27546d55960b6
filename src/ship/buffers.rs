//! Memory of bounded size that goes round: buffers are lent, used, and come back when dropped.
//!
//! Invariants: the bytes lent never exceed the pool's budget; whoever asks for more waits, which is how a slow store
//! or a busy sealer holds back the receiver, and the receiver the server's dump thread.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What the budget is counted in: 64 KiB, so that a semaphore's permits reach far.
const UNIT_BYTES: usize = 64 << 10;

/// A budget of bytes, and the buffers that are not lent at the moment.
#[derive(Debug)]
pub(crate) struct BufferPool {
    idle: Mutex<Vec<Vec<u8>>>,
    idle_bytes_max: usize,
    permits: Arc<Semaphore>,
    units_total: u32,
}

/// A lent buffer. Goes home when dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    pool: Arc<BufferPool>,
    _permit: OwnedSemaphorePermit,
}

impl BufferPool {
    /// A pool that lends at most `budget_bytes` at a time and keeps at most `idle_bytes_max` of returned memory.
    pub(crate) fn new(budget_bytes: usize, idle_bytes_max: usize) -> Arc<Self> {
        let units_total = u32::try_from(budget_bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).max(1);
        let permits = Arc::new(Semaphore::new(usize::try_from(units_total).unwrap_or(1)));
        Arc::new(Self { idle: Mutex::new(Vec::new()), idle_bytes_max, permits, units_total })
    }

    /// Lends an empty buffer with room for `bytes`, waiting until the budget has it. A single demand larger than the
    /// whole budget waits for all of it.
    pub(crate) async fn lend(self: &Arc<Self>, bytes: usize) -> Buffer {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).clamp(1, self.units_total);
        loop {
            // The semaphore is never closed; should that ever change, waiting is the harmless answer.
            if let Ok(permit) = Arc::clone(&self.permits).acquire_many_owned(units).await {
                let mut idle = self.idle.lock().ok().and_then(|mut idle| idle.pop()).unwrap_or_default();
                idle.clear();
                idle.reserve(bytes);
                return Buffer { bytes: idle, pool: Arc::clone(self), _permit: permit };
            }
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if let Ok(mut idle) = self.pool.idle.lock() {
            let kept: usize = idle.iter().map(Vec::capacity).sum();
            if kept.saturating_add(bytes.capacity()) <= self.pool.idle_bytes_max {
                idle.push(bytes);
            }
        }
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    #[tokio::test]
    async fn a_spent_budget_makes_the_next_one_wait() {
        let pool = BufferPool::new(256 << 10, 256 << 10);
        let first = pool.lend(200 << 10).await;
        assert!(clock::with_timeout(Duration::from_millis(20), pool.lend(100 << 10)).await.is_none());
        drop(first);
        assert!(pool.lend(100 << 10).await.capacity() >= 200 << 10, "the returned memory is used again");
        assert!(pool.lend(10 << 20).await.capacity() >= 10 << 20, "a demand over the budget gets the whole of it");
    }

    #[tokio::test]
    async fn idle_memory_is_bounded() {
        let pool = BufferPool::new(1 << 20, 300 << 10);
        let lent = [pool.lend(200 << 10).await, pool.lend(200 << 10).await];
        drop(lent);
        assert_eq!(pool.idle.lock().unwrap().len(), 1);
    }
}
