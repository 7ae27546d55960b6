//! What the server is asked before a generation: who it is, whether it can be archived, and which binlogs it has.
//!
//! Does not own: where archiving goes on (`start`).

use super::PROGRAM;
use crate::error::{Error, Kind, Result};
use crate::mysql::facts::{BinaryLog, ServerFacts, binary_logs, binlog_status, resets};
use crate::mysql::{Connection, SourceOptions};
use crate::position::{BinlogFile, Position, ServerUuid};

/// Who the server is.
pub(super) struct Survey {
    pub(super) facts: ServerFacts,
    pub(super) server: ServerUuid,
    pub(super) asked: Connection,
}

/// What the server has.
pub(super) struct Binlogs {
    pub(super) logs: Vec<BinaryLog>,
    pub(super) end: Position,
    /// How often it was reset until then, as far as it counts.
    pub(super) resets: u64,
}

impl Binlogs {
    pub(super) async fn ask(asked: &mut Connection) -> Result<Self> {
        let resets = resets(asked).await?;
        let logs = binary_logs(asked).await?;
        let status = binlog_status(asked).await?.ok_or_else(|| {
            Error::new(Kind::Unfit, "the server has no current binlog").hint("start mysqld with --log-bin")
        })?;
        Ok(Self { logs, end: Position { file: parse_file(&status.file)?, offset: status.position }, resets })
    }
}

/// Asks the server who it is, and refuses what cannot be archived.
pub(super) async fn survey(source: &SourceOptions) -> Result<Survey> {
    let mut asked = Connection::connect(source, PROGRAM).await?;
    let facts = ServerFacts::read(&mut asked).await?;
    let unfit = |message: String, hint: &str| Err(Error::new(Kind::Unfit, message).hint(hint));
    if facts.version.is_mariadb {
        return unfit(format!("the server is MariaDB ({})", facts.version), "binvault archives MySQL 5.7 and later");
    }
    if (facts.version.major, facts.version.minor) < (5, 7) {
        return unfit(format!("the server is MySQL {}", facts.version), "binvault archives MySQL 5.7 and later");
    }
    if facts.log_bin == Some(false) {
        return unfit("the server writes no binlog (log_bin is OFF)".into(), "start mysqld with --log-bin");
    }
    let Some(server) = facts.server_uuid.map(ServerUuid) else {
        return unfit("the server has no server_uuid".into(), "binvault archives MySQL 5.7 and later");
    };
    Ok(Survey { facts, server, asked })
}

/// A file name as the server tells it, which may have a folder before it in old versions' index files.
pub(super) fn parse_file(name: &str) -> Result<BinlogFile> {
    let bare = name.rsplit(['/', '\\']).next().unwrap_or(name);
    BinlogFile::new(bare).map_err(|error| Error::corrupt("the server names a binlog file that is none").source(error))
}
