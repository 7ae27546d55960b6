//! Store → MySQL: a base backup is put back, the binlog is replayed by the server's own applier, and the result is proven.
//!
//! ```text
//!   plan ─► check ─► prepare ─► load ─► replay ─► prove ─► leave
//!           fit?     a data     base    we are    executed  replication reset,
//!           room?    directory  backup  the       = plan's? account dropped,
//!           empty?   or server          source              stopped or running
//! ```
//!
//! Owns: the restoring server from its first start to its last word, the marker that lets an interrupted restore go on,
//! the proof.
//! Does not own: what is to be restored (`timeline`), how the archive's events reach the server (`playback`).
//!
//! Invariants: nothing is written before every check has passed; what is not ours is never removed or overwritten; the
//! restoring server is reachable by its private socket only; a restore has either been proven or it failed; told to
//! stop, or killed, it can be run again and goes on.

mod clone;
mod datadir;
mod examine;
mod fit;
mod folder;
mod load;
mod marker;
mod mysqld;
mod prove;
mod replay;
mod server;
mod site;
mod words;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::archive::{Archive, ReadOptions};
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::position::{CommitTime, GtidSet, Position};
use crate::timeline::Plan;
use datadir::DatadirSite;
use server::ServerSite;
use site::Site;

pub(crate) use clone::follow_stream;
pub use datadir::DatadirOptions;
pub use examine::{Assertion, AssertionResult, Examine, Examined};
pub use fit::{Needs, needs};
pub use load::LoadOptions;
pub use server::ServerOptions;

/// Where to restore to.
#[derive(Debug, Clone)]
pub enum Into {
    /// A new data directory, with a private mysqld to fill it.
    Datadir(DatadirOptions),
    /// A running server without data.
    Server(ServerOptions),
}

/// What a restore needs.
#[derive(Clone)]
pub struct RestoreOptions {
    /// The archive.
    pub archive: Archive,
    /// What to restore.
    pub plan: Plan,
    /// How to read chunks.
    pub read: ReadOptions,
    /// How to put back the base backup.
    pub load: LoadOptions,
    /// Where to.
    pub into: Into,
    /// What to look at when it is proven.
    pub examine: Examine,
    /// Told about each step.
    pub on_step: OnStep,
    /// The order to stop: what was done stays, and the next run goes on.
    pub stop: CancellationToken,
}

/// Where a restore is.
#[derive(Debug, Clone)]
pub enum Step {
    /// The server is being made ready.
    Prepare(&'static str),
    /// The base backup is being put back.
    Load {
        /// Bytes of it that were handed to the server.
        bytes: u64,
        /// All of them.
        total: u64,
    },
    /// The binlog is being replayed.
    Replay {
        /// Raw bytes sent.
        bytes: u64,
        /// Raw bytes to send.
        total: u64,
        /// Transactions executed on top of the base, where GTIDs tell.
        transactions: Option<u64>,
        /// Where sending is.
        position: Option<Position>,
        /// Up to when: the commit time of the last transaction sent.
        reached: CommitTime,
    },
    /// What was executed is held against the plan.
    Prove,
}

/// Told about each step.
pub type OnStep = Arc<dyn Fn(&Step) + Send + Sync>;

/// A restore that was proven.
#[derive(Debug, Clone, Serialize)]
pub struct Restored {
    /// The base backup.
    pub base: String,
    /// The target.
    pub target: String,
    /// Where the head's history ends in it.
    pub position: Position,
    /// Commit time of the last transaction in it, RFC 3339.
    pub reached: Option<String>,
    /// What the server has executed; equal to what was planned.
    pub executed: GtidSet,
    /// Whether the executed set was the proof; else the position was.
    pub by_gtid: bool,
    /// Transactions replayed.
    pub transactions: u64,
    /// Whether an interrupted restore was gone on with.
    pub continued: bool,
    /// Seconds for making ready and loading the base.
    pub load_seconds: f64,
    /// Seconds of replay.
    pub replay_seconds: f64,
    /// Seconds in all.
    pub seconds: f64,
    /// What was looked at behind the proof.
    pub examined: Examined,
    /// Version of the server that was restored into.
    pub server_version: String,
    /// The data directory, if there is one.
    pub datadir: Option<PathBuf>,
    /// The socket of the server, if it was left running.
    pub socket: Option<PathBuf>,
    /// What to do next, for people.
    pub next: Vec<String>,
}

/// Runs a restore to its proof.
///
/// # Errors
/// [`Kind::Config`] if the place is not fit (not empty, too little room), [`Kind::Unfit`] if the server is not,
/// [`Kind::Corrupt`] and its kin naming what could not be read; [`Kind::Failed`] if the proof does not hold.
pub async fn restore(options: &RestoreOptions) -> Result<Restored> {
    let since = clock::monotonic();
    let mut site = open(options).await?;
    let continued = site.is_loaded();
    match run(options, site.as_mut()).await {
        Ok(Ran { load_seconds, replay_seconds, examined }) => {
            let server_version = site.connection()?.server_version().to_string();
            let left = site.leave().await?;
            let plan = &options.plan;
            Ok(Restored {
                base: plan.base.id.clone(),
                target: plan.target.clone(),
                position: plan.place.position.clone(),
                reached: plan.reached().map(CommitTime::rfc3339),
                executed: left.executed,
                by_gtid: plan.by_gtid,
                transactions: plan.transactions,
                continued,
                load_seconds,
                replay_seconds,
                seconds: clock::monotonic().duration_since(since).as_secs_f64(),
                examined,
                server_version,
                datadir: left.datadir,
                socket: left.socket,
                next: left.next,
            })
        }
        Err(error) => {
            let note = site.abandon().await;
            Err(if error.hint_text().is_some() { error } else { error.hint(note) })
        }
    }
}

/// Checks the place and makes it ready.
async fn open(options: &RestoreOptions) -> Result<Box<dyn Site>> {
    Ok(match &options.into {
        Into::Datadir(datadir) => Box::new(DatadirSite::open(options, datadir).await?),
        Into::Server(server) => Box::new(ServerSite::open(options, server).await?),
    })
}

/// What a run did.
struct Ran {
    load_seconds: f64,
    replay_seconds: f64,
    examined: Examined,
}

/// Everything between the first start of the server and the proof, and the look behind it.
async fn run(options: &RestoreOptions, site: &mut dyn Site) -> Result<Ran> {
    let since = clock::monotonic();
    if !site.is_loaded() {
        load::load(options, site).await?;
    }
    let loaded = clock::monotonic();
    replay::replay(options, site).await?;
    let replayed = clock::monotonic();
    (options.on_step)(&Step::Prove);
    prove::prove(&options.plan, site).await?;
    let examined = examine::examine(&options.examine, site).await?;
    let seconds = |from: clock::Instant, to: clock::Instant| to.duration_since(from).as_secs_f64();
    Ok(Ran { load_seconds: seconds(since, loaded), replay_seconds: seconds(loaded, replayed), examined })
}

/// The error of being told to stop.
fn stopped() -> Error {
    Error::new(Kind::Failed, "told to stop before the restore was through")
        .hint("run the same command again: it goes on where it was")
}

/// How often the server is asked how far it is.
const POLL: Duration = Duration::from_millis(200);
