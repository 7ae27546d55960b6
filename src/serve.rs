//! `serve`: the archive as a replication source, for as long as it grows.
//!
//! Owns: following the archive (`follow`) and the life of the command.
//! Does not own: the protocol (`mysql::source`), dumps (`playback`).
//!
//! Invariants: read-only; what is served is one head's history without a gap, and it only grows; a gap that appears later
//! is never stepped over, it is told again and again until it is filled.

mod follow;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::follow::Follower;
use crate::archive::{Archive, ReadOptions};
use crate::clock;
use crate::error::Result;
use crate::mysql::source::{Account, Security};
use crate::playback::{Feed, Host, HostOptions, server_id_of};
use crate::timeline::{Edge, Head, Target, route};

/// Namespace of the uuids that replicas see.
const NAMESPACE: Uuid = Uuid::from_u128(0x1c5f_0a4e_7f0b_4d0b_9a4c_6f2e_33d1_94b8);
/// The longest pause between two tries while the store fails.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// How to serve.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// The archive.
    pub archive: Archive,
    /// How its files are read.
    pub read: ReadOptions,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Who is let in.
    pub account: Account,
    /// How connections are protected.
    pub security: Security,
    /// Most replicas at a time.
    pub clients_max: usize,
    /// Our server id; `None`: derived from the archive's.
    pub server_id: Option<u32>,
    /// The history to follow, as `--head` names it; `None`: the one that `latest` means.
    pub head: Option<String>,
    /// Pause between looks into the archive.
    pub poll_interval: Duration,
    /// Send transactions only when they were committed so long ago.
    pub delay: Option<Duration>,
    /// Where to stop for good, and on which side of it.
    pub until: Option<(Target, Option<Edge>)>,
}

/// What is being served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serving {
    /// Where it listens.
    pub address: SocketAddr,
    /// The history.
    pub head: Head,
    /// Whether replicas may use SOURCE_AUTO_POSITION = 1.
    pub by_gtid: bool,
    /// The first file, and where it begins.
    pub first: String,
    /// Whether clients can use TLS.
    pub tls: bool,
}

/// Serves until told to stop. `ready` is called once replicas can connect.
///
/// # Errors
/// If there is nothing to serve, or the address cannot be listened on. A store that fails later is asked again.
pub async fn serve(options: ServeOptions, stop: CancellationToken, ready: impl FnOnce(&Serving)) -> Result<()> {
    let ServeOptions { archive, poll_interval, delay, until, head, .. } = options;
    let route = route(&archive, &options.read, head.as_deref(), until).await?;
    let head = route.head.clone();
    let mut follower = Follower::begin(archive.clone(), route)?;
    let feed = |follower: &Follower| Arc::new(Feed { delay, ..follower.feed() });
    let (sender, receiver) = watch::channel(feed(&follower));
    let server_uuid = Uuid::new_v5(&NAMESPACE, archive.id().as_bytes());
    let host = HostOptions {
        archive,
        read: options.read,
        listen: options.listen,
        account: options.account,
        security: options.security,
        server_id: options.server_id.unwrap_or_else(|| server_id_of(&server_uuid)),
        server_uuid,
        clients_max: options.clients_max,
    };
    let tls = host.security.tls.is_some();
    let host = Host::start(host, receiver).await?;
    let feed_now = follower.feed();
    let first = feed_now.playlist.files.first().map(|file| file.chunks.incarnation.file.to_string());
    ready(&Serving { address: host.address(), head, by_gtid: feed_now.by_gtid, first: first.unwrap_or_default(), tls });
    let mut pause = poll_interval;
    while !stopped_within(&stop, pause).await {
        match follower.look().await {
            Ok(grown) => {
                pause = poll_interval;
                if grown {
                    sender.send_replace(feed(&follower));
                }
            }
            Err(error) => {
                pause = pause.saturating_mul(2).clamp(poll_interval, PAUSE_MAX.max(poll_interval));
                tracing::warn!(error = %error.chain(), "the archive cannot be read; replicas wait");
            }
        }
    }
    host.stop().await;
    Ok(())
}

async fn stopped_within(stop: &CancellationToken, pause: Duration) -> bool {
    tokio::select! {
        () = stop.cancelled() => true,
        () = clock::sleep(pause) => false,
    }
}
