//! Whose history it is: reset servers, other servers, two agents with one name.

use std::time::Duration;

use super::support::agent::Agent;
use super::support::load::{Load, Pace};
use super::support::wait_until;
use super::*;

/// RESET BINARY LOGS AND GTIDS between two runs, with little and with much written after it.
fn reset(hint: &str, options: &[&str]) {
    let server = Mysqld::start(hint, options);
    write(&server, 10);
    let config = AgentConfig::new(&server);
    config.archive_now();
    let archived = config.durable();
    let kept = keep_binlogs(&server);
    // A second later at least: an incarnation is told by the second it began in.
    std::thread::sleep(Duration::from_millis(1100));
    server.sql("RESET BINARY LOGS AND GTIDS");
    for transactions in [0, 2, 30] {
        write(&server, transactions);
        let said = config.fails(&["run"], 7);
        one_error(&said, &[]);
        assert_eq!(config.durable(), archived, "after {transactions} more transactions");
    }
    still_holds(&config, kept.path());
    config.edit("/archive\"", "/archive-2\"");
    mended(&config, &server);
}

#[test]
fn a_reset_server_is_not_followed() {
    reset("reset", &[]);
}

#[test]
fn a_reset_server_without_gtids_is_not_followed() {
    reset("resetoff", &["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"]);
}

#[test]
fn a_reset_under_a_running_agent_ends_it() {
    let server = Mysqld::start("resetlive", &[]);
    write(&server, 10);
    let config = AgentConfig::with_extra(&server, "[agent]\npoll_interval = \"500ms\"\n");
    let mut agent = config.spawn();
    agent.wait_caught_up(&server);
    let kept = keep_binlogs(&server);
    std::thread::sleep(Duration::from_millis(1100));
    server.sql("RESET BINARY LOGS AND GTIDS");
    write(&server, 3);
    assert_eq!(ended(&mut agent), Some(7), "{}", agent.log_tail());
    one_error(&agent.log(), &[]);
    still_holds(&config, kept.path());
}

/// Waits for an end that comes by itself; its exit code.
fn ended(agent: &mut Agent<'_>) -> Option<i32> {
    let mut status = None;
    wait_until("the agent ends", Duration::from_secs(60), || {
        status = agent.exited();
        status.is_some()
    });
    status.unwrap().code()
}

#[test]
fn of_two_agents_with_one_identity_the_first_ends_and_nothing_is_lost() {
    let server = Mysqld::start("clash", &[]);
    let config = AgentConfig::with_extra(&server, SMALL_CHUNKS);
    let load = Load::start(&server, 2, Pace::PerSecond(400));
    let mut first = config.spawn();
    load.wait_for(400);
    first.wait_caught_up(&server);
    let mut second = config.spawn();
    assert_eq!(ended(&mut first), Some(8), "{}", first.log_tail());
    let hint = one_error(&first.log(), &["server_uuid"]);
    assert!(hint.contains("agent.id"), "{hint}");
    load.wait_for(400);
    load.stop();
    second.wait_caught_up(&server);
    second.terminate();
    complete(&config, &server);
}

#[test]
fn another_server_is_refused_until_it_is_adopted() {
    let (one, two) = (Mysqld::start("one", &[]), Mysqld::start("two", &[]));
    write(&one, 5);
    write(&two, 7);
    let config = AgentConfig::new(&one);
    two.create_agent_user("binvault", PASSWORD);
    config.archive_now();
    config.edit(&format!(":{}\"", one.port()), &format!(":{}\"", two.port()));
    let hint = one_error(&config.fails(&["run"], 7), &[&one.uuid(), &two.uuid()]);
    assert!(hint.contains("--adopt"), "{hint}");
    config.ok(&["run", "--once", "--adopt"]);
    write(&two, 3);
    config.archive_now();
    config.verify_deep();
    let exported = config.export();
    for server in [&one, &two] {
        assert_exported(server, &exported.join(server.uuid()));
    }
}
