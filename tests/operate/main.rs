//! The agent as those see it who operate it: health, metrics, status page, notifications, and what it does by schedule.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test that is how things fail")]

#[path = "../archive/check.rs"]
mod check;
mod guarded;
mod long;
mod notified;
mod scheduled;
mod service;
#[path = "../support/mod.rs"]
mod support;
mod watched;

use std::time::Duration;

use crate::support::agent::AgentConfig;
use crate::support::lab::Mysqld;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// An agent that tells its numbers; `extra` begins with a table of its own.
fn watched(server: &Mysqld, extra: &str) -> (AgentConfig, u16) {
    let port = support::http::free_port();
    let metrics = format!(
        "[agent]\npoll_interval = \"300ms\"\n[metrics]\nlisten = \"127.0.0.1:{port}\"\nsurvey_interval = \"1s\"\n"
    );
    (AgentConfig::with_extra(server, &format!("{metrics}{extra}")), port)
}
