//! The command line as a contract: names, help, exit codes, JSON, files and their modes.
//!
//! The texts of `--help` lie beside this file and are compared literally; `BINVAULT_UPDATE=1` writes them anew.
//! `docs/JSON.md` is held against what the commands really print, both ways.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test that is how things fail")]
#![allow(clippy::print_stderr, reason = "shown with the test that fails")]

#[path = "../support/mod.rs"]
mod support;

mod files;
mod help;
mod json;
mod terminal;
