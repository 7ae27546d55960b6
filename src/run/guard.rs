//! The guard over semi-synchronous replication: when the agent takes part, when it leaves, and whether commits are
//! protected.
//!
//! ```text
//!   asynchronous generation ── caught up, the store quick, the plugin on ──► semi-synchronous generation
//!            ▲                                                                          │
//!            └── a commit has waited for wait_limit: KILL of our own dump, a lapse ◄────┘
//! ```
//!
//! Owns: a connection of its own, asking about the plugin, the probe before joining, leaving, the log's words about both.
//! Does not own: acknowledgements (`ship`), what a lapse lists (`ship::ledger`), beginning the next generation (`run`).
//!
//! Invariants: whatever goes wrong here, production does not wait longer than `wait_limit` for it, where the source is
//! set not to wait without replicas; commits are called protected only on the server's own word.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::PROGRAM;
use super::survey::parse_file;
use crate::clock::{self, Instant};
use crate::config::SemiSyncOptions;
use crate::error::{Error, Kind, Result};
use crate::mysql::facts::binlog_status;
use crate::mysql::semi_sync::{SemiSyncSettings, SemiSyncState, end_dump, is_dump};
use crate::mysql::{Connection, SourceOptions};
use crate::position::Position;
use crate::ship::{Progress, SemiSync};

/// Pause between questions while commits are protected.
const POLL: Duration = Duration::from_secs(1);
/// The same while they are not, or not yet.
const POLL_SOON: Duration = Duration::from_millis(200);
/// Limit on one question of the guard's.
const ASK_LIMIT: Duration = Duration::from_secs(5);
/// How long leaving may wait for the server's last word on whether all was well until now.
const LAST_WORD_LIMIT: Duration = Duration::from_millis(100);
/// How long a generation that failed may take to release the source.
const LAST_KILL_LIMIT: Duration = Duration::from_secs(1);
/// How long the source may stay asynchronous behind our joining before that is worth a word.
const JOINING_LONG: Duration = Duration::from_secs(20);

/// What a guard decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Go on as a semi-synchronous replica.
    Join,
    /// Go on as an asynchronous one; so long had commits been protected.
    Leave(Duration),
}

/// Guards one generation.
pub(super) struct Guard {
    pub(super) source: SourceOptions,
    pub(super) options: SemiSyncOptions,
    pub(super) semi_sync: Arc<SemiSync>,
    pub(super) progress: Arc<Progress>,
    /// The dump's number at the server.
    pub(super) dump: u32,
    pub(super) asked: Connection,
    /// A question was given up or went wrong: the connection is not to be asked again.
    pub(super) spoilt: bool,
    /// The connection is not the one that was there before the dump.
    pub(super) mended: bool,
    /// What must be durable before commits are called protected.
    pub(super) target: Option<Position>,
    /// How long to stay asynchronous before the first try to join.
    pub(super) hold: Duration,
    pub(super) stop: CancellationToken,
}

/// Why commits are not protected by us, if they are not.
fn judge(settings: Option<&SemiSyncSettings>, state: Option<SemiSyncState>) -> Option<String> {
    let (Some(settings), Some(state)) = (settings, state) else {
        return Some("the source has no plugin for semi-synchronous replication".into());
    };
    if !settings.enabled {
        return Some(format!("{}_enabled is OFF on the source", settings.prefix));
    }
    if !state.is_on {
        return Some("the source does not wait yet, or any more".into());
    }
    if state.clients > settings.replica_count {
        return Some(format!(
            "the source waits for {} of {} semi-synchronous replicas: the others' word is enough for it",
            settings.replica_count, state.clients
        ));
    }
    (state.clients == 0).then(|| "the source does not count us as a replica".into())
}

impl Guard {
    /// Guards until the generation's `end`, or until it is time for one of the other kind: then the generation has been
    /// told to end.
    pub(super) async fn run(mut self, end: CancellationToken) -> Option<Turn> {
        let turn = self.semi_sync.turn.clone();
        let decided = async { if self.semi_sync.is_replica { self.watch().await } else { self.wait_to_join().await } };
        let ended = async {
            end.cancelled().await;
            // The generation may end because it was told to: then the decision is on its way.
            if turn.is_cancelled() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            turn = Box::pin(decided) => Some(turn),
            () = ended => {
                // In trouble the source is to be released too; it may be gone itself.
                if self.semi_sync.is_replica {
                    clock::with_timeout(LAST_KILL_LIMIT, self.end_dump()).await;
                }
                None
            }
        }
    }

