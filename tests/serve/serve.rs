//! `binvault serve`: the archive as a source for real replicas, while it grows.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::replica::{REPLICA, assert_same_tables, column, point, wait_executed, wait_io_error};
use crate::s3;
use crate::support::agent::{Agent, AgentConfig, said};
use crate::support::compare::{Extent, assert_same};
use crate::support::lab::{self, Mysqld};
use crate::support::load::{Load, Pace};
use crate::support::{wait_until, workload};

/// Of the account that replicas use.
const PASSWORD: &str = "serve-Secret_1";

const SETTINGS: &str = "[agent]\nchunk_size = \"256KiB\"\nflush_interval = \"200ms\"\n\
                        [serve]\npassword = \"serve-Secret_1\"\npoll_interval = \"200ms\"\n";

/// `binvault serve` on a free port.
fn serve<'a>(config: &'a AgentConfig, more: &[&str]) -> (Agent<'a>, SocketAddr) {
    let key = config.identity();
    let arguments = [&["serve", "--listen", "127.0.0.1:0", "--identity", key.to_str().unwrap()], more].concat();
    let mut agent = config.spawn_with(&arguments);
    let mut address = None;
    wait_until("it serves", Duration::from_secs(30), || {
        assert!(agent.exited().is_none(), "{}", agent.log());
        let log = agent.log();
        let line = log.lines().find(|line| line.contains("serving"));
        address = line.and_then(|line| line.split("address=").nth(1)?.split_whitespace().next()?.parse().ok());
        address.is_some()
    });
    (agent, address.unwrap())
}

/// A fresh replica that follows.
fn replica(address: SocketAddr, more: &str) -> Mysqld {
    let replica = Mysqld::start("replica", REPLICA);
    point(
        &replica,
        address,
        "replica",
        PASSWORD,
        &format!("SOURCE_AUTO_POSITION = 1, SOURCE_HEARTBEAT_PERIOD = 1, {more}"),
    );
    replica.sql("START REPLICA");
    replica
}

/// From an archive on S3.
#[test]
fn replicas_follow_the_growing_archive() {
    let mut source = Mysqld::start("served", &[]);
    workload::named("row").run(&source);
    let store = s3::Server::start();
    let url = format!("s3://{}/served", s3::BUCKET);
    let config = AgentConfig::with(&source, &url, &(store.settings() + SETTINGS));
    config.archive_now();
    let mut agent = config.spawn();
    let (server, address) = serve(&config, &[]);
    let first = replica(address, "SOURCE_SSL = 0");
    let load = Load::start(&source, 2, Pace::PerSecond(400));
    load.wait_for(300);
    // The source goes away and comes back, with a new file; the archive and the replica follow.
    source.stop();
    source.start_again(&[]);
    source.sql("FLUSH BINARY LOGS");
    load.wait_for(300);
    // This one begins from scratch, with all that was before.
    let second = replica(address, "SOURCE_SSL = 0");
    load.wait_for(300);
    load.stop();
    let executed = source.value("SELECT @@gtid_executed");
    agent.wait_caught_up(&source);
    for replica in [&first, &second] {
        wait_executed(replica, &executed);
        assert_same_tables(&source, replica);
        assert_eq!(column(replica, "Replica_IO_Running"), "Yes");
    }
    agent.terminate();
    assert!(server.terminate() < Duration::from_secs(5));
}

#[test]
fn a_delayed_replica_gets_each_transaction_when_it_is_due() {
    let source = Mysqld::start("served", &[]);
    source.sql("CREATE DATABASE d; CREATE TABLE d.t (id INT PRIMARY KEY, at TIMESTAMP(6))");
    let config = AgentConfig::with_extra(&source, SETTINGS);
    config.archive_now();
    let (server, address) = serve(&config, &["--delay", "4s"]);
    let replica = replica(address, "SOURCE_SSL = 0");
    wait_executed(&replica, &source.value("SELECT @@gtid_executed"));
    for id in 1..=3 {
        source.sql(&format!("INSERT INTO d.t VALUES ({id}, NOW(6))"));
        std::thread::sleep(Duration::from_millis(700));
    }
    config.archive_now();
    for id in 1..=3 {
        let mut late = String::new();
        wait_until("the row arrives", Duration::from_secs(30), || {
            late = replica.value(&format!("SELECT TIMESTAMPDIFF(MICROSECOND, at, NOW(6)) FROM d.t WHERE id = {id}"));
            !late.is_empty()
        });
        let late: u64 = late.parse().unwrap();
        assert!((3_900_000..8_000_000).contains(&late), "row {id} came after {late} us");
    }
    server.terminate();
}

