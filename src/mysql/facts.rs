//! What a server says about itself: everything that the preflight, the start and the watch over it need to know.
//!
//! Owns: the questions, their old and new names, and reading the answers. Does not own: judging them.
//!
//! A variable that a version lacks is `None`. `SHOW VARIABLES` cuts values at 1024 characters, so GTID sets, which
//! grow beyond that, are selected instead.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::error::{Error, Kind, Result};
use crate::position::GtidSet;

use super::connect::Connection;
use super::fault::server_code;
use super::query::Row;
use super::semi_sync::{self, SemiSyncSettings};
use super::version::Version;

/// All variables asked for. Versions differ in which of them they have.
const VARIABLES: [&str; 29] = [
    "binlog_checksum",
    "binlog_encryption",
    "binlog_expire_logs_auto_purge",
    "binlog_expire_logs_seconds",
    "binlog_format",
    "binlog_row_image",
    "binlog_row_metadata",
    "binlog_row_value_options",
    "binlog_transaction_compression",
    "enforce_gtid_consistency",
    "expire_logs_days",
    "gtid_mode",
    "hostname",
    "log_bin",
    "log_bin_basename",
    "log_replica_updates",
    "log_slave_updates",
    "max_allowed_packet",
    "max_binlog_size",
    "net_write_timeout",
    "port",
    "read_only",
    "require_secure_transport",
    "server_id",
    "server_uuid",
    "super_read_only",
    "sync_binlog",
    "version",
    "version_comment",
];

const PARSE_ERROR: u16 = 1064;
const UNKNOWN_VARIABLE: u16 = 1193;
const NO_SUCH_GRANT: u16 = 1141;
const NO_BINARY_LOGGING: u16 = 1381;

/// What a server says about itself, at one moment.
#[derive(Debug, Clone)]
pub struct ServerFacts {
    /// Its version.
    pub version: Version,
    /// Its identity; MariaDB has none.
    pub server_uuid: Option<Uuid>,
    /// Its number among replicas and sources.
    pub server_id: Option<u32>,
    /// Whether it writes binlogs.
    pub log_bin: Option<bool>,
    /// Where, without the number: `/var/lib/mysql/binlog`.
    pub log_bin_basename: Option<String>,
    /// ROW, STATEMENT or MIXED.
    pub binlog_format: Option<String>,
    /// FULL, MINIMAL or NOBLOB.
    pub binlog_row_image: Option<String>,
    /// FULL or MINIMAL.
    pub binlog_row_metadata: Option<String>,
    /// Empty or PARTIAL_JSON.
    pub binlog_row_value_options: Option<String>,
    /// 1 is safe: each commit is on disk before anyone sees it.
    pub sync_binlog: Option<u64>,
    /// OFF, OFF_PERMISSIVE, ON_PERMISSIVE or ON.
    pub gtid_mode: Option<String>,
    /// OFF, ON or WARN.
    pub enforce_gtid_consistency: Option<String>,
    /// CRC32 or NONE.
    pub binlog_checksum: Option<String>,
    /// Whether files are encrypted on the server's disk.
    pub binlog_encryption: Option<bool>,
    /// Whether transactions are compressed in the log.
    pub binlog_transaction_compression: Option<bool>,
    /// Age at which the server purges binlogs, seconds; 0 is never.
    pub binlog_expire_logs_seconds: Option<u64>,
    /// The same in days, before 8.0 and where the seconds are 0.
    pub expire_logs_days: Option<f64>,
    /// Whether the server purges by age at all (8.0.29 and later).
    pub binlog_expire_logs_auto_purge: Option<bool>,
    /// Size at which the server changes files, bytes.
    pub max_binlog_size: Option<u64>,
    /// Everything executed, without white space. `None` on MariaDB.
    pub gtid_executed: Option<String>,
    /// What of it the binlogs no longer hold.
    pub gtid_purged: Option<String>,
    /// Whether only replication and privileged accounts may write.
    pub read_only: Option<bool>,
    /// Whether not even they may.
    pub super_read_only: Option<bool>,
    /// Whether a replica logs what it applies.
    pub log_replica_updates: Option<bool>,
    /// The largest packet, and so the largest event that a client can cause, bytes.
    pub max_allowed_packet: Option<u64>,
    /// Whether the server takes only TLS and unix sockets.
    pub require_secure_transport: Option<bool>,
    /// The server's clock, microseconds since 1970, UTC.
    pub time_us: u64,
    /// The cipher of this connection; `None` in clear.
    pub tls_cipher: Option<String>,
    /// What `SHOW GRANTS` says of our account.
    pub grants: Vec<String>,
    /// Every variable asked for, by its lower-case name, as the server wrote it.
    pub variables: BTreeMap<String, String>,
}

