//! The fuzzer's corpora as an ordinary test: every decoder of foreign bytes takes each input, and what becomes of it by
//! chance, without a panic and in bounded memory.
//!
//! The inputs in `fuzz/corpus` are what real servers and agents said, made by `make fuzz-corpus` (`record.rs`), and
//! `regression-…`: what once broke a decoder. `make fuzz` looks for more of these.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test that is how things fail")]
#![allow(clippy::print_stdout, reason = "figures for whoever runs this with --nocapture")]

mod mutate;
mod record;
#[path = "../support/mod.rs"]
mod support;
mod tee;

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use binvault::fuzzing::{TARGETS, Target};
use mutate::Mutator;
use peak_alloc::PeakAlloc;

/// Counts what is allocated, on all threads: nothing else may run beside the one test.
#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// Bytes that each decoder is fed with changed inputs; and inputs, at least.
const CHANGED_BYTES: usize = 64 << 20;
const CHANGED_MIN: usize = 500;

/// Where the corpora lie.
fn corpora() -> PathBuf {
    support::repo().join("fuzz/corpus")
}

/// The inputs for a decoder, in the order of their names.
fn corpus(target: &Target) -> Vec<(String, Vec<u8>)> {
    let folder = corpora().join(target.name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut inputs: Vec<_> = entries
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{} is empty", folder.display());
    inputs
}

/// Feeds a decoder; what it breaks on is kept.
fn feed(target: &Target, name: &str, input: &[u8]) {
    HEAP.reset_peak_usage();
    let before = HEAP.current_usage();
    let done = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let (used, allowed) = (HEAP.peak_usage().saturating_sub(before), target.bytes_max(input.len()));
    if done.is_err() || used > allowed {
        let kept = std::env::temp_dir().join(format!("binvault-{}-broken", target.name));
        fs::write(&kept, input).unwrap();
        panic!(
            "{} on {name}: panic {}, {used} bytes of {allowed}; it is in {}",
            target.name,
            done.is_err(),
            kept.display()
        );
    }
}

#[test]
fn every_decoder_takes_what_servers_say_and_what_becomes_of_it() {
    for target in TARGETS {
        let start = binvault::clock::monotonic();
        let inputs = corpus(target);
        inputs.iter().for_each(|(name, input)| feed(target, name, input));
        let mean = inputs.iter().map(|(_, input)| input.len()).sum::<usize>() / inputs.len();
        let rounds = (CHANGED_BYTES / (mean + 4096)).max(CHANGED_MIN);
        let mut mutator = Mutator::new(target.name);
        for _ in 0..rounds {
            let (name, changed) = mutator.change(&inputs);
            feed(target, &format!("{name}, changed"), &changed);
        }
        println!("{:>16}: {} inputs, {rounds} changed, {:?}", target.name, inputs.len(), start.elapsed());
    }
}

#[test]
fn each_corpus_is_a_decoders() {
    let names: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    let folders = fs::read_dir(corpora()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(folders.collect::<BTreeSet<_>>(), names);
}
