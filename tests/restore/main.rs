//! Restores on real servers, held against what stock `mysqlbinlog | mysql` makes of the source's own files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test that is how things fail")]
#![allow(clippy::print_stdout, reason = "figures for whoever runs this with --nocapture")]

// The longest is the first in the alphabet, and so begins first.
mod anywhere;
mod branches;
mod bucket;
mod clone;
mod damage;
mod drill;
mod interrupt;
mod kinds;
mod oracle;
mod place;
mod prune;
mod refuse;
#[path = "../support/s3.rs"]
mod s3;
mod scene;
#[path = "../support/mod.rs"]
mod support;