impl ServerFacts {
    /// How the plugin for semi-synchronous replication is set; `None` without it.
    pub fn semi_sync(&self) -> Option<SemiSyncSettings> {
        SemiSyncSettings::from_variables(&self.variables)
    }

    /// How old a binlog may become before the server purges it, seconds; `None`: it never does.
    pub fn expiry_s(&self) -> Option<u64> {
        if self.binlog_expire_logs_auto_purge == Some(false) {
            return None;
        }
        if let Some(seconds) = self.binlog_expire_logs_seconds.filter(|seconds| *seconds > 0) {
            return Some(seconds);
        }
        let days = self.expire_logs_days.filter(|days| *days > 0.0)?;
        // Fractions of a day are MariaDB's; the values that a server takes fit.
        std::time::Duration::try_from_secs_f64(days * 86_400.0).ok().map(|age| age.as_secs())
    }

    /// Asks for everything: four questions.
    ///
    /// # Errors
    /// Those of [`Connection::query`].
    pub async fn read(connection: &mut Connection) -> Result<Self> {
        let names = VARIABLES.iter().chain(&semi_sync::VARIABLES).map(|name| format!("'{name}'"));
        let names = names.collect::<Vec<_>>().join(", ");
        let rows = connection.query(&format!("SHOW GLOBAL VARIABLES WHERE Variable_name IN ({names})")).await?;
        let variables: BTreeMap<String, String> = rows.iter().filter_map(name_and_value).collect();
        let (time_us, gtid_executed, gtid_purged) = time_and_gtids(connection).await?;
        let cipher = connection.query("SHOW SESSION STATUS LIKE 'Ssl_cipher'").await?;
        let cipher = cipher.first().and_then(|row| row.get_at(1)).filter(|cipher| !cipher.is_empty());
        let known = Known(&variables);
        Ok(Self {
            version: connection.server_version().clone(),
            server_uuid: known.text("server_uuid").and_then(|text| Uuid::parse_str(&text).ok()),
            server_id: known.parsed("server_id"),
            log_bin: known.switch("log_bin"),
            log_bin_basename: known.text("log_bin_basename").filter(|text| !text.is_empty()),
            binlog_format: known.text("binlog_format"),
            binlog_row_image: known.text("binlog_row_image"),
            binlog_row_metadata: known.text("binlog_row_metadata"),
            binlog_row_value_options: known.text("binlog_row_value_options"),
            sync_binlog: known.parsed("sync_binlog"),
            gtid_mode: known.text("gtid_mode"),
            enforce_gtid_consistency: known.text("enforce_gtid_consistency"),
            binlog_checksum: known.text("binlog_checksum"),
            binlog_encryption: known.switch("binlog_encryption"),
            binlog_transaction_compression: known.switch("binlog_transaction_compression"),
            binlog_expire_logs_seconds: known.parsed("binlog_expire_logs_seconds"),
            expire_logs_days: known.parsed("expire_logs_days"),
            binlog_expire_logs_auto_purge: known.switch("binlog_expire_logs_auto_purge"),
            max_binlog_size: known.parsed("max_binlog_size"),
            gtid_executed,
            gtid_purged,
            read_only: known.switch("read_only"),
            super_read_only: known.switch("super_read_only"),
            log_replica_updates: known.switch("log_replica_updates").or_else(|| known.switch("log_slave_updates")),
            max_allowed_packet: known.parsed("max_allowed_packet"),
            require_secure_transport: known.switch("require_secure_transport"),
            time_us,
            tls_cipher: cipher.map(str::to_owned),
            grants: grants(connection).await?,
            variables,
        })
    }
}

