//! Semi-synchronous replication: what the source says of it, and what an acknowledging replica says.
//!
//! Owns: the plugin's settings and state under both their names, the acknowledgement's packet, and ending a dump at once.
//! Does not own: when to acknowledge or to leave (`ship`, `run`), the header on the stream (`dump`).
//!
//! The plugin is `semisync_source` since 8.0.26 and was `semisync_master` before; its variables are named after it, and a
//! server has only one of them installed. Facts tested on 9.7: an acknowledgement is one packet with the sequence number
//! 0, `ef`, the position as 64 bits, and the file's bare name; it covers everything before it, and is never answered. A
//! waiting commit is released at once when the dump's connection is killed, if the source is set not to wait without
//! replicas; else only when its time-out has passed.

use std::collections::BTreeMap;

use bytes::BufMut;

use super::connect::Connection;
use super::fault::server_code;
use crate::error::Result;
use crate::position::Position;

/// The variables, in both names.
pub(super) const VARIABLES: [&str; 10] = [
    "rpl_semi_sync_master_enabled",
    "rpl_semi_sync_master_timeout",
    "rpl_semi_sync_master_wait_for_slave_count",
    "rpl_semi_sync_master_wait_no_slave",
    "rpl_semi_sync_master_wait_point",
    "rpl_semi_sync_source_enabled",
    "rpl_semi_sync_source_timeout",
    "rpl_semi_sync_source_wait_for_replica_count",
    "rpl_semi_sync_source_wait_no_replica",
    "rpl_semi_sync_source_wait_point",
];

const NO_SUCH_THREAD: u16 = 1094;

/// How the source's plugin is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SemiSyncSettings {
    /// `rpl_semi_sync_source` or `rpl_semi_sync_master`: what its variables' names begin with.
    pub prefix: &'static str,
    /// Whether commits are to wait.
    pub enabled: bool,
    /// How long, at most, milliseconds.
    pub timeout_ms: u64,
    /// For how many replicas.
    pub replica_count: u64,
    /// Whether they also wait when fewer replicas are connected.
    pub wait_no_replica: bool,
    /// AFTER_SYNC: before the commit is visible to anybody; AFTER_COMMIT: behind it.
    pub wait_point: String,
}

impl SemiSyncSettings {
    /// What the variables say; `None` without the plugin.
    pub fn from_variables(variables: &BTreeMap<String, String>) -> Option<Self> {
        let (prefix, replica) = match variables {
            _ if variables.contains_key("rpl_semi_sync_source_enabled") => ("rpl_semi_sync_source", "replica"),
            _ if variables.contains_key("rpl_semi_sync_master_enabled") => ("rpl_semi_sync_master", "slave"),
            _ => return None,
        };
        let text = |name: &str| variables.get(&format!("{prefix}_{name}")).map_or("", String::as_str);
        let is_on = |name: &str| matches!(text(name), "ON" | "1");
        Some(Self {
            prefix,
            enabled: is_on("enabled"),
            timeout_ms: text("timeout").parse().unwrap_or(0),
            replica_count: text(&format!("wait_for_{replica}_count")).parse().unwrap_or(1),
            wait_no_replica: is_on(&format!("wait_no_{replica}")),
            wait_point: text("wait_point").to_owned(),
        })
    }

    /// Asks for them; `None` without the plugin.
    ///
    /// # Errors
    /// Those of [`Connection::query`].
    pub async fn ask(connection: &mut Connection) -> Result<Option<Self>> {
        let rows = connection.query("SHOW GLOBAL VARIABLES LIKE 'rpl\\_semi\\_sync\\_%'").await?;
        let pair = |row: &super::query::Row| Some((row.get_at(0)?.to_ascii_lowercase(), row.get_at(1)?.to_owned()));
        Ok(Self::from_variables(&rows.iter().filter_map(pair).collect()))
    }
}

/// What the plugin counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SemiSyncState {
    /// Whether commits wait now.
    pub is_on: bool,
    /// Semi-synchronous replicas that are connected.
    pub clients: u64,
    /// How often it stopped making commits wait.
    pub times_off: u64,
    /// Commits that are waiting now.
    pub waiting: u64,
    /// Commits that were acknowledged.
    pub acknowledged: u64,
    /// Commits that were not.
    pub unacknowledged: u64,
}

