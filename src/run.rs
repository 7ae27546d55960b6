//! The agent: generation after generation of the ship, from wherever the archive ends.
//!
//! ```text
//!   open archive ─► ask the server ─► where to go on ─► dump ─► ship ─┬─► stopped, or --once is through: done
//!         ▲                                                           ├─► definite error: exit with its code
//!         └───────────────── back-off with jitter ◄───────────────────┴─► passing trouble
//! ```
//!
//! With a spool, the archive is what is in the store and in the spool together; the spool is drained beside it (`spool`).
//! Base backups are taken beside it when they are due (`bases`). Where commits shall wait until they are durable, a guard
//! (`guard`) decides which generations are those of a semi-synchronous replica: never the first, which catches up.
//!
//! What each task sees is gathered (`sight`), and told to who asks over HTTP (`numbers`), to a web hook (`alarms`) and to the service
//! manager (`service`); the archive is looked at, pruned and verified from time to time (`upkeep`, `outlook`), and the server's
//! own binlogs are purged when they are safe (`purge`), each only where that is configured.
//!
//! A history that does not go on (purged, reset, a tail lost in a crash, another server in its place) is recorded, and begun
//! anew behind the break (`anew`).
//!
//! Owns: connecting, choosing the start, the second connection that asks about the server's position, beacons, when to
//! try again, and the limit on stopping.
//! Does not own: how bytes are shipped (`ship`), what is archived (`archive`).
//!
//! Invariants: a generation starts from the archive, never from memory; a break is recorded before anything is archived
//! behind it; a definite error is never retried; told to
//! stop, the agent ends within [`STOP_LIMIT`].

mod alarms;
mod anew;
mod bases;
mod guard;
mod numbers;
mod options;
mod outlook;
mod prepare;
mod purge;
pub mod service;
mod sight;
mod spool;
mod start;
mod survey;
mod upkeep;
mod watch;

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::guard::{Turn, next_hold, soon};
use self::prepare::Prepared;
use self::sight::Sight;
use self::spool::Keeper;
use crate::archive::{Archive, GapRecord};
use crate::clock::{self, Instant};
use crate::config::SemiSyncMode;
use crate::error::{Error, Kind, Result};
use crate::position::{GtidSet, Position};
use crate::retry::{RetryOptions, Schedule};
use crate::ship::{DRAIN_LIMIT, Durable, Ledger, Progress, Snapshot, ship};

pub use options::{RunOptions, UpkeepOptions};

/// How long stopping in good order may take.
pub const STOP_LIMIT: Duration = Duration::from_secs(18);
/// How long a base backup that is told to stop may take to clean up.
const BASES_STOP_LIMIT: Duration = Duration::from_secs(2);
/// How often a `--once` run starts again before it gives up.
const ONCE_TRIES: u32 = 5;
/// The program's name as the server sees it.
const PROGRAM: &str = "binvault";

/// What a run did.
#[derive(Debug, Clone)]
pub struct RunReport {
    /// Counts of this run.
    pub counts: Snapshot,
    /// Where the archive ends now.
    pub durable: Durable,
    /// Breaks in the history that were recorded.
    pub gaps: u64,
}

/// Runs until `stop`, the end of a `--once` run, or a definite error.
///
/// # Errors
/// The definite error; with `once` also a passing one that does not pass; [`Kind::Store`] if stopping took too long.
pub async fn run(options: RunOptions, stop: CancellationToken) -> Result<RunReport> {
    let hard_stop = CancellationToken::new();
    let progress = Arc::new(Progress::default());
    let bases_stop = stop.child_token();
    let (for_bases, told, gap_found) = (options.clone(), bases_stop.clone(), Arc::new(Notify::new()));
    let (woken, sight) = (Arc::clone(&gap_found), Arc::new(Sight::new()));
    let seen = Arc::clone(&sight);
    let bases = AbortOnDropHandle::new(tokio::spawn(async move {
        bases::Keeping { options: &for_bases, stop: &told, gap_found: &woken, sight: &seen }.run().await;
    }));
    // A run that ends by itself protects nobody.
    let wanted = options.semi_sync.mode != SemiSyncMode::Off && !options.once;
    let agent = Arc::new(Agent {
        keeper: Arc::new(Keeper::new(options.spool.clone(), options.ship.uploads)),
        options,
        stop: stop.clone(),
        hard_stop: hard_stop.clone(),
        progress: Arc::clone(&progress),
        ledger: wanted.then(Arc::default),
        gap_found,
        sight,
        manner: Mutex::default(),
    });
    let deadline = async {
        stop.cancelled().await;
        clock::sleep(STOP_LIMIT).await;
    };
    let result = tokio::select! {
        biased;
        result = agent.generations() => result.map(|()| RunReport {
            counts: progress.snapshot(), durable: progress.durable(), gaps: agent.sight.seen().gaps,
        }),
        error = numbers::tell(&agent) => Err(error),
        () = upkeep::run(&agent) => Err(Error::failed("the upkeep ended")),
        () = deadline => {
            hard_stop.cancel();
            Err(Error::new(Kind::Store, format!("the store did not take the last bytes within {} s", STOP_LIMIT.as_secs()))
                .hint("nothing is lost: they are fetched from the server again at the next start"))
        }
    };
    bases_stop.cancel();
    // A base backup on its way ends at once; what it made outside may have to be cleaned up.
    let _ = clock::with_timeout(BASES_STOP_LIMIT, bases).await;
    result
}