/// Variables by name, in the shapes that they have.
struct Known<'a>(&'a BTreeMap<String, String>);

impl Known<'_> {
    fn text(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }

    fn parsed<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.0.get(name)?.parse().ok()
    }

    fn switch(&self, name: &str) -> Option<bool> {
        match self.0.get(name)?.to_ascii_uppercase().as_str() {
            "ON" | "1" | "YES" => Some(true),
            "OFF" | "0" | "NO" => Some(false),
            // MariaDB's read_only knows more: NO_LOCK, NO_LOCK_NO_ADMIN.
            text => text.starts_with("NO_LOCK").then_some(true),
        }
    }
}

fn name_and_value(row: &Row) -> Option<(String, String)> {
    Some((row.get_at(0)?.to_ascii_lowercase(), String::from_utf8_lossy(row.bytes_at(1)?).into_owned()))
}

async fn time_and_gtids(connection: &mut Connection) -> Result<(u64, Option<String>, Option<String>)> {
    // Both parts are of the moment at which the statement began; UNIX_TIMESTAMP(NOW(6)) would err by an hour when
    // clocks are put back.
    const TIME: &str = "UNIX_TIMESTAMP() * 1000000 + MICROSECOND(NOW(6))";
    let full = format!("SELECT {TIME}, @@GLOBAL.gtid_executed, @@GLOBAL.gtid_purged");
    let rows = match connection.query(&full).await {
        Err(error) if server_code(&error) == Some(UNKNOWN_VARIABLE) => {
            connection.query(&format!("SELECT {TIME}")).await
        }
        other => other,
    }?;
    let row = rows.first().ok_or_else(|| Error::failed("the server does not say its time"))?;
    let time = row.get_at(0).and_then(|text| text.parse().ok());
    let set = |index| row.get_at(index).map(without_white_space);
    Ok((time.ok_or_else(|| Error::failed("the server's time cannot be read"))?, set(1), set(2)))
}

fn without_white_space(text: &str) -> String {
    text.split_whitespace().collect()
}

