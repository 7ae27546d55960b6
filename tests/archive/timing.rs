//! Manners over time: an idle agent is quiet, a stopped one leaves nothing behind, and the server shows who it is.

use crate::check::{self, Overlaps};
use crate::object_store::s3_config;
use crate::s3;
use crate::support::agent::AgentConfig;
use crate::support::lab::Mysqld;
use crate::support::load::{Load, Pace};
use crate::support::wait_until;
use crate::support::workload::named;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long an idle agent is looked at.
const IDLE: Duration = Duration::from_secs(8);

#[test]
fn an_idle_agent_is_quiet() {
    let server = Mysqld::start("idle", &[]);
    let store = s3::Server::start();
    let config = s3_config(&server, &store, "idle", "");
    named("row").run(&server);
    let mut agent = config.spawn();
    agent.wait_caught_up(&server);
    let counts = || (store.switches.puts.load(Ordering::SeqCst), store.switches.requests.load(Ordering::SeqCst));
    let (before, cpu) = (counts(), agent.cpu_seconds());
    std::thread::sleep(IDLE); // the measured time itself
    let (after, used) = (counts(), agent.cpu_seconds() - cpu);
    println!("idle for {IDLE:?}: {used:.2} CPU seconds");
    assert_eq!(after, before, "PUTs and requests after {IDLE:?} without a write, and before");
    assert!(used < 0.005 * IDLE.as_secs_f64(), "{used} CPU seconds in {IDLE:?}");
    agent.terminate();
    check::whole(&config, &server, Overlaps::None);
}

/// Bytes that wait in the receive queues of connections to a port on this host.
fn unread(port: u16) -> u64 {
    let text = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let remote = format!(":{port:04X}");
    let queues = text.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(2)?.ends_with(&remote).then(|| u64::from_str_radix(fields.get(4)?.split_once(':')?.1, 16).ok())?
    });
    queues.sum()
}

#[test]
fn sigterm_sends_what_was_received() {
    let server = Mysqld::start("term", &[]);
    // Nothing would be sent for an hour.
    let config = AgentConfig::with_extra(&server, "[agent]\nflush_interval = \"1h\"");
    let mut agent = config.spawn();
    wait_until("the agent follows", Duration::from_secs(30), || !server.sql("SHOW REPLICAS").is_empty());
    for name in ["row", "types"] {
        named(name).run(&server);
    }
    let end = server.position();
    let sent = "SELECT COUNT(*) FROM information_schema.processlist WHERE state LIKE 'Source has sent all binlog%'";
    wait_until("everything is sent and read", Duration::from_secs(30), || {
        server.value(sent) == "1" && unread(server.port()) == 0
    });
    assert!(agent.exited().is_none(), "the agent ended:\n{}", agent.log());
    assert!(config.durable().is_none_or(|durable| durable.1 < end.1), "it was sent before it was asked for");
    let took = agent.terminate();
    println!("SIGTERM with everything unsent: {took:?}");
    assert_eq!(config.durable(), Some(end), "the durable position after SIGTERM (left), the server's (right)");
    let beacon = config.status().unwrap()["agents"][0].clone();
    assert_eq!(beacon["stopped"], true, "the last beacon: {beacon}");
    check::whole(&config, &server, Overlaps::None);
}

#[test]
fn sigterm_under_load_with_a_slow_store() {
    let server = Mysqld::start("term-load", &[]);
    let store = s3::Server::start();
    let config = s3_config(&server, &store, "term", "[agent]\nchunk_size = \"256KiB\"");
    let load = Load::start(&server, 2, Pace::Full);
    let mut agent = config.spawn();
    agent.wait_archived(&(server.position().0, 1), Duration::from_secs(60));
    store.switches.delay_ms.store(300, Ordering::SeqCst);
    load.wait_for(300);
    let puts = store.switches.puts.load(Ordering::SeqCst);
    let took = agent.terminate();
    assert!(store.switches.puts.load(Ordering::SeqCst) > puts, "nothing was sent after SIGTERM");
    println!("SIGTERM under load, every request taking 300 ms: {took:?}");
    store.switches.delay_ms.store(0, Ordering::SeqCst);
    config.verify_deep();
    load.stop();
    config.archive_now();
    check::whole(&config, &server, Overlaps::None);
}

#[test]
fn the_server_shows_the_agent() {
    let server = Mysqld::start("shown", &[]);
    let config = AgentConfig::with_extra(&server, "[agent]\nid = \"offsite\"");
    config.source("report_host = \"vault.example\"\nreport_port = 7");
    let mut agent = config.spawn();
    agent.wait_caught_up(&server);
    let shown = server.sql("SHOW REPLICAS");
    let columns: Vec<&str> = shown.trim().split('\t').collect();
    let log = agent.log();
    let said = |name: &str| {
        let value = log.split(&format!("{name}=")).nth(1).and_then(|rest| rest.split_whitespace().next());
        value.unwrap_or_else(|| panic!("the log does not tell {name}:\n{log}")).to_owned()
    };
    let expected = [said("server_id"), "vault.example".into(), "7".into(), "1".into(), said("replica_uuid")];
    assert_eq!(columns, expected, "SHOW REPLICAS (left), what the agent says of itself (right)");
    agent.terminate();
    // Who it is follows from the archive and its id: another start is the same replica.
    let mut again = config.spawn();
    again.wait_caught_up(&server);
    wait_until("the agent is shown again", Duration::from_secs(10), || server.sql("SHOW REPLICAS") == shown);
    again.terminate();
}