struct Agent {
    options: RunOptions,
    keeper: Arc<Keeper>,
    stop: CancellationToken,
    hard_stop: CancellationToken,
    progress: Arc<Progress>,
    /// What is not protected; `None` where protection is not asked for.
    ledger: Option<Arc<Ledger>>,
    /// Wakes whoever takes base backups.
    gap_found: Arc<Notify>,
    /// What is told.
    sight: Arc<Sight>,
    manner: Mutex<Manner>,
}

/// How the next generation begins.
#[derive(Debug, Default)]
struct Manner {
    /// As a semi-synchronous replica, if the archive's end allows it.
    join: bool,
    /// Else: how long to stay asynchronous at least.
    hold: Duration,
    /// When the agent last joined.
    joined: Option<Instant>,
    /// The ledger has been read from the archive.
    resumed: bool,
    /// Why the server's own files could not be gone on with.
    broken: Option<(Kind, String)>,
    /// How many chunks there were when a break was last begun behind.
    begun_behind_a_break: Option<u64>,
}

/// How a generation ended well.
enum Ended {
    /// Stopped, or through with `until`.
    Through,
    /// The next one is to be of the other manner.
    Turned,
}

impl Agent {
    async fn generations(&self) -> Result<()> {
        let mut schedule = Schedule::new(&RetryOptions { first_ms: 250, max_ms: 30_000, ..RetryOptions::default() });
        let mut tries = 0_u32;
        let mut until = None;
        loop {
            let before = self.progress.snapshot().chunks;
            let Some(ended) = Box::pin(self.generation(&mut until)).await.transpose() else { return Ok(()) };
            if self.stop.is_cancelled() {
                // Stopping was asked for; a store or server that fails now is met again at the next start.
                return ended.map(drop).or_else(|error| if error.is_retryable() { Ok(()) } else { Err(error) });
            }
            let error = match ended {
                Ok(Ended::Through) => {
                    self.sight.stopped(None);
                    return Ok(());
                }
                Ok(Ended::Turned) => continue,
                Err(error) => error,
            };
            self.interrupted(&error);
            self.sight.stopped(Some(&error));
            tries = tries.saturating_add(1);
            if self.progress.snapshot().chunks > before {
                schedule.reset();
                tries = 0;
            }
            if self.manner().broken.is_some() {
                continue;
            }
            if !error.is_retryable() || (self.options.once && tries >= ONCE_TRIES) {
                return Err(error);
            }
            let delay = schedule.next_delay();
            let hint = error.hint_text().unwrap_or("");
            tracing::warn!(error = %error.chain(), hint, retry_in_ms = delay.as_millis(), "archiving was interrupted");
            if self.stop.run_until_cancelled(clock::sleep(delay)).await.is_none() {
                return Ok(());
            }
        }
    }