#[test]
fn stock_tools_fetch_the_servers_files_and_strangers_are_refused() {
    let source = Mysqld::start("served", &[]);
    for name in ["row", "compressed", "tagged", "xa", "no_checksum", "anonymous", "rotation", "row_17m"] {
        workload::named(name).run(&source);
    }
    // Else it would not send us its anonymous transactions. This ends the file, too.
    source.sql("SET GLOBAL gtid_mode = ON_PERMISSIVE");
    let config = AgentConfig::with_extra(&source, SETTINGS);
    config.archive_now();
    let (server, address) = serve(&config, &[]);
    let to = source.scratch().join("fetched");
    std::fs::create_dir_all(&to).unwrap();
    let files = source.binlogs();
    let first = files[0].file_name().unwrap().to_str().unwrap();
    let fetch = |password: &str| {
        let mut command = lab::tool("mysqlbinlog");
        command.args(["--read-from-remote-server", "--raw", "--to-last-log", "--user=replica", "--ssl-mode=DISABLED"]);
        command.args([&format!("--host={}", address.ip()), &format!("--port={}", address.port())]);
        command.args([&format!("--password={password}"), &format!("--result-file={}/", to.display()), first]);
        command.output().unwrap()
    };
    let out = fetch("wrong");
    assert!(!out.status.success() && said(&out).contains("Access denied for user 'replica'"), "{}", said(&out));
    let out = fetch(PASSWORD);
    assert!(out.status.success(), "{}", said(&out));
    for file in &files {
        let live = file == files.last().unwrap();
        assert_same(file, &to.join(file.file_name().unwrap()), if live { Extent::Prefix } else { Extent::Whole });
    }
    let out = sql(address, "SELECT VERSION(); SELECT @@global.gtid_mode");
    assert_eq!(said(&out), format!("{}\nON\n", source.value("SELECT VERSION()")));
    let out = sql(address, "DROP DATABASE mysql");
    assert!(said(&out).contains("answers replicas and mysqlbinlog only"), "{}", said(&out));
    assert!(!server.log().contains(PASSWORD) && !server.log().contains("wrong"), "{}", server.log());

    // A replica that is told a wrong password is told so in turn.
    let stranger = Mysqld::start("replica", REPLICA);
    point(&stranger, address, "replica", "wrong", "SOURCE_SSL = 0, SOURCE_AUTO_POSITION = 1");
    stranger.sql("START REPLICA");
    wait_until("it is refused", Duration::from_secs(20), || {
        column(&stranger, "Last_IO_Error").contains("Access denied")
    });
    server.terminate();
}

/// The stock client, as the replicas' account.
fn sql(address: SocketAddr, text: &str) -> std::process::Output {
    let mut client: Command = lab::tool("mysql");
    client.args(["--batch", "--skip-column-names", "--user=replica", "--ssl-mode=DISABLED", "--protocol=TCP"]);
    client.args([&format!("--host={}", address.ip()), &format!("--port={}", address.port())]);
    client.args([&format!("--password={PASSWORD}"), &format!("--execute={text}")]);
    let mut out = client.output().unwrap();
    // The client's own word about passwords on command lines.
    let kept =
        String::from_utf8_lossy(&out.stderr).lines().filter(|line| !line.contains("[Warning]")).collect::<String>();
    out.stderr = kept.into_bytes();
    out
}

#[test]
fn replicas_over_tls() {
    let source = Mysqld::start("served", &[]);
    workload::named("row").run(&source);
    let files = tempfile::tempdir().unwrap();
    let (cert, key) = (files.path().join("cert.pem"), files.path().join("key.pem"));
    certificate(&cert, &key);
    let tls = format!("{SETTINGS}tls_cert = \"{}\"\ntls_key = \"{}\"\n", cert.display(), key.display());
    let config = AgentConfig::with_extra(&source, &tls);
    config.archive_now();
    let (server, address) = serve(&config, &[]);
    let trusted = format!("SOURCE_SSL = 1, SOURCE_SSL_CA = '{}', SOURCE_SSL_VERIFY_SERVER_CERT = 1", cert.display());
    let follower = replica(address, &trusted);
    wait_executed(&follower, &source.value("SELECT @@gtid_executed"));
    assert_same_tables(&source, &follower);
    server.terminate();
}

