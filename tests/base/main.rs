//! Base backups of a real MySQL, by the built program: what they are, judged by stock tools, and how they fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test that is how things fail")]
#![allow(clippy::print_stdout, reason = "figures for whoever runs this with --nocapture")]

mod clone;
mod command;
mod dump;
mod failures;
mod production;
#[path = "../support/s3.rs"]
mod s3;
mod scene;
mod schedule;
mod stock;
#[path = "../support/mod.rs"]
mod support;
