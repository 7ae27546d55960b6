//! Base backups by schedule, beside the stream.
//!
//! Owns: when the next one is due, and that it is taken. Does not own: how (`base`).
//!
//! The archive tells when the last one was, so downtime is caught up with: one that was due meanwhile, however often, is
//! taken once, now; and an archive without any gets its first one now. Two agents of one archive take one between
//! them: before beginning, each looks whether the other has.
//!
//! Invariants: one at a time; whatever goes wrong here is logged, and archiving goes on.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::sight::Sight;
use super::{PROGRAM, RunOptions};
use crate::archive::Archive;
use crate::base::{BaseJob, Progress};
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::mysql::members::primary;
use crate::retry::{self, RetryOptions};
use crate::schedule::Schedule;
use crate::store::open as open_store;

/// After trouble in finding out what is due: the longest pause, in milliseconds.
const LOOK_AGAIN_MAX_MS: u64 = 60_000;
/// Longest sleep at a time: the wall clock may be set meanwhile.
const NAP: Duration = Duration::from_secs(30);
/// Parts on their way at a time. Archiving goes on beside it, and a store that hangs leaves both with all that they may hold.
const UPLOADS: usize = 1;
/// Between two tries to take one behind a gap, microseconds.
const GAP_PAUSE_US: u64 = 600_000_000;

/// Takes base backups as they come due.
pub(super) struct Keeping<'a> {
    pub(super) options: &'a RunOptions,
    pub(super) stop: &'a CancellationToken,
    /// Wakes it when a gap was recorded.
    pub(super) gap_found: &'a Notify,
    pub(super) sight: &'a Sight,
}

impl Keeping<'_> {
    /// Until `stop`. Never ends before; without a schedule it only waits.
    pub(super) async fn run(&self) {
        let schedule = self.options.base.as_ref().and_then(|base| base.schedule.clone());
        let Some(schedule) = schedule.filter(|_| !self.options.once) else { return self.stop.cancelled().await };
        let mut delays =
            retry::Schedule::new(&RetryOptions { first_ms: 500, max_ms: LOOK_AGAIN_MAX_MS, ..RetryOptions::default() });
        // Due times before this have been tried, with or without success.
        let mut tried_until = 0;
        while !self.stop.is_cancelled() {
            match Box::pin(self.one(&schedule, tried_until)).await {
                Ok(tried) => {
                    tried_until = tried_until.max(tried);
                    delays.reset();
                }
                Err(error) => {
                    // At the very start there may be no archive yet: the agent makes it.
                    tracing::debug!(error = %error.chain(), "when the next base backup is due cannot be told yet");
                    self.stop.run_until_cancelled(clock::sleep(delays.next_delay())).await;
                }
            }
        }
    }

    /// Waits for the next one to be due and takes it. Gives the time before which all due times are done with.
    async fn one(&self, schedule: &Schedule, tried_until: u64) -> Result<u64> {
        // The agent itself makes the archive; until then there is nothing to put a base backup into.
        let store = open_store(&self.options.store, self.stop).await?;
        let archive = Archive::open(store, false).await?;
        let newest = newest(&archive).await?;
        let now = clock::now_us();
        let gap = archive.gaps().await?.iter().rfind(|gap| gap.is_loss()).map(|gap| gap.at_us);
        let in_turn = due(schedule, newest, tried_until, now);
        let out_of_turn = behind_a_gap(gap, newest, tried_until).filter(|at| in_turn.is_none_or(|due| *at < due));
        let (due, begins) = match (out_of_turn, in_turn) {
            (Some(at), _) => (at, at),
            (None, Some(due)) => (due, schedule.begins(due)),
            (None, None) => {
                tracing::warn!("the schedule of base backups has no next time");
                self.stop.cancelled().await;
                return Ok(now);
            }
        };
        tracing::debug!(in_seconds = begins.saturating_sub(now) / 1_000_000, "the next base backup is due");
        self.sight.seen().base_due_us = Some(begins);
        tokio::select! {
            came = sleep_until(begins, self.stop) => if !came {
                return Ok(tried_until);
            },
            () = self.gap_found.notified() => return Ok(tried_until),
        }
        if self::newest(&archive).await?.is_some_and(|started| started >= due) {
            tracing::info!("another agent took the base backup that was due");
            return Ok(due);
        }
        if out_of_turn.is_some() {
            tracing::info!("a base backup is taken behind the gap, out of turn");
        }
        match self.take(archive).await {
            Ok(()) => self.sight.seen().bases.done(),
            Err(error) if self.stop.is_cancelled() => tracing::debug!(error = %error.chain(), "stopped"),
            Err(error) => self.report(&error),
        }
        self.sight.archive_changed.notify_one();
        Ok(clock::now_us())
    }

    async fn take(&self, archive: Archive) -> Result<()> {
        let Some(base) = self.options.base.clone() else { return Ok(()) };
        let job = BaseJob {
            source: primary(&self.options.source, PROGRAM).await?,
            archive,
            recipients: self.options.recipients.clone(),
            options: base,
            compress: self.options.ship.compress,
            uploads: UPLOADS,
        };
        job.take(&Arc::new(Progress::default()), self.stop).await.map(drop)
    }

    fn report(&self, error: &Error) {
        let hint = error.hint_text().unwrap_or("");
        if error.kind() == Kind::Clash {
            tracing::warn!(error = %error.chain(), hint, "the scheduled base backup was left to another");
            return;
        }
        tracing::error!(
            error = %error.chain(), hint, "the scheduled base backup failed; archiving goes on, the next try is when the next is due"
        );
        self.sight.seen().bases.failed(error);
    }
}

