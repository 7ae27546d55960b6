//! What was on its way when the history broke. What was received is archived, though the server has it no more; where the agent
//! died, too, some chunks land behind the record, some never: it tells of all that is not there, and of nothing else.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::failover::agent_of;
use crate::place::Restored;
use crate::s3;
use crate::scene::{orders, shop_at, shop_with};
use crate::support::agent::{Agent, AgentConfig};
use crate::support::lab::Mysqld;
use crate::support::{files_below, wait_until};
use crate::{LONG, ORDERS, QUICK, executed, gaps, next_second, wait_gaps};

/// Chunks taken out of an archive.
struct OnTheirWay(Vec<(PathBuf, Vec<u8>)>);

impl OnTheirWay {
    fn take(paths: &[PathBuf]) -> Self {
        let take = |path: &PathBuf| {
            let bytes = std::fs::read(path).unwrap();
            std::fs::remove_file(path).unwrap();
            (path.clone(), bytes)
        };
        Self(paths.iter().map(take).collect())
    }

    /// One of them lands after all.
    fn land(&self, number: usize) {
        let (path, bytes) = &self.0[number];
        std::fs::write(path, bytes).unwrap();
    }
}

/// Writes rows, each into a chunk of its own: their paths.
fn a_chunk_each(config: &AgentConfig, server: &Mysqld, rows: &[&str]) -> Vec<PathBuf> {
    let all = || BTreeSet::from_iter(files_below(&config.archive().join("chunks")));
    let archive = |row: &&str| {
        let before = all();
        orders(server, &[row]);
        config.archive_now();
        // Behind a change of files the end of the old one comes before it.
        all().difference(&before).last().unwrap().clone()
    };
    rows.iter().map(archive).collect()
}

/// Nothing is missing that is not told by a record.
pub(crate) fn all_is_told(config: &AgentConfig) {
    config.verify_deep();
    let status = config.status().unwrap();
    for server in status["servers"].as_array().unwrap() {
        for gap in server["gaps"].as_array().unwrap() {
            assert_eq!(gap["recorded"], true, "{gap}");
        }
    }
}

/// Nothing is cut by itself: what has come waits in the agent's memory.
const PATIENT: &str = "[agent]\npoll_interval = \"300ms\"\nflush_interval = \"10m\"\nbeacon_interval = \"1s\"\n";

/// An agent that has received rows, and stored nothing of them; where they end.
fn rows_on_their_way<'a>(config: &'a AgentConfig, server: &Mysqld) -> (Agent<'a>, (String, u64)) {
    let agent = config.spawn();
    wait_until("the agent streams", LONG, || agent.log().contains("archiving goes on"));
    let before = config.durable();
    orders(server, &["received", "by nobody else"]);
    // On a loopback that takes a millisecond.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(config.durable(), before);
    (agent, server.position())
}

#[test]
fn what_was_received_of_a_server_that_dies_is_archived() {
    let store = s3::Server::start();
    let url = format!("s3://{}/dies", s3::BUCKET);
    let (mut server, config) = shop_at("dies", &url, &format!("{}{PATIENT}", store.settings()));
    let (agent, end) = rows_on_their_way(&config, &server);
    // The server is gone long before the store has taken it.
    store.switches.delay_ms.store(1500, Ordering::SeqCst);
    server.kill();
    wait_until("all that was received is archived", LONG, || config.durable().as_ref() == Some(&end));
    store.switches.delay_ms.store(0, Ordering::SeqCst);
    agent.terminate();
    let restored = Restored::to(&config, "latest", &[]);
    assert_eq!(restored.sql(ORDERS), "one,two,three,received,by nobody else\n");
}

#[test]
fn what_was_received_of_a_server_that_is_reset_is_archived() {
    let (server, config) = shop_with("reset-received", &[], PATIENT);
    let (mut agent, end) = rows_on_their_way(&config, &server);
    server.sql("RESET BINARY LOGS AND GTIDS");
    let gap = wait_gaps(&config, &mut agent, 1).remove(0);
    assert_eq!((&gap["kind"], &gap["ends"]), (&"reset".into(), &serde_json::json!({"file": end.0, "offset": end.1})));
    agent.terminate();
    all_is_told(&config);
}