    /// As a semi-synchronous replica: until a commit has waited too long, the source stops waiting, or the agent stops.
    async fn watch(&mut self) -> Turn {
        let (semi_sync, stop) = (Arc::clone(&self.semi_sync), self.stop.clone());
        let mut changes = semi_sync.changes();
        let (begun, mut protected_since, mut warned) = (clock::monotonic(), None, false);
        let mut ask_at = begun;
        let mut times_off = None;
        loop {
            changes.mark_unchanged();
            let late_at = semi_sync.waiting_since().and_then(|since| since.checked_add(self.options.wait_limit));
            tokio::select! {
                biased;
                () = stop.cancelled() => return self.leave(protected_since, "the agent stopped", times_off).await,
                () = until(late_at) => {
                    let waited = format!("a commit has waited for {} ms", self.options.wait_limit.as_millis());
                    return self.leave(protected_since, &waited, times_off).await;
                }
                () = until(Some(ask_at)) => {
                    let learnt = tokio::select! {
                        biased;
                        learnt = self.learn(&mut times_off, protected_since) => learnt,
                        () = until(late_at) => continue,
                        () = stop.cancelled() => continue,
                    };
                    match learnt {
                        Ok(true) => protected_since = protected_since.or_else(|| Some(clock::monotonic())),
                        Ok(false) => {}
                        Err(reason) => return self.leave(protected_since, &reason, None).await,
                    }
                    warned = warned || self.tell_if_long(begun, protected_since);
                    let pause = if protected_since.is_some() { POLL } else { POLL_SOON };
                    ask_at = clock::monotonic().checked_add(pause).unwrap_or(ask_at);
                }
                () = changes.changed() => {}
            }
        }
    }

