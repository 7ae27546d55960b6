//! An agent that runs for long under load, with a chunk each second: memory stays flat, and no file descriptor is left open.
//!
//! A short run in the suite; `make soak-run` takes an hour (`BINVAULT_RUN_SECONDS`).
#![allow(clippy::print_stdout, reason = "figures for whoever runs this with --nocapture")]

use std::time::Duration;

use crate::check::{Overlaps, whole};
use crate::support::http::metric;
use crate::support::lab::Mysqld;
use crate::support::load::{Load, Pace};
use crate::watched;

/// What the agent may take at most, in bytes.
const MEMORY_MAX: f64 = 64.0 * 1024.0 * 1024.0;
/// Memory may grow by so much between the second and the last quarter of the run, in bytes, ...
const GROWTH_MAX: f64 = 4.0 * 1024.0 * 1024.0;
/// ... if it is as long as this, in seconds: before that, caches and the allocator's arenas fill up.
const LONG_RUN: u64 = 240;
/// So many descriptors may come and go with connections.
const FDS_SLACK: f64 = 6.0;

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

#[test]
fn memory_and_descriptors_stay_flat() {
    let seconds = std::env::var("BINVAULT_RUN_SECONDS").map_or(20, |text| text.parse().unwrap());
    let server = Mysqld::start("long", &["--max-binlog-size=64M", "--max-connections=50"]);
    let (mut config, port) = watched(&server, "[verify]\nschedule = \"*/10 * * * * *\"\n");
    config.as_a_service();
    config.edit("[agent]", "[agent]\nflush_interval = \"1s\"\nbeacon_interval = \"5s\"");
    let mut agent = config.spawn();
    agent.wait_caught_up(&server);
    let load = Load::start(&server, 2, Pace::PerSecond(200));
    let (mut memory, mut descriptors) = (Vec::new(), Vec::new());
    for _ in 0..seconds * 2 {
        std::thread::sleep(Duration::from_millis(500));
        memory.extend(metric(port, "process_resident_memory_bytes"));
        descriptors.extend(metric(port, "process_open_fds"));
    }
    let transactions = load.stop();
    agent.wait_caught_up(&server);
    let (chunks, cpu) =
        (metric(port, "binvault_chunks_total").unwrap(), metric(port, "process_cpu_seconds_total").unwrap());
    agent.terminate();
    let quarter = memory.len() / 4;
    let [begin, end] = [&memory[quarter..2 * quarter], &memory[3 * quarter..]].map(median);
    let [fds_begin, fds_end] = [&descriptors[quarter..2 * quarter], &descriptors[3 * quarter..]].map(median);
    println!(
        "{seconds} s, {transactions} transactions, {chunks} chunks, {cpu:.1} CPU s: resident {:.1} -> {:.1} MiB, descriptors {fds_begin} -> {fds_end}",
        begin / 1048576.0,
        end / 1048576.0
    );
    assert!(chunks >= seconds as f64 * 0.6, "{chunks} chunks in {seconds} s");
    assert!(memory.len() as u64 >= seconds, "only {} answers in {seconds} s", memory.len());
    assert!(end <= MEMORY_MAX, "{end} bytes are resident");
    assert!(seconds < LONG_RUN || end - begin <= GROWTH_MAX, "resident memory grew from {begin} to {end} bytes");
    assert!(fds_end - fds_begin <= FDS_SLACK, "descriptors grew from {fds_begin} to {fds_end}");
    whole(&config, &server, Overlaps::None);
}
