//! Signals: the first SIGTERM or SIGINT asks to stop in good order, the second ends at once; SIGHUP asks to read the
//! configuration again.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};

/// A token that the first signal cancels. `promise` says what is done then, `rest` what becomes of the rest if a second
/// one comes.
///
/// # Errors
/// If signals cannot be watched.
pub(super) fn stop_token(promise: &'static str, rest: &'static str) -> Result<CancellationToken> {
    let failed = |error: std::io::Error| Error::failed("watch signals").source(error);
    let mut term = signal(SignalKind::terminate()).map_err(failed)?;
    let mut int = signal(SignalKind::interrupt()).map_err(failed)?;
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = term.recv() => "SIGTERM",
                _ = int.recv() => "SIGINT",
            }
        };
        let name = next().await;
        tracing::info!(signal = name, "stopping: {promise}; a second signal ends at once");
        stop.cancel();
        next().await;
        tracing::warn!("ending at once; {rest}");
        std::process::exit(130);
    });
    Ok(token)
}

/// SIGHUP, as often as it comes.
///
/// # Errors
/// If signals cannot be watched.
pub(super) fn hangups() -> Result<Signal> {
    signal(SignalKind::hangup()).map_err(|error| Error::failed("watch signals").source(error))
}
