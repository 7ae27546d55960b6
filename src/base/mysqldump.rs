//! The engine on the stock `mysqldump`: a logical dump of everything, accounts included.
//!
//! How it is exact: the tool takes its snapshot and asks for the position under one short read lock. The position is
//! then held against the binlog (`follow`), which gives the GTID set by other means; both must agree. What the tool does
//! not notice by itself (definitions that change, XA transactions that are prepared) is looked for in the binlog, or,
//! for definitions, held back.
//!
//! How it harms nobody: the lock is not tried while a statement runs long, and its wait is bounded; rows are read in one
//! transaction, without locks.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use tokio::process::Command;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::access::Access;
use super::dump_text::{Failure, Head, is_closed, judge_failure, parse_head, parse_version};
use super::engine::{Ending, Engine, Running, Site, Trouble};
use super::follow::{Follower, open_xa};
use super::options::{BaseOptions, DdlRule};
use super::prove::{Proven, prove};
use super::server::{self, GRANT_HINT, Held, PROGRAM};
use super::statement::TableName;
use super::tool::{Tool, answer_of, keep_tail};
use crate::archive::{BaseContent, Coordinates};
use crate::clock;
use crate::error::{Context, Error, Kind, Result};
use crate::mysql::{Connection, SourceOptions};
use crate::position::Position;

/// Most bytes in which the coordinates must have come: a GTID set of that size is a server in deep trouble.
const HEAD_BYTES_MAX: usize = 16 << 20;
/// What is kept of the end of the dump, in bytes.
const TAIL_BYTES: usize = 4 << 10;
/// How long `mysqldump --version` may take.
const VERSION_LIMIT: Duration = Duration::from_secs(20);
/// Beyond the two locks that the tool waits for: connecting, and its first questions.
const BEGIN_LIMIT: Duration = Duration::from_secs(120);
/// How long the binlog's last bytes may take to be read behind the dump's end.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(3600);

/// Tables of the server itself that must not come back on another server: who replicates from whom, what was executed
/// here, logs, and what every server brings along.
const LEFT_OUT: &[&str] = &[
    "mysql.gtid_executed",
    "mysql.slave_master_info",
    "mysql.slave_relay_log_info",
    "mysql.slave_worker_info",
    "mysql.replication_asynchronous_connection_failover",
    "mysql.replication_asynchronous_connection_failover_managed",
    "mysql.replication_group_configuration_version",
    "mysql.replication_group_member_actions",
    "mysql.ndb_binlog_index",
    "mysql.innodb_index_stats",
    "mysql.innodb_table_stats",
    "mysql.general_log",
    "mysql.slow_log",
    "mysql.help_category",
    "mysql.help_keyword",
    "mysql.help_relation",
    "mysql.help_topic",
];

/// The engine.
#[derive(Debug)]
pub(super) struct Mysqldump {
    program: PathBuf,
    more: Vec<String>,
}

impl Mysqldump {
    pub(super) fn new(options: &BaseOptions) -> Self {
        Self { program: options.mysqldump.clone(), more: options.mysqldump_options.clone() }
    }

    async fn version_line(&self) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.args(["--no-defaults", "--version"]);
        let said = answer_of(&self.program.display().to_string(), command, VERSION_LIMIT).await?;
        Ok(said.lines().next().unwrap_or_default().trim().to_owned())
    }

    /// The command, for a tool of this version on a server of this GTID mode.
    fn command(&self, version: (u16, u16, u16), access: &Access, site: &Site<'_>) -> Command {
        let wait = site.options.lock_wait.as_secs().max(1);
        // Before 8.0.32 the tool asks for the set only at the end of the dump: too late to be of the snapshot.
        let set = if version >= (8, 0, 32) { "AUTO" } else { "OFF" };
        let data = if version >= (8, 0, 26) { "--source-data=2" } else { "--master-data=2" };
        let mut command = Command::new(&self.program);
        command.arg(format!("--defaults-file={}", access.option_file().display()));
        command.args(["--single-transaction", "--quick", "--routines", "--triggers", "--events", "--hex-blob"]);
        command.args(["--all-databases", "--no-tablespaces", "--default-character-set=utf8mb4"]);
        command.args(["--max-allowed-packet=1G", "--loose-column-statistics=0", data]);
        command.arg(format!("--set-gtid-purged={set}"));
        command.arg(format!("--init-command=SET SESSION lock_wait_timeout={wait}"));
        command.args(LEFT_OUT.iter().map(|table| format!("--ignore-table={table}")));
        command.args(&self.more);
        command
    }
}

#[async_trait]
impl Engine for Mysqldump {
    fn content(&self) -> BaseContent {
        BaseContent::Sql
    }

