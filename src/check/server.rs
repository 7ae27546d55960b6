//! What the server's settings mean. Pure; each judgement comes with the statement that mends it on this very version.

use super::survey::Survey;
use super::{Area, Finding, Level};
use crate::error::Kind;
use crate::mysql::Version;
use crate::mysql::facts::ServerFacts;

const HOUR_S: u64 = 3_600;
const DAY_S: u64 = 86_400;
/// Expiry proposed to those whose is too short: MySQL's own default, 30 days.
const EXPIRY_PROPOSED_S: u64 = 2_592_000;
/// A difference between clocks that shows in lag and in time targets, microseconds.
const SKEW_MAX_US: i64 = 2_000_000;
/// MySQL's own default for `max_allowed_packet`, bytes.
const USUAL_PACKET_BYTES: u64 = 64 << 20;

/// Judges what needs no archive.
pub(super) fn judge(survey: &Survey, findings: &mut Vec<Finding>) {
    let facts = &survey.facts;
    findings.push(version(&facts.version));
    findings.push(log_bin(facts));
    findings.extend(server_id(facts));
    if facts.log_bin != Some(false) {
        findings.extend(format(facts));
        findings.extend(row_image(facts));
        findings.extend(row_details(facts));
        findings.extend(durability(facts, survey.innodb_flush));
        findings.push(gtids(facts));
        findings.extend(checksum(facts));
        findings.push(expiry(facts));
        findings.extend(encryption(facts));
        findings.extend(replica_updates(facts, survey.is_replica));
        findings.extend(filters(survey));
        findings.extend(packet(facts));
    }
    findings.push(clock(survey.skew_us));
}

/// The statement that sets a variable now and after a restart.
pub(super) fn set(version: &Version, name: &str, value: &str) -> String {
    if version.is_mysql_at_least(8, 0, 0) {
        format!("SET PERSIST {name} = {value};")
    } else {
        format!("SET GLOBAL {name} = {value}; -- and {name}={value} under [mysqld] in my.cnf")
    }
}

fn version(version: &Version) -> Finding {
    let title = format!("MySQL {version}");
    if version.is_mariadb {
        return Finding::error(Area::Server, "version", Kind::Unfit, format!("the server is MariaDB ({version})"))
            .detail("binvault archives MySQL 5.7 and later");
    }
    if !version.is_mysql_at_least(5, 7, 0) {
        return Finding::error(Area::Server, "version", Kind::Unfit, title)
            .detail("binvault archives MySQL 5.7 and later");
    }
    Finding::ok(Area::Server, "version", title)
}

fn log_bin(facts: &ServerFacts) -> Finding {
    if facts.log_bin == Some(false) {
        return Finding::error(Area::Server, "log-bin", Kind::Unfit, "the server writes no binlog (log_bin is OFF)")
            .detail("there is nothing to archive; it can only be switched on by a restart, and skip-log-bin must go")
            .fix("[mysqld]\nlog_bin = binlog\nserver_id = 1   # in my.cnf; then restart mysqld");
    }
    Finding::ok(Area::Server, "log-bin", "the server writes binlogs")
}

fn server_id(facts: &ServerFacts) -> Option<Finding> {
    (facts.server_id == Some(0)).then(|| {
        Finding::error(Area::Server, "server-id", Kind::Unfit, "the server's server_id is 0")
            .detail("it then refuses every replica")
            .fix(set(&facts.version, "server_id", "1"))
    })
}

fn format(facts: &ServerFacts) -> Option<Finding> {
    let format = facts.binlog_format.as_deref()?;
    if format == "ROW" {
        return Some(Finding::ok(Area::Server, "binlog-format", "binlog_format is ROW"));
    }
    Some(
        Finding::warning(Area::Server, "binlog-format", format!("binlog_format is {format}"))
            .detail(
                "every byte is archived, yet statements replayed later can have another effect than they had here; \
                 connections keep their old format until they connect again",
            )
            .fix(set(&facts.version, "binlog_format", "'ROW'")),
    )
}

