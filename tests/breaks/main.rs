//! Histories that break: purged, reset, rewound, renamed, handed over. Each break is noticed, recorded and told; archiving goes
//! on behind it with a new base backup; and what is restored is exactly what a server has, or had.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test that is how things fail")]
#![allow(clippy::print_stdout, reason = "figures for whoever runs this with --nocapture")]
#![allow(dead_code, reason = "modules shared with the tests of restores")]

mod cluster;
mod cut;
mod failover;
mod late;
#[path = "../restore/place.rs"]
mod place;
mod purged;
mod rewound;
#[path = "../support/s3.rs"]
mod s3;
#[path = "../restore/scene.rs"]
mod scene;
#[path = "../support/mod.rs"]
mod support;
mod two;

use std::time::Duration;

use binvault::position::GtidSet;
use scene::chunks;
use serde_json::Value;
use support::agent::{Agent, AgentConfig};
use support::lab::{self, Mysqld};
use support::wait_until;

/// Long enough for anything that is to come.
const LONG: Duration = Duration::from_secs(60);

/// Settings of agents that shall notice things soon.
const QUICK: &str = "[agent]\npoll_interval = \"300ms\"\nflush_interval = \"100ms\"\nbeacon_interval = \"1s\"\n";

/// What an agent needs beside to take base backups when it must.
fn with_bases() -> String {
    format!(
        "{QUICK}[base]\nengine = \"mysqldump\"\nschedule = \"0 0 1 1 *\"\nmysqldump = \"{}\"\n",
        lab::bin().join("mysqldump").display()
    )
}

/// The breaks that are recorded.
fn gaps(config: &AgentConfig) -> Vec<Value> {
    config.status().map(|status| status["recorded_gaps"].as_array().unwrap().clone()).unwrap_or_default()
}

/// Waits until so many breaks are recorded.
fn wait_gaps(config: &AgentConfig, agent: &mut Agent<'_>, count: usize) -> Vec<Value> {
    let mut found = Vec::new();
    wait_until("the break is recorded", LONG, || {
        assert!(agent.exited().is_none(), "the agent ended:\n{}", agent.log_tail());
        found = gaps(config);
        found.len() >= count
    });
    assert_eq!(found.len(), count, "{found:?}");
    found
}

/// Waits until a base backup has been taken behind the last break.
fn wait_base_behind(config: &AgentConfig, agent: &Agent<'_>) {
    wait_until("a base backup is taken behind the break", LONG, || {
        gaps(config).last().is_some_and(|gap| gap["base_behind"] == true) || {
            assert!(!agent.log().contains("base backup failed"), "{}", agent.log_tail());
            false
        }
    });
}

/// Removes the chunks of a file that begin at or behind a place: as if an agent had died before they were stored. How many.
fn remove_behind(config: &AgentConfig, server: &Mysqld, file: &str, end: u64) -> usize {
    let begins = |path: &std::path::Path| -> u64 {
        path.file_name().unwrap().to_str().unwrap().split('-').next().unwrap().parse().unwrap()
    };
    let behind = chunks(&config.archive(), server, file).into_iter().filter(|path| begins(path) >= end);
    behind.map(|path| std::fs::remove_file(path).unwrap()).count()
}

fn executed(server: &Mysqld) -> GtidSet {
    server.value("SELECT REPLACE(@@GLOBAL.gtid_executed, '\\n', '')").parse().unwrap()
}

/// Waits for the next second: files tell when they begin in whole ones.
fn next_second() {
    let second = || binvault::clock::now_us() / 1_000_000;
    let now = second();
    wait_until("the next second", Duration::from_secs(5), || second() > now + 1);
}

/// Rows that a restored server has.
const ORDERS: &str = "SELECT GROUP_CONCAT(what ORDER BY id) FROM shop.orders";