    /// Takes the server's word: whether commits are protected, or as an error why we leave. May be given up at any
    /// moment.
    async fn learn(&mut self, times_off: &mut Option<u64>, protected_since: Option<Instant>) -> Result<bool, String> {
        let (settings, state) = match self.ask().await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(error = %error.chain(), "the source does not say whether commits wait");
                // The stream decides whether the server is gone; nothing is charged and nothing cleared meanwhile.
                return Ok(protected_since.is_some());
            }
        };
        let now_off = state.map(|state| state.times_off);
        let went_off = times_off.is_some() && now_off != *times_off;
        *times_off = now_off;
        match judge(settings.as_ref(), state) {
            Some(reason) if protected_since.is_some() => Err(reason),
            None if went_off && protected_since.is_some() => Err("the source had stopped waiting meanwhile".into()),
            Some(reason) => {
                self.target = None;
                self.semi_sync.ledger.unprotected(&reason);
                Ok(false)
            }
            None if protected_since.is_none() && !self.has_all().await => Ok(false),
            None => {
                if self.semi_sync.ledger.protected() {
                    let word = self.semi_sync.ledger.word();
                    tracing::info!(uncovered = word.uncovered, "commits are protected: each waits until it is durable");
                }
                Ok(true)
            }
        }
    }

    /// Whether everything is durable that the source had when it was first found to wait: what it had committed before
    /// that did not wait for us.
    async fn has_all(&mut self) -> bool {
        if self.target.is_none() {
            self.target = self.end().await.ok();
        }
        let durable = self.progress.durable().position;
        self.target.as_ref().is_some_and(|target| durable.is_some_and(|durable| durable >= *target))
    }

    /// Where the server's binlog ends.
    async fn end(&mut self) -> Result<Position> {
        self.mend().await?;
        self.spoilt = true;
        let status = binlog_status(&mut self.asked).await?;
        self.spoilt = false;
        let status = status.ok_or_else(|| Error::new(Kind::Unfit, "the server has no current binlog"))?;
        Ok(Position { file: parse_file(&status.file)?, offset: status.position })
    }

    async fn ask(&mut self) -> Result<(Option<SemiSyncSettings>, Option<SemiSyncState>)> {
        self.mend().await?;
        self.spoilt = true;
        let asking = async {
            let settings = SemiSyncSettings::ask(&mut self.asked).await?;
            Ok((settings, SemiSyncState::ask(&mut self.asked).await?))
        };
        let late = || Error::new(Kind::Unreachable, "the server does not answer");
        let answer = clock::with_timeout(ASK_LIMIT, asking).await.unwrap_or_else(|| Err(late()))?;
        self.spoilt = false;
        Ok(answer)
    }

    /// Ends our own dump, which releases what waits for it.
    async fn end_dump(&mut self) {
        let ended = async {
            self.mend().await?;
            // A server that was restarted meanwhile counts connections anew: the number may be another's.
            if self.mended && !is_dump(&mut self.asked, self.dump).await? {
                return Ok(());
            }
            end_dump(&mut self.asked, self.dump).await
        };
        if let Err(error) = ended.await {
            tracing::debug!(error = %error.chain(), "our own dump could not be ended by KILL; it ends with its socket");
        }
    }

    /// Connects again, if the connection is not to be asked again.
    async fn mend(&mut self) -> Result<()> {
        if self.spoilt {
            self.asked = Connection::connect(&self.source, PROGRAM).await?;
            (self.spoilt, self.mended) = (false, true);
        }
        Ok(())
    }

    /// Says once that the source does not begin to wait. A source that never pauses does not: it begins when an
    /// acknowledgement reaches its very newest commit.
    fn tell_if_long(&self, begun: Instant, protected_since: Option<Instant>) -> bool {
        if protected_since.is_some() || begun.elapsed() < JOINING_LONG {
            return false;
        }
        let reason = self.semi_sync.ledger.word().reason.unwrap_or_default();
        tracing::warn!(
            reason,
            "commits are still not protected; if the source never pauses: SET GLOBAL rpl_semi_sync_source_enabled = OFF, and ON again, makes it wait at once"
        );
        true
    }

    /// Leaves at once: what waits at the source is released, and what comes is not covered.
    async fn leave(&mut self, protected_since: Option<Instant>, reason: &str, times_off: Option<u64>) -> Turn {
        self.semi_sync.turn.cancel();
        if let Some(known) = times_off
            && protected_since.is_some()
        {
            // Up to this moment all may have been well: then nothing before it is charged.
            let last = clock::with_timeout(LAST_WORD_LIMIT, self.ask()).await;
            if let Some(Ok((settings, state))) = last
                && state.is_some_and(|state| state.times_off == known)
                && judge(settings.as_ref(), state).is_none()
            {
                self.semi_sync.ledger.protected();
            }
        }
        clock::with_timeout(ASK_LIMIT, self.end_dump()).await;
        if self.semi_sync.ledger.unprotected(reason) {
            tracing::warn!(reason, "commits are NOT protected any more: they no longer wait for the archive");
        }
        Turn::Leave(protected_since.map_or(Duration::ZERO, |since| since.elapsed()))
    }

    /// As an asynchronous replica: until joining is safe for production.
    async fn wait_to_join(&mut self) -> Turn {
        clock::sleep(self.hold).await;
        let mut pause = POLL;
        loop {
            let reason = match self.may_join().await {
                Ok(None) => {
                    self.semi_sync.turn.cancel();
                    return Turn::Join;
                }
                Ok(Some(reason)) => reason,
                Err(error) => error.chain(),
            };
            if self.semi_sync.ledger.word().reason.as_deref() != Some(&reason) {
                tracing::warn!(reason, "commits are not protected");
                self.semi_sync.ledger.unprotected(&reason);
            }
            clock::sleep(pause).await;
            pause = pause.saturating_mul(2).min(self.options.return_after.max(POLL));
        }
    }

    /// Why not to join yet. Everything that the server has now must become durable in half of the time that a commit may
    /// wait.
    async fn may_join(&mut self) -> Result<Option<String>> {
        let (settings, _) = self.ask().await?;
        match settings {
            None => return Ok(Some("the source has no plugin for semi-synchronous replication".into())),
            Some(settings) if !settings.enabled => {
                return Ok(Some(format!("{}_enabled is OFF on the source", settings.prefix)));
            }
            Some(_) => {}
        }
        let target = self.end().await?;
        let limit = self.options.wait_limit / 2;
        let mut durable = self.progress.watch();
        let reached = async {
            while durable.borrow_and_update().position.as_ref().is_none_or(|position| *position < target) {
                // What has come is sent now, and again what comes later.
                self.semi_sync.flush();
                let _ = clock::with_timeout(limit / 4, durable.changed()).await;
            }
        };
        let caught_up = clock::with_timeout(limit, reached).await.is_some();
        Ok((!caught_up).then(|| format!("the archive is more than {} ms behind", limit.as_millis())))
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => clock::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Whether the agent had to leave soon after it had joined.
pub(super) fn soon(protected_for: Duration, return_after: Duration) -> bool {
    protected_for < return_after.saturating_mul(6)
}

/// How long to stay away: longer each time the agent had to leave soon after it had joined.
pub(super) fn next_hold(last: Duration, protected_for: Duration, return_after: Duration) -> Duration {
    const LONGEST: u32 = 32;
    if !soon(protected_for, return_after) || last.is_zero() {
        return return_after;
    }
    last.saturating_mul(2).min(return_after.saturating_mul(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(replica_count: u64) -> SemiSyncSettings {
        SemiSyncSettings {
            prefix: "rpl_semi_sync_source",
            enabled: true,
            timeout_ms: 10_000,
            replica_count,
            wait_no_replica: false,
            wait_point: "AFTER_SYNC".into(),
        }
    }

    #[test]
    fn commits_are_protected_only_if_the_source_needs_our_word() {
        let state = |is_on, clients| Some(SemiSyncState { is_on, clients, ..SemiSyncState::default() });
        assert_eq!(judge(Some(&settings(1)), state(true, 1)), None);
        assert_eq!(judge(Some(&settings(2)), state(true, 2)), None);
        for (settings, state, word) in [
            (None, None, "no plugin"),
            (Some(SemiSyncSettings { enabled: false, ..settings(1) }), state(true, 1), "enabled is OFF"),
            (Some(settings(1)), state(false, 1), "does not wait"),
            (Some(settings(1)), state(true, 2), "1 of 2"),
            (Some(settings(1)), state(true, 0), "does not count us"),
        ] {
            let reason = judge(settings.as_ref(), state).unwrap();
            assert!(reason.contains(word), "{reason}");
        }
    }

    #[test]
    fn an_agent_that_must_leave_soon_again_stays_away_longer() {
        let second = Duration::from_secs(1);
        assert_eq!(next_hold(Duration::ZERO, Duration::ZERO, second), second);
        assert_eq!(next_hold(4 * second, second, second), 8 * second);
        assert_eq!(next_hold(30 * second, second, second), 32 * second);
        assert_eq!(next_hold(30 * second, 6 * second, second), second, "it held for a good while");
    }
}