    async fn tool(&self) -> Result<String, Error> {
        let line = self.version_line().await?;
        parse_version(&line)?;
        Ok(line)
    }

    async fn left_out(&self, _asked: &mut Connection) -> Result<Vec<String>> {
        let schemas = ["information_schema", "performance_schema", "sys"];
        Ok(schemas.iter().chain(LEFT_OUT).map(|&name| name.to_owned()).collect())
    }

    async fn start(&self, site: &Site<'_>) -> Result<Box<dyn Running>, Trouble> {
        let version = parse_version(&self.version_line().await?)?;
        let access = Access::new(site.source)?;
        let mut asked = Connection::connect(site.source, PROGRAM).await?;
        let ddl = match site.options.ddl {
            DdlRule::Lock => Some(server::hold_ddl(site.source, site.options.lock_wait).await?),
            DdlRule::Watch => None,
        };
        server::nobody_is_long(&mut asked, site.options.long_query).await?;
        let fragile = server::without_snapshots(&mut asked).await?;
        let tool = Tool::start("mysqldump", self.command(version, &access, site))?;
        let mut dump = Dump { tool, _access: access, begun: Vec::new(), given: 0, tail: Vec::new(), ddl, state: None };
        let limit = site.options.lock_wait.saturating_mul(2).saturating_add(BEGIN_LIMIT);
        let head = clock::with_timeout(limit, dump.head()).await.unwrap_or_else(|| {
            Err(Error::failed(format!("mysqldump told no coordinates within {} s", limit.as_secs())).into())
        })?;
        let (coordinates, follower) = dump.check(head, &fragile, &mut asked, site).await?;
        let watching = Watching::start(follower, dump.ddl.is_none() || !fragile.is_empty());
        dump.state = Some((coordinates, watching));
        Ok(Box::new(dump))
    }

    async fn clean_up(&self, _source: &SourceOptions) {}
}

/// A dump on its way.
struct Dump {
    tool: Tool,
    /// The tool may read its option file at any time.
    _access: Access,
    /// The beginning, read for the coordinates.
    begun: Vec<u8>,
    /// How much of it was handed on.
    given: usize,
    tail: Vec<u8>,
    ddl: Option<Held>,
    state: Option<(Coordinates, Watching)>,
}

impl Dump {
    /// Reads until the coordinates have come.
    async fn head(&mut self) -> Result<Head, Trouble> {
        let mut piece = vec![0_u8; 64 << 10];
        loop {
            let got = self.tool.read(&mut piece).await?;
            if got == 0 {
                self.ended().await?;
                return Err(Error::failed("mysqldump ended without telling coordinates").into());
            }
            self.begun.extend_from_slice(piece.get(..got).unwrap_or(&[]));
            if let Some(head) = parse_head(&self.begun)? {
                return Ok(head);
            }
            if self.begun.len() > HEAD_BYTES_MAX {
                return Err(Error::corrupt("mysqldump's output has no coordinates at its beginning").into());
            }
        }
    }

    /// Holds the coordinates against the binlog, and looks for XA transactions that were prepared there.
    async fn check(
        &self,
        head: Head,
        fragile: &BTreeSet<TableName>,
        asked: &mut Connection,
        site: &Site<'_>,
    ) -> Result<(Coordinates, Follower), Trouble> {
        let Proven { coordinates, mut follower, .. } = prove(site, asked, &head.position, None).await?;
        follower.guard(fragile.clone());
        if let Some(told) = head.executed.filter(|told| *told != coordinates.executed) {
            return Err(Error::corrupt(format!(
                "mysqldump says that {told} was executed at {}, the binlog says {}",
                head.position, coordinates.executed
            ))
            .into());
        }
        let Some(prepared) = server::prepared_xa(asked).await? else {
            tracing::warn!("the account may not see prepared XA transactions: GRANT XA_RECOVER_ADMIN ON *.* TO it");
            return Ok((coordinates, follower));
        };
        // Whatever was prepared at the position is prepared still, or has ended since: then its end is in the binlog.
        let end = server::end_of_log(asked).await?;
        let spoiler = follower.read_until(&end).await?.map(str::to_owned);
        let open = prepared.iter().find(|xid| !follower.xa_started().contains(*xid)).map(|xid| open_xa(xid));
        match spoiler.or(open) {
            None => Ok((coordinates, follower)),
            Some(why) => Err(spoiled(why)),
        }
    }

