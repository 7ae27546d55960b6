//! Throws bytes at the decoder that `BINVAULT_FUZZ_TARGET` names.
#![no_main]

use std::sync::LazyLock;

use binvault::fuzzing::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let wanted = std::env::var("BINVAULT_FUZZ_TARGET").unwrap_or_default();
    TARGETS.iter().find(|target| target.name == wanted).unwrap_or_else(|| {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        panic!("BINVAULT_FUZZ_TARGET is {wanted:?}, not one of {}", names.join(", "))
    })
});

fuzz_target!(|data: &[u8]| (TARGET.run)(data));
