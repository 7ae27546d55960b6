//! What the integration tests and the benches share: real servers, the real agent, workloads, comparisons.
//!
//! Used as `#[path = "../support/mod.rs"] mod support;`. Everything here fails loudly: a test that cannot get its server
//! is a failed test, never a skipped one.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(unreachable_pub, reason = "a module shared between binaries, exported by none")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test that is how things fail")]
#![allow(clippy::print_stderr, reason = "shown with the test that fails")]

pub mod agent;
pub mod compare;
pub mod dice;
pub mod http;
pub mod keyring;
pub mod lab;
pub mod load;
pub mod mariadb;
pub mod oltp;
pub mod workload;

use std::path::{Path, PathBuf};
use std::time::Duration;

/// The checkout's folder.
pub fn repo() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The lab's folder: `BINVAULT_LAB`, or `.lab` of the checkout.
pub fn lab_dir() -> PathBuf {
    std::env::var_os("BINVAULT_LAB").map_or_else(|| repo().join(".lab"), PathBuf::from)
}

/// Asks `done` every 20 ms; panics with `what` when `limit` has passed without a yes.
pub fn wait_until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let start = binvault::clock::monotonic();
    while !done() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Every file below a folder.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// The last lines of a file, for messages.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
