//! Answers of a logged-in connection: values, limits, errors, facts, and the first packets of a dump.

use std::time::Duration;

use binvault::mysql::ServerError;
use binvault::mysql::facts::{self, ServerFacts};
use binvault::mysql::replica::{DumpRequest, start_dump};
use tokio::io::AsyncReadExt;
use uuid::Uuid;

use super::*;

async fn root(server: &Mysqld) -> Connection {
    connect(&socket(server, "root", "")).await
}

#[tokio::test]
async fn values_come_as_they_are() {
    let server = &shared();
    let mut connection = root(server).await;
    let rows = connection
        .query("SELECT 1 AS One, NULL AS Nothing, '' AS `Empty`, x'ff00fb' AS Bytes, 'é' AS Text UNION ALL SELECT 2, 'x', NULL, '', ''")
        .await
        .unwrap();
    let [first, second] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!(first.columns(), ["One", "Nothing", "Empty", "Bytes", "Text"]);
    assert_eq!((first.get("one"), first.get("nothing"), first.get("EMPTY")), (Some("1"), None, Some("")));
    assert_eq!(
        (first.get("bytes"), first.bytes("bytes"), first.get("text")),
        (None, Some(&b"\xff\0\xfb"[..]), Some("é"))
    );
    assert_eq!((second.get_at(1), second.get_at(2), second.get_at(5)), (Some("x"), None, None));
    assert!(connection.query("SELECT 1 FROM DUAL WHERE FALSE").await.unwrap().is_empty());
    assert_eq!(connection.execute("CREATE TEMPORARY TABLE mysql.t (a INT)").await.unwrap(), 0);
    assert_eq!(connection.execute("INSERT INTO mysql.t VALUES (1), (2), (3)").await.unwrap(), 3);
}

#[tokio::test]
async fn values_of_several_frames_come_whole_and_larger_answers_are_refused() {
    let server = &shared();
    for tls_mode in [TlsMode::Disabled, TlsMode::Required] {
        let mut connection = connect(&SourceOptions { tls: tls(tls_mode), ..socket(server, "root", "") }).await;
        for length in [0xff_fffa_usize, 0xff_fffb, 0xff_fffc, 0xff_ffff, 0x100_0000, 40_000_000] {
            let rows = connection.query(&format!("SELECT REPEAT('v', {length}), 'end'")).await.unwrap();
            let value = rows[0].bytes_at(0).unwrap();
            assert!(value.len() == length && value.iter().all(|byte| *byte == b'v'), "{length}");
            assert_eq!(rows[0].get_at(1), Some("end"), "{length}");
        }
        // A question of several frames.
        let long = format!("SELECT LENGTH('{}')", "q".repeat(17_000_000));
        assert_eq!(value(&mut connection, &long).await, "17000000");
        let error = connection.query("SELECT REPEAT('v', 70000000)").await.unwrap_err();
        assert!(error.chain().contains("exceeds the limit"), "{error:?}");
        // The rest of that answer is still on its way: this connection is done.
        assert!(connection.ping().await.unwrap_err().to_string().contains("in the middle of an answer"));
    }
}

#[tokio::test]
async fn errors_carry_their_code_and_leave_the_connection_usable() {
    let server = &shared();
    let mut connection = root(server).await;
    for (sql, code) in
        [("SELEC 1", 1064), ("SELECT @@global.no_such_thing", 1193), ("SELECT * FROM mysql.nothing", 1146)]
    {
        let error = connection.query(sql).await.unwrap_err();
        assert_eq!((server_code(&error), error.kind()), (Some(code), Kind::Failed), "{error:?}");
        assert!(error.to_string().contains(sql), "{error:?}");
        connection.ping().await.unwrap();
    }
    // An error among the rows: the second row's value is out of range.
    let sql = "SELECT IF(n = 2, (SELECT 1 UNION SELECT 2), n) FROM (SELECT 1 n UNION ALL SELECT 2) x";
    assert_eq!(server_code(&connection.query(sql).await.unwrap_err()), Some(1242));
    connection.ping().await.unwrap();
}

#[tokio::test]
async fn an_answer_that_does_not_come_ends_the_connection_in_time() {
    let server = &shared();
    let mut options = socket(server, "root", "");
    options.query_timeout = Duration::from_millis(200);
    let mut connection = connect(&options).await;
    let error = connection.query("SELECT SLEEP(30)").await.unwrap_err();
    assert_says(&error, Kind::Unreachable, true, None);
    assert!(error.chain().contains("no answer within 0.2 s"), "{error:?}");
    assert_says(&connection.query("SELECT 1").await.unwrap_err(), Kind::Unreachable, true, None);
}

