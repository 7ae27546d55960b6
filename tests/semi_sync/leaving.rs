//! Production comes first: a store that stalls is not waited for longer than the limit, and protection comes back.

use crate::s3;
use crate::scene::{Clients, LONG, counter, on_s3, source, wait_protected, word};
use crate::support::wait_until;
use binvault::clock;
use binvault::position::GtidSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Far below the source's own time-out of a minute.
const LIMIT: Duration = Duration::from_millis(700);
/// What a loaded machine may add.
const SLACK: Duration = Duration::from_secs(8);

/// How long the store stalls: `BINVAULT_STALL_SECONDS`, or as long as the suite has time for.
fn stall() -> Duration {
    let seconds = std::env::var("BINVAULT_STALL_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(20))
}

#[test]
fn a_store_that_stalls_is_left_and_protection_returns() {
    let server = source("stall", &[]);
    let store = s3::Server::start();
    let config = on_s3(&server, &store, "mode = \"store\"\nwait_limit = \"700ms\"\nreturn_after = \"500ms\"", "");
    let mut agent = config.spawn();
    wait_protected(&config, &mut agent);
    let clients = Clients::start(&server, 2, Duration::from_millis(20));
    clients.wait_for(20);
    assert_eq!(word(&config)["uncovered"], 0, "while the store is well, every commit is covered");

    let stalled = clock::monotonic();
    let stall = stall();
    store.switches.delay_ms.store(u64::try_from(stall.as_millis()).unwrap(), Ordering::SeqCst);
    wait_until("the agent leaves", LONG, || agent.log().contains("NOT protected"));
    let executed = || -> GtidSet { server.value("SELECT REPLACE(@@GLOBAL.gtid_executed, '\\n', '')").parse().unwrap() };
    let first = executed();
    clients.wait_for(100); // production goes on, asynchronously
    let unprotected = executed().minus(&first);
    assert!(stalled.elapsed() < stall.min(Duration::from_secs(20)) + SLACK, "commits returned only when the store did");
    if stall > Duration::from_secs(20) {
        std::thread::sleep(stall.saturating_sub(stalled.elapsed()));
    }

    store.switches.delay_ms.store(0, Ordering::SeqCst);
    // The last word in the archive is from before the stall, as long as no other can be written.
    // Requests that hang are given up by their own limit.
    wait_until("protection returns", 3 * LONG, || agent.log().matches("commits are protected").count() == 2);
    wait_until("and is told", LONG, || word(&config)["lapses"][0]["to_us"].is_u64());
    wait_protected(&config, &mut agent);
    clients.wait_for(20);
    let returned = clients.stop();
    let longest = returned.values().map(|returned| returned.took).max().unwrap();
    println!("{} commits in a stall of {stall:?}, the longest took {longest:?}", returned.len());
    assert!(longest < LIMIT + SLACK, "a commit took {longest:?}, the limit is {LIMIT:?}");
    let said = word(&config);
    let lapse = &said["lapses"][0];
    let listed: GtidSet = lapse["gtids"].as_str().unwrap().parse().unwrap();
    assert!(
        unprotected.count() > 0 && unprotected.is_subset_of(&listed),
        "{unprotected} were not covered; listed: {said}"
    );
    assert_eq!(lapse["commits"].as_u64(), Some(listed.count()), "{said}");
    assert!(listed.is_subset_of(&executed()), "{said}");
    assert!(lapse["reason"].as_str().unwrap().contains("a commit has waited"), "{said}");
    let text = config.ok(&["status", "--offline"]);
    assert!(text.contains("protected") && text.contains(&listed.to_string()), "{text}");
    agent.terminate();
}

#[test]
fn a_stop_in_good_order_releases_what_waits_at_once() {
    let server = source("stop", &[]);
    let store = s3::Server::start();
    let config = on_s3(&server, &store, "mode = \"store\"\nwait_limit = \"50s\"", "");
    let mut agent = config.spawn();
    wait_protected(&config, &mut agent);
    store.switches.delay_ms.store(5_000, Ordering::SeqCst);
    let clients = Clients::start(&server, 1, Duration::from_secs(60));
    wait_until("a commit waits", LONG, || counter(&server, "wait_sessions") == 1);
    let pid = rustix::process::Pid::from_raw(i32::try_from(agent.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    wait_until("it returns, though the store is still at it", LONG, || clients.pending() == 0);
    assert!(agent.exited().is_none(), "the agent was through before the store");
    store.switches.delay_ms.store(0, Ordering::SeqCst);
    assert_eq!(agent.wait(LONG).code(), Some(0));
    assert_eq!(config.durable(), Some(server.position()), "nothing received is lost");
    let said = word(&config);
    assert_eq!((&said["protected"], &said["reason"]), (&false.into(), &"the agent stopped".into()), "{said}");
}

#[test]
fn a_frozen_agent_costs_the_sources_own_time_out_once() {
    let server = source("frozen", &["--rpl-semi-sync-source-timeout=2000"]);
    let store = s3::Server::start();
    let config = on_s3(&server, &store, "mode = \"store\"\nreturn_after = \"500ms\"", "");
    let mut agent = config.spawn();
    wait_protected(&config, &mut agent);
    agent.signal(rustix::process::Signal::STOP);
    let executed = || -> GtidSet { server.value("SELECT REPLACE(@@GLOBAL.gtid_executed, '\\n', '')").parse().unwrap() };
    let (before, times_off) = (executed(), counter(&server, "no_times"));
    let begun = clock::monotonic();
    for n in 0..20 {
        server.sql(&format!("INSERT INTO t.t VALUES (1, {n}, 'x')"));
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(2), "twenty commits took {took:?}: nobody waited for the agent");
    assert_eq!(counter(&server, "no_times") - times_off, 1, "the source stopped waiting once");
    let missed = executed().minus(&before);
    agent.signal(rustix::process::Signal::CONT);
    wait_until("what it missed is told", LONG, || word(&config)["lapses"][0]["to_us"].is_u64());
    wait_protected(&config, &mut agent);
    let said = word(&config);
    let listed: GtidSet = said["lapses"][0]["gtids"].as_str().unwrap().parse().unwrap();
    assert!(missed.count() == 20 && missed.is_subset_of(&listed), "{missed} were missed; listed: {said}");
    agent.terminate();
}

#[test]
fn a_dead_agent_is_noticed_long_before_the_time_out() {
    let server = source("dead", &[]);
    let store = s3::Server::start();
    let config = on_s3(&server, &store, "mode = \"store\"", "");
    let mut agent = config.spawn();
    wait_protected(&config, &mut agent);
    agent.kill();
    let begun = clock::monotonic();
    server.sql("INSERT INTO t.t VALUES (1, 1, 'x')");
    println!("a commit behind the agent's death took {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(30), "it waited for the source's time-out of a minute");
    // The time without an agent is a lapse, and the commit in it is listed.
    let mut agent = config.spawn();
    // The word of the dead one stands until the new one speaks.
    wait_until("the lapse is over, and told", LONG, || word(&config)["lapses"][0]["to_us"].is_u64());
    wait_protected(&config, &mut agent);
    let said = word(&config);
    assert_eq!(
        (said["uncovered"].as_u64(), &said["lapses"][0]["reason"]),
        (Some(1), &"the agent was not running".into())
    );
    agent.terminate();
}

#[test]
fn behind_a_failover_the_transactions_that_only_the_archive_has_are_told() {
    let old = source("failover-old", &[]);
    let new = source("failover-new", &[]);
    let store = s3::Server::start();
    let config = on_s3(&old, &store, "mode = \"store\"", "");
    let mut agent = config.spawn();
    wait_protected(&config, &mut agent);
    let executed = || -> GtidSet { old.value("SELECT REPLACE(@@GLOBAL.gtid_executed, '\\n', '')").parse().unwrap() };
    let replicated = executed();
    old.sql("INSERT INTO t.t VALUES (1, 1, 'x'); INSERT INTO t.t VALUES (1, 2, 'x')");
    let extra = executed().minus(&replicated);
    agent.terminate();
    // The new source is what a replica would be that had everything but the last two.
    new.sql(&format!("SET GLOBAL gtid_purged = '+{replicated}'"));
    new.create_agent_user("binvault", crate::support::agent::PASSWORD);
    config.edit(&format!(":{}", old.port()), &format!(":{}", new.port()));
    let said = config.fails(&["run", "--once"], 7);
    assert!(said.contains(&extra.to_string()), "{extra} is not told:\n{said}");
    let said = config.output(&["run", "--once", "--adopt"]);
    let said = crate::support::agent::said(&said);
    assert!(said.contains(&extra.to_string()) && said.contains("never executed"), "{extra} is not told:\n{said}");
}

#[test]
fn two_replicas_that_one_word_satisfies_are_no_protection() {
    let server = source("two", &[]);
    let store = s3::Server::start();
    let settings = "mode = \"store\"\nreturn_after = \"500ms\"";
    let config = on_s3(&server, &store, settings, "");
    let mut agent = config.spawn();
    wait_protected(&config, &mut agent);
    let other = crate::start::Replica::start(&server, 77, true);
    wait_until("the agent notices", LONG, || word(&config)["protected"] == false);
    let reason = word(&config)["reason"].to_string();
    assert!(reason.contains("1 of 2") || agent.log().contains("1 of 2"), "{reason}\n{}", agent.log());
    server.sql("SET GLOBAL rpl_semi_sync_source_wait_for_replica_count = 2");
    wait_protected(&config, &mut agent);
    drop(other);
    agent.terminate();
}
