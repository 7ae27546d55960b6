//! What base backups ask of the server: that nobody is held up, that one is taken at a time, and the locks for it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::engine::Trouble;
use super::statement::{TableName, xid_of};
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::mysql::facts::binlog_status;
use crate::mysql::{Connection, SourceOptions, server_code};
use crate::position::{BinlogFile, Position};

/// The program's name as the server sees it.
pub(super) const PROGRAM: &str = "binvault-base";
/// How often a connection that holds a lock is used, so that nothing in between forgets it.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long a statement may take beyond the time that it may wait for its lock.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

const LOCK_WAIT_TIMEOUT: u16 = 1205;
const XA_REFUSED: u16 = 1401;

/// What the account needs for a dump, beside what archiving needs.
pub(super) const GRANT_HINT: &str = "GRANT SELECT, RELOAD, PROCESS, SHOW VIEW, TRIGGER, EVENT, LOCK TABLES, REPLICATION CLIENT, \
    REPLICATION SLAVE, SHOW_ROUTINE, XA_RECOVER_ADMIN, BACKUP_ADMIN ON *.* TO the account (docs/base-backups.md has it by engine)";

/// Settings that a server in this one's place must agree with: those that are fixed at its first start, and those by
/// which the same statement means something else.
const SETTINGS: &[&str] = &[
    "character_set_server",
    "collation_server",
    "default_storage_engine",
    "explicit_defaults_for_timestamp",
    "innodb_default_row_format",
    "innodb_page_size",
    "innodb_strict_mode",
    "log_bin_trust_function_creators",
    "lower_case_table_names",
    "partial_revokes",
];

/// A connection that holds a lock until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    lost: watch::Receiver<bool>,
    _task: AbortOnDropHandle<()>,
}

impl Held {
    fn keep(mut connection: Connection) -> Self {
        let (tell, lost) = watch::channel(false);
        let task = tokio::spawn(async move {
            loop {
                clock::sleep(PING_INTERVAL).await;
                if connection.ping().await.is_err() {
                    let _ = tell.send(true);
                    return;
                }
            }
        });
        Self { lost, _task: AbortOnDropHandle::new(task) }
    }

    /// Whether the connection, and with it the lock, has gone.
    pub(super) fn is_lost(&self) -> bool {
        *self.lost.borrow()
    }
}

/// Makes sure that one backup at a time is taken from this server for this archive.
///
/// # Errors
/// [`Kind::Clash`] if another is on its way.
pub(super) async fn one_at_a_time(source: &SourceOptions, archive: uuid::Uuid) -> Result<Held> {
    let mut connection = Connection::connect(source, PROGRAM).await?;
    let rows = connection.query(&format!("SELECT GET_LOCK('binvault.base.{}', 0)", archive.simple())).await?;
    if rows.first().and_then(|row| row.get_at(0)) == Some("1") {
        return Ok(Held::keep(connection));
    }
    Err(Error::new(Kind::Clash, "another base backup is being taken from this server for this archive")
        .hint("wait until it is through (`SHOW PROCESSLIST` shows its connections), or end it"))
}

/// Holds DDL back until the lock is dropped.
pub(super) async fn hold_ddl(source: &SourceOptions, lock_wait: Duration) -> Result<Held, Trouble> {
    let mut connection = Connection::connect(&patient(source, lock_wait), PROGRAM).await?;
    set_lock_wait(&mut connection, lock_wait).await?;
    connection.execute("LOCK INSTANCE FOR BACKUP").await.map_err(|error| lock_trouble(error, "hold DDL back"))?;
    Ok(Held::keep(connection))
}

/// Refuses to go on while a statement has been running for long. A read lock that waits for it makes every statement
/// behind it wait too, and the server keeps it so (for the statement's tables) even when the lock is given up.
///
/// # Errors
/// [`Trouble::busy`] naming the statement.
pub(super) async fn nobody_is_long(connection: &mut Connection, long_query: Duration) -> Result<(), Trouble> {
    let own = connection.id().to_string();
    let rows = connection.query("SHOW PROCESSLIST").await?;
    for row in &rows {
        let text = |name| row.get(name).unwrap_or_default();
        let seconds = text("Time").parse().unwrap_or(0);
        let works =
            matches!(text("Command"), "Query" | "Execute") && text("User") != "system user" && text("Id") != own;
        if works && Duration::from_secs(seconds) >= long_query {
            let words: String = text("Info").split_whitespace().take(3).collect::<Vec<_>>().join(" ");
            return Err(Trouble::busy(
                Error::failed(format!(
                    "statement {} of {:?} has been running for {seconds} s ({words} …): a lock would wait for it, and everybody else for the lock",
                    text("Id"), text("User"),
                ))
                .hint("take base backups when no long statements run, end the statement, or raise base.long_query"),
            ));
        }
    }
    Ok(())
}

