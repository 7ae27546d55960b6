//! The engine on MySQL's own CLONE protocol: a physical copy of everything in InnoDB, over an ordinary connection.
//!
//! How it is exact: the snapshot holds its binlog position in itself (`mysql::clone::trx_sys`); what is found must lie
//! between the ends of the binlog before and behind the snapshot (`place`), and is then held against the binlog as every
//! position is (`prove`).
//!
//! How it harms nobody: no lock and no stop of DDL on 8.0.27 and later; bytes are taken no faster than configured; while
//! pages are copied, when the donor archives its redo, nothing is throttled and nothing waits for the store (`pipe`).
//!
//! What is stored are the donor's answers as they came (`mysql::clone::record`): no byte is interpreted that must not be,
//! and `restore` makes the files.

mod donor;
mod link;
mod pipe;
mod place;
mod receive;
mod refuse;
mod spool;
mod throttle;
mod watch;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use self::donor::{account, allows_ddl, named, other_engines, speaks};
use self::pipe::{BLOCK_BYTES, Reader, pipe};
use self::place::Standing;
use self::receive::{Outcome, Receiver, Wish};
use self::spool::Spool;
use super::engine::{Ending, Engine, Running, Site, Trouble};
use super::options::DdlRule;
use super::prove::{Proven, prove};
use super::server::PROGRAM;
use crate::archive::{BaseContent, CloneFacts};
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::mysql::clone::packet::DDL_ALLOWED;
use crate::mysql::{Connection, SourceOptions};
use crate::position::Position;

pub use self::donor::{CloneObstacle, clone_obstacles};

/// How long the donor's end of a clone that was given up is waited for.
const CLEAN_UP_LIMIT: Duration = Duration::from_secs(45);

/// In the DDL word, with DDL allowed: how long the donor's clone and DDL wait for each other, seconds.
const DDL_PATIENCE_S: u32 = 300;

/// What a data directory made of the clone must agree with, beside what every backup keeps.
const SETTINGS: &[&str] = &[
    "innodb_data_file_path",
    "innodb_data_home_dir",
    "innodb_directories",
    "innodb_undo_directory",
    "innodb_undo_tablespaces",
    "innodb_log_group_home_dir",
    "innodb_page_size",
    "innodb_checksum_algorithm",
    "innodb_redo_log_encrypt",
    "innodb_undo_log_encrypt",
    "version_compile_machine",
    "version_compile_os",
];

/// What is no part of InnoDB, and so of no clone.
const LEFT_OUT: &[&str] = &["my.cnf", "mysqld-auto.cnf", "auto.cnf", "keyring", "TLS files", "binlogs"];

/// The engine.
#[derive(Debug, Default)]
pub(super) struct CloneEngine {
    tasks: TaskTracker,
    stop: CancellationToken,
}

#[async_trait]
impl Engine for CloneEngine {
    fn content(&self) -> BaseContent {
        BaseContent::Clone
    }

    async fn tool(&self) -> Result<String, Error> {
        Ok("MySQL CLONE protocol".to_owned())
    }

    async fn left_out(&self, asked: &mut Connection) -> Result<Vec<String>> {
        let mut all: Vec<String> = LEFT_OUT.iter().map(|&name| name.to_owned()).collect();
        let engines = other_engines(asked).await?;
        if !engines.is_empty() {
            all.push(format!("rows of {}", named(&engines)));
        }
        Ok(all)
    }

