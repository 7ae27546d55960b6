//! Listening for replicas, and what their dumps share.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::Snapshot;
use super::feed::{Feed, PlayFile};
use super::passage::Passage;
use super::sender::Sender;
use crate::archive::{Archive, ReadOptions};
use crate::clock;
use crate::error::{Context, Error, Kind, Result};
use crate::mysql::source::{Account, Conversation, Face, Refusal, Security};
use crate::position::{Incarnation, Position, ServerUuid};

/// Pause after a connection could not be taken (too many open files, say).
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(500);

/// How to listen.
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// The archive.
    pub archive: Archive,
    /// How its files are read.
    pub read: ReadOptions,
    /// Where to listen; port 0 for any.
    pub listen: SocketAddr,
    /// Who is let in.
    pub account: Account,
    /// How connections are protected.
    pub security: Security,
    /// Our server id: no replica's, and no archived server's.
    pub server_id: u32,
    /// Our server uuid: no replica's.
    pub server_uuid: Uuid,
    /// Most clients at a time.
    pub clients_max: usize,
}

/// What every dump needs.
pub(super) struct Shared {
    pub(super) archive: Archive,
    pub(super) read: ReadOptions,
    pub(super) feed: watch::Receiver<Arc<Feed>>,
    pub(super) server_id: u32,
    server_uuid: Uuid,
    account: Account,
    security: Security,
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
    fn lock(&self) -> MutexGuard<'_, State> {
        // No invariant spans two fields: a panic elsewhere cannot leave it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, error: &Error) {
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

    fn face(&self) -> Face {
        let feed = self.feed.borrow();
        Face {
            server_version: feed.server_version.clone(),
            server_id: self.server_id,
            server_uuid: self.server_uuid,
            gtid_mode: feed.by_gtid,
        }
    }
}

/// A listener and its clients; all end with it.
pub struct Host {
    address: SocketAddr,
    shared: Arc<Shared>,
    cancel: CancellationToken,
    work: Option<AbortOnDropHandle<()>>,
}

impl Host {
    /// Begins to listen; clients are sent what the feed says.
    ///
    /// # Errors
    /// [`Kind::Config`] if the address cannot be listened on.
    pub async fn start(options: HostOptions, feed: watch::Receiver<Arc<Feed>>) -> Result<Self> {
        let HostOptions { archive, read, listen, account, security, server_id, server_uuid, clients_max } = options;
        let bound = TcpListener::bind(listen).await.and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (address, listener) = bound.map_err(|error| {
            Error::config(format!("listen on {listen}"))
                .source(error)
                .hint("choose a free port and an address of this host")
        })?;
        let state = State { progress: Snapshot::at_start(&feed.borrow()), ..State::default() };
        let state = Mutex::new(state);
        let shared = Arc::new(Shared { archive, read, feed, server_id, server_uuid, account, security, state });
        let cancel = CancellationToken::new();
        let work = accept(listener, Arc::clone(&shared), cancel.clone(), clients_max);
        let work = Some(AbortOnDropHandle::new(tokio::spawn(work)));
        Ok(Self { address, shared, cancel, work })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How far the dump that moved last has come.
    pub fn progress(&self) -> Snapshot {
        self.shared.lock().progress.clone()
    }

    /// Why a client could not be served, last; none since it was.
    pub fn failure(&self) -> Option<Error> {
        self.shared.lock().failure.as_ref().map(Failure::error)
    }

    /// Ends all connections and stops listening.
    pub async fn stop(mut self) {
        self.cancel.cancel();
        if let Some(work) = self.work.take() {
            // Aborted or ended: it is over.
            drop(work.await);
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, cancel: CancellationToken, clients_max: usize) {
    let room = Arc::new(Semaphore::new(clients_max));
    let mut clients = JoinSet::new();
    let mut number = 0_u32;
    loop {
        tokio::select! {
            () = cancel.cancelled() => break,
            Some(ended) = clients.join_next() => {
                if let Err(panic) = ended {
                    tracing::error!(%panic, "a client's task broke down");
                }
            }
            accepted = listener.accept() => match accepted {
                Ok((tcp, peer)) => {
                    number = number.wrapping_add(1);
                    match Arc::clone(&room).try_acquire_owned() {
                        Ok(permit) => {
                            clients.spawn(client(Arc::clone(&shared), tcp, peer, number, permit));
                        }
                        Err(_) => {
                            tracing::warn!(%peer, clients_max, "a client is turned away: there are too many");
                            Conversation::turn_away(tcp, "Too many connections").await;
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be taken");
                    clock::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    clients.shutdown().await;
}

/// One client, from its greeting to its end.
async fn client(shared: Arc<Shared>, tcp: TcpStream, peer: SocketAddr, number: u32, _permit: OwnedSemaphorePermit) {
    let face = shared.face();
    match Conversation::accept(tcp, peer, number, &face, &shared.account, &shared.security).await {
        Ok(conversation) => {
            if let Err(error) = Box::pin(converse(&shared, conversation, peer, number)).await {
                tracing::info!(%peer, why = %error.chain(), "a client's connection has ended");
            }
        }
        Err(error) => tracing::warn!(%peer, why = %error.chain(), "a client is not let in"),
    }
}

async fn converse(shared: &Arc<Shared>, mut conversation: Conversation, peer: SocketAddr, number: u32) -> Result<()> {
    loop {
        let Some(ask) = conversation.next_ask().await? else { return Ok(()) };
        let feed = Arc::clone(&shared.feed.borrow());
        let start = match feed.start(&shared.archive, &ask).await.context(|| "begin a dump".into()) {
            Ok(start) => start,
            Err(error) => {
                shared.failed(&error);
                conversation.refuse_dump(&Refusal::of_dump(error.chain())).await?;
                continue;
            }
        };
        tracing::info!(
            %peer, replica = ask.server_id, by_gtid = ask.gtids.is_some(), position = start.position,
            file = feed.playlist.files.get(start.index).map(PlayFile::name), "a dump begins"
        );
        shared.lock().failure = None;
        let replica = conversation.replica().clone();
        let token = take_over(shared, replica.uuid, number);
        let sender = Sender::new(Arc::clone(shared), conversation.into_dump(), &replica, ask);
        let failed = tokio::select! {
            () = token.cancelled() => {
                tracing::warn!(%peer, "the same replica has connected anew: its former dump ends");
                None
            }
            failed = Box::pin(sender.run(start)) => failed,
        };
        if let Some(error) = failed {
            shared.failed(&error);
        }
        let mut state = shared.lock();
        state.dumps.retain(|_, (of, _)| *of != number);
        return Ok(());
    }
}

/// A replica has one dump: an older one of the same uuid is a connection that nobody has noticed to be dead.
fn take_over(shared: &Shared, uuid: Option<Uuid>, number: u32) -> CancellationToken {
    let token = CancellationToken::new();
    if let Some(uuid) = uuid
        && let Some((_, older)) = shared.lock().dumps.insert(uuid, (number, token.clone()))
    {
        older.cancel();
    }
    token
}