fn row_image(facts: &ServerFacts) -> Option<Finding> {
    let image = facts.binlog_row_image.as_deref()?;
    if image == "FULL" {
        return Some(Finding::ok(Area::Server, "binlog-row-image", "binlog_row_image is FULL"));
    }
    Some(
        Finding::warning(Area::Server, "binlog-row-image", format!("binlog_row_image is {image}"))
            .detail("the log does not hold whole rows: a single bad statement cannot be undone from it")
            .fix(set(&facts.version, "binlog_row_image", "'FULL'")),
    )
}

/// What changes the look of row events, but not their worth.
fn row_details(facts: &ServerFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if facts.binlog_row_value_options.as_deref().is_some_and(|options| !options.is_empty()) {
        findings.push(
            Finding::note(Area::Server, "binlog-row-value-options", "JSON columns are logged in parts (PARTIAL_JSON)")
                .detail("archived and replayed as they are; rows seen in the log alone are not whole")
                .fix(set(&facts.version, "binlog_row_value_options", "''")),
        );
    }
    if facts.binlog_row_metadata.as_deref() == Some("MINIMAL") {
        findings.push(
            Finding::note(Area::Server, "binlog-row-metadata", "binlog_row_metadata is MINIMAL")
                .detail("the log holds no column names; restoring does not need them, people who search it do")
                .fix(set(&facts.version, "binlog_row_metadata", "'FULL'")),
        );
    }
    findings
}

fn durability(facts: &ServerFacts, innodb_flush: Option<u64>) -> Vec<Finding> {
    let why = "when the host crashes, the server can lose commits that are already archived; \
               the archive is then ahead of the server, and the agent stops";
    let one = |id, name: &str, value: Option<u64>| {
        let value = value?;
        let title = format!("{name} is {value}");
        Some(if value == 1 {
            Finding::ok(Area::Server, id, title)
        } else {
            Finding::warning(Area::Server, id, title).detail(why).fix(set(&facts.version, name, "1"))
        })
    };
    let log = one("sync-binlog", "sync_binlog", facts.sync_binlog);
    let engine = one("innodb-flush-log", "innodb_flush_log_at_trx_commit", innodb_flush);
    log.into_iter().chain(engine).collect()
}

fn gtids(facts: &ServerFacts) -> Finding {
    let mode = facts.gtid_mode.as_deref().unwrap_or("OFF");
    if mode == "ON" {
        return Finding::ok(Area::Server, "gtid-mode", "gtid_mode is ON");
    }
    // The mode moves one step at a time, and the last step must wait until nobody writes without GTIDs any more.
    let steps = ["OFF", "OFF_PERMISSIVE", "ON_PERMISSIVE", "ON"];
    let done = steps.iter().position(|step| *step == mode).unwrap_or(0);
    let mut fix = Vec::new();
    if facts.enforce_gtid_consistency.as_deref() != Some("ON") {
        fix.push(set(&facts.version, "enforce_gtid_consistency", "'ON'"));
    }
    for step in steps.iter().skip(done.saturating_add(1)) {
        if *step == "ON" {
            fix.push(
                "-- then, when SHOW STATUS LIKE 'Ongoing_anonymous_transaction_count' is 0 here and on every replica:"
                    .into(),
            );
        }
        fix.push(set(&facts.version, "gtid_mode", step));
    }
    Finding::warning(Area::Server, "gtid-mode", format!("gtid_mode is {mode}"))
        .detail(
            "without GTIDs the archive cannot follow a failover, targets cannot name a transaction, and a binlog beyond \
             4 GiB is read again from its beginning after every interruption",
        )
        .fix(fix.join("\n"))
}

fn checksum(facts: &ServerFacts) -> Option<Finding> {
    let algorithm = facts.binlog_checksum.as_deref()?;
    if algorithm == "CRC32" {
        return Some(Finding::ok(Area::Server, "binlog-checksum", "binlog_checksum is CRC32"));
    }
    Some(
        Finding::warning(Area::Server, "binlog-checksum", format!("binlog_checksum is {algorithm}"))
            .detail("damage on the server's disk or on the way cannot be told from data")
            .fix(set(&facts.version, "binlog_checksum", "'CRC32'")),
    )
}