    fn settings(&self) -> &'static [&'static str] {
        SETTINGS
    }

    /// Files can be such that nothing shrinks them.
    fn uploads_max(&self) -> usize {
        3
    }

    async fn start(&self, site: &Site<'_>) -> Result<Box<dyn Running>, Trouble> {
        if !speaks(&site.facts.version) {
            let message = format!("MySQL clones itself from 8.0.17 on, the server is {}", site.facts.version);
            return Err(Error::new(Kind::Unfit, message).hint("set base.engine = \"mysqldump\"").into());
        }
        let options = site.options;
        let spool = match options.spool_max {
            0 => None,
            bytes => Some(Spool::create(&options.spool_dir, BLOCK_BYTES, bytes)?),
        };
        let (writer, reader) = pipe(spool);
        let mut asked = Connection::connect(site.source, PROGRAM).await?;
        let wish = Wish {
            source: site.source.clone(),
            account: account(&mut asked).await?,
            ddl: ddl_word(site),
            lock_wait: options.lock_wait,
            max_rate: options.max_rate,
        };
        drop(asked);
        let receiver = Receiver::begin(wish, writer).await?;
        let stop = self.stop.child_token();
        let task = self.tasks.spawn(receiver.run(stop.clone()));
        Ok(Box::new(Backup { reader, task: Some(task), outcome: None, _stop: stop.drop_guard() }))
    }

    /// Waits until the donor has been told, if the backup was given up.
    async fn clean_up(&self, _source: &SourceOptions) {
        self.stop.cancel();
        self.tasks.close();
        if clock::with_timeout(CLEAN_UP_LIMIT, self.tasks.wait()).await.is_none() {
            tracing::warn!("the server does not answer: it frees the clone by itself, within minutes");
        }
    }
}

/// Follows a donor's messages, up to the end or to what does not fit: the door of `fuzzing`.
pub(crate) fn follow_donor(messages: impl Iterator<Item = Bytes>) {
    let mut watch = watch::Watch::new(true);
    for message in messages {
        if watch.take(&message).is_err() {
            return;
        }
    }
    drop(watch.finish());
}

/// Whether the donor leaves DDL alone, or for how long it may wait for the lock that holds DDL back.
fn ddl_word(site: &Site<'_>) -> u32 {
    if allows_ddl(&site.facts.version) && site.options.ddl == DdlRule::Watch {
        // With a time of 0 any DDL would end the clone; this is the server's own default.
        return DDL_ALLOWED | DDL_PATIENCE_S;
    }
    u32::try_from(site.options.lock_wait.as_secs()).unwrap_or(u32::MAX).clamp(1, DDL_ALLOWED - 1)
}

/// A backup on its way. Dropped, it has the donor give up.
struct Backup {
    reader: Reader,
    task: Option<tokio::task::JoinHandle<Result<Outcome, Trouble>>>,
    outcome: Option<Outcome>,
    _stop: DropGuard,
}

#[async_trait]
impl Running for Backup {
    async fn read(&mut self, room: &mut [u8]) -> Result<usize, Trouble> {
        let got = self.reader.read(room).await?;
        if got == 0
            && let Some(task) = self.task.as_mut()
        {
            let outcome = task.await;
            self.task = None;
            self.outcome =
                Some(outcome.map_err(|panic| Error::failed("the clone's receiver broke down").source(panic))??);
        }
        Ok(got)
    }

    async fn finish(&mut self, site: &Site<'_>) -> Result<Ending, Trouble> {
        let Some(outcome) = self.outcome.take() else { return Err(Error::failed("the clone has no end").into()) };
        let standing = Standing::of(&outcome.notes, &outcome.from, &outcome.until)?;
        tracing::debug!(from = %outcome.from, until = %outcome.until, ?standing, "the clone's place");
        let Standing { position, since, told } = standing;
        let mut asked = Connection::connect(site.source, PROGRAM).await?;
        let Proven { coordinates, unrecorded, follower } = prove(site, &mut asked, &position, Some(&since)).await?;
        if !told && !coordinates.by_gtid() {
            return Err(in_flight(&position));
        }
        let undecided = follower.undecided(&outcome.until).await?;
        tracing::info!(
            %position, files = outcome.facts.files, disk_bytes = outcome.facts.disk_bytes,
            spooled_bytes = outcome.spooled_bytes, "the clone is complete"
        );
        Ok(Ending { coordinates, clone: Some(CloneFacts { unrecorded, undecided, ..outcome.facts }) })
    }
}

/// Without GTIDs nobody could tell afterwards which transactions are in it.
fn in_flight(position: &Position) -> Trouble {
    let what = format!("transactions before {position} were on their way while the clone's place was noted");
    Trouble::busy(Error::failed(what).hint(
        "the clone begins again; with gtid_mode = ON the transactions themselves tell, or choose another engine (base.engine)",
    ))
}
