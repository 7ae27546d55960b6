//! binvault: archives a live MySQL binlog, encrypted, into an object store, and gives every byte back.

pub mod archive;
pub mod check;
pub mod chunk;
pub mod cli;
pub mod clock;
pub mod config;
pub mod error;
pub mod export;
pub mod mysql;
pub mod position;
pub mod retry;
pub mod run;
pub mod ship;
pub mod status;
pub mod store;
pub mod verify;
