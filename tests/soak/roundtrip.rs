//! All workloads, many rounds: archived while they run, with agents killed between, exported, compared. And a store
//! that hangs for a minute. `make soak-roundtrip`; `BINVAULT_ROUNDS` says how many rounds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test that is how things fail")]
#![allow(clippy::print_stdout, reason = "figures for whoever runs this")]

#[path = "../archive/check.rs"]
mod check;
#[path = "../support/s3.rs"]
mod s3;
#[path = "../support/mod.rs"]
mod support;

use check::Overlaps;
use std::sync::atomic::Ordering;
use std::time::Duration;
use support::agent::AgentConfig;
use support::lab::Mysqld;
use support::workload::{BIG, SMALL, named};

fn rounds() -> u32 {
    std::env::var("BINVAULT_ROUNDS").map_or(20, |text| text.parse().expect("BINVAULT_ROUNDS is a number"))
}

#[test]
fn every_kind_again_and_again() {
    for round in 0..rounds() {
        let checksum = if round % 2 == 0 { "--binlog-checksum=CRC32" } else { "--binlog-checksum=NONE" };
        let server = Mysqld::start("soak", &[checksum]);
        let size = ["64KiB", "1MiB", "8MiB"][round as usize % 3];
        let config =
            AgentConfig::with_extra(&server, &format!("[agent]\nchunk_size = \"{size}\"\nflush_interval = \"100ms\""));
        for workload in SMALL.iter().chain(BIG.iter().filter(|_| round % 5 == 0)) {
            // A mode raised again before the archive has what came before cannot be followed: caught up in between.
            let mut agent = config.spawn();
            workload.run(&server);
            if workload.name == "anonymous" {
                server.sql("SET GLOBAL gtid_mode = ON_PERMISSIVE");
                agent.wait_caught_up(&server);
                server.sql("SET GLOBAL gtid_mode = ON");
            }
            agent.kill();
        }
        config.archive_now();
        let bytes = check::whole(&config, &server, Overlaps::Allowed);
        println!("round {round}: chunks of {size}, {checksum}: {bytes} bytes the same");
    }
}

#[test]
fn a_store_that_hangs_for_a_minute() {
    let server = Mysqld::start("soak-hang", &["--max-binlog-size=1G"]);
    let store = s3::Server::start();
    let settings = store.settings();
    let mut config = AgentConfig::with(&server, &format!("s3://{}/hang", s3::BUCKET), &settings);
    config.as_a_service();
    let mut agent = config.spawn();
    agent.wait_caught_up(&server);
    store.switches.delay_ms.store(60_000, Ordering::SeqCst);
    named("transaction_300m").run(&server);
    std::thread::sleep(Duration::from_secs(60)); // the minute itself
    let peak = agent.peak_rss_bytes();
    println!("peak memory, while the store hung for a minute: {} KiB", peak >> 10);
    store.switches.delay_ms.store(0, Ordering::SeqCst);
    agent.wait_caught_up(&server);
    let after = agent.peak_rss_bytes();
    println!("peak memory, after it: {} KiB", after >> 10);
    assert!(after <= 64 << 20, "{after} bytes resident at the peak");
    agent.terminate();
    check::whole(&config, &server, Overlaps::Allowed);
}
