//! Asking the server: everything that is judged, on one connection, within limits. Judges nothing.

use std::time::Duration;

use crate::base::{CloneObstacle, clone_obstacles};
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::mysql::facts::{self, BinaryLog, BinlogStatus, Replica, ServerFacts};
use crate::mysql::{Connection, SourceOptions, server_code};

/// How the server sees us.
const PROGRAM: &str = "binvault check";
/// Limit on one question.
const QUERY_LIMIT: Duration = Duration::from_secs(10);
/// Limit on connecting and on all questions.
const WHOLE_LIMIT: Duration = Duration::from_secs(40);
/// The server's error for a statement it does not know.
const PARSE_ERROR: u16 = 1064;

/// What the server said.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) facts: ServerFacts,
    /// `name@host` of the account that we became.
    pub(super) account: String,
    /// `innodb_flush_log_at_trx_commit`.
    pub(super) innodb_flush: Option<u64>,
    /// By how much the server's clock is ahead of ours (behind, if negative), microseconds; 0 within what asking took.
    pub(super) skew_us: i64,
    pub(super) logs: Result<Vec<BinaryLog>>,
    pub(super) status: Result<Option<BinlogStatus>>,
    pub(super) replicas: Result<Vec<Replica>>,
    /// Whether it replicates from somewhere itself.
    pub(super) is_replica: bool,
    pub(super) is_tls: bool,
    /// Whether it is on this machine, seen from the kernel.
    pub(super) is_local: bool,
    /// Whether the configuration verifies the server's certificate.
    pub(super) verifies: bool,
    /// What keeps the server from giving a clone; `None` if nobody wants to know.
    pub(super) clone: Option<Result<Vec<CloneObstacle>>>,
}

/// Asks everything. `None` without a source.
pub(super) async fn survey(source: Option<&SourceOptions>, clone: bool) -> Option<Result<Survey>> {
    let source = source?;
    let asked = clock::with_timeout(WHOLE_LIMIT, Box::pin(ask(source, clone))).await;
    Some(asked.unwrap_or_else(|| {
        let what = format!("{} did not answer every question within {} s", source.address, WHOLE_LIMIT.as_secs());
        Err(Error::new(Kind::Unreachable, what))
    }))
}

impl Survey {
    /// Asks once more how far the server is: what was archived behind the first asking is not ahead of it.
    pub(super) async fn how_far(&mut self, source: &SourceOptions) -> Result<()> {
        let asked = clock::with_timeout(
            WHOLE_LIMIT,
            Box::pin(async {
                let mut connection = Connection::connect(&patient(source), PROGRAM).await?;
                let executed = ServerFacts::read(&mut connection).await?.gtid_executed;
                let logs = facts::binary_logs(&mut connection).await;
                Ok::<_, Error>((executed, logs, facts::binlog_status(&mut connection).await))
            }),
        );
        let late = || Error::new(Kind::Unreachable, "the server did not say in time how far it is");
        let (executed, logs, status) = asked.await.unwrap_or_else(|| Err(late()))?;
        (self.facts.gtid_executed, self.logs, self.status) = (executed, logs, status);
        Ok(())
    }
}

fn patient(source: &SourceOptions) -> SourceOptions {
    SourceOptions { query_timeout: QUERY_LIMIT, ..source.clone() }
}

async fn ask(source: &SourceOptions, clone: bool) -> Result<Survey> {
    let options = patient(source);
    let mut connection = Connection::connect(&options, PROGRAM).await?;
    let before_us = clock::now_us();
    let facts = ServerFacts::read(&mut connection).await?;
    let skew_us = skew(facts.time_us, before_us, clock::now_us());
    let account = one_value(&mut connection, "SELECT CURRENT_USER()").await?.unwrap_or_default();
    let flush = "SHOW GLOBAL VARIABLES LIKE 'innodb_flush_log_at_trx_commit'";
    let flush = connection.query(flush).await?;
    let innodb_flush = flush.first().and_then(|row| row.get_at(1)).and_then(|text| text.parse().ok());
    let logs = facts::binary_logs(&mut connection).await;
    let status = facts::binlog_status(&mut connection).await;
    let replicas = facts::replicas(&mut connection).await;
    let is_replica = replicates(&mut connection).await;
    let clone = match clone {
        true => Some(clone_obstacles(&options, &facts, &mut connection).await),
        false => None,
    };
    let (is_tls, verifies) = (connection.is_tls(), verifies(&options));
    let is_local = connection.into_raw().stream.is_local();
    let survey = Survey {
        facts,
        account,
        innodb_flush,
        skew_us,
        logs,
        status,
        replicas,
        is_replica,
        is_tls,
        is_local,
        verifies,
        clone,
    };
    Ok(survey)
}

fn verifies(options: &SourceOptions) -> bool {
    use crate::mysql::TlsMode;
    match options.tls.mode {
        TlsMode::VerifyCa | TlsMode::VerifyFull => true,
        TlsMode::Auto => options.tls.ca.is_some(),
        TlsMode::Disabled | TlsMode::Required => false,
    }
}

async fn one_value(connection: &mut Connection, question: &str) -> Result<Option<String>> {
    Ok(connection.query(question).await?.first().and_then(|row| row.get_at(0)).map(str::to_owned))
}

/// Whether the server is a replica; `false` where it may not be asked.
async fn replicates(connection: &mut Connection) -> bool {
    let newer = connection.server_version().is_mysql_at_least(8, 0, 22);
    let words = if newer { "SHOW REPLICA STATUS" } else { "SHOW SLAVE STATUS" };
    match connection.query(words).await {
        Ok(rows) => !rows.is_empty(),
        Err(error) if server_code(&error) == Some(PARSE_ERROR) => {
            connection.query("SHOW SLAVE STATUS").await.is_ok_and(|rows| !rows.is_empty())
        }
        Err(_) => false,
    }
}

/// How far `server` is outside of the time that asking took.
fn skew(server_us: u64, before_us: u64, after_us: u64) -> i64 {
    let distance = |far: u64, near: u64| i64::try_from(far.saturating_sub(near)).unwrap_or(i64::MAX);
    if server_us > after_us { distance(server_us, after_us) } else { -distance(before_us, server_us) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skew_counts_only_what_asking_does_not_explain() {
        assert_eq!(skew(15, 10, 20), 0);
        assert_eq!(skew(25, 10, 20), 5);
        assert_eq!(skew(7, 10, 20), -3);
    }
}
