//! What the agent's tasks have seen, for who watches it (`observe`).
//!
//! Invariant: the lock is held for a moment only, never over an await.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::clock;
use crate::error::Error;
use crate::observe::{Seen, Trouble};

/// Shared by all tasks of the agent.
#[derive(Debug)]
pub(super) struct Sight {
    seen: Mutex<Seen>,
    /// The archive has become another: a base backup, a gap, a prune.
    pub(super) archive_changed: Notify,
}

impl Sight {
    pub(super) fn new() -> Self {
        let now_us = clock::now_us();
        let seen = Seen { started_us: now_us, since_us: now_us, ..Seen::default() };
        Self { seen: Mutex::new(seen), archive_changed: Notify::new() }
    }

    /// To be changed, or looked at.
    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server's binlog flows.
    pub(super) fn streams(&self) {
        let mut seen = self.seen();
        seen.set_streaming(true);
        seen.trouble = None;
    }

    /// It does not any more: for a reason, or because that was asked for.
    pub(super) fn stopped(&self, error: Option<&Error>) {
        let mut seen = self.seen();
        seen.set_streaming(false);
        if let Some(error) = error {
            seen.interruptions = seen.interruptions.saturating_add(1);
            seen.trouble = Some(Trouble::of(error));
        }
    }
}
