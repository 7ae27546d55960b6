//! Memory has a limit, whatever the size of an event or a transaction, however fast the server and however slow the
//! store: 64 MiB resident at most, started as the service starts it. And the big kinds are archived as exactly as the small ones.

use crate::check::{self, Overlaps};
use crate::object_store::s3_config;
use crate::s3;
use crate::support::agent::{Agent, AgentConfig, BASE_RESIDENT_MAX};
use crate::support::lab::{self, Mysqld};
use crate::support::oltp;
use crate::support::wait_until;
use crate::support::workload::{BIG, named};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What an agent may have resident at most.
const LIMIT_BYTES: u64 = 64 << 20;

/// Holds the peak so far against the limit, and prints it.
fn hold(agent: &Agent<'_>, case: &str) {
    hold_to(LIMIT_BYTES, agent, case);
}

fn hold_to(limit: u64, agent: &Agent<'_>, case: &str) {
    let peak = agent.peak_rss_bytes();
    println!("peak memory, {case}: {:.1} MiB", peak as f64 / f64::from(1 << 20));
    assert!(peak <= limit, "{case}: {peak} bytes resident at the peak, {limit} allowed");
}

#[test]
fn huge_events_and_transactions() {
    let server = Mysqld::start("huge", &["--max-binlog-size=1G"]);
    let mut config = AgentConfig::new(&server);
    config.as_a_service();
    let mut agent = config.spawn();
    for workload in BIG {
        workload.run(&server);
        server.sql("FLUSH BINARY LOGS");
        agent.wait_caught_up(&server);
        hold(&agent, workload.name);
    }
    agent.terminate();
    let bytes = check::whole(&config, &server, Overlaps::None);
    assert!(bytes > 500 << 20, "{bytes} bytes are not what the big kinds write");
}

#[test]
fn full_speed() {
    let server = Mysqld::start("speed", oltp::FAST);
    oltp::prepare(&server);
    let bytes: u64 = oltp::generate(&server, 200 << 20).iter().map(|path| path.metadata().unwrap().len()).sum();
    let mut config = AgentConfig::new(&server);
    config.as_a_service();
    let start = binvault::clock::monotonic();
    let mut agent = config.spawn();
    agent.wait_caught_up(&server);
    println!("{bytes} bytes of OLTP archived in {:?}", start.elapsed());
    hold(&agent, "full speed over OLTP binlogs");
    agent.terminate();
    check::whole(&config, &server, Overlaps::None);
}

#[test]
fn a_store_that_hangs() {
    let server = Mysqld::start("hang", &["--max-binlog-size=1G"]);
    let store = s3::Server::start();
    let mut config = s3_config(&server, &store, "hang", "");
    config.as_a_service();
    let mut agent = config.spawn();
    agent.wait_caught_up(&server);
    let before = store.switches.puts.load(Ordering::SeqCst);
    // Every request hangs; the server goes on writing what no compressor can shrink.
    store.switches.delay_ms.store(5_000, Ordering::SeqCst);
    named("row_17m").run(&server);
    named("row_17m").run(&server);
    named("transaction_300m").run(&server);
    wait_until("the agent has tried to store something", Duration::from_secs(60), || {
        store.switches.requests.load(Ordering::SeqCst) > before
    });
    hold(&agent, "while the store hangs");
    store.switches.delay_ms.store(0, Ordering::SeqCst);
    agent.wait_caught_up(&server);
    hold(&agent, "after the store hung");
    agent.terminate();
    check::whole(&config, &server, Overlaps::Allowed);
}

/// Some 30 MB, in the binlog and in a table, that no compressor can shrink; of another length each time.
fn noise(server: &Mysqld, n: usize) {
    server.sql(&format!(
        "CREATE DATABASE IF NOT EXISTS noise; USE noise;
         CREATE TABLE IF NOT EXISTS t (id INT PRIMARY KEY AUTO_INCREMENT, v VARBINARY(8000));
         SET SESSION block_encryption_mode = 'aes-128-cbc', SESSION cte_max_recursion_depth = 50000;
         INSERT INTO t (v) WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 4000 + {n})
           SELECT AES_ENCRYPT(REPEAT('b', 7700), 'a key of 16 byte', LPAD(i + {n} * 10000, 16, '0')) FROM n;"
    ));
}

/// Four base backups in a row beside what is to be archived, all of it for a slow store, and of what does not compress (a dump
/// writes it as hex, which comes to half).
fn base_backups_beside_it(engine: &str, more: &str) {
    let name = format!("{engine}-memory");
    let server = Mysqld::start(&name, &["--plugin-load-add=mysql_clone.so", "--max-binlog-size=1G"]);
    let store = s3::Server::start();
    let base = format!("[base]\nengine = \"{engine}\"\nschedule = \"0 0 1 1 *\"\n{more}");
    let mut config = s3_config(&server, &store, engine, &base);
    config.as_a_service();
    server.grant_base("binvault");
    noise(&server, 0);
    // The server is ahead, and the store slow: the binlog and the base backup wait for it side by side.
    store.switches.delay_ms.store(100, Ordering::SeqCst);
    let agent = config.spawn();
    for n in 1..5 {
        wait_until("a base backup is taken", Duration::from_secs(180), || {
            agent.log().matches("a base backup was taken").count() >= n
        });
        hold_to(BASE_RESIDENT_MAX, &agent, &format!("archiving for a slow store, {n} in a row by {engine}"));
        // Another history begins, and needs a base backup at once.
        server.sql("RESET BINARY LOGS AND GTIDS");
        noise(&server, n);
    }
}

#[test]
fn clones_beside_it() {
    base_backups_beside_it("clone", "");
}

#[test]
fn dumps_beside_it() {
    let program = lab::bin().join("mysqldump");
    base_backups_beside_it("mysqldump", &format!("mysqldump = \"{}\"\n", program.display()));
}

#[test]
fn another_tool_beside_it() {
    let backup = "snapshot = \"true\"\nbackup = \"head -c 100000000 /dev/urandom\"";
    let command = format!("[base.command]\n{backup}\nrestore = \"cat\"\nrestore_into = \"server\"\n");
    base_backups_beside_it("command", &command);
}
