//! The second connection: asks how far the server is, says how far the archive is, and writes the beacon.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::PROGRAM;
use super::spool::{Keeper, Stored};
use super::survey::parse_file;
use crate::archive::{Archive, Beacon};
use crate::chunk::FORMAT_VERSION;
use crate::clock;
use crate::config::AgentOptions;
use crate::error::{Error, Kind, Result};
use crate::mysql::facts::binlog_status;
use crate::mysql::{Connection, SourceOptions};
use crate::position::{Position, ServerUuid};
use crate::ship::{Ledger, Progress};
use crate::simulation::{Bug, planted};

/// How long the last question and the last beacon may take each.
const LAST_WORD_LIMIT: Duration = Duration::from_secs(3);

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
    pub(super) ledger: Option<Arc<Ledger>>,
    pub(super) keeper: Arc<Keeper>,
    pub(super) stored: Stored,
    pub(super) answer: Option<Answer>,
    /// Set when the server's binlog was found to end before what is archived of it.
    pub(super) reset: Option<Error>,
}

/// What the server said last.
pub(super) struct Answer {
    position: Position,
    as_of_us: u64,
}

impl Watch {
    /// Watches until `end`, or until `reset` is set: after RESET BINARY LOGS AND GTIDS the server leaves the stream open,
    /// and silent for ever. Other trouble with the server or a beacon is logged, not fatal: the stream itself decides.
    pub(super) async fn run(mut self, end: CancellationToken) -> Self {
        let mut caught_up = false;
        let mut protection = self.ledger.as_ref().map(|ledger| ledger.changes());
        let mut beacon_due = clock::monotonic();
        loop {
            match end.run_until_cancelled(self.ask()).await {
                Some(Ok(())) if self.reset.is_some() => return self,
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    tracing::debug!(error = %error.chain(), "the server's position could not be asked");
                    if let Some(Ok(anew)) = end.run_until_cancelled(Connection::connect(&self.source, PROGRAM)).await {
                        self.asked = anew;
                    }
                }
                None => return self,
            }
            caught_up = self.tell(caught_up);
            let now = clock::monotonic();
            if now >= beacon_due {
                end.run_until_cancelled(self.beacon(false)).await;
                beacon_due = now.checked_add(self.agent.beacon_interval).unwrap_or(now);
            }
            let paused = async {
                tokio::select! {
                    biased;
                    () = changed(&mut protection) => true,
                    () = clock::sleep(self.agent.poll_interval) => false,
                }
            };
            match end.run_until_cancelled(paused).await {
                // Whether commits are protected is told at once.
                Some(true) => beacon_due = clock::monotonic(),
                Some(false) => {}
                None => return self,
            }
        }
    }

    /// The last word of an agent that ends in good order: what is durable now, against what the server says now, if it
    /// still answers.
    pub(super) async fn last_word(mut self) {
        let asked = clock::with_timeout(LAST_WORD_LIMIT, self.ask()).await;
        if !matches!(asked, Some(Ok(()))) {
            tracing::debug!("the server's last position could not be asked");
        }
        clock::with_timeout(LAST_WORD_LIMIT, self.beacon(true)).await;
    }

    async fn ask(&mut self) -> Result<()> {
        let as_of_us = clock::now_us();
        // Taken before asking: the server cannot be behind what it had sent by then.
        let archived = self.progress.durable().position;
        if let Some(status) = binlog_status(&mut self.asked).await? {
            let position = Position { file: parse_file(&status.file)?, offset: status.position };
            if let Some(archived) =
                archived.filter(|archived| archived.file.base() == position.file.base() && position < *archived)
                && !planted(Bug::ResetUnnoticed)
            {
                let message = format!("the server's binlog ends at {position}, but {archived} is archived of it");
                self.reset = Some(Error::new(Kind::Diverged, message).hint(
                    "the server's binlogs were reset: start a new archive (another archive.url) for its new history",
                ));
            }
            self.answer = Some(Answer { position, as_of_us });
        }
        Ok(())
    }

    /// Says once when the archive has caught up, and once when it has fallen behind again.
    fn tell(&self, was: bool) -> bool {
        let (Some(answer), Some(durable)) = (&self.answer, self.progress.durable().position) else { return was };
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

    async fn beacon(&mut self, stopped: bool) {
        let durable = self.stored.behind(self.progress.durable().position);
        let answer = self.answer.as_ref();
        let beacon = Beacon {
            format: FORMAT_VERSION,
            agent: self.agent.id.clone(),
            server: self.server,
            server_version: self.server_version.clone(),
            durable,
            server_position: answer.map(|answer| answer.position.clone()),
            as_of_us: answer.map_or(0, |answer| answer.as_of_us),
            oldest_file: self.oldest_file.clone(),
            stopped,
            version: env!("CARGO_PKG_VERSION").into(),
            semi_sync: self.ledger.as_ref().map(|ledger| ledger.word()),
            spool: self.keeper.word(),
        };
        if let Err(error) = self.archive.put_beacon(&beacon).await {
            tracing::warn!(error = %error.chain(), "the beacon could not be written");
        }
    }
}

/// Waits for a change; for ever without anything to follow.
async fn changed(changes: &mut Option<watch::Receiver<()>>) {
    if let Some(changes) = changes
        && changes.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}