/// What our account may do, as the server writes it.
///
/// # Errors
/// Those of [`Connection::query`].
pub async fn grants(connection: &mut Connection) -> Result<Vec<String>> {
    match connection.query("SHOW GRANTS").await {
        Ok(rows) => Ok(rows.iter().filter_map(|row| row.get_at(0)).map(str::to_owned).collect()),
        Err(error) if server_code(&error) == Some(NO_SUCH_GRANT) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// One line of `SHOW BINARY LOGS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BinaryLog {
    /// The file's name.
    pub name: String,
    /// Its size on the server's disk, bytes; with encryption 512 more than its content has.
    pub size: u64,
    /// Whether it is encrypted on disk; `None` where the server does not say (before 8.0.14).
    pub encrypted: Option<bool>,
}

/// The binlogs that the server has, oldest first. None if it writes none.
///
/// # Errors
/// [`Kind::Refused`], with the statement that mends it, if the account lacks REPLICATION CLIENT.
pub async fn binary_logs(connection: &mut Connection) -> Result<Vec<BinaryLog>> {
    let rows = match connection.query("SHOW BINARY LOGS").await {
        Err(error) if server_code(&error) == Some(NO_BINARY_LOGGING) => return Ok(Vec::new()),
        Err(error) => return Err(with_grant(connection, error, Need::Client).await),
        Ok(rows) => rows,
    };
    rows.iter()
        .map(|row| {
            Some(BinaryLog {
                name: row.get("Log_name")?.to_owned(),
                size: row.get("File_size")?.parse().ok()?,
                encrypted: row.get("Encrypted").map(|text| text.eq_ignore_ascii_case("yes")),
            })
        })
        .collect::<Option<_>>()
        .ok_or_else(|| Error::failed("the server's list of binary logs cannot be read"))
}

/// What was executed before a binlog file of the server's, as its PREVIOUS_GTIDS event says; empty without one.
///
/// # Errors
/// Those of [`Connection::query`]; [`Kind::Refused`] without REPLICATION SLAVE.
pub async fn previous_gtids(connection: &mut Connection, file: &str) -> Result<GtidSet> {
    // Behind the format description; the third may be anything.
    let statement = format!("SHOW BINLOG EVENTS IN '{}' LIMIT 3", file.replace(['\'', '\\'], ""));
    let rows = connection.query(&statement).await?;
    let event = rows.iter().find(|row| row.get("Event_type") == Some("Previous_gtids"));
    let set = event.and_then(|row| row.get("Info")).unwrap_or_default();
    set.parse().map_err(|error| Error::corrupt(format!("{file} begins with a GTID set that is none")).source(error))
}

/// Everything that the server has executed; empty without GTIDs.
///
/// # Errors
/// Those of [`Connection::query`].
pub async fn executed_gtids(connection: &mut Connection) -> Result<GtidSet> {
    gtid_variable(connection, "gtid_executed").await
}

/// What of it the binlogs no longer hold.
///
/// # Errors
/// Those of [`Connection::query`].
pub async fn purged_gtids(connection: &mut Connection) -> Result<GtidSet> {
    gtid_variable(connection, "gtid_purged").await
}

async fn gtid_variable(connection: &mut Connection, name: &str) -> Result<GtidSet> {
    let rows = connection.query(&format!("SELECT @@GLOBAL.{name}")).await?;
    let set = rows.first().and_then(|row| row.get_at(0)).unwrap_or_default();
    set.parse().map_err(|error| Error::corrupt(format!("{name} is no GTID set")).source(error))
}

/// The end of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BinlogStatus {
    /// The file being written.
    pub file: String,
    /// Where it ends, bytes.
    pub position: u64,
    /// Everything executed, without white space; empty without GTIDs.
    pub executed_gtid_set: String,
    /// Databases to which logging is restricted, as configured; usually empty.
    pub binlog_do_db: String,
    /// Databases that are not logged; usually empty.
    pub binlog_ignore_db: String,
}

/// Where the log ends now. `None` if the server writes none.
///
/// # Errors
/// [`Kind::Refused`], with the statement that mends it, if the account lacks REPLICATION CLIENT.
pub async fn binlog_status(connection: &mut Connection) -> Result<Option<BinlogStatus>> {
    let newer = connection.server_version().is_mysql_at_least(8, 2, 0);
    let rows = either(connection, newer, "SHOW BINARY LOG STATUS", "SHOW MASTER STATUS").await;
    let rows = match rows {
        Err(error) => return Err(with_grant(connection, error, Need::Client).await),
        Ok(rows) => rows,
    };
    let Some(row) = rows.first() else { return Ok(None) };
    let text = |name| row.get(name).unwrap_or_default();
    let position = text("Position").parse();
    let position =
        position.map_err(|error| Error::failed("the server's binary log status cannot be read").source(error))?;
    Ok(Some(BinlogStatus {
        file: text("File").to_owned(),
        position,
        executed_gtid_set: without_white_space(text("Executed_Gtid_Set")),
        binlog_do_db: text("Binlog_Do_DB").to_owned(),
        binlog_ignore_db: text("Binlog_Ignore_DB").to_owned(),
    }))
}

/// How many RESET statements the server has run since it was started, of whatever kind; 0 if it does not say.
///
/// # Errors
/// Those of [`Connection::query`].
pub async fn resets(connection: &mut Connection) -> Result<u64> {
    let rows = connection.query("SHOW GLOBAL STATUS LIKE 'Com\\_reset'").await?;
    Ok(rows.first().and_then(|row| row.get_at(1)?.parse().ok()).unwrap_or(0))
}