/// When the newest base backup was begun, microseconds since 1970.
async fn newest(archive: &Archive) -> Result<Option<u64>> {
    Ok(archive.bases().await?.complete.last().map(|base| base.started_us))
}

/// When one is due because of a gap that none was taken behind: at once, but not soon after another try. Pure.
fn behind_a_gap(gap: Option<u64>, newest: Option<u64>, tried_until: u64) -> Option<u64> {
    let gap = gap.filter(|gap| newest.is_none_or(|newest| newest < *gap))?;
    if tried_until < gap {
        // The last try, if there was one, was for another reason.
        return Some(gap);
    }
    Some(tried_until.saturating_add(GAP_PAUSE_US))
}

/// When the next one is due: now, if one was missed. Pure.
fn due(schedule: &Schedule, newest: Option<u64>, tried_until: u64, now: u64) -> Option<u64> {
    match newest.max(Some(tried_until).filter(|tried| *tried > 0)) {
        None => Some(now),
        Some(last) => schedule.next_after(last),
    }
}

/// Waits for a moment of the wall clock. `false`: told to stop.
pub(super) async fn sleep_until(moment_us: u64, stop: &CancellationToken) -> bool {
    loop {
        let left = Duration::from_micros(moment_us.saturating_sub(clock::now_us()));
        if left.is_zero() {
            return !stop.is_cancelled();
        }
        if stop.run_until_cancelled(clock::sleep(left.min(NAP))).await.is_none() {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000_000;

    fn hourly() -> Schedule {
        Schedule::new("base.schedule", "@hourly", Some("UTC"), Duration::ZERO, "main").unwrap()
    }

    #[test]
    fn what_was_missed_is_due_now_and_once() {
        let now = 100 * HOUR + 5;
        assert_eq!(due(&hourly(), None, 0, now), Some(now), "the first one");
        let missed = due(&hourly(), Some(90 * HOUR + 1), 0, now).unwrap();
        assert_eq!(missed, 91 * HOUR, "long past: begins at once");
        // It was taken now: those of the hours between are not made up for one by one.
        assert_eq!(due(&hourly(), Some(now), 0, now + 1), Some(101 * HOUR));
    }

    #[test]
    fn a_failure_is_not_tried_again_before_the_next_is_due() {
        let now = 100 * HOUR + 5;
        assert_eq!(due(&hourly(), Some(90 * HOUR), now, now + 1), Some(101 * HOUR));
        assert_eq!(due(&hourly(), None, now, now + 1), Some(101 * HOUR), "also where there never was one");
    }

    #[test]
    fn behind_a_gap_one_is_due_at_once_and_not_again_and_again() {
        assert_eq!(behind_a_gap(None, Some(5), 0), None);
        assert_eq!(behind_a_gap(Some(10), Some(20), 0), None, "one was taken behind it");
        assert_eq!(behind_a_gap(Some(10), Some(5), 7), Some(10));
        assert_eq!(behind_a_gap(Some(10), None, 12), Some(12 + GAP_PAUSE_US), "it failed a moment ago");
    }

    #[test]
    fn one_begun_late_by_jitter_does_not_move_the_next() {
        assert_eq!(due(&hourly(), Some(100 * HOUR + HOUR / 2), 0, 100 * HOUR + HOUR / 2), Some(101 * HOUR));
    }
}