#[tokio::test]
async fn a_killed_connection_is_unreachable_and_worth_another_try() {
    let server = &shared();
    let mut connection = root(server).await;
    server.sql(&format!("KILL {}", connection.id()));
    let error = connection.query("SELECT 1").await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (Kind::Unreachable, true), "{error:?}");
}

#[tokio::test]
async fn facts_are_read_with_the_least_privilege() {
    let server = Mysqld::start("facts", &["--binlog-expire-logs-seconds=1234", "--sync-binlog=1", "--server-id=77"]);
    server.sql(
        "SET sql_log_bin = 0; CREATE USER agent IDENTIFIED BY 'pw'; GRANT REPLICATION SLAVE ON *.* TO agent;\
         CREATE USER none IDENTIFIED BY 'pw'; SET sql_log_bin = 1; CREATE DATABASE d; FLUSH BINARY LOGS",
    );
    let agent = tcp(server.port(), "agent", "pw", tls(TlsMode::Required));
    let mut connection = connect(&agent).await;
    let before = binvault::clock::now_us();
    let facts = ServerFacts::read(&mut connection).await.unwrap();
    assert!(facts.time_us.abs_diff(before) < 5_000_000, "the server's time is {}, ours {before}", facts.time_us);
    assert_eq!(facts.version.text, server.value("SELECT VERSION()"));
    assert_eq!(facts.server_uuid.unwrap().to_string(), server.uuid());
    assert_eq!((facts.server_id, facts.log_bin, facts.sync_binlog), (Some(77), Some(true), Some(1)));
    assert_eq!((facts.gtid_mode.as_deref(), facts.enforce_gtid_consistency.as_deref()), (Some("ON"), Some("ON")));
    assert_eq!((facts.binlog_format.as_deref(), facts.binlog_row_image.as_deref()), (Some("ROW"), Some("FULL")));
    assert_eq!(
        (facts.binlog_checksum.as_deref(), facts.binlog_row_value_options.as_deref()),
        (Some("CRC32"), Some(""))
    );
    assert_eq!((facts.binlog_encryption, facts.binlog_transaction_compression), (Some(false), Some(false)));
    assert_eq!((facts.binlog_expire_logs_seconds, facts.binlog_expire_logs_auto_purge), (Some(1234), Some(true)));
    assert_eq!((facts.super_read_only, facts.read_only, facts.expire_logs_days), (Some(false), Some(false), None));
    assert_eq!((facts.log_replica_updates, facts.max_allowed_packet), (Some(true), Some(1 << 30)));
    assert_eq!(facts.gtid_executed.as_deref(), Some(format!("{}:1", server.uuid()).as_str()));
    assert_eq!(facts.gtid_purged.as_deref(), Some(""));
    assert!(facts.tls_cipher.is_some_and(|cipher| cipher.starts_with("TLS_")));
    assert!(facts.grants.iter().any(|grant| grant.contains("REPLICATION SLAVE")), "{:?}", facts.grants);

    let hint = "GRANT REPLICATION CLIENT ON *.* TO 'agent'@'%';";
    let logs = facts::binary_logs(&mut connection).await.unwrap_err();
    let status = facts::binlog_status(&mut connection).await.unwrap_err();
    for error in [logs, status] {
        assert_eq!(assert_says(&error, Kind::Refused, false, Some(1227)), hint);
    }
    let mut none = connect(&clear(&server, "none", "pw")).await;
    let error = facts::replicas(&mut none).await.unwrap_err();
    assert_eq!(assert_says(&error, Kind::Refused, false, Some(1227)), "GRANT REPLICATION SLAVE ON *.* TO 'none'@'%';");

    server.sql("SET sql_log_bin = 0; GRANT REPLICATION CLIENT ON *.* TO agent");
    let mut connection = connect(&agent).await;
    let logs = facts::binary_logs(&mut connection).await.unwrap();
    let status = facts::binlog_status(&mut connection).await.unwrap().unwrap();
    assert_eq!((status.file.clone(), status.position), server.position());
    assert_eq!(status.executed_gtid_set, format!("{}:1", server.uuid()));
    let last = logs.last().unwrap();
    assert_eq!((last.name.as_str(), last.size, last.encrypted), (status.file.as_str(), status.position, Some(false)));
    assert!(logs.len() >= 2 && logs[0].size == server.binlogs()[0].metadata().unwrap().len(), "{logs:?}");
}