/// The settings that a manifest keeps: those of every backup, and `more`.
pub(super) async fn settings(connection: &mut Connection, more: &[&str]) -> Result<BTreeMap<String, String>> {
    let names: Vec<String> = SETTINGS.iter().chain(more).map(|name| format!("'{name}'")).collect();
    let question = format!("SHOW GLOBAL VARIABLES WHERE Variable_name IN ({})", names.join(", "));
    let rows = connection.query(&question).await?;
    let pair = |row: &crate::mysql::Row| Some((row.get_at(0)?.to_owned(), row.get_at(1)?.to_owned()));
    Ok(rows.iter().filter_map(pair).collect())
}

/// Where the binlog ends now.
pub(super) async fn end_of_log(connection: &mut Connection) -> Result<Position> {
    let status = binlog_status(connection).await?;
    let status = status.ok_or_else(|| {
        Error::new(Kind::Unfit, "the server writes no binlog, so nothing could be replayed on a base backup")
            .hint("start mysqld with --log-bin")
    })?;
    let name = status.file.rsplit(['/', '\\']).next().unwrap_or(&status.file);
    let file = BinlogFile::new(name)
        .map_err(|error| Error::corrupt("the server names a binlog file that is none").source(error))?;
    Ok(Position { file, offset: status.position })
}

/// Tables whose engine knows no snapshots (MyISAM and the like): a dump reads them as they are when it comes to them.
pub(super) async fn without_snapshots(connection: &mut Connection) -> Result<BTreeSet<TableName>> {
    let question = "SELECT table_schema, table_name FROM information_schema.tables WHERE table_type = 'BASE TABLE' \
        AND engine IN ('MyISAM', 'MEMORY', 'CSV', 'ARCHIVE', 'MRG_MYISAM') \
        AND table_schema NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')";
    let rows = connection.query(question).await?;
    let name = |row: &crate::mysql::Row| Some((row.get_at(0)?.to_owned(), row.get_at(1)?.to_owned()));
    Ok(rows.iter().filter_map(name).collect())
}

/// The XA transactions that are prepared now, in the form of the binlog. `None` if the account may not know.
pub(super) async fn prepared_xa(connection: &mut Connection) -> Result<Option<Vec<String>>> {
    let rows = match connection.query("XA RECOVER").await {
        Err(error) if server_code(&error) == Some(XA_REFUSED) => return Ok(None),
        other => other?,
    };
    let xid = |row: &crate::mysql::Row| {
        xid_of(row.get("formatID")?, row.get("gtrid_length")?.parse().ok()?, row.bytes("data")?)
    };
    Ok(Some(rows.iter().filter_map(xid).collect()))
}

/// A connection under whose read lock nothing is written and no commit happens.
pub(super) async fn read_lock(source: &SourceOptions, lock_wait: Duration) -> Result<Connection, Trouble> {
    let mut connection = Connection::connect(&patient(source, lock_wait), PROGRAM).await?;
    set_lock_wait(&mut connection, lock_wait).await?;
    let locked = connection.execute("FLUSH TABLES WITH READ LOCK").await;
    locked.map_err(|error| lock_trouble(error, "take a read lock"))?;
    Ok(connection)
}

async fn set_lock_wait(connection: &mut Connection, lock_wait: Duration) -> Result<()> {
    connection.execute(&format!("SET SESSION lock_wait_timeout = {}", lock_wait.as_secs().max(1))).await.map(drop)
}

/// Options that give the server time to wait for a lock.
fn patient(source: &SourceOptions, lock_wait: Duration) -> SourceOptions {
    SourceOptions { query_timeout: lock_wait.saturating_mul(2).saturating_add(ANSWER_LIMIT), ..source.clone() }
}

fn lock_trouble(error: Error, what: &str) -> Trouble {
    let waited = server_code(&error) == Some(LOCK_WAIT_TIMEOUT);
    let error = error.context(what);
    match (waited, error.kind()) {
        (true, _) => Trouble::busy(error),
        (false, Kind::Refused) => error.hint(GRANT_HINT).into(),
        (false, _) => error.into(),
    }
}
