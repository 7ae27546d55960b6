//! The whole machine on real servers: the built agent archives a live MySQL, and gives every file back.
//!
//! `check` holds an archive against its server; each other module proves one promise. Servers, agents and stores are
//! real; a test that cannot get them fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test that is how things fail")]
#![allow(clippy::print_stdout, reason = "figures for whoever runs this with --nocapture")]

mod check;
mod identity;
mod interruption;
mod lock_in;
mod memory;
mod object_store;
mod overlap;
mod resume;
#[path = "../support/s3.rs"]
mod s3;
#[path = "../support/mod.rs"]
mod support;
mod timing;
