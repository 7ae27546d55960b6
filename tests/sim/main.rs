//! The simulator: thousands of faulty histories, each made of one seed, and what the archive promises checked in each.
//!
//! The product's own code runs (`run` with all below it, `archive`, `timeline`), on one thread and in simulated time,
//! against a model of a MySQL server (`server`, `talk`, `dump`, `semi_sync`) and of an object store (`store`); spools are
//! folders (`spool`). `history` makes things go wrong; `check` and `restore` judge, and so do the models, the moment
//! something is said to them.
//!
//! The suite looks at the first seeds for 20 s. `BINVAULT_SIM_HISTORIES` asks for so many (`make soak-sim`), from
//! `BINVAULT_SIM_SEED` on or from a new one; that seed alone lives through one history and shows it
//! (and, by RUST_LOG, what the agents say). Needs the cargo
//! feature `simulation`, which opens the product's doors and brings the bugs that are planted to prove that they are seen.
//!
//! Not in the model: several servers, TLS, base backups as such (their manifests are), the loss of a spool.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test that is how things fail")]
#![allow(clippy::print_stderr, reason = "the seeds, and what is shown with a test that fails")]

mod agent;
mod answers;
mod check;
#[path = "../support/dice.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with other suites")]
mod dice;
mod dump;
mod event;
mod history;
mod restore;
mod semi_sync;
mod server;
mod spool;
mod store;
mod talk;
mod vigil;
mod world;

use std::time::Duration;

use binvault::clock;
use binvault::simulation::Bug;
use tracing_subscriber::EnvFilter;

use crate::check::Counts;
use crate::history::live;

/// How long the suite looks for something wrong.
const SHORT: Duration = Duration::from_secs(20);

/// So many broken histories tell enough.
const BROKEN_MAX: usize = 10;

/// Histories that are lived through twice.
const HISTORIES_TWICE: u64 = 60;
/// A planted bug must show in fewer.
const SEEDS_FOR_A_BUG: u64 = 1000;

fn from_environment(name: &str) -> Option<u64> {
    Some(std::env::var(name).ok()?.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

#[test]
fn no_history_breaks_a_promise() {
    let one = from_environment("BINVAULT_SIM_SEED");
    let many = from_environment("BINVAULT_SIM_HISTORIES");
    // The suite looks at the same histories each time, a soak at new ones.
    let first = one.unwrap_or_else(|| if many.is_some() { clock::now_us() } else { 1 });
    let alone = one.is_some() && many.is_none();
    let last = first.saturating_add(if alone { 1 } else { many.unwrap_or(u64::MAX) });
    if alone {
        // What the agents say to it, by RUST_LOG.
        let said =
            tracing_subscriber::fmt().with_env_filter(EnvFilter::from_default_env()).with_writer(std::io::stderr);
        let _ = said.without_time().try_init();
    }
    let (begun, mut counts, mut lived, mut broken) = (clock::monotonic(), Counts::default(), 0_u64, Vec::new());
    for seed in first..last {
        let over = !alone && many.is_none() && begun.elapsed() > SHORT;
        if over || broken.len() >= BROKEN_MAX {
            break;
        }
        let outcome = live(seed, None);
        if alone {
            eprintln!("{}", outcome.trace.join("\n"));
        }
        broken.extend(outcome.wrong.map(|wrong| format!("{wrong}\n  see it happen: {}", command(seed))));
        counts.add(&outcome.counts);
        lived += 1;
    }
    eprintln!("{lived} histories from seed {first} on in {:.1} s: {counts:?}", begun.elapsed().as_secs_f32());
    assert!(broken.is_empty(), "promises were broken:\n\n{}\n", broken.join("\n\n"));
}

#[test]
fn a_history_is_its_seed_and_nothing_else() {
    for seed in 0..HISTORIES_TWICE {
        let [one, other] = [live(seed, None).trace, live(seed, None).trace];
        let differ = one.iter().zip(&other).find(|(one, other)| one != other);
        assert!(differ.is_none() && one.len() == other.len(), "seed {seed} gives two histories: {differ:#?}");
    }
}

/// A bug that is planted is found, and found for what it is.
fn finds(bug: Bug, words: &[&str]) {
    let found = (1..SEEDS_FOR_A_BUG).find_map(|seed| Some((seed, live(seed, Some(bug)).wrong?)));
    let (seed, wrong) = found.unwrap_or_else(|| panic!("{SEEDS_FOR_A_BUG} histories do not show {bug:?}"));
    eprintln!("{bug:?} is found by seed {seed}: {wrong}");
    assert!(words.iter().any(|word| wrong.contains(word)), "{bug:?} is found, but for another reason: {wrong}");
    assert!(live(seed, None).wrong.is_none(), "seed {seed} is broken without {bug:?}, too");
}

#[test]
fn an_acknowledgement_before_the_bytes_are_durable_is_found() {
    finds(Bug::AckBeforeDurable, &["acknowledged", "durable"]);
}

#[test]
fn overlapping_chunks_that_give_their_bytes_twice_are_found() {
    finds(Bug::OverlapTwice, &["a block for", "differ"]);
}

#[test]
fn a_reset_that_nobody_notices_is_found() {
    finds(Bug::ResetUnnoticed, &["does not catch up"]);
}

/// What shows a seed's history.
fn command(seed: u64) -> String {
    format!("BINVAULT_SIM_SEED={seed} cargo test --features simulation --test sim no_history -- --nocapture")
}