#[tokio::test]
async fn a_server_without_binlogs_says_so() {
    let server = Mysqld::start("nolog", &["--skip-log-bin", "--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"]);
    let mut connection = root(&server).await;
    assert_eq!(ServerFacts::read(&mut connection).await.unwrap().log_bin, Some(false));
    assert_eq!(facts::binary_logs(&mut connection).await.unwrap(), []);
    assert_eq!(facts::binlog_status(&mut connection).await.unwrap(), None);
    assert_eq!(facts::replicas(&mut connection).await.unwrap(), []);
}

fn request(file: &str, number: u128) -> DumpRequest {
    DumpRequest {
        server_id: 4_000_000_000,
        replica_uuid: Uuid::from_u128(number),
        report_host: "agent.example".to_owned(),
        report_port: 9306,
        heartbeat: Duration::from_secs(1),
        net_write_timeout_s: 600,
        file: file.to_owned(),
        position: 4,
        by_gtid: true,
        non_block: false,
        register: true,
        semi_sync: false,
    }
}

/// Reads the packets of a dump (small ones) until `wanted` says enough; gives the payloads.
async fn read_dump(connection: Connection, request: &DumpRequest, wanted: impl Fn(&[Vec<u8>]) -> bool) -> Vec<Vec<u8>> {
    let mut raw = start_dump(connection, request).await.unwrap();
    assert!(raw.leftover.is_empty());
    let mut payloads = Vec::new();
    while !wanted(&payloads) {
        let mut header = [0; 4];
        raw.stream.read_exact(&mut header).await.unwrap();
        let mut payload = vec![0; usize::from(header[0]) | usize::from(header[1]) << 8 | usize::from(header[2]) << 16];
        raw.stream.read_exact(&mut payload).await.unwrap();
        payloads.push(payload);
    }
    payloads
}

#[tokio::test]
async fn a_dump_starts_registered_with_heartbeats_and_by_both_commands() {
    let server = Mysqld::start("dump", &[]);
    server.create_agent_user("agent", "pw");
    let options = tcp(server.port(), "agent", "pw", tls(TlsMode::Required));
    let event_type = |payload: &Vec<u8>| payload.get(5).copied();
    for by_gtid in [true, false] {
        let (file, _) = server.position();
        let mut watch = connect(&options).await;
        let asked = DumpRequest { by_gtid, ..request(&file, 7) };
        let dump = read_dump(connect(&options).await, &asked, |seen| seen.iter().any(|p| event_type(p) == Some(41)));
        let payloads =
            tokio::time::timeout_at(binvault::clock::monotonic() + Duration::from_secs(20), dump).await.unwrap();
        // A rotation that names the file, its format description, the former GTIDs, and then the heartbeat.
        let types: Vec<_> = payloads.iter().map(event_type).collect();
        assert_eq!(types, [Some(4), Some(15), Some(35), Some(41)], "by gtid: {by_gtid}");
        assert!(payloads.iter().all(|payload| payload[0] == 0));
        assert!(payloads[0][28..].starts_with(file.as_bytes()), "{:?}", payloads[0]);
        let seen = facts::replicas(&mut watch).await.unwrap();
        let [replica] = &seen[..] else { panic!("{seen:?}") };
        assert_eq!((replica.server_id, replica.host.as_str(), replica.port), (4_000_000_000, "agent.example", 9306));
        assert_eq!(replica.uuid, Some(Uuid::from_u128(7)));
    }
}

#[tokio::test]
async fn a_dump_without_waiting_ends_and_a_wrong_file_is_told() {
    let server = &shared();
    let ended = |seen: &[Vec<u8>]| seen.last().is_some_and(|p| p.len() < 9 && p[0] == 0xfe || p[0] == 0xff);
    let (file, _) = server.position();
    let asked = DumpRequest { non_block: true, register: false, ..request(&file, 8) };
    let payloads = read_dump(root(server).await, &asked, ended).await;
    assert!(payloads.len() > 3 && payloads.last().unwrap()[0] == 0xfe);

    let asked = DumpRequest { register: false, ..request("binlog.999999", 9) };
    let payloads = read_dump(root(server).await, &asked, ended).await;
    let error = ServerError::parse(payloads.last().unwrap());
    assert_eq!(error.code, 1236);
    assert!(error.message.contains("Could not find first log file name"), "{error}");
}
