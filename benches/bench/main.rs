//! `make bench`: what the agent costs and how fast it is, beside its peer and its limits, all in one run.
//!
//! Ratios count, not seconds: every candidate reads the same binlogs from the same server, in alternating rounds, and
//! the medians are compared. Prints tables, keeps `target/bench.json`.
//!
//! Variables: `BINVAULT_BENCH_MIB` (binlog to make, default 1024), `BINVAULT_BENCH_ROUNDS` (default 5),
//! `BINVAULT_BENCH_SECONDS` (steady load for the commit → durable part, default 20), `BINVAULT_BENCH_REPLAY_MIB` (binlog to
//! replay, default 64), `BINVAULT_BENCH_CLONE_MIB` (data of a server that is backed up, default 2048),
//! `BINVAULT_BENCH_IMPACT_SECONDS` (a donor's load with and without a backup of a quarter of that, default 20),
//! `BINVAULT_BENCH_RPO_SECONDS` (load of each figure of the commits that wait, default 5). 0 leaves a
//! part out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench fails like a test")]
#![allow(clippy::print_stdout, reason = "its tables are its purpose")]
#![allow(clippy::disallowed_methods, clippy::cast_possible_truncation, reason = "a clock is what a bench is for")]
#![allow(unreachable_pub, missing_docs, reason = "a program of its own")]

#[path = "../../tests/support/s3.rs"]
mod s3;
#[path = "../../tests/support/mod.rs"]
mod support;

mod alone;
mod clone;
mod impact;
mod ingest;
mod latency;
mod measure;
mod replay;
mod semi_sync;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn main() {
    // `cargo test --benches` builds and starts benches with `--test`: there is nothing to do then.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let mebibytes = number("BINVAULT_BENCH_MIB", 1024);
    let rounds = usize::try_from(number("BINVAULT_BENCH_ROUNDS", 5)).unwrap();
    let seconds = number("BINVAULT_BENCH_SECONDS", 20);
    let mut report = serde_json::Map::new();
    if mebibytes > 0 {
        report.insert("ingest".into(), ingest::run(mebibytes << 20, rounds));
    }
    if seconds > 0 {
        report.insert("commit_to_durable".into(), latency::run(seconds));
    }
    let replayed = number("BINVAULT_BENCH_REPLAY_MIB", 64);
    if replayed > 0 {
        report.insert("replay".into(), replay::run(replayed << 20, rounds.min(3)));
    }
    let data = number("BINVAULT_BENCH_CLONE_MIB", 2048);
    if data > 0 {
        report.insert("clone".into(), clone::run(data << 20, rounds.min(3)));
    }
    let impact = number("BINVAULT_BENCH_IMPACT_SECONDS", 20);
    if data > 0 && impact > 0 {
        report.insert("impact".into(), impact::run((data << 20) / 4, impact));
    }
    let waited = number("BINVAULT_BENCH_RPO_SECONDS", 5);
    if waited > 0 {
        report.insert("semi_sync".into(), semi_sync::run(waited));
    }
    let path = support::repo().join("target/bench.json");
    std::fs::write(&path, serde_json::to_string_pretty(&report).unwrap()).unwrap();
    println!("\nkept as {}", path.strip_prefix(support::repo()).unwrap().display());
}