impl SemiSyncState {
    /// Asks for it; `None` without the plugin.
    ///
    /// # Errors
    /// Those of [`Connection::query`].
    pub async fn ask(connection: &mut Connection) -> Result<Option<Self>> {
        let rows = connection.query("SHOW GLOBAL STATUS LIKE 'Rpl\\_semi\\_sync\\_%'").await?;
        let said: BTreeMap<String, &str> =
            rows.iter().filter_map(|row| Some((row.get_at(0)?.to_ascii_lowercase(), row.get_at(1)?))).collect();
        let of = |name: &str| {
            let either = ["source", "master"].map(|role| format!("rpl_semi_sync_{role}_{name}"));
            either.iter().find_map(|name| said.get(name.as_str()).copied())
        };
        let number = |name: &str| of(name).and_then(|text| text.parse().ok()).unwrap_or(0);
        Ok(of("status").map(|status| Self {
            is_on: status.eq_ignore_ascii_case("ON"),
            clients: number("clients"),
            times_off: number("no_times"),
            waiting: number("wait_sessions"),
            acknowledged: number("yes_tx"),
            unacknowledged: number("no_tx"),
        }))
    }
}

/// The whole packet that acknowledges everything before a position.
pub fn acknowledgement(position: &Position) -> Vec<u8> {
    let name = position.file.as_str().as_bytes();
    let length = name.len().saturating_add(9);
    let mut packet = Vec::with_capacity(length.saturating_add(4));
    packet.put_uint_le(length as u64, 3);
    packet.put_u8(0);
    packet.put_u8(0xef);
    packet.put_u64_le(position.offset);
    packet.put_slice(name);
    packet
}

/// Whether a connection of the same account sends a binlog.
///
/// # Errors
/// Those of [`Connection::query`].
pub async fn is_dump(connection: &mut Connection, connection_id: u32) -> Result<bool> {
    let rows = connection.query("SHOW PROCESSLIST").await?;
    let id = connection_id.to_string();
    Ok(rows.iter().any(|row| {
        row.get("Id") == Some(&id) && row.get("Command").is_some_and(|command| command.starts_with("Binlog Dump"))
    }))
}

/// Ends another connection of the same account, which takes no privilege. One that is gone is no error.
///
/// # Errors
/// Those of [`Connection::execute`].
pub async fn end_dump(connection: &mut Connection, connection_id: u32) -> Result<()> {
    match connection.execute(&format!("KILL {connection_id}")).await {
        Err(error) if server_code(&error) == Some(NO_SUCH_THREAD) => Ok(()),
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::BinlogFile;

    #[test]
    fn the_acknowledgement_is_laid_out_as_sources_read_it() {
        let position = Position { file: BinlogFile::new("b.000001").unwrap(), offset: 0x1_0000_0004 };
        assert_eq!(acknowledgement(&position), b"\x11\0\0\0\xef\x04\0\0\0\x01\0\0\0b.000001");
    }

    #[test]
    fn settings_are_read_in_both_names() {
        let of = |pairs: &[(&str, &str)]| {
            let variables = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            SemiSyncSettings::from_variables(&variables)
        };
        assert_eq!(of(&[("rpl_semi_sync_replica_enabled", "ON")]), None);
        let new = of(&[
            ("rpl_semi_sync_source_enabled", "ON"),
            ("rpl_semi_sync_source_timeout", "10000"),
            ("rpl_semi_sync_source_wait_for_replica_count", "2"),
            ("rpl_semi_sync_source_wait_no_replica", "OFF"),
            ("rpl_semi_sync_source_wait_point", "AFTER_SYNC"),
        ]);
        let old = of(&[
            ("rpl_semi_sync_master_enabled", "ON"),
            ("rpl_semi_sync_master_timeout", "10000"),
            ("rpl_semi_sync_master_wait_for_slave_count", "2"),
            ("rpl_semi_sync_master_wait_no_slave", "OFF"),
            ("rpl_semi_sync_master_wait_point", "AFTER_SYNC"),
        ]);
        let wanted = SemiSyncSettings {
            prefix: "rpl_semi_sync_source",
            enabled: true,
            timeout_ms: 10_000,
            replica_count: 2,
            wait_no_replica: false,
            wait_point: "AFTER_SYNC".into(),
        };
        assert_eq!(new.as_ref(), Some(&wanted));
        assert_eq!(old, Some(SemiSyncSettings { prefix: "rpl_semi_sync_master", ..wanted }));
    }
}
