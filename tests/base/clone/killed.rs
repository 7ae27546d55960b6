//! Killed in every state: no half backup is seen, the donor is free again, and the next one succeeds.

use std::time::Duration;

use super::proxy::{FILE_COPY, PAGE_COPY, Proxy, REDO_COPY};
use super::{archived_redo, clones, config, donor};
use crate::scene::{counts, some_data, take};
use crate::support::agent::{Agent, AgentConfig};
use crate::support::lab::Mysqld;
use crate::support::wait_until;

const STATES: [u32; 3] = [FILE_COPY, PAGE_COPY, REDO_COPY];

/// A configuration that reaches its server through a proxy, and one that does not; both of one archive.
fn both(server: &Mysqld, proxy: &Proxy) -> (AgentConfig, AgentConfig) {
    let direct = config(server, "engine = \"clone\"\ngive_up_after = \"120s\"\npart_size = \"256KiB\"");
    let archive = format!("file://{}", direct.archive().display());
    let through = AgentConfig::with(
        server,
        &archive,
        "[base]\nengine = \"clone\"\ngive_up_after = \"0s\"\npart_size = \"256KiB\"\n",
    );
    proxy.before(&through, server);
    (through, direct)
}

/// After what has happened: nothing half is seen, the next one succeeds, and the donor keeps nothing.
pub(super) fn all_is_well(server: &Mysqld, direct: &AgentConfig, finished: usize, server_died: bool) {
    assert_eq!(counts(direct).0, finished, "a half backup is seen as one");
    // What a donor that was killed has left stays with it.
    let left = archived_redo(server);
    let left = if server_died { left } else { 0 };
    let start = binvault::clock::monotonic();
    take(direct);
    println!("taken after {:?}", start.elapsed());
    assert_eq!(counts(direct).0, finished + 1);
    // Neither does it keep the files.
    server.sql("RENAME TABLE d.t TO d.moved; RENAME TABLE d.moved TO d.t");
    wait_until("the donor keeps no redo", Duration::from_secs(60), || archived_redo(server) <= left);
}

/// Ends a clone in each state.
fn ended_in_every_state(hint: &str, end: impl Fn(Agent<'_>, &Proxy, &mut Mysqld)) {
    let mut server = donor(hint, &[]);
    some_data(&server);
    let proxy = Proxy::start(&server);
    let (through, direct) = both(&server, &proxy);
    for (finished, state) in STATES.into_iter().enumerate() {
        proxy.hold_at(state);
        let agent = through.spawn_with(&["base"]);
        proxy.wait_held();
        // Pages and redo of the time.
        server.sql("INSERT INTO d.t (v) SELECT v FROM d.t LIMIT 50");
        let before = server.pid();
        end(agent, &proxy, &mut server);
        println!("ended in state {state}");
        all_is_well(&server, &direct, finished, server.pid() != before);
    }
}

#[test]
fn a_killed_agent_leaves_nothing_half() {
    ended_in_every_state("clone-killed", |agent, proxy, _| {
        agent.kill();
        proxy.cut();
    });
}

#[test]
fn a_cut_network_leaves_nothing_half() {
    ended_in_every_state("clone-cut", |agent, proxy, _| {
        proxy.cut();
        assert_eq!(agent.wait(Duration::from_secs(60)).code(), Some(3));
    });
}

#[test]
fn a_killed_donor_leaves_nothing_half_and_starts_again() {
    ended_in_every_state("clone-donor-killed", |agent, proxy, server| {
        server.kill();
        proxy.release();
        assert_eq!(agent.wait(Duration::from_secs(60)).code(), Some(3));
        server.start_again(&[]);
    });
}

#[test]
fn an_agent_that_is_told_to_stop_frees_the_donor_in_every_state() {
    ended_in_every_state("clone-stopped", |agent, proxy, server| {
        agent.signal(rustix::process::Signal::TERM);
        // The donor's answer passes again while the agent waits for it.
        proxy.release();
        assert!(!agent.wait(Duration::from_secs(60)).success());
        wait_until("the donor has no clone any more", Duration::from_secs(30), || clones(server) == 0);
    });
}