/// A certificate that signs itself.
fn certificate(cert: &Path, key: &Path) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    std::fs::write(cert, made.cert.pem()).unwrap();
    std::fs::write(key, made.signing_key.serialize_pem()).unwrap();
}

#[test]
fn a_replica_that_the_archive_cannot_serve_is_told_what_it_lacks() {
    let source = Mysqld::start("served", &[]);
    workload::named("row").run(&source);
    source.sql("FLUSH BINARY LOGS; CREATE DATABASE later");
    let config = AgentConfig::with_extra(&source, SETTINGS);
    config.source("start = \"current\"");
    config.archive_now();
    let (server, address) = serve(&config, &[]);
    let lacking = replica(address, "SOURCE_SSL = 0");
    let error = wait_io_error(&lacking);
    assert!(error.contains("does not have required transactions") && error.contains(&source.uuid()), "{error}");
    server.terminate();
    let without = AgentConfig::with_extra(&source, "");
    without.archive_now();
    let key = without.identity();
    let text = without.fails(&["serve", "--identity", key.to_str().unwrap()], 2);
    assert!(text.contains("no password for replicas") && text.contains("HINT"), "{text}");
}

#[test]
fn serving_ends_where_it_is_told() {
    let source = Mysqld::start("served", &[]);
    source.sql("CREATE DATABASE u; CREATE TABLE u.t (id INT PRIMARY KEY)");
    for id in 1..=9 {
        source.sql(&format!("INSERT INTO u.t VALUES ({id})"));
    }
    let config = AgentConfig::with_extra(&source, SETTINGS);
    config.archive_now();
    let uuid = source.uuid();
    let (server, address) = serve(&config, &["--until", &format!("gtid:{uuid}:7"), "--before"]);
    let replica = replica(address, "SOURCE_SSL = 0");
    wait_executed(&replica, &format!("{uuid}:1-6"));
    source.sql("INSERT INTO u.t VALUES (10)");
    config.archive_now();
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(replica.value("SELECT @@gtid_executed"), format!("{uuid}:1-6"));
    assert_eq!(column(&replica, "Replica_IO_Running"), "Yes");
    server.terminate();
}

#[test]
fn the_history_goes_on_over_a_failover() {
    let old = Mysqld::start("old", &[]);
    old.create_agent_user("binvault", crate::support::agent::PASSWORD);
    old.sql("CREATE USER r@'%' IDENTIFIED BY 'r-Secret_1'; GRANT REPLICATION SLAVE ON *.* TO r@'%'");
    workload::named("row").run(&old);
    // Another server takes over, with the old one's transactions in its own binlog, and goes on.
    let new = Mysqld::start("new", REPLICA);
    let old_address = SocketAddr::from(([127, 0, 0, 1], old.port()));
    point(&new, old_address, "r", "r-Secret_1", "SOURCE_SSL = 1, SOURCE_AUTO_POSITION = 1");
    new.sql("START REPLICA");
    let taken_over = old.value("SELECT @@gtid_executed");
    wait_executed(&new, &taken_over);
    new.sql("STOP REPLICA; RESET REPLICA ALL");
    let config = AgentConfig::with_extra(&old, SETTINGS);
    config.archive_now();
    workload::named("tagged").run(&new);
    new.create_agent_user("binvault2", crate::support::agent::PASSWORD);
    config.edit(&format!("binvault@127.0.0.1:{}", old.port()), &format!("binvault2@127.0.0.1:{}", new.port()));
    config.ok(&["run", "--once", "--adopt"]);
    let (server, address) = serve(&config, &[]);
    let replica = Mysqld::start("replica", &["--server-id=77", "--skip-replica-start"]);
    point(&replica, address, "replica", PASSWORD, "SOURCE_AUTO_POSITION = 1, SOURCE_SSL = 0");
    replica.sql("START REPLICA");
    let executed = new.value("SELECT @@gtid_executed");
    wait_executed(&replica, &executed);
    assert_eq!(replica.value("SELECT @@gtid_executed"), executed);
    assert_same_tables(&new, &replica);
    server.terminate();
}
