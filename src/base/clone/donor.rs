//! Whether a server can give a clone, what keeps it from it, and what a clone of it would lack.
//!
//! Owns: the questions, and the statement that mends each obstacle. Does not own: which engine is taken (`base`), how
//! an obstacle weighs (`check`).

use super::link::Link;
use super::refuse::{ENABLE_REDO, INSTALL_PLUGIN, NO_PLUGIN, NO_PRIVILEGE, RAISE_PACKET, grant};
use crate::error::Result;
use crate::mysql::facts::ServerFacts;
use crate::mysql::{Connection, SourceOptions, Version, server_code};

/// The donor refuses with a `max_allowed_packet` below this, in bytes (tested on 9.7).
const PACKET_BYTES_MIN: u64 = 2 << 20;

/// What keeps a server from giving a clone, or a clone from being all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloneObstacle {
    /// The server is older than the protocol, or no MySQL.
    Version {
        /// What it is.
        version: String,
    },
    /// The plugin is not installed.
    Plugin,
    /// The account lacks BACKUP_ADMIN.
    Privilege {
        /// The account, as it must stand in a statement.
        account: String,
    },
    /// Clone mode cannot be entered for another reason: a proxy before the server, for example.
    Mode {
        /// What was said.
        why: String,
    },
    /// The largest packet is too small.
    Packet {
        /// `max_allowed_packet`, bytes.
        bytes: u64,
    },
    /// Redo logging is switched off.
    Redo,
    /// There are tables whose rows are not cloned. It keeps no clone from being taken, but from being all.
    Tables {
        /// Engines, and how many tables each has.
        engines: Vec<(String, u64)>,
    },
    /// Transactions have no GTIDs. It keeps no clone from being taken, but a restore from noticing that the server has
    /// recovered a transaction more than its position says (seen once on 9.7, in some fifty clones under load).
    NoGtids {
        /// `gtid_mode`.
        mode: String,
    },
}

impl CloneObstacle {
    /// A stable name, in kebab-case.
    pub fn id(&self) -> &'static str {
        match self {
            Self::Version { .. } => "clone-version",
            Self::Plugin => "clone-plugin",
            Self::Privilege { .. } => "clone-privilege",
            Self::Mode { .. } => "clone-mode",
            Self::Packet { .. } => "clone-packet",
            Self::Redo => "clone-redo",
            Self::Tables { .. } => "clone-tables",
            Self::NoGtids { .. } => "clone-gtids",
        }
    }

    /// What is in the way, on one line.
    pub fn title(&self) -> String {
        match self {
            Self::Version { version } => format!("MySQL clones itself from 8.0.17 on, the server is {version}"),
            Self::Plugin => "the server has no clone plugin".to_owned(),
            Self::Privilege { account } => format!("{account} lacks BACKUP_ADMIN"),
            Self::Mode { why } => format!("clone mode cannot be entered: {why}"),
            Self::Packet { bytes } => format!("max_allowed_packet is {bytes} bytes, a clone needs {PACKET_BYTES_MIN}"),
            Self::Redo => "the server's redo log is switched off".to_owned(),
            Self::Tables { engines } => format!("rows that a clone does not copy: {}", named(engines)),
            Self::NoGtids { mode } => format!("gtid_mode is {mode}: a clone's position alone tells where it stands"),
        }
    }

    /// The statement that mends it, if one does.
    pub fn fix(&self) -> Option<String> {
        match self {
            Self::Version { .. } | Self::Mode { .. } | Self::NoGtids { .. } => None,
            Self::Plugin => Some(INSTALL_PLUGIN.to_owned()),
            Self::Privilege { account } => Some(grant(account)),
            Self::Packet { .. } => Some(RAISE_PACKET.to_owned()),
            Self::Redo => Some(ENABLE_REDO.to_owned()),
            Self::Tables { .. } => Some(
                "ALTER TABLE … ENGINE=InnoDB;   -- each; SELECT table_schema, table_name, engine FROM \
                 information_schema.tables WHERE engine <> 'InnoDB' AND table_type = 'BASE TABLE' shows them"
                    .to_owned(),
            ),
        }
    }

    /// Whether no clone can be taken because of it.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Tables { .. } | Self::NoGtids { .. })
    }
}

/// Whether a server of this version speaks the protocol.
pub(super) fn speaks(version: &Version) -> bool {
    version.is_mysql_at_least(8, 0, 17)
}

