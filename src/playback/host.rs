//! Listening for replicas.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::Snapshot;
use super::feed::{Feed, PlayFile};
use super::sender::Sender;
use super::shared::Shared;
use crate::archive::{Archive, ReadOptions};
use crate::clock;
use crate::error::{Context, Error, Result};
use crate::mysql::source::{Account, Conversation, Refusal, Security};

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

/// Who is let in, and how.
struct Door {
    account: Account,
    security: Security,
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
    /// [`Kind::Config`](crate::error::Kind::Config) if the address cannot be listened on.
    pub async fn start(options: HostOptions, feed: watch::Receiver<Arc<Feed>>) -> Result<Self> {
        let HostOptions { archive, read, listen, account, security, server_id, server_uuid, clients_max } = options;
        let bound = TcpListener::bind(listen).await.and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (address, listener) = bound.map_err(|error| {
            Error::config(format!("listen on {listen}"))
                .source(error)
                .hint("choose a free port and an address of this host")
        })?;
        let shared = Shared::new((archive, read), (server_id, server_uuid), feed);
        let cancel = CancellationToken::new();
        let door = Arc::new(Door { account, security });
        let work = accept(listener, Arc::clone(&shared), door, cancel.clone(), clients_max);
        let work = Some(AbortOnDropHandle::new(tokio::spawn(work)));
        Ok(Self { address, shared, cancel, work })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How far the dump that moved last has come.
    pub fn progress(&self) -> Snapshot {
        self.shared.progress()
    }

    /// Why a client could not be served, last; none since it was.
    pub fn failure(&self) -> Option<Error> {
        self.shared.failure()
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

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    door: Arc<Door>,
    cancel: CancellationToken,
    clients_max: usize,
) {
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
                            let shared = Arc::clone(&shared);
                            let door = Arc::clone(&door);
                            clients.spawn(async move {
                                client(&shared, &door, tcp, peer, number).await;
                                drop(permit);
                            });
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
async fn client(shared: &Arc<Shared>, door: &Door, tcp: TcpStream, peer: SocketAddr, number: u32) {
    let face = shared.face();
    match Conversation::accept(tcp, peer, number, &face, &door.account, &door.security).await {
        Ok(conversation) => {
            if let Err(error) = Box::pin(converse(shared, conversation, peer, number)).await {
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
        let replica = conversation.replica().clone();
        let token = shared.begins(replica.uuid, number);
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
        shared.ended(number);
        return Ok(());
    }
}
