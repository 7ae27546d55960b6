//! Commits that wait until they are durable: on a real source with its semi-synchronous plugin, a real store with delays,
//! and real deaths.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test that is how things fail")]
#![allow(clippy::print_stdout, reason = "figures for whoever runs this with --nocapture")]

mod acknowledged;
#[path = "../archive/check.rs"]
mod check;
mod checked;
mod experiment;
mod leaving;
mod metrics;
#[path = "../support/s3.rs"]
mod s3;
mod scene;
mod spool;
mod start;
#[path = "../support/mod.rs"]
mod support;
