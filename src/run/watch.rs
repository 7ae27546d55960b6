//! The second connection: asks how far the server is, says how far the archive is, and writes the beacon.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{PROGRAM, parse_file};
use crate::archive::{Archive, Beacon};
use crate::chunk::FORMAT_VERSION;
use crate::clock;
use crate::config::AgentOptions;
use crate::error::Result;
use crate::mysql::facts::binlog_status;
use crate::mysql::{Connection, SourceOptions};
use crate::position::{Position, ServerUuid};
use crate::ship::Progress;

/// Watches one generation.
pub(super) struct Watch {
    pub(super) archive: Archive,
    pub(super) asked: Connection,
    pub(super) agent: AgentOptions,
    pub(super) server: ServerUuid,
    pub(super) server_version: String,
    pub(super) oldest_file: Option<String>,
    pub(super) progress: Arc<Progress>,
    pub(super) source: SourceOptions,
}

/// What the server said last.
struct Answer {
    position: Position,
    as_of_us: u64,
}

impl Watch {
    /// Watches until `end`. Trouble with the server or a beacon is logged, not fatal: the stream itself decides.
    pub(super) async fn run(mut self, end: CancellationToken) -> Result<()> {
        let mut answer: Option<Answer> = None;
        let mut caught_up = false;
        let mut beacon_due = clock::monotonic();
        loop {
            match self.ask().await {
                Ok(found) => answer = found.or(answer),
                Err(error) => {
                    tracing::debug!(error = %error.chain(), "the server's position could not be asked");
                    if let Ok(anew) = Connection::connect(&self.source, PROGRAM).await {
                        self.asked = anew;
                    }
                }
            }
            caught_up = self.tell(answer.as_ref(), caught_up);
            let now = clock::monotonic();
            if now >= beacon_due {
                self.beacon(answer.as_ref(), false).await;
                beacon_due = now.checked_add(self.agent.beacon_interval).unwrap_or(now);
            }
            if end.run_until_cancelled(clock::sleep(self.agent.poll_interval)).await.is_none() {
                break;
            }
        }
        // The last word: what is durable now, against what the server says now, if it still answers.
        let last = self.ask().await.ok().flatten().or(answer);
        self.beacon(last.as_ref(), true).await;
        Ok(())
    }

    async fn ask(&mut self) -> Result<Option<Answer>> {
        let as_of_us = clock::now_us();
        let Some(status) = binlog_status(&mut self.asked).await? else { return Ok(None) };
        let position = Position { file: parse_file(&status.file)?, offset: status.position };
        Ok(Some(Answer { position, as_of_us }))
    }

    /// Says once when the archive has caught up, and once when it has fallen behind again.
    fn tell(&self, answer: Option<&Answer>, was: bool) -> bool {
        let (Some(answer), Some(durable)) = (answer, self.progress.durable().position) else { return was };
        let is = durable >= answer.position;
        if is && !was {
            let counts = self.progress.snapshot();
            tracing::info!(durable = %durable, chunks = counts.chunks, bytes = counts.raw_bytes, "caught up with the server");
        }
        // A busy server is always a little ahead; only another file is worth a word.
        if was && !is && durable.file != answer.position.file {
            tracing::info!(durable = %durable, server = %answer.position, "behind the server");
            return false;
        }
        was || is
    }

    async fn beacon(&self, answer: Option<&Answer>, stopped: bool) {
        let beacon = Beacon {
            format: FORMAT_VERSION,
            agent: self.agent.id.clone(),
            server: self.server,
            server_version: self.server_version.clone(),
            durable: self.progress.durable().position,
            server_position: answer.map(|answer| answer.position.clone()),
            as_of_us: answer.map_or(0, |answer| answer.as_of_us),
            oldest_file: self.oldest_file.clone(),
            stopped,
            version: env!("CARGO_PKG_VERSION").into(),
        };
        if let Err(error) = self.archive.put_beacon(&beacon).await {
            tracing::warn!(error = %error.chain(), "the beacon could not be written");
        }
    }
}