/// The statement that gives the agent time.
pub(super) fn raise_expiry(facts: &ServerFacts) -> String {
    if facts.binlog_expire_logs_seconds.is_some() {
        set(&facts.version, "binlog_expire_logs_seconds", &EXPIRY_PROPOSED_S.to_string())
    } else {
        set(&facts.version, "expire_logs_days", &(EXPIRY_PROPOSED_S / DAY_S).to_string())
    }
}

fn expiry(facts: &ServerFacts) -> Finding {
    const ID: &str = "binlog-expiry";
    let Some(seconds) = facts.expiry_s() else {
        return Finding::ok(Area::Server, ID, "the server purges no binlog by age");
    };
    let title = format!("the server purges binlogs after {}", span(seconds));
    if seconds >= DAY_S {
        return Finding::ok(Area::Server, ID, title);
    }
    let finding = if seconds < HOUR_S {
        Finding::error(Area::Server, ID, Kind::Unfit, title)
    } else {
        Finding::warning(Area::Server, ID, title)
    };
    finding
        .detail("an agent or a store that is down for longer leaves a gap that nothing can fill")
        .fix(raise_expiry(facts))
}

fn encryption(facts: &ServerFacts) -> Option<Finding> {
    (facts.binlog_encryption == Some(true)).then(|| {
        Finding::note(Area::Server, "binlog-encryption", "binlogs are encrypted on the server's disk")
            .detail("they come to us in clear inside the connection and are archived under the archive's own keys")
    })
}

fn replica_updates(facts: &ServerFacts, is_replica: bool) -> Option<Finding> {
    if !is_replica {
        return None;
    }
    if facts.log_replica_updates == Some(true) {
        return Some(Finding::ok(Area::Server, "log-replica-updates", "a replica that logs what it applies"));
    }
    let name = if facts.version.is_mysql_at_least(8, 0, 26) { "log_replica_updates" } else { "log_slave_updates" };
    Some(
        Finding::error(
            Area::Server,
            "log-replica-updates",
            Kind::Unfit,
            "the server is a replica and does not log what it applies",
        )
        .detail("nothing that it gets from its source would be archived")
        .fix(format!("[mysqld]\n{name} = ON   # in my.cnf; then restart mysqld")),
    )
}

fn filters(survey: &Survey) -> Option<Finding> {
    let status = survey.status.as_ref().ok()?.as_ref()?;
    let (only, never) = (&status.binlog_do_db, &status.binlog_ignore_db);
    if only.is_empty() && never.is_empty() {
        return None;
    }
    let mut detail = String::from("what is not logged cannot be restored:");
    for (name, databases) in [("binlog_do_db", only), ("binlog_ignore_db", never)] {
        if !databases.is_empty() {
            detail.push_str(&format!(" {name} = {databases}"));
        }
    }
    Some(
        Finding::warning(Area::Server, "binlog-filters", "the server logs only some databases")
            .detail(detail)
            .fix("# remove binlog_do_db and binlog_ignore_db from my.cnf, then restart mysqld"),
    )
}

fn packet(facts: &ServerFacts) -> Option<Finding> {
    let bytes = facts.max_allowed_packet?;
    (bytes > USUAL_PACKET_BYTES).then(|| {
        Finding::note(Area::Server, "max-allowed-packet", format!("max_allowed_packet is {} MiB", bytes >> 20)).detail(
            "the agent takes events of any size in bounded memory; a server that replays them needs as large a \
             replica_max_allowed_packet",
        )
    })
}

fn clock(skew_us: i64) -> Finding {
    let (level, title) = if skew_us.abs() <= SKEW_MAX_US {
        (Level::Ok, "the server's clock and ours agree".to_owned())
    } else {
        let way = if skew_us > 0 { "ahead of" } else { "behind" };
        let seconds = skew_us.unsigned_abs() / 1_000_000;
        (Level::Warning, format!("the server's clock is {} {way} ours", span(seconds)))
    };
    let finding = Finding::new(level, Area::Server, "clock", title);
    if level == Level::Ok {
        return finding;
    }
    finding
        .detail("lag is shown wrong by as much, and so are times that people take from this machine's clock")
        .fix("timedatectl set-ntp true   # on both machines")
}

