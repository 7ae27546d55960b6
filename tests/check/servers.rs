//! Servers, accounts, and the agent's place among the replicas.

use std::time::Duration;

use binvault::mysql::replica::{DumpRequest, start_dump};
use binvault::mysql::{Address, Connection, SourceOptions};
use uuid::Uuid;

use crate::support::agent::{AgentConfig, PASSWORD};
use crate::support::lab::Mysqld;
use crate::support::wait_until;
use crate::{GOOD, check, check_with, finding, level, second_recipient, troubles};

#[test]
fn a_good_server_is_fit_before_and_after_the_first_run() {
    let server = Mysqld::start("check-good", GOOD);
    let config = AgentConfig::new(&server);
    second_recipient(&config);
    let (report, code) = check(&config);
    assert_eq!((code, troubles(&report)), (0, vec![]), "{report:#}");
    assert!(!config.archive().exists(), "checking makes no archive");
    config.archive_now();
    server.sql("CREATE DATABASE d; FLUSH BINARY LOGS; CREATE DATABASE e");
    let key = config.identity();
    let (report, code) = check_with(&config, &["--identity", key.to_str().unwrap()]);
    assert_eq!((code, troubles(&report)), (0, vec!["base-backup"]), "binlog alone restores nothing: {report:#}");
    for id in ["archive-server", "archive-resume", "archive-executed", "identity", "identity-archive", "put-if-absent"]
    {
        assert_eq!(level(&report, id), "ok", "{id}: {report:#}");
    }
    let text = config.ok(&["check"]);
    assert!(text.ends_with("fit, 1 warning\n"), "{text}");
    assert!(text.contains("✓") && !text.contains('\x1b'), "no colour where there is no terminal: {text}");
    let left: Vec<_> = std::fs::read_dir(config.archive().join("checks")).into_iter().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Setting → finding → the printed fix → no finding.
#[test]
fn each_printed_statement_mends_what_it_says() {
    let server = Mysqld::start("check-fix", GOOD);
    let config = AgentConfig::new(&server);
    second_recipient(&config);
    let table = [
        ("SET GLOBAL binlog_format = 'STATEMENT'", "binlog-format", "warning", 0),
        ("SET GLOBAL binlog_format = 'MIXED'", "binlog-format", "warning", 0),
        ("SET GLOBAL binlog_row_image = 'MINIMAL'", "binlog-row-image", "warning", 0),
        ("SET GLOBAL binlog_row_value_options = 'PARTIAL_JSON'", "binlog-row-value-options", "note", 0),
        ("SET GLOBAL binlog_row_metadata = 'MINIMAL'", "binlog-row-metadata", "note", 0),
        ("SET GLOBAL sync_binlog = 0", "sync-binlog", "warning", 0),
        ("SET GLOBAL innodb_flush_log_at_trx_commit = 2", "innodb-flush-log", "warning", 0),
        ("SET GLOBAL gtid_mode = ON_PERMISSIVE", "gtid-mode", "warning", 0),
        (
            "SET GLOBAL gtid_mode = ON_PERMISSIVE; SET GLOBAL gtid_mode = OFF_PERMISSIVE; SET GLOBAL gtid_mode = OFF; \
             SET GLOBAL enforce_gtid_consistency = OFF",
            "gtid-mode",
            "warning",
            0,
        ),
        ("SET GLOBAL binlog_checksum = 'NONE'", "binlog-checksum", "warning", 0),
        ("SET GLOBAL binlog_expire_logs_seconds = 7200", "binlog-expiry", "warning", 0),
        ("SET GLOBAL binlog_expire_logs_seconds = 600", "binlog-expiry", "error", 5),
    ];
    for (setting, id, wanted, code) in table {
        server.sql(setting);
        let (report, found) = check(&config);
        assert_eq!((level(&report, id), found), (wanted, code), "after {setting}: {report:#}");
        let fix = finding(&report, id)["fix"].as_str().unwrap().to_owned();
        server.sql(&fix);
        let (report, found) = check(&config);
        assert!(matches!(level(&report, id), "ok" | "absent"), "after {setting} and {fix}: {report:#}");
        assert_eq!((found, troubles(&report)), (0, vec![]), "after {setting} and {fix}: {report:#}");
    }
    server.sql("SET GLOBAL binlog_expire_logs_seconds = 600; SET GLOBAL binlog_expire_logs_auto_purge = OFF");
    assert_eq!(level(&check(&config).0, "binlog-expiry"), "ok", "nothing is purged by age");
}

#[test]
fn each_printed_grant_gives_what_lacks() {
    let server = Mysqld::start("check-grant", GOOD);
    let config = AgentConfig::new(&server);
    for (privilege, id) in [("REPLICATION SLAVE", "replication-slave"), ("REPLICATION CLIENT", "replication-client")] {
        server.sql(&format!("REVOKE {privilege} ON *.* FROM 'binvault'@'%'"));
        let (report, code) = check(&config);
        assert_eq!((level(&report, id), code), ("error", 4), "{report:#}");
        let fix = finding(&report, id)["fix"].as_str().unwrap();
        assert_eq!(fix, format!("GRANT {privilege} ON *.* TO 'binvault'@'%';"));
        server.sql(fix);
        let (report, code) = check(&config);
        assert_eq!((level(&report, id), code), ("ok", 0), "{report:#}");
    }
    // By a role: not in force, then in force.
    server.sql(
        "REVOKE REPLICATION SLAVE ON *.* FROM 'binvault'@'%'; CREATE ROLE replicas; \
         GRANT REPLICATION SLAVE ON *.* TO replicas; GRANT replicas TO 'binvault'@'%'",
    );
    let (report, _) = check(&config);
    let detail = finding(&report, "replication-slave")["detail"].as_str().unwrap();
    assert!(detail.contains("SET DEFAULT ROLE"), "{report:#}");
    server.sql("SET DEFAULT ROLE replicas TO 'binvault'@'%'");
    assert_eq!(level(&check(&config).0, "replication-slave"), "ok");
    assert_eq!(level(&check(&config).0, "least-privilege"), "absent");
    server.sql("GRANT ALL PRIVILEGES ON *.* TO 'binvault'@'%'");
    assert_eq!(level(&check(&config).0, "least-privilege"), "note");
}

#[test]
fn no_binlog_wrong_password_and_nobody_there() {
    let mut server = Mysqld::start("check-off", &["--skip-log-bin"]);
    let config = AgentConfig::new(&server);
    let (report, code) = check(&config);
    assert_eq!((level(&report, "log-bin"), code), ("error", 5), "{report:#}");
    assert!(finding(&report, "log-bin")["fix"].as_str().unwrap().contains("log_bin = binlog"));

    std::fs::write(config.dir().join("password"), "not it").unwrap();
    let (report, code) = check(&config);
    assert_eq!((finding(&report, "connect")["area"].as_str(), code), (Some("account"), 4), "{report:#}");
    let fix = finding(&report, "connect")["fix"].as_str().unwrap();
    server.sql(&fix.replace('…', "not it"));
    assert_eq!(level(&check(&config).0, "connect"), "ok", "the statement works, with the password put in");

    server.stop();
    let (report, code) = check(&config);
    assert_eq!((finding(&report, "connect")["area"].as_str(), code), (Some("network"), 3), "{report:#}");
    assert_ne!(level(&report, "archive-reachable"), "absent", "the archive is checked all the same: {report:#}");
    let text = config.fails(&["check"], 3);
    assert!(text.contains("✗") && text.contains("not fit: 1 error, "), "{text}");
}

#[test]
fn without_a_source_archive_and_keys_are_checked() {
    let server = Mysqld::start("check-alone", GOOD);
    let config = AgentConfig::new(&server);
    let url = format!("url = \"mysql://binvault@127.0.0.1:{}\"\n", server.port());
    config.edit(&url, "");
    let (report, code) = check(&config);
    assert_eq!((level(&report, "source"), code), ("note", 0), "{report:#}");
    assert_ne!(level(&report, "recipients"), "absent");
}

#[test]
fn purged_reset_and_foreign_servers_are_told_apart() {
    let server = Mysqld::start("check-history", GOOD);
    let config = AgentConfig::new(&server);
    server.sql("CREATE DATABASE c");
    config.archive_now();
    // Falling behind: what comes next is in a closed file, which the server purges after a while.
    server.sql("CREATE DATABASE d; FLUSH BINARY LOGS; FLUSH BINARY LOGS; SET GLOBAL binlog_expire_logs_seconds = 3000");
    let (report, code) = check(&config);
    assert_eq!((level(&report, "archive-resume"), code), ("error", 5), "{report:#}");
    let fix = finding(&report, "archive-resume")["fix"].as_str().unwrap().to_owned();
    server.sql(&fix);
    assert_eq!(level(&check(&config).0, "archive-resume"), "ok");
    // Purged.
    let current = server.position().0;
    server.sql(&format!("PURGE BINARY LOGS TO '{current}'"));
    let (report, code) = check(&config);
    assert_eq!((level(&report, "archive-resume"), code), ("error", 6), "{report:#}");
    // Reset.
    server.sql("RESET BINARY LOGS AND GTIDS");
    let (report, code) = check(&config);
    assert_eq!((level(&report, "archive-executed"), code), ("error", 7), "{report:#}");
    // Another server.
    let other = Mysqld::start("check-other", GOOD);
    other.create_agent_user("binvault", PASSWORD);
    config.edit(&server.port().to_string(), &other.port().to_string());
    let (report, code) = check(&config);
    assert_eq!((level(&report, "archive-server"), code), ("error", 7), "{report:#}");
}

#[test]
fn the_identity_among_the_replicas_is_free_running_or_taken() {
    let server = Mysqld::start("check-clash", GOOD);
    let config = AgentConfig::new(&server);
    config.archive_now();
    let gone = || level(&check(&config).0, "replica-identity") == "ok";
    wait_until("the server notices that the agent has gone", Duration::from_secs(30), gone);
    let agent = config.spawn();
    wait_until("the agent registers", Duration::from_secs(30), || !server.sql("SHOW REPLICAS").is_empty());
    let (report, code) = check(&config);
    assert_eq!((level(&report, "replica-identity"), code), ("note", 0), "running: {report:#}");
    let row = server.sql("SHOW REPLICAS");
    let columns: Vec<&str> = row.trim().split('\t').collect();
    let (number, uuid) = (columns[0].parse::<u32>().unwrap(), columns[4].parse::<Uuid>().unwrap());
    agent.terminate();
    wait_until("the server notices that the agent has gone", Duration::from_secs(30), gone);
    for (what, uuid, fix) in [("elsewhere", uuid, "[agent]"), ("another uuid", Uuid::new_v4(), "server_id = ")] {
        let dump = Dump::start(&server, number, uuid);
        let (report, code) = check(&config);
        assert_eq!((level(&report, "replica-identity"), code), ("error", 8), "{what}: {report:#}");
        assert!(finding(&report, "replica-identity")["fix"].as_str().unwrap().contains(fix), "{what}: {report:#}");
        drop(dump);
        // An idle dump is noticed to be gone when the server next writes to it.
        server.sql("CREATE DATABASE passing; DROP DATABASE passing");
        wait_until("the server notices that the dump has gone", Duration::from_secs(30), gone);
    }
}

/// A replica from elsewhere, connected as long as the value lives.
struct Dump {
    _runtime: tokio::runtime::Runtime,
    _stream: binvault::mysql::RawStream,
}

impl Dump {
    fn start(server: &Mysqld, server_id: u32, replica_uuid: Uuid) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let address = Address::Tcp { host: "127.0.0.1".into(), port: server.port() };
        let options = SourceOptions::new(address, "binvault", Some(PASSWORD.into()));
        let request = DumpRequest {
            server_id,
            replica_uuid,
            report_host: "elsewhere".into(),
            report_port: 0,
            heartbeat: Duration::from_secs(1),
            net_write_timeout_s: 60,
            file: server.position().0,
            position: 4,
            by_gtid: true,
            non_block: false,
            register: true,
            semi_sync: false,
        };
        let stream = runtime.block_on(async {
            let connection = Connection::connect(&options, "elsewhere").await.unwrap();
            start_dump(connection, &request).await.unwrap()
        });
        Self { _runtime: runtime, _stream: stream }
    }
}
