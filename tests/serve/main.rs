//! We are a source: real servers replicate from the archive, and stock tools fetch from it.
//!
//! `playback`: a playlist for one server, as a restore uses it. `serve`: the command, for any number of replicas.
//! Held against: the tables of the server that was archived, and its own files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test that is how things fail")]
#![allow(unreachable_pub, reason = "modules of one test binary")]
#![allow(clippy::print_stdout, reason = "figures for whoever runs this with --nocapture")]

#[path = "../support/mod.rs"]
mod support;

mod damage;
mod playback;
mod replica;
#[path = "../support/s3.rs"]
mod s3;
mod serve;
mod stage;
