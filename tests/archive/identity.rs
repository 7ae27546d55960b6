//! Byte identity: whatever a server writes, the archive gives it back, by every road to the server.

use crate::check::{self, Overlaps};
use crate::support::agent::AgentConfig;
use crate::support::lab::Mysqld;
use crate::support::workload::{SMALL, named};

/// Small chunks, cut often: every kind of event meets a chunk's end.
const SMALL_CHUNKS: &str = "[agent]\nchunk_size = \"64KiB\"\nflush_interval = \"50ms\"";

/// Archives to the end, and holds everything against the server.
fn once_and_check(config: &AgentConfig, server: &Mysqld) {
    config.archive_now();
    check::whole(config, server, Overlaps::None);
}

#[test]
fn every_small_kind_while_the_agent_runs_and_after_it() {
    let server = Mysqld::start("small", &[]);
    let live = AgentConfig::with_extra(&server, SMALL_CHUNKS);
    let mut agent = live.spawn();
    for workload in SMALL {
        workload.run(&server);
    }
    server.sql("FLUSH BINARY LOGS");
    // What came anonymously cannot be read from a server whose mode is ON again: while agents catch up, it is not.
    server.sql("SET GLOBAL gtid_mode = ON_PERMISSIVE");
    agent.wait_caught_up(&server);
    agent.terminate();
    let bytes = check::whole(&live, &server, Overlaps::Allowed);
    // Afterwards, through the socket, with the chunks of a default configuration.
    let after = AgentConfig::new(&server);
    after.use_socket(&server);
    once_and_check(&after, &server);
    let ended = server.position();
    server.sql("SET GLOBAL gtid_mode = ON");
    // A mode raised too early is said to be that; nothing is lost by it.
    let early = AgentConfig::new(&server);
    let said = early.fails(&["run", "--once"], 5);
    assert!(said.contains("HINT:") && said.contains("ON_PERMISSIVE"), "the hint is missing:\n{said}");
    named("row").run(&server);
    after.archive_now();
    assert!(after.durable().unwrap() > ended, "archiving does not go on by GTID");
    check::whole(&after, &server, Overlaps::None);
    println!("every small kind: {bytes} bytes the same, live and after");
}

#[test]
fn a_server_without_gtids_and_without_checksums() {
    let server =
        Mysqld::start("plain", &["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF", "--binlog-checksum=NONE"]);
    let live = AgentConfig::with_extra(&server, SMALL_CHUNKS);
    let mut agent = live.spawn();
    for workload in SMALL.iter().filter(|workload| !["anonymous", "tagged", "no_checksum"].contains(&workload.name)) {
        workload.run(&server);
    }
    // Both ways to sum within one run of the agent.
    server.sql("SET GLOBAL binlog_checksum = CRC32");
    named("row").run(&server);
    named("both_formats").run(&server);
    server.sql("FLUSH BINARY LOGS");
    agent.wait_caught_up(&server);
    agent.terminate();
    check::whole(&live, &server, Overlaps::Allowed);
    let after = AgentConfig::new(&server);
    after.use_socket(&server);
    once_and_check(&after, &server);
}

#[test]
fn a_server_on_its_way_to_gtids() {
    let server = Mysqld::start("permissive", &["--gtid-mode=ON_PERMISSIVE"]);
    let live = AgentConfig::with_extra(&server, SMALL_CHUNKS);
    let mut agent = live.spawn();
    for name in ["row", "statement", "xa", "tagged", "compressed", "temporary", "rotation"] {
        named(name).run(&server);
    }
    agent.wait_caught_up(&server);
    agent.terminate();
    server.sql("SET GLOBAL gtid_mode = OFF_PERMISSIVE");
    named("mixed").run(&server);
    live.archive_now();
    check::whole(&live, &server, Overlaps::None);
    once_and_check(&AgentConfig::new(&server), &server);
}

#[test]
fn binlogs_that_are_encrypted_at_rest() {
    let server = Mysqld::start_with_keyring("encrypted", &["--binlog-encryption=ON"]);
    let head = std::fs::read(&server.binlogs()[0]).unwrap();
    assert_eq!(&head[..4], b"\xfdbin", "the server's file is not encrypted");
    let live = AgentConfig::with_extra(&server, SMALL_CHUNKS);
    let mut agent = live.spawn();
    for name in ["row", "types", "ddl", "xa", "compressed", "rotation", "no_checksum"] {
        named(name).run(&server);
    }
    agent.wait_caught_up(&server);
    agent.kill();
    server.sql("ALTER INSTANCE ROTATE BINLOG MASTER KEY");
    named("statement").run(&server);
    live.archive_now();
    check::whole_as_sent(&live, &server);
    let after = AgentConfig::new(&server);
    after.archive_now();
    check::whole_as_sent(&after, &server);
}
