//! Playback: the archive as a replication source. Archived events go out, byte for byte, to whoever replicates.
//!
//! Owns: what is sent to whom ([`Playlist`], [`Feed`]), where a dump begins and where it stops, listening ([`Host`]), and
//! the private playback for one restoring server ([`Playback`]).
//! Does not own: the protocol (`mysql::source`), what belongs into a playlist (that is decided above).
//!
//! Invariants: a transaction is sent whole or not at all, and never rewritten; nothing is sent beyond the playlist; what
//! the replica has by GTID is not sent again; when reading fails, everything before that place was sent and the replica
//! is told why; memory is bounded by a few blocks for each client, whatever the size of a transaction.

mod feed;
mod host;
mod passage;
mod sender;
mod shared;

use std::net::SocketAddr;
use std::sync::Arc;

use secrecy::SecretString;
use tokio::sync::watch;
use uuid::Uuid;

use crate::archive::{Archive, ReadOptions};
use crate::error::{Error, Result};
use crate::mysql::source::{Account, Security};
use crate::position::{CommitTime, GtidSet, Position};

pub use feed::{Feed, PlayFile, Playlist};
pub use host::{Host, HostOptions};

/// A restoring server connects once; a few more are half-dead former connections of its.
const CLIENTS_MAX: usize = 8;

/// What to play.
#[derive(Debug, Clone)]
pub struct PlaybackOptions {
    /// The archive.
    pub archive: Archive,
    /// How its files are read.
    pub read: ReadOptions,
    /// What to send.
    pub playlist: Playlist,
    /// Where to listen; port 0 for any. Not encrypted: keep it on 127.0.0.1.
    pub listen: SocketAddr,
    /// The version of the server whose events these are.
    pub server_version: String,
    /// The replica positions itself by GTID (SOURCE_AUTO_POSITION = 1), else by file and position.
    pub by_gtid: bool,
    /// Transactions to leave out.
    pub skip: GtidSet,
}

/// How far a playback has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Bytes of the playlist that were sent or, since the replica has them, passed over.
    pub bytes_sent: u64,
    /// Bytes of the playlist.
    pub bytes_total: u64,
    /// Transactions sent, over all connections.
    pub transactions: u64,
    /// Where the stream stands.
    pub position: Option<Position>,
    /// The latest commit time sent.
    pub commit: CommitTime,
}

impl Snapshot {
    fn at_start(feed: &Feed) -> Self {
        Self { bytes_total: feed.bytes(), ..Self::default() }
    }
}

/// A playlist, played for one server under a one-time account.
pub struct Playback {
    host: Host,
    account: Account,
    source_uuid: Uuid,
    /// Ends waiting dumps when it goes.
    _feed: watch::Sender<Arc<Feed>>,
}

impl Playback {
    /// Begins to listen. The playlist's end is held: the connection stays, with heartbeats.
    ///
    /// # Errors
    /// [`crate::error::Kind::Config`] if the address cannot be listened on, or if two files have one name where only
    /// names tell them apart.
    pub async fn start(options: PlaybackOptions) -> Result<Self> {
        let PlaybackOptions { archive, read, playlist, listen, server_version, by_gtid, skip } = options;
        if !by_gtid {
            unambiguous(&playlist)?;
        }
        let source_uuid = Uuid::new_v4();
        let secret = Uuid::new_v4().simple().to_string();
        // A replica takes names and passwords of at most 32 characters.
        let user = format!("binvault-{}", source_uuid.simple()).chars().take(24).collect();
        let account = Account { user, password: SecretString::from(secret) };
        let feed = Feed { playlist, skip, delay: None, before: None, by_gtid, server_version };
        let (sender, feed) = watch::channel(Arc::new(feed));
        let host = HostOptions {
            archive,
            read,
            listen,
            account: account.clone(),
            security: Security::default(),
            server_id: server_id_of(&source_uuid),
            server_uuid: source_uuid,
            clients_max: CLIENTS_MAX,
        };
        Ok(Self { host: Host::start(host, feed).await?, account, source_uuid, _feed: sender })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.host.address()
    }

    /// The account's name.
    pub fn user(&self) -> &str {
        &self.account.user
    }

    /// The account's password.
    pub fn password(&self) -> &SecretString {
        &self.account.password
    }

    /// The `server_uuid` that the replica sees.
    pub fn source_uuid(&self) -> Uuid {
        self.source_uuid
    }

    /// How far it has come.
    pub fn progress(&self) -> Snapshot {
        self.host.progress()
    }

    /// Why the replica could not be sent what it should; `None` again when it begins anew.
    pub fn failure(&self) -> Option<Error> {
        self.host.failure()
    }

    /// Ends the connection and stops listening.
    pub async fn stop(self) {
        self.host.stop().await;
    }
}

/// A server id from a uuid, in the upper half of the numbers, where people rarely choose theirs.
pub fn server_id_of(uuid: &Uuid) -> u32 {
    let [a, b, c, d, ..] = *uuid.as_bytes();
    u32::from_be_bytes([a, b, c, d]) | 0x8000_0000
}

/// Without GTIDs a replica asks by file name alone.
fn unambiguous(playlist: &Playlist) -> Result<()> {
    let mut names: Vec<&str> = playlist.files.iter().map(PlayFile::name).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| matches!(pair, [a, b] if a == b)) {
        Some([name, ..]) => Err(Error::config(format!("the playlist has two files of the name {name}"))
            .hint("without GTIDs a replica cannot tell them apart: replay them one after the other")),
        _ => Ok(()),
    }
}
