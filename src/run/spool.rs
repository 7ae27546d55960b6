//! The agent's spool: opened with the archive it belongs to, drained as long as the agent runs.
//!
//! Owns: the drain's task over all generations, what is said of the spool, and which positions are in the store too.
//! Does not own: the spool (`store::spool`).
//!
//! Invariant: what the beacon calls durable is in the store, whatever is in the spool.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::archive::{Archive, SpoolWord, drain_options};
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::position::Position;
use crate::store::spool::{Spool, SpoolOptions, SpoolState};

/// How long an agent that is told to stop goes on draining.
const STOP_DRAIN_LIMIT: Duration = Duration::from_secs(8);
/// Positions whose way to the store is followed one by one.
const MARKS_MAX: usize = 64;

/// Keeps the spool of an agent.
#[derive(Debug)]
pub(super) struct Keeper {
    options: Option<SpoolOptions>,
    uploads: usize,
    open: Mutex<Option<Open>>,
    broken: CancellationToken,
    why: Arc<Mutex<Option<Error>>>,
}

#[derive(Debug)]
struct Open {
    spool: Arc<Spool>,
    _draining: AbortOnDropHandle<()>,
}

impl Keeper {
    pub(super) fn new(options: Option<SpoolOptions>, uploads: usize) -> Self {
        let broken = CancellationToken::new();
        Self { options, uploads, open: Mutex::default(), broken, why: Arc::default() }
    }

    /// The spool, once it is open.
    pub(super) fn spool(&self) -> Option<Arc<Spool>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|open| Arc::clone(&open.spool))
    }

    /// The archive as it is seen through the spool, which is opened, and drained from now on.
    pub(super) async fn through(&self, archive: Archive) -> Result<Archive> {
        let Some(options) = &self.options else { return Ok(archive) };
        if let Some(spool) = self.spool() {
            return Ok(archive.through(spool));
        }
        let spool = Spool::open(options.clone(), &archive.id().to_string()).await?;
        let SpoolState { objects, bytes, .. } = spool.state();
        if objects > 0 {
            tracing::info!(objects, bytes, dir = %spool.dir().display(), "the spool has what an earlier run has left: it goes to the store now");
        }
        let (draining, store, how) =
            (Arc::clone(&spool), Arc::clone(archive.store()), drain_options(self.uploads, true));
        let (why, broken) = (Arc::clone(&self.why), self.broken.clone());
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(error) = draining.drain(&store, how).await {
                let error = Error::from(error).hint(
                    "move that file away and start again: what it held is fetched from the server, if the server still has it",
                );
                *why.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                broken.cancel();
            }
        }));
        let through = archive.through(Arc::clone(&spool));
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(Open { spool, _draining: task });
        Ok(through)
    }

    /// Waits until draining has ended with an error, for ever if it does not.
    pub(super) async fn failed(&self) -> Error {
        self.broken.cancelled().await;
        let why = self.why.lock().unwrap_or_else(PoisonError::into_inner).take();
        why.unwrap_or_else(|| Error::new(Kind::Corrupt, "the spool is not drained any more"))
    }

    /// Waits for what is in the spool to get into the store: with `limit` that long and then it is an error, without for a
    /// while.
    pub(super) async fn drained(&self, limit: Option<Duration>) -> Result<()> {
        let Some(spool) = self.spool() else { return Ok(()) };
        // Nothing comes any more that would cover them.
        spool.release_pieces();
        let wait = async {
            tokio::select! {
                error = self.failed() => Err(error),
                () = spool.drained() => Ok(()),
            }
        };
        if let Some(drained) = clock::with_timeout(limit.unwrap_or(STOP_DRAIN_LIMIT), wait).await {
            return drained;
        }
        let SpoolState { objects, bytes, .. } = spool.state();
        let dir = spool.dir().display();
        if limit.is_some() {
            return Err(Error::new(
                Kind::Store,
                format!("{objects} objects are durable in the spool {dir}, but not in the store"),
            )
            .hint("`binvault drain` sends them when the store takes them again"));
        }
        tracing::warn!(objects, bytes, %dir, "what is in the spool stays there: it goes to the store at the next start, or by `binvault drain`");
        Ok(())
    }

    /// What the spool holds, for the beacon.
    pub(super) fn word(&self) -> Option<SpoolWord> {
        self.spool().map(|spool| SpoolWord { dir: spool.dir().to_owned(), state: spool.state() })
    }
}

/// Follows durable positions behind a spool until they are in the store.
#[derive(Debug)]
pub(super) struct Stored {
    keeper: Arc<Keeper>,
    /// How many objects had come when a position was durable.
    marks: VecDeque<(u64, Position)>,
    stored: Option<Position>,
}

impl Stored {
    pub(super) fn new(keeper: Arc<Keeper>) -> Self {
        Self { keeper, marks: VecDeque::new(), stored: None }
    }

    /// Everything before which is in the store, when everything before `durable` is durable.
    pub(super) fn behind(&mut self, durable: Option<Position>) -> Option<Position> {
        let Some(spool) = self.keeper.spool() else { return durable };
        // Asked behind the position: what it counts is in what has come.
        let (taken, stored) = spool.turns();
        if let Some(position) = durable {
            if self.marks.len() >= MARKS_MAX {
                self.marks.pop_back();
            }
            self.marks.push_back((taken, position));
        }
        while let Some((_, position)) = self.marks.pop_front_if(|(taken, _)| *taken <= stored) {
            self.stored = Some(position);
        }
        self.stored.clone()
    }
}
