//! Acknowledge: tells the server how far the archive is durable, when it waits for that.
//!
//! Owns: the writing half of the dump's socket. Does not own: which position is due (`semi_sync`).
//!
//! Invariant: what goes out is [`SemiSync::due`] and nothing else; several waiting commits get one packet.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, WriteHalf};
use tokio_util::sync::CancellationToken;

use super::failpoint;
use super::semi_sync::SemiSync;
use crate::clock;
use crate::error::Result;
use crate::mysql::semi_sync::acknowledgement;
use crate::mysql::stream::Stream;

/// How long a few bytes may take to get into the socket before the peer is taken for dead.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// The acknowledging stage. Ends when `done` is set and nothing is due any more, or at the turn. If the server takes nothing
/// any more, it sets `unheard` for the receiver to end in good order, and say so.
pub(super) async fn run(
    mut socket: WriteHalf<Stream>,
    semi_sync: Arc<SemiSync>,
    done: CancellationToken,
    unheard: CancellationToken,
) -> Result<()> {
    let mut changes = semi_sync.changes();
    loop {
        changes.mark_unchanged();
        if semi_sync.turn.is_cancelled() {
            return Ok(());
        }
        if let Some(position) = semi_sync.due() {
            failpoint::pass("acknowledge");
            let packet = acknowledgement(&position);
            let written = clock::with_timeout(WRITE_LIMIT, async {
                socket.write_all(&packet).await?;
                socket.flush().await
            });
            let why = match written.await {
                Some(Ok(())) => None,
                Some(Err(error)) => Some(error.to_string()),
                None => Some(format!("not within {} s", WRITE_LIMIT.as_secs())),
            };
            if let Some(why) = why {
                tracing::debug!(why, "the server takes no acknowledgement");
                unheard.cancel();
                return Ok(());
            }
            tracing::trace!(%position, "acknowledged");
            semi_sync.sent(position);
            continue;
        }
        tokio::select! {
            biased;
            () = semi_sync.turn.cancelled() => return Ok(()),
            () = changes.changed() => {}
            () = done.cancelled() => {
                if semi_sync.due().is_none() {
                    return Ok(());
                }
            }
        }
    }
}
