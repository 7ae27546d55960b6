//! Whose history it is: other servers, two agents with one name. (What becomes of a history that breaks: `tests/breaks`.)

use std::time::Duration;

use super::support::agent::Agent;
use super::support::load::{Load, Pace};
use super::support::wait_until;
use super::*;

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