    /// The tool has ended: whether well.
    async fn ended(&mut self) -> Result<(), Trouble> {
        let status = self.tool.wait().await?;
        if status.success() {
            return Ok(());
        }
        let failed = |what: &str| Error::failed(format!("{what} ({status}): {}", self.tool.last_words()));
        Err(match judge_failure(&self.tool.said()) {
            Failure::Busy(why) => Trouble::busy(failed(&format!("mysqldump gave up: {why}"))),
            Failure::Refused => Error::new(Kind::Refused, format!("mysqldump is refused: {}", self.tool.last_words()))
                .hint(GRANT_HINT)
                .into(),
            Failure::Other => failed("mysqldump failed").into(),
        })
    }
}

fn spoiled(why: String) -> Trouble {
    Trouble::busy(Error::failed(why).hint(
        "the dump begins again; if definitions change all the time, set base.ddl = \"lock\", and they wait for the dump; \
         tables of MyISAM and the like are best converted to InnoDB",
    ))
}

#[async_trait]
impl Running for Dump {
    async fn read(&mut self, room: &mut [u8]) -> Result<usize, Trouble> {
        let waiting = self.begun.get(self.given..).unwrap_or(&[]);
        let got = if waiting.is_empty() {
            self.begun = Vec::new();
            let Some((_, watching)) = self.state.as_mut() else { return Ok(0) };
            tokio::select! {
                biased;
                why = watching.spoiled() => return Err(why),
                got = self.tool.read(room) => got?,
            }
        } else {
            let got = waiting.len().min(room.len());
            for (to, from) in room.iter_mut().zip(waiting) {
                *to = *from;
            }
            self.given = self.given.saturating_add(got);
            got
        };
        keep_tail(&mut self.tail, room.get(..got).unwrap_or(&[]), TAIL_BYTES);
        Ok(got)
    }

    async fn finish(&mut self, site: &Site<'_>) -> Result<Ending, Trouble> {
        self.ended().await?;
        if !is_closed(&self.tail) {
            return Err(
                Error::failed("mysqldump ended well, but its output lacks the line \"-- Dump completed\"").into()
            );
        }
        if self.ddl.as_ref().is_some_and(Held::is_lost) {
            return Err(
                Error::new(Kind::Unreachable, "the connection that held DDL back was lost during the dump").into()
            );
        }
        let Some((coordinates, watching)) = self.state.take() else {
            return Err(Error::failed("the dump has no coordinates").into());
        };
        let mut asked = Connection::connect(site.source, PROGRAM).await?;
        watching.end(server::end_of_log(&mut asked).await?).await?;
        Ok(coordinates.into())
    }
}

/// The binlog being watched while the dump runs.
struct Watching {
    until: watch::Sender<Option<Position>>,
    task: Option<AbortOnDropHandle<Result<Option<String>>>>,
}

impl Watching {
    fn start(mut follower: Follower, wanted: bool) -> Self {
        let (until, mut told) = watch::channel::<Option<Position>>(None);
        let task = wanted.then(|| {
            AbortOnDropHandle::new(tokio::spawn(async move {
                loop {
                    let end = told.borrow_and_update().clone();
                    if let Some(end) = end {
                        return Ok(follower.read_until(&end).await?.map(str::to_owned));
                    }
                    if let Some(why) = follower.spoiler() {
                        return Ok(Some(why.to_owned()));
                    }
                    tokio::select! {
                        step = follower.step() => step?,
                        changed = told.changed() => if changed.is_err() { return Ok(None) },
                    }
                }
            }))
        });
        Self { until, task }
    }

    /// Waits until something has spoiled the dump; for ever if nothing does.
    async fn spoiled(&mut self) -> Trouble {
        match self.task.as_mut() {
            None => std::future::pending().await,
            Some(task) => {
                let verdict = task.await;
                self.task = None;
                trouble_of(verdict).err().unwrap_or_else(|| Error::failed("the watch over the binlog ended").into())
            }
        }
    }

    /// Reads what the server had written at the dump's end.
    async fn end(mut self, end: Position) -> Result<(), Trouble> {
        let _ = self.until.send(Some(end));
        let Some(task) = self.task.take() else { return Ok(()) };
        match clock::with_timeout(CATCH_UP_LIMIT, task).await {
            Some(verdict) => trouble_of(verdict),
            None => Err(Error::failed("the binlog of the dump's time could not be read within an hour").into()),
        }
    }
}

fn trouble_of(verdict: Result<Result<Option<String>>, tokio::task::JoinError>) -> Result<(), Trouble> {
    let verdict = verdict.map_err(|panic| Error::failed("the watch over the binlog broke down").source(panic))?;
    match verdict.context(|| "watch the binlog for changes of definitions".into())? {
        None => Ok(()),
        Some(why) => Err(spoiled(why)),
    }
}
