//! Commit → durable: each commit's own time stamp against the moment its chunk got its name in the archive.
//!
//! The store writes a temporary file, makes it durable and renames it: the rename sets the inode's change time, and
//! the agent can take the chunk for acknowledged only after it.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use binvault::chunk::keys::Identities;
use binvault::chunk::{ChunkName, OpenedChunk};
use binvault::mysql::event::{FIRST_EVENT, GtidEvent, HEADER_BYTES, Header, types};
use serde_json::{Value, json};

use crate::support::agent::AgentConfig;
use crate::support::lab::Mysqld;
use crate::support::load::{Load, Pace};

/// Commits a second of the steady load.
const COMMITS_PER_SECOND: u32 = 200;
/// The flush interval measured with, milliseconds: the default.
const FLUSH_MS: f64 = 1000.0;

pub fn run(seconds: u64) -> Value {
    println!("\ncommit → durable: {COMMITS_PER_SECOND} commits a second for {seconds} s, file archive …");
    let server = Mysqld::start("bench-latency", &["--sync-binlog=1"]);
    let config = AgentConfig::new(&server);
    let mut agent = config.spawn();
    let load = Load::start(&server, 2, Pace::PerSecond(COMMITS_PER_SECOND));
    // What the agent's start and the making of the tables cost is another matter: measure from a steady state.
    load.wait_for(u64::from(COMMITS_PER_SECOND) * 3);
    agent.wait_caught_up(&server);
    let warm_us = now_us();
    std::thread::sleep(Duration::from_secs(seconds));
    load.stop();
    agent.wait_caught_up(&server);
    let (cpu, peak) = (agent.cpu_seconds(), agent.peak_rss_bytes());
    agent.terminate();
    let keys = Identities::parse("key", &std::fs::read_to_string(config.identity()).unwrap().into()).unwrap();
    let mut latencies = Vec::new();
    walk(&config.archive().join("chunks"), &config.archive(), &keys, warm_us, &mut latencies);
    latencies.sort_by(f64::total_cmp);
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    let (p50, p95, p99, max) = (at(0.5), at(0.95), at(0.99), at(1.0));
    println!(
        "  {} commits, flush interval {FLUSH_MS} ms: p50 {p50:.0} ms, p95 {p95:.0} ms, p99 {p99:.0} ms, max {max:.0} ms",
        latencies.len()
    );
    println!("  p99 above the flush interval: {:.0} ms (wanted: ≤ 50)", p99 - FLUSH_MS);
    println!("  the agent took {cpu:.2} CPU s and {:.1} MiB", peak as f64 / f64::from(1 << 20));
    json!({ "commits": latencies.len(), "flush_ms": FLUSH_MS, "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "max_ms": max, "cpu_s": cpu, "peak_bytes": peak })
}

fn now_us() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_micros()).unwrap()
}

/// Every chunk below a folder.
fn walk(folder: &Path, root: &Path, keys: &Identities, since_us: u64, latencies: &mut Vec<f64>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, root, keys, since_us, latencies);
            continue;
        }
        let name = ChunkName::parse(path.strip_prefix(root).unwrap().to_str().unwrap()).unwrap();
        let meta = path.metadata().unwrap();
        let durable_us = meta.ctime() as f64 * 1e6 + meta.ctime_nsec() as f64 / 1e3;
        let object = std::fs::read(&path).unwrap();
        let mut raw = Vec::new();
        OpenedChunk::new(&name, &object, keys).unwrap().read_to_end(&mut raw).unwrap();
        let skip = if name.range.start() == 0 { usize::try_from(FIRST_EVENT).unwrap() } else { 0 };
        commits(&raw[skip..], |commit_us| {
            if commit_us >= since_us {
                latencies.push((durable_us - commit_us as f64) / 1e3);
            }
        });
    }
}

/// Every transaction's commit time in a run of whole events.
fn commits(mut events: &[u8], mut each: impl FnMut(u64)) {
    while let Some(header) = Header::parse(events) {
        let (event, rest) = events.split_at(header.length as usize);
        if matches!(header.kind, types::GTID | types::ANONYMOUS_GTID | types::TAGGED_GTID) {
            let gtid = GtidEvent::parse(&header, &event[HEADER_BYTES..event.len() - 4]).unwrap();
            each(gtid.commit.micros());
        }
        events = rest;
    }
    assert!(events.is_empty(), "a chunk that does not end with an event");
}
