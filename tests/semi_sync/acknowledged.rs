//! A commit returns only when the store has it; many commits share one acknowledgement; over every kind of connection.

use crate::check::{self, Overlaps};
use crate::s3;
use crate::scene::{Clients, LONG, counter, on_s3, source, wait_protected, word};
use crate::support::agent::AgentConfig;
use crate::support::lab::Mysqld;
use crate::support::wait_until;
use binvault::clock;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Every request to the store takes so long.
const DELAY: Duration = Duration::from_millis(300);

/// Writes, one commit after the other; each may return only when its bytes are in the store.
fn each_is_durable_when_it_returns(server: &Mysqld, store: &s3::Server, config: &AgentConfig) {
    let mut agent = config.spawn();
    wait_protected(config, &mut agent);
    let before = (counter(server, "yes_tx"), counter(server, "no_tx"));
    store.switches.delay_ms.store(u64::try_from(DELAY.as_millis()).unwrap(), Ordering::SeqCst);
    let statements = [
        "INSERT INTO t.t VALUES (1, 1, 'small')",
        "INSERT INTO t.t VALUES (1, 2, REPEAT('a', 300000))",
        // Two packets on the wire.
        "INSERT INTO t.t VALUES (1, 3, REPEAT('b', 20000000))",
        "CREATE TABLE t.u (i INT)",
        "FLUSH BINARY LOGS; INSERT INTO t.t VALUES (1, 4, '')",
    ];
    for statement in statements {
        let begun = clock::monotonic();
        server.sql(statement);
        let took = begun.elapsed();
        let (written, durable) = (server.position(), config.durable().unwrap());
        assert!(took >= DELAY, "{statement:.50} returned after {took:?}, the store takes {DELAY:?}");
        assert_eq!(durable, written, "{statement:.50} returned; the archive's end (left), the server's (right)");
    }
    let after = (counter(server, "yes_tx"), counter(server, "no_tx"));
    assert_eq!((after.0 - before.0, after.1 - before.1), (statements.len() as u64, 0), "acknowledged, and not");
    store.switches.delay_ms.store(0, Ordering::SeqCst);
    agent.terminate();
    check::whole(config, server, Overlaps::Allowed);
}

#[test]
fn a_commit_returns_only_when_the_store_has_it() {
    let server = source("ack-tcp", &[]);
    let store = s3::Server::start();
    let config = on_s3(&server, &store, "mode = \"store\"\nwait_limit = \"30s\"", "");
    each_is_durable_when_it_returns(&server, &store, &config);
}

#[test]
fn the_same_over_tls() {
    let server = source("ack-tls", &[]);
    let store = s3::Server::start();
    let config = on_s3(&server, &store, "mode = \"store\"\nwait_limit = \"30s\"", "");
    config.source("tls = \"required\"");
    each_is_durable_when_it_returns(&server, &store, &config);
}

#[test]
fn the_same_over_a_socket_and_without_gtids() {
    let server = source("ack-plain", &["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF", "--binlog-checksum=NONE"]);
    let store = s3::Server::start();
    let config = on_s3(&server, &store, "mode = \"store\"\nwait_limit = \"30s\"", "");
    config.use_socket(&server);
    each_is_durable_when_it_returns(&server, &store, &config);
}

#[test]
fn commits_that_wait_together_share_a_chunk() {
    let server = source("ack-group", &[]);
    let store = s3::Server::start();
    let config = on_s3(&server, &store, "mode = \"store\"\nwait_limit = \"30s\"", "uploads = 2");
    let mut agent = config.spawn();
    wait_protected(&config, &mut agent);
    store.switches.delay_ms.store(100, Ordering::SeqCst);
    let (puts, unacknowledged) = (store.switches.puts.load(Ordering::SeqCst), counter(&server, "no_tx"));
    let clients = Clients::start(&server, 16, Duration::ZERO);
    clients.wait_for(200);
    let returned = clients.stop().len() as u64;
    let puts = store.switches.puts.load(Ordering::SeqCst) - puts;
    println!("{returned} commits of 16 clients in {puts} objects");
    assert!(puts * 2 < returned, "{puts} objects for {returned} commits: they do not gather");
    assert_eq!(counter(&server, "no_tx"), unacknowledged, "commits that nobody acknowledged");
    assert_eq!(word(&config)["uncovered"], 0);
    agent.terminate();
}

#[test]
fn a_source_that_crashes_behind_the_write_leaves_no_doubt() {
    let mut server = source("ack-crash", &[]);
    let store = s3::Server::start();
    let config = on_s3(&server, &store, "mode = \"store\"\nwait_limit = \"30s\"", "");
    let mut agent = config.spawn();
    wait_protected(&config, &mut agent);
    store.switches.delay_ms.store(1_000, Ordering::SeqCst);
    let clients = Clients::start(&server, 4, Duration::ZERO);
    wait_until("commits wait", LONG, || counter(&server, "wait_sessions") > 0);
    server.kill();
    drop(clients.stop());
    store.switches.delay_ms.store(0, Ordering::SeqCst);
    server.start_again(&[]);
    wait_protected(&config, &mut agent);
    agent.wait_caught_up(&server);
    agent.terminate();
    // What the crash left unacknowledged, the server has committed, and the archive has it too: byte for byte.
    check::whole(&config, &server, Overlaps::Allowed);
}

#[test]
fn a_source_without_the_plugin_is_archived_and_the_agent_says_so() {
    let server = Mysqld::start("ack-none", &[]);
    let store = s3::Server::start();
    let config = on_s3(&server, &store, "mode = \"store\"", "");
    let mut agent = config.spawn();
    server.sql("CREATE DATABASE x");
    agent.wait_caught_up(&server);
    wait_until("the agent says why", LONG, || agent.log().contains("has no plugin"));
    // Installed while the agent runs, it is found.
    server.sql(
        "INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'; SET GLOBAL rpl_semi_sync_source_enabled = ON",
    );
    wait_protected(&config, &mut agent);
    agent.terminate();
}