/// One line of `SHOW REPLICAS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Its server id.
    pub server_id: u32,
    /// What it calls itself.
    pub host: String,
    /// And its port.
    pub port: u16,
    /// Its uuid, if it has said one.
    pub uuid: Option<Uuid>,
}

/// The replicas that have registered.
///
/// # Errors
/// [`Kind::Refused`], with the statement that mends it, if the account lacks REPLICATION SLAVE.
pub async fn replicas(connection: &mut Connection) -> Result<Vec<Replica>> {
    let newer = connection.server_version().is_mysql_at_least(8, 0, 22);
    let rows = either(connection, newer, "SHOW REPLICAS", "SHOW SLAVE HOSTS").await;
    let rows = match rows {
        Err(error) => return Err(with_grant(connection, error, Need::Slave).await),
        Ok(rows) => rows,
    };
    rows.iter()
        .map(|row| {
            let uuid = row.get("Replica_UUID").or_else(|| row.get("Slave_UUID"));
            Some(Replica {
                server_id: row.get("Server_Id")?.parse().ok()?,
                host: row.get("Host").unwrap_or_default().to_owned(),
                port: row.get("Port")?.parse().ok()?,
                uuid: uuid.and_then(|text| Uuid::parse_str(text).ok()),
            })
        })
        .collect::<Option<_>>()
        .ok_or_else(|| Error::failed("the server's list of replicas cannot be read"))
}

/// Asks by the newer or the older words, as the version has it, and by the others if the server does not know them.
async fn either(connection: &mut Connection, newer: bool, new: &str, old: &str) -> Result<Vec<Row>> {
    let (first, second) = if newer { (new, old) } else { (old, new) };
    match connection.query(first).await {
        Err(error) if server_code(&error) == Some(PARSE_ERROR) => connection.query(second).await,
        other => other,
    }
}

/// The privilege that an answer needs.
#[derive(Clone, Copy)]
pub(super) enum Need {
    /// To ask for positions.
    Client,
    /// To follow as a replica.
    Slave,
}

/// Adds the very statement that gives the privilege to this account.
pub(super) async fn with_grant(connection: &mut Connection, error: Error, need: Need) -> Error {
    if error.kind() != Kind::Refused {
        return error;
    }
    let account = match connection.query("SELECT CURRENT_USER()").await {
        Ok(rows) => rows.first().and_then(|row| row.get_at(0)).and_then(quote_account),
        Err(_) => None,
    };
    let privilege = match need {
        Need::Slave => "REPLICATION SLAVE",
        Need::Client if connection.server_version().is_mariadb => "BINLOG MONITOR",
        Need::Client => "REPLICATION CLIENT",
    };
    let account = account.unwrap_or_else(|| "<account>".to_owned());
    error.hint(format!("GRANT {privilege} ON *.* TO {account};"))
}

/// `name@host` as it must stand in a statement.
fn quote_account(account: &str) -> Option<String> {
    let (name, host) = account.rsplit_once('@')?;
    let quote = |part: &str| format!("'{}'", part.replace('\\', "\\\\").replace('\'', "''"));
    Some(format!("{}@{}", quote(name), quote(host)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_quoted_for_a_statement() {
        assert_eq!(quote_account("binvault@%").unwrap(), "'binvault'@'%'");
        assert_eq!(quote_account("o'n@il@10.0.0.1").unwrap(), "'o''n@il'@'10.0.0.1'");
        assert_eq!(quote_account("nothing"), None);
    }

    #[test]
    fn switches_are_read_in_every_dress() {
        let variables: BTreeMap<String, String> =
            [("a", "ON"), ("b", "0"), ("c", "NO_LOCK_NO_ADMIN"), ("d", "perhaps")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into();
        let known = Known(&variables);
        assert_eq!(
            ["a", "b", "c", "d", "e"].map(|name| known.switch(name)),
            [Some(true), Some(false), Some(true), None, None]
        );
    }
}
