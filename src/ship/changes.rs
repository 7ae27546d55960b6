//! "Something has changed": told to all who follow, also to one who looks only later.
//!
//! A `watch` channel would do but for one thing: it wakes its followers in an order drawn by lot, and what a simulated
//! history does may depend on its seed alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Tells.
#[derive(Debug, Default)]
pub(super) struct Changes(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    count: AtomicU64,
    woken: Notify,
}

/// Is told.
#[derive(Debug)]
pub struct Follower {
    shared: Arc<Shared>,
    seen: u64,
}

impl Changes {
    /// Something has changed.
    pub(super) fn tell(&self) {
        self.0.count.fetch_add(1, Ordering::Release);
        self.0.woken.notify_waiters();
    }

    /// Follows what changes from now on.
    pub(super) fn follow(&self) -> Follower {
        Follower { shared: Arc::clone(&self.0), seen: self.0.count.load(Ordering::Acquire) }
    }
}

impl Follower {
    /// What has changed up to now needs no telling.
    pub fn mark_unchanged(&mut self) {
        self.seen = self.shared.count.load(Ordering::Acquire);
    }

    /// Waits until something has changed that was not told yet.
    pub async fn changed(&mut self) {
        loop {
            // Wakes for whatever is told from here on, polled or not.
            let woken = self.shared.woken.notified();
            let count = self.shared.count.load(Ordering::Acquire);
            if count != self.seen {
                self.seen = count;
                return;
            }
            woken.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    #[tokio::test(start_paused = true)]
    async fn a_change_is_told_once_to_each_whether_it_waits_or_looks_later() {
        let changes = Changes::default();
        let (mut early, mut late) = (changes.follow(), changes.follow());
        let waiting = tokio::spawn(async move { early.changed().await });
        clock::sleep(Duration::from_millis(1)).await;
        changes.tell();
        waiting.await.unwrap();
        late.changed().await;
        assert!(clock::with_timeout(Duration::from_secs(1), late.changed()).await.is_none());
        changes.tell();
        late.mark_unchanged();
        assert!(clock::with_timeout(Duration::from_secs(1), late.changed()).await.is_none());
    }
}