#[test]
fn what_lands_behind_the_record_of_a_reset_leaves_no_other_gap() {
    let (server, config) = shop_with("late-reset", &[], QUICK);
    let (file, end) = config.durable().unwrap();
    let first = a_chunk_each(&config, &server, &["one of them", "another", "there"]);
    server.sql("FLUSH BINARY LOGS");
    let second = a_chunk_each(&config, &server, &["and one", "and another", "there, too"]);
    let (first, second) = (OnTheirWay::take(&first[..2]), OnTheirWay::take(&second[..2]));
    next_second();
    server.sql("RESET BINARY LOGS AND GTIDS");
    let mut agent = config.spawn();
    let gap = wait_gaps(&config, &mut agent, 1).remove(0);
    assert_eq!(gap["kind"], "reset", "{gap}");
    assert_eq!(gap["ends"], serde_json::json!({"file": file, "offset": end}));
    orders(&server, &["behind it"]);
    agent.wait_caught_up(&server);
    agent.terminate();
    all_is_told(&config);
    first.land(0);
    second.land(0);
    all_is_told(&config);

    // The same name, another file: what is missing of it was told by nobody.
    while server.position().1 <= end {
        orders(&server, &["more"]);
    }
    let new = a_chunk_each(&config, &server, &["x", "y", "z"]);
    OnTheirWay::take(&new[1..2]);
    let said = config.fails(&["verify"], 12);
    assert!(said.contains("are missing"), "{said}");
}

#[test]
fn chunks_that_never_come_of_a_server_whose_place_another_takes_are_told() {
    let mut cluster = Cluster::start("late-failover", 2);
    cluster
        .primary()
        .sql("CREATE DATABASE shop; CREATE TABLE shop.orders (id INT PRIMARY KEY AUTO_INCREMENT, what VARCHAR(40))");
    let config = agent_of(&cluster);
    config.archive_now();
    config.ok(&["base"]);
    let (file, end) = config.durable().unwrap();
    let all = a_chunk_each(&config, cluster.primary(), &["on its way", "there"]);
    OnTheirWay::take(&all[..1]);
    cluster.wait_executed(1, &executed(cluster.primary()));
    assert_eq!(cluster.fail_over().count(), 0);
    let mut agent = config.spawn();
    orders(cluster.primary(), &["behind it"]);
    agent.wait_caught_up(cluster.primary());
    agent.terminate();
    all_is_told(&config);
    let gap = gaps(&config).remove(0);
    assert_eq!((&gap["kind"], &gap["is_loss"]), (&"failover".into(), &false.into()), "{gap}");
    assert_eq!(gap["ends"], serde_json::json!({"file": file, "offset": end}));
    let restored = Restored::to(&config, "latest", &[]);
    assert_eq!(restored.sql(ORDERS), "on its way,there,behind it\n");
}

/// The very first chunk was on its way, and the server is not what it was: what did come tells that something is missing.
#[test]
fn what_stands_behind_a_beginning_that_never_came_is_not_forgotten() {
    for kind in ["", "purged", "reset"] {
        let (server, config) = shop_with("no-beginning", &[], QUICK);
        let there = a_chunk_each(&config, &server, &["there"]).remove(0);
        let (file, _) = server.position();
        let mut lost = files_below(&config.archive().join("chunks"));
        lost.retain(|path| *path != there);
        OnTheirWay::take(&lost);
        match kind {
            "purged" => {
                server.sql("FLUSH BINARY LOGS");
                server.sql(&format!("PURGE BINARY LOGS TO '{}'", server.position().0));
            }
            "reset" => {
                next_second();
                server.sql("RESET BINARY LOGS AND GTIDS");
            }
            _ => {}
        }
        let mut agent = config.spawn();
        if !kind.is_empty() {
            wait_gaps(&config, &mut agent, 1);
        }
        orders(&server, &["the last"]);
        wait_until("all is there", LONG, || config.durable() == Some(server.position()));
        agent.terminate();
        let told = gaps(&config).iter().map(|gap| (gap["kind"].clone(), gap["ends"].clone())).collect::<Vec<_>>();
        let ends = serde_json::json!({"file": file, "offset": 0});
        assert_eq!(told, if kind.is_empty() { vec![] } else { vec![(kind.into(), ends)] });
        all_is_told(&config);
        config.archive_now();
        assert_eq!(gaps(&config).len(), told.len(), "a start behind it is no other break");
    }
}

/// Found by `tests/sim`: the hole was looked for in the server's new files at each start, and a break recorded again.
#[test]
fn a_renamed_binlog_is_a_break_where_a_hole_is_left_behind() {
    let (mut server, config) = shop_with("renamed-hole", &[], QUICK);
    let (file, end) = config.durable().unwrap();
    let all = a_chunk_each(&config, &server, &["on its way", "there"]);
    OnTheirWay::take(&all[..1]);
    server.stop();
    server.start_again(&["--log-bin=other"]);
    let mut agent = config.spawn();
    let gap = wait_gaps(&config, &mut agent, 1).remove(0);
    orders(&server, &["the last"]);
    wait_until("all is there", LONG, || config.durable() == Some(server.position()));
    agent.terminate();
    assert_eq!(gap["ends"], serde_json::json!({"file": file, "offset": end}));
    all_is_told(&config);
    config.archive_now();
    assert_eq!(gaps(&config).len(), 1, "a start behind it is no other break");
}
