//! The experiment: the database host is lost at a random instant, with all its data, and the agent with it. What had
//! returned to a client must be in the archive.
//!
//! The oracle is stock `mysqlbinlog` over the exported files. `BINVAULT_RPO_ROUNDS` sets the number of rounds
//! (`make soak-rpo`). The same without protection loses something, which shows that the experiment can tell, and no more
//! than the flush interval.

use crate::s3;
use crate::scene::{Clients, LONG, on_s3, source, wait_protected};
use crate::spool::{spool, with_spool};
use crate::support::agent::AgentConfig;
use crate::support::lab::tool;
use crate::support::{files_below, wait_until};
use binvault::clock;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::Duration;

fn rounds() -> u32 {
    std::env::var("BINVAULT_RPO_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

/// A number below `limit` that nobody chose.
fn random(limit: u64) -> u64 {
    u64::from_le_bytes(uuid::Uuid::new_v4().as_bytes()[..8].try_into().unwrap()) % limit
}

/// The rows in the archive's files, by the stock tool.
fn archived(config: &AgentConfig) -> BTreeSet<(u64, u64)> {
    let exported = config.export();
    let mut rows = BTreeSet::new();
    for entry in std::fs::read_dir(&exported).unwrap() {
        let path = entry.unwrap().path();
        let mut command = tool("mysqlbinlog");
        command.args(["--verbose", "--base64-output=decode-rows"]).arg(&path).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut client = None;
        for line in BufReader::new(child.stdout.take().unwrap()).split(b'\n') {
            let line = line.unwrap();
            let line = String::from_utf8_lossy(&line);
            if let Some(value) = line.strip_prefix("###   @1=") {
                client = value.trim().parse::<u64>().ok();
            } else if let (Some(value), Some(client)) = (line.strip_prefix("###   @2="), client) {
                rows.insert((client, value.trim().parse().unwrap()));
            }
        }
        assert!(child.wait().unwrap().success(), "mysqlbinlog cannot read {}", path.display());
    }
    std::fs::remove_dir_all(exported).unwrap();
    rows
}

/// What one round came to.
struct Outcome {
    /// Commits went on without protection before the end: the agent had said so, and the round proves nothing.
    lapsed: bool,
    returned: usize,
    waiting: u64,
    lost: usize,
    /// How long before the end the oldest lost commit had returned.
    oldest_lost: Duration,
}

fn round(mode: &str, flush: Duration) -> Outcome {
    let mut server = source(&format!("rpo-{mode}"), &[]);
    let store = s3::Server::start();
    store.switches.delay_ms.store(10 + random(30), Ordering::SeqCst);
    let agent_settings = format!("flush_interval = \"{}ms\"", flush.as_millis());
    let configure = if mode == "spool" { with_spool } else { on_s3 };
    let config = configure(&server, &store, &format!("mode = \"{mode}\""), &agent_settings);
    let mut agent = config.spawn();
    if mode == "off" {
        agent.wait_caught_up(&server);
    } else {
        wait_protected(&config, &mut agent);
    }
    let clients = Clients::start(&server, 8, Duration::ZERO);
    clients.wait_for(50);
    std::thread::sleep(Duration::from_millis(random(700)));
    // A round counts only if commits were waiting.
    wait_until("commits wait", LONG, || clients.pending() > 0);
    let waiting = clients.pending();
    let end = clock::monotonic();
    // A machine that stalls for longer than the agent's `wait_limit` makes it leave.
    let lapsed = mode != "off" && agent.log().contains("commits are NOT protected any more");
    let log = agent.log_path();
    if mode == "off" {
        // On the same host: an agent that lives a moment longer stores what it has received.
        agent.kill();
        server.kill();
    } else {
        server.kill();
        std::fs::remove_dir_all(server.datadir()).unwrap();
        std::thread::sleep(Duration::from_millis(random(20)));
        agent.kill();
    }
    drop(server);
    let returned = clients.stop();
    let spooled = if mode == "spool" { files_below(&spool(&config)) } else { Vec::new() };
    store.switches.delay_ms.store(0, Ordering::SeqCst);
    if mode == "spool" {
        // It outlives the database's host.
        config.ok(&["drain"]);
    }
    let archived = archived(&config);
    let lost: Vec<_> = returned.iter().filter(|(row, _)| !archived.contains(row)).collect();
    if mode != "off" && !lost.is_empty() {
        // What tells a loss of ours from a round that proves nothing.
        println!("lost: {:?}\nthe agent's log:", lost.iter().map(|(row, _)| row).collect::<Vec<_>>());
        println!("{}", std::fs::read_to_string(log).unwrap_or_default());
        println!("what was in the spool: {spooled:#?}");
        println!("the archive now:\n{}{}", config.ok(&["list"]), config.ok(&["status", "--offline"]));
    }
    let oldest_lost = lost.iter().map(|(_, returned)| end.saturating_duration_since(returned.at)).max();
    Outcome {
        lapsed,
        returned: returned.len(),
        waiting,
        lost: lost.len(),
        oldest_lost: oldest_lost.unwrap_or_default(),
    }
}

/// Rounds in which nothing may be lost.
fn loses_nothing(mode: &str) {
    let (mut returned, mut number, mut lapses) = (0, 0, 0);
    while number < rounds() {
        let outcome = round(mode, Duration::from_secs(1));
        println!(
            "round {number}: {} returned, {} waited at the end, {} lost{}",
            outcome.returned,
            outcome.waiting,
            outcome.lost,
            if outcome.lapsed { ", after a lapse: does not count" } else { "" }
        );
        if outcome.lapsed {
            lapses += 1;
            assert!(lapses <= 3 + rounds() / 10, "protection lapses again and again");
            continue;
        }
        assert_eq!(outcome.lost, 0, "commits that had returned and are not in the archive");
        assert!(outcome.waiting > 0);
        returned += outcome.returned;
        number += 1;
    }
    println!("{mode}: {} rounds, {returned} commits returned, none lost", rounds());
}

#[test]
fn the_store_loses_nothing_that_returned() {
    loses_nothing("store");
}

#[test]
fn the_spool_loses_nothing_that_returned() {
    loses_nothing("spool");
}

#[test]
fn without_protection_the_flush_interval_bounds_what_is_lost() {
    let flush = Duration::from_millis(300);
    // What a loaded machine may add to the interval: a chunk on its way, and the agent's turn to run.
    let slack = Duration::from_secs(5);
    let (mut returned, mut lost, mut oldest) = (0, 0, Duration::ZERO);
    for number in 0..rounds() {
        let outcome = round("off", flush);
        println!(
            "round {number}: {} returned, {} lost, the oldest {:?} before the end",
            outcome.returned, outcome.lost, outcome.oldest_lost
        );
        assert!(outcome.oldest_lost <= flush + slack, "a commit {:?} old was lost", outcome.oldest_lost);
        (returned, lost) = (returned + outcome.returned, lost + outcome.lost);
        oldest = oldest.max(outcome.oldest_lost);
    }
    println!(
        "off: {} rounds, {returned} commits returned, {lost} lost, the oldest {oldest:?} before the end",
        rounds()
    );
    assert!(lost > 0, "nothing was ever lost without protection: this experiment could not tell a loss");
}
