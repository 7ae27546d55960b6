//! What the service manager is told, where one asks for it (systemd's `NOTIFY_SOCKET`): ready, alive, reloading, stopping.
//!
//! Invariants: `READY=1` goes out only while the server's binlog flows; the watchdog is fed by the runtime that archives, with
//! all its locks taken once, so a deadlock starves it; without a `NOTIFY_SOCKET` nothing is done.

use std::time::Duration;

use sd_notify::NotifyState;

use super::Agent;
use crate::clock;

/// How soon a change is told.
const INTERVAL: Duration = Duration::from_millis(500);

/// Tells, as long as the agent runs. Never ends.
pub(super) async fn run(agent: &Agent) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return std::future::pending().await;
    }
    let mut said_ready = false;
    let mut said_status = String::new();
    let watchdog = sd_notify::watchdog_enabled();
    let mut fed = clock::monotonic();
    loop {
        let observed = agent.observed();
        let streaming = observed.seen.streaming;
        let status = match (&observed.seen.trouble, streaming, observed.lag_seconds()) {
            (_, true, Some(lag)) if lag > 0.0 => format!("archiving, {lag:.0} s behind"),
            (_, true, _) => "archiving".to_owned(),
            (Some(trouble), false, _) => format!("interrupted: {}", trouble.text.replace('\n', " ")),
            (None, false, _) => "connecting".to_owned(),
        };
        if streaming && !said_ready {
            tell(&[NotifyState::Ready]);
            said_ready = true;
        }
        if status != said_status {
            tell(&[NotifyState::Status(&status)]);
            said_status = status;
        }
        if watchdog.is_some_and(|every| fed.elapsed() >= every / 3) {
            tell(&[NotifyState::Watchdog]);
            fed = clock::monotonic();
        }
        clock::sleep(watchdog.map_or(INTERVAL, |every| INTERVAL.min(every / 4))).await;
    }
}

/// The agent is about to begin anew with another configuration.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// The agent is about to end.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// What is not heard does no harm.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}