/// Whether the donor can leave DDL alone: before, it would take the bit for a time of 68 years.
pub(super) fn allows_ddl(version: &Version) -> bool {
    version.is_mysql_at_least(8, 0, 27)
}

/// Everything in the way. The plugin and the privilege are proven by entering clone mode, and leaving it.
///
/// # Errors
/// Those of asking.
pub async fn clone_obstacles(
    source: &SourceOptions,
    facts: &ServerFacts,
    asked: &mut Connection,
) -> Result<Vec<CloneObstacle>> {
    if !speaks(&facts.version) {
        return Ok(vec![CloneObstacle::Version { version: facts.version.to_string() }]);
    }
    let mut found = Vec::new();
    let account = account(asked).await?;
    match Link::open(source, &account).await {
        Ok(link) => link.leave().await,
        Err(trouble) => match server_code(&trouble.error) {
            Some(NO_PLUGIN) => found.push(CloneObstacle::Plugin),
            Some(NO_PRIVILEGE) => found.push(CloneObstacle::Privilege { account }),
            Some(_) => found.push(CloneObstacle::Mode { why: trouble.error.chain() }),
            None => return Err(trouble.error),
        },
    }
    if let Some(bytes) = facts.max_allowed_packet.filter(|bytes| *bytes < PACKET_BYTES_MIN) {
        found.push(CloneObstacle::Packet { bytes });
    }
    let redo = asked.query("SHOW GLOBAL STATUS LIKE 'Innodb_redo_log_enabled'").await?;
    if redo.first().and_then(|row| row.get_at(1)) == Some("OFF") {
        found.push(CloneObstacle::Redo);
    }
    let engines = other_engines(asked).await?;
    if !engines.is_empty() {
        found.push(CloneObstacle::Tables { engines });
    }
    let mode = facts.gtid_mode.as_deref().unwrap_or("unknown");
    if mode != "ON" {
        found.push(CloneObstacle::NoGtids { mode: mode.to_owned() });
    }
    Ok(found)
}

/// Our account, as it must stand in a statement.
pub(super) async fn account(asked: &mut Connection) -> Result<String> {
    let rows = asked.query("SELECT CURRENT_USER()").await?;
    let quote = |part: &str| format!("'{}'", part.replace('\\', "\\\\").replace('\'', "''"));
    let account = rows.first().and_then(|row| row.get_at(0)).and_then(|text| text.rsplit_once('@'));
    Ok(account.map_or_else(String::new, |(name, host)| format!("{}@{}", quote(name), quote(host))))
}

/// How many tables there are of engines that keep rows and are not cloned, as far as the account may see them.
pub(super) async fn other_engines(asked: &mut Connection) -> Result<Vec<(String, u64)>> {
    let question = "SELECT engine, COUNT(*) FROM information_schema.tables WHERE table_type = 'BASE TABLE' \
        AND engine NOT IN ('InnoDB', 'PERFORMANCE_SCHEMA', 'BLACKHOLE', 'FEDERATED', 'MRG_MYISAM') \
        AND table_schema NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema') \
        GROUP BY engine ORDER BY engine";
    let rows = asked.query(question).await?;
    Ok(rows.iter().filter_map(|row| Some((row.get_at(0)?.to_owned(), row.get_at(1)?.parse().ok()?))).collect())
}

/// `2 MyISAM tables, 1 CSV table`
pub(super) fn named(engines: &[(String, u64)]) -> String {
    let one = |(engine, count): &(String, u64)| match count {
        1 => format!("1 {engine} table"),
        count => format!("{count} {engine} tables"),
    };
    engines.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_clone_and_versions_that_leave_ddl_alone() {
        let of = |text: &str| (speaks(&Version::parse(text)), allows_ddl(&Version::parse(text)));
        assert_eq!(of("8.0.16"), (false, false));
        assert_eq!(of("8.0.17"), (true, false));
        assert_eq!(of("8.0.26-log"), (true, false));
        assert_eq!(of("8.0.27"), (true, true));
        assert_eq!(of("9.7.4-2"), (true, true));
        assert_eq!(of("11.4.2-MariaDB"), (false, false));
        assert_eq!(of("5.7.44"), (false, false));
    }

    #[test]
    fn only_tables_of_other_engines_leave_a_clone_possible() {
        let tables = CloneObstacle::Tables { engines: vec![("CSV".into(), 1), ("MyISAM".into(), 2)] };
        assert_eq!(tables.title(), "rows that a clone does not copy: 1 CSV table, 2 MyISAM tables");
        assert!(!tables.is_final() && CloneObstacle::Plugin.is_final());
    }
}