/// Seconds for people.
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / HOUR_S),
        _ => format!("{} days", seconds / DAY_S),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn facts(version: &str) -> ServerFacts {
        ServerFacts {
            version: Version::parse(version),
            server_uuid: None,
            server_id: Some(1),
            log_bin: Some(true),
            log_bin_basename: None,
            binlog_format: None,
            binlog_row_image: None,
            binlog_row_metadata: None,
            binlog_row_value_options: None,
            sync_binlog: Some(1),
            gtid_mode: Some("ON".into()),
            enforce_gtid_consistency: Some("ON".into()),
            binlog_checksum: None,
            binlog_encryption: None,
            binlog_transaction_compression: None,
            binlog_expire_logs_seconds: None,
            expire_logs_days: None,
            binlog_expire_logs_auto_purge: None,
            max_binlog_size: None,
            gtid_executed: None,
            gtid_purged: None,
            read_only: None,
            super_read_only: None,
            log_replica_updates: None,
            max_allowed_packet: None,
            require_secure_transport: None,
            time_us: 0,
            tls_cipher: None,
            grants: Vec::new(),
            variables: BTreeMap::new(),
        }
    }

    #[test]
    fn versions_that_cannot_be_archived_are_errors() {
        for (text, level) in [
            ("5.6.51", Level::Error),
            ("5.5.5-10.11.6-MariaDB", Level::Error),
            ("5.7.44-log", Level::Ok),
            ("8.0.36", Level::Ok),
            ("9.7.0", Level::Ok),
        ] {
            assert_eq!(version(&Version::parse(text)).level, level, "{text}");
        }
    }

    #[test]
    fn expiry_is_judged_by_how_long_an_agent_may_be_away() {
        let of = |seconds, days, auto| {
            let facts = ServerFacts {
                binlog_expire_logs_seconds: seconds,
                expire_logs_days: days,
                binlog_expire_logs_auto_purge: auto,
                ..facts("8.0.36")
            };
            expiry(&facts).level
        };
        assert_eq!(of(Some(3_599), None, Some(true)), Level::Error);
        assert_eq!(of(Some(3_600), None, Some(true)), Level::Warning);
        assert_eq!(of(Some(86_400), None, None), Level::Ok);
        assert_eq!(of(Some(60), None, Some(false)), Level::Ok, "no automatic purge");
        assert_eq!(of(Some(0), Some(0.0), None), Level::Ok, "never");
        assert_eq!(of(Some(0), Some(1.0), None), Level::Ok);
        assert_eq!(of(None, Some(0.02), None), Level::Error);
    }

    #[test]
    fn old_servers_get_statements_that_they_understand() {
        let old = ServerFacts { sync_binlog: Some(0), expire_logs_days: Some(0.5), ..facts("5.7.44") };
        let fix = durability(&old, Some(1))[0].fix.clone().unwrap();
        assert!(fix.starts_with("SET GLOBAL sync_binlog = 1; -- and"), "{fix}");
        assert_eq!(expiry(&old).level, Level::Warning);
        assert!(expiry(&old).fix.unwrap().starts_with("SET GLOBAL expire_logs_days = 30;"));
    }

    #[test]
    fn gtids_are_switched_on_step_by_step() {
        let half = ServerFacts { gtid_mode: Some("ON_PERMISSIVE".into()), ..facts("8.4.0") };
        let fix = gtids(&half).fix.unwrap();
        assert!(fix.ends_with("SET PERSIST gtid_mode = ON;"), "{fix}");
        assert!(!fix.contains("OFF_PERMISSIVE") && !fix.contains("enforce"), "{fix}");
    }

    #[test]
    fn a_replica_must_log_what_it_applies() {
        let silent = ServerFacts { log_replica_updates: Some(false), ..facts("8.0.20") };
        assert!(replica_updates(&silent, false).is_none());
        let finding = replica_updates(&silent, true).unwrap();
        assert_eq!(finding.level, Level::Error);
        assert!(finding.fix.unwrap().contains("log_slave_updates = ON"), "the old name on an old server");
    }

    #[test]
    fn clocks_may_differ_by_two_seconds() {
        assert_eq!(clock(2_000_000).level, Level::Ok);
        assert_eq!(clock(-2_000_001).level, Level::Warning);
    }
}
