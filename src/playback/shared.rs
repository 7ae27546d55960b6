//! What the dumps of one host share: the archive, the feed, and what they have come to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Snapshot;
use super::feed::{Feed, PlayFile};
use super::passage::Passage;
use crate::archive::{Archive, ReadOptions};
use crate::error::{Error, Kind};
use crate::mysql::source::Face;
use crate::position::{Incarnation, Position, ServerUuid};

/// What every dump needs.
pub(super) struct Shared {
    pub(super) archive: Archive,
    pub(super) read: ReadOptions,
    pub(super) feed: watch::Receiver<Arc<Feed>>,
    pub(super) server_id: u32,
    server_uuid: Uuid,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    progress: Snapshot,
    failure: Option<Failure>,
    broken: Option<Broken>,
    /// The running dump of each replica that has told its uuid.
    dumps: HashMap<Uuid, (u32, CancellationToken)>,
}

/// An error that can be told more than once.
#[derive(Debug, Clone)]
struct Failure {
    kind: Kind,
    retryable: bool,
    text: String,
    hint: Option<String>,
}

/// An event that could not be read to its end, while its beginning was with the client already: only the next dump can
/// tell, before it begins the event.
struct Broken {
    server: ServerUuid,
    incarnation: Incarnation,
    at: u64,
    failure: Failure,
}

impl Failure {
    fn of(error: &Error) -> Self {
        let hint = error.hint_text().map(str::to_owned);
        Self { kind: error.kind(), retryable: error.is_retryable(), text: error.chain(), hint }
    }

    fn error(&self) -> Error {
        let error = Error::new(self.kind, self.text.clone());
        let error = if self.retryable { error.transient() } else { error.definite() };
        match &self.hint {
            Some(hint) => error.hint(hint.clone()),
            None => error,
        }
    }
}

impl Shared {
    pub(super) fn new(
        (archive, read): (Archive, ReadOptions),
        (server_id, server_uuid): (u32, Uuid),
        feed: watch::Receiver<Arc<Feed>>,
    ) -> Arc<Self> {
        let state = State { progress: Snapshot::at_start(&feed.borrow()), ..State::default() };
        Arc::new(Self { archive, read, feed, server_id, server_uuid, state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No invariant spans two fields: a panic elsewhere cannot leave it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far the dump that moved last has come.
    pub(super) fn progress(&self) -> Snapshot {
        self.lock().progress.clone()
    }

    /// Why a client could not be served, last; none since it was.
    pub(super) fn failure(&self) -> Option<Error> {
        self.lock().failure.as_ref().map(Failure::error)
    }

    pub(super) fn failed(&self, error: &Error) {
        tracing::error!(error = %error.chain(), "a replica cannot be served");
        self.lock().failure = Some(Failure::of(error));
    }

    /// Where the file has an event that could not be read last time, and why.
    pub(super) fn broken_event(&self, file: &PlayFile) -> Option<(u64, Error)> {
        let state = self.lock();
        let broken = state.broken.as_ref()?;
        let same = broken.server == file.chunks.server && broken.incarnation == file.chunks.incarnation;
        same.then(|| (broken.at, broken.failure.error()))
    }

    pub(super) fn remember_broken(&self, file: &PlayFile, at: u64, error: &Error) {
        let (server, incarnation) = (file.chunks.server, file.chunks.incarnation.clone());
        self.lock().broken = Some(Broken { server, incarnation, at, failure: Failure::of(error) });
    }

    /// It was told: the next dump tries again.
    pub(super) fn forget_broken(&self) {
        self.lock().broken = None;
    }

    /// Notes how far a dump has come.
    pub(super) fn progressed(&self, feed: &Feed, index: usize, passage: &mut Passage) {
        let Some(file) = feed.playlist.files.get(index) else { return };
        let (transactions, commit) = passage.take_counts();
        let done = passage.at().min(file.until).saturating_sub(file.from);
        let mut state = self.lock();
        let progress = &mut state.progress;
        progress.bytes_sent = feed.bytes_before(index).saturating_add(done);
        progress.bytes_total = feed.bytes();
        progress.transactions = progress.transactions.saturating_add(transactions);
        progress.commit = progress.commit.max(commit);
        let position = Position { file: file.chunks.incarnation.file.clone(), offset: passage.at() };
        progress.position = Some(position);
    }

    /// A dump begins. A replica has one: an older one of the same uuid is a connection that nobody has noticed to be dead.
    pub(super) fn begins(&self, uuid: Option<Uuid>, number: u32) -> CancellationToken {
        let token = CancellationToken::new();
        let mut state = self.lock();
        state.failure = None;
        if let Some(uuid) = uuid
            && let Some((_, older)) = state.dumps.insert(uuid, (number, token.clone()))
        {
            older.cancel();
        }
        token
    }

    /// A dump has ended.
    pub(super) fn ended(&self, number: u32) {
        self.lock().dumps.retain(|_, (of, _)| *of != number);
    }

    pub(super) fn face(&self) -> Face {
        let feed = self.feed.borrow();
        Face {
            server_version: feed.server_version.clone(),
            server_id: self.server_id,
            server_uuid: self.server_uuid,
            gtid_mode: feed.by_gtid,
        }
    }
}