    /// One generation. `None`: told to stop before it began.
    async fn generation(&self, until: &mut Option<Position>) -> Result<Option<Ended>> {
        let preparing = self.stop.run_until_cancelled(Box::pin(self.prepare(until))).await;
        let Some(prepared) = preparing.transpose()? else { return Ok(None) };
        let Prepared { voyage, watch, guard } = prepared;
        let (archive, server) = (voyage.archive.clone(), voyage.server);
        tracing::debug!(%server, archive = %archive.id(), "generation begins");
        self.sight.streams();
        let watching = CancellationToken::new();
        let mut watcher = AbortOnDropHandle::new(tokio::spawn(watch.run(watching.clone())));
        let guarding = guard.map(|guard| AbortOnDropHandle::new(tokio::spawn(guard.run(watching.clone()))));
        let broke_down = |panic| Error::failed("the watcher broke down").source(panic);
        let (end, lost) = (voyage.stop.clone(), voyage.lost.clone());
        let mut shipping = pin!(ship(&self.options.ship, voyage));
        let shipped = loop {
            tokio::select! {
                biased;
                shipped = &mut shipping => break shipped,
                // It ends by itself only for a reason.
                watch = &mut watcher, if !watching.is_cancelled() => {
                    let error = watch.map_err(broke_down)?.reset.unwrap_or_else(|| Error::failed("the watcher ended"));
                    self.left(&watching, &error.to_string());
                    // What has come may be nowhere else any more.
                    end.cancel();
                    clock::with_timeout(DRAIN_LIMIT, shipping).await;
                    return Err(self.noted(error));
                }
                () = lost.cancelled(), if !watching.is_cancelled() => {
                    self.left(&watching, "the connection to the server was lost");
                }
                error = self.keeper.failed() => return Err(error),
            }
        };
        watching.cancel();
        let watch = watcher.await.map_err(broke_down);
        let turn = match guarding {
            Some(guarding) => guarding.await.map_err(|panic| Error::failed("the guard broke down").source(panic))?,
            None => None,
        };
        shipped.map_err(|error| self.noted(error))?;
        if let Some(turn) = turn.filter(|_| !self.stop.is_cancelled()) {
            self.turn(turn);
            return Ok(Some(Ended::Turned));
        }
        let give_up = self.options.store.retry.elapsed_max_ms.map(Duration::from_millis);
        let drained = self.keeper.drained(give_up.filter(|_| self.options.once)).await;
        watch?.last_word().await;
        drained?;
        Ok(Some(Ended::Through))
    }

    /// The server sends no more, or is not to. What has come is still on its way; that the server is released, and that
    /// nobody believes in protection any more, is not to wait for it.
    fn left(&self, watching: &CancellationToken, reason: &str) {
        watching.cancel();
        self.sight.stopped(None);
        self.unprotected(reason);
    }

    fn manner(&self) -> std::sync::MutexGuard<'_, Manner> {
        self.manner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self, turn: Turn) {
        let mut manner = self.manner();
        manner.join = turn == Turn::Join;
        manner.joined = manner.join.then(clock::monotonic);
        if let Turn::Leave(protected_for) = turn {
            manner.hold = next_hold(manner.hold, protected_for, self.options.semi_sync.return_after);
        }
    }

    /// Notes that the history does not go on: the next generation begins behind the break, unless this one was begun so and
    /// came to nothing.
    fn noted(&self, error: Error) -> Error {
        let chunks = self.progress.snapshot().chunks;
        let mut manner = self.manner();
        if matches!(error.kind(), Kind::Purged | Kind::Diverged) && manner.begun_behind_a_break != Some(chunks) {
            tracing::warn!(error = %error.chain(), "the server's binlogs do not go on where the archive ends");
            manner.broken = Some((error.kind(), error.to_string()));
        }
        error
    }

    /// Says and keeps what broke, before anything is archived behind it.
    async fn record(&self, archive: &Archive, gap: &GapRecord) -> Result<()> {
        let news = archive.put_gap(gap).await?;
        let (ends, at, problem) = (&gap.ends, &gap.goes_on_at, &gap.problem);
        if !gap.is_loss() {
            tracing::warn!(%ends, goes_on_at = %at, "archiving begins anew, and nothing is missing: {problem}");
            return Ok(());
        }
        // A server that is meant to take another's place is no surprise.
        if !self.options.agent.adopt {
            self.sight.seen().gap(&gap.problem);
        }
        if news {
            let set = |set: &Option<GtidSet>| set.as_ref().map_or_else(|| "unknown".to_owned(), GtidSet::shown);
            tracing::error!(
                kind = gap.kind.as_str(), %ends, goes_on_at = %at, server = %gap.goes_on_with, missing = set(&gap.missing),
                lost = set(&gap.lost), "A GAP in the history: {problem}. It is recorded, and archiving goes on behind it"
            );
        }
        self.gap_found.notify_one();
        self.sight.archive_changed.notify_one();
        Ok(())
    }

    /// A generation ended in trouble: commits no longer wait for us, and the next one has to catch up first.
    fn interrupted(&self, error: &Error) {
        if self.ledger.is_none() {
            return;
        }
        let mut manner = self.manner();
        if let Some(joined) = manner.joined.take() {
            manner.join = false;
            // A single interruption is no reason to stay away; one after the other is.
            let (lasted, away) = (joined.elapsed(), self.options.semi_sync.return_after);
            manner.hold = if soon(lasted, away) { next_hold(manner.hold, lasted, away) } else { Duration::ZERO };
        }
        drop(manner);
        self.unprotected(&error.to_string());
    }

    fn unprotected(&self, reason: &str) {
        if self.ledger.as_ref().is_some_and(|ledger| ledger.unprotected(reason)) {
            tracing::warn!(reason, "commits are NOT protected any more: archiving was interrupted");
        }
    }
}
