//! Interruptions under load: whatever dies, whenever, the archive goes on where it ended and nothing is missing.

use crate::check::{self, Overlaps};
use crate::support::agent::{Agent, AgentConfig};
use crate::support::lab::Mysqld;
use crate::support::load::{Load, Pace};
use crate::support::wait_until;
use std::time::Duration;

/// Rounds of the storm.
const ROUNDS: u64 = 5;

/// A number below `limit` that nobody chose.
fn random(limit: u64) -> u64 {
    u64::from_le_bytes(uuid::Uuid::new_v4().as_bytes()[..8].try_into().unwrap()) % limit
}

/// Agents are killed at random moments while the server restarts, crashes and rotates under load.
fn storm(hint: &str, options: &[&str]) {
    let mut server = Mysqld::start(hint, options);
    let config = AgentConfig::with_extra(&server, "[agent]\nchunk_size = \"128KiB\"\nflush_interval = \"100ms\"");
    let load = Load::start(&server, 2, Pace::Full);
    for round in 0..ROUNDS {
        let agent = config.spawn();
        load.wait_for(100 + random(200));
        match round {
            0 => drop(server.sql("FLUSH BINARY LOGS; FLUSH LOGS;")),
            1 => {
                server.stop();
                server.start_again(&[]);
            }
            2 => {
                server.kill();
                server.start_again(&[]);
            }
            3 => {
                drop(server.sql("SET GLOBAL binlog_checksum = IF(@@GLOBAL.binlog_checksum = 'NONE', 'CRC32', 'NONE')"))
            }
            _ => {
                // A prepared transaction outlives the server.
                server.sql(
                    "CREATE DATABASE x; CREATE TABLE x.t (i INT PRIMARY KEY); XA START 'left'; INSERT INTO x.t VALUES (1);
                     XA END 'left'; XA PREPARE 'left';",
                );
                server.kill();
                server.start_again(&[]);
                server.sql("XA COMMIT 'left'");
            }
        }
        load.wait_for(random(300));
        agent.kill();
    }
    let mut agent = config.spawn();
    load.wait_for(100);
    let transactions = load.stop();
    server.sql("FLUSH BINARY LOGS");
    agent.wait_caught_up(&server);
    agent.terminate();
    let bytes = check::whole(&config, &server, Overlaps::Allowed);
    println!("{hint}: {transactions} transactions, {bytes} bytes the same after {ROUNDS} kills");
}

#[test]
fn kills_and_restarts_under_load() {
    storm("storm", &[]);
}

#[test]
fn kills_and_restarts_under_load_without_gtids() {
    storm("storm-plain", &["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF", "--binlog-checksum=NONE"]);
}

/// Waits for a line in the agent's log.
fn wait_said(agent: &mut Agent<'_>, words: &str, limit: Duration) {
    wait_until(&format!("the agent says {words:?}; it said:\n{}", agent.log()), limit, || agent.log().contains(words));
    assert!(agent.exited().is_none(), "the agent ended:\n{}", agent.log());
}

#[test]
fn one_agent_outlives_a_killed_dump_a_restart_and_a_frozen_server() {
    let mut server = Mysqld::start("comeback", &[]);
    let config = AgentConfig::new(&server);
    config.source("heartbeat = \"300ms\"\nconnect_timeout = \"2s\"");
    let mut agent = config.spawn();
    let write = |server: &Mysqld, name: &str| server.sql(&format!("CREATE DATABASE {name}"));
    write(&server, "one");
    agent.wait_caught_up(&server);

    let dump = "FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'";
    let thread = server.value(&format!("SELECT id {dump}"));
    server.sql(&format!("KILL {thread}"));
    write(&server, "two");
    agent.wait_caught_up(&server);
    wait_said(&mut agent, "archiving was interrupted", Duration::from_secs(10));
    let again = server.value(&format!("SELECT id {dump}"));
    assert!(!again.is_empty() && again != thread, "dump threads: {thread:?} was killed, {again:?} is there now");

    server.stop();
    server.start_again(&[]);
    write(&server, "three");
    agent.wait_caught_up(&server);

    server.freeze();
    wait_said(&mut agent, "nothing came from the server", Duration::from_secs(20));
    server.thaw();
    write(&server, "four");
    agent.wait_caught_up(&server);
    agent.terminate();
    check::whole(&config, &server, Overlaps::None);
}
