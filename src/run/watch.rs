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
use crate::clock::{self, Instant};
use crate::config::AgentOptions;
use crate::error::{Error, Kind, Result};
use crate::mysql::facts::{binary_logs, binlog_status};
use crate::mysql::members::{primary, takes_writes};
use crate::mysql::{Connection, SourceOptions};
use crate::position::{Position, ServerUuid};
use crate::ship::{Ledger, Progress};
use crate::simulation::{Bug, planted};

/// How long the last question and the last beacon may take each.
const LAST_WORD_LIMIT: Duration = Duration::from_secs(3);
/// How long a beacon may take while the server is to be watched.
const BEACON_LIMIT: Duration = Duration::from_secs(10);
/// How long a server that has more may send nothing.
const SILENCE_MAX: Duration = Duration::from_secs(10);

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
    /// Since when the server has had more than it sends, and up to where it had sent it then.
    pub(super) silent: Option<Silence>,
    /// It was said that the server may purge what is not archived.
    pub(super) warned: bool,
    pub(super) answer: Option<Answer>,
    /// Set when the server's binlog was found to end before what is archived of it.
    pub(super) reset: Option<Error>,
}

/// A stream on which nothing comes but heartbeats.
pub(super) struct Silence {
    since: Instant,
    reached: (u64, u64),
    received_bytes: u64,
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
                if let Some(Err(error)) = end.run_until_cancelled(self.look_ahead()).await {
                    tracing::debug!(error = %error.chain(), "the server's binlogs could not be asked for");
                }
                end.run_until_cancelled(clock::with_timeout(BEACON_LIMIT, self.beacon(false))).await;
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
                self.reset = Some(Error::new(Kind::Diverged, message));
            }
            self.listen(&position);
            self.answer = Some(Answer { position, as_of_us });
        }
        self.look_round().await
    }

    /// A server that was reset leaves the stream open and silent, and may have written more than before when it is asked
    /// again. So a stream on which only heartbeats come, while the server has more, is begun anew.
    fn listen(&mut self, position: &Position) {
        let (reached, received_bytes) = (self.progress.reached(), self.progress.snapshot().received_bytes);
        let behind = reached < (position.file.number(), position.offset) && !planted(Bug::ResetUnnoticed);
        let now = clock::monotonic();
        match &self.silent {
            Some(silence) if behind && silence.reached == reached => {
                let long = now.saturating_duration_since(silence.since) >= SILENCE_MAX;
                // Where nothing at all was read, it is we who do not read.
                if long && received_bytes > silence.received_bytes {
                    let message = format!("the server is at {position}, but sends nothing");
                    self.reset = Some(Error::new(Kind::Unreachable, message));
                }
            }
            _ => self.silent = behind.then_some(Silence { since: now, reached, received_bytes }),
        }
    }

    /// Where the source has others beside it: whether it still takes writes, or another does.
    async fn look_round(&mut self) -> Result<()> {
        if self.source.others.is_empty() || takes_writes(&mut self.asked).await? {
            return Ok(());
        }
        let primary = primary(&self.source, PROGRAM).await?;
        if primary.address != self.source.address {
            let message = format!("{} takes no writes any more, {} does", self.source.address, primary.address);
            self.reset = Some(Error::new(Kind::Unreachable, message));
        }
        Ok(())
    }

    /// Warns once while what is to be archived next may be purged before it is.
    async fn look_ahead(&mut self) -> Result<()> {
        let Some(durable) = self.progress.durable().position else { return Ok(()) };
        let logs = binary_logs(&mut self.asked).await?;
        self.oldest_file = logs.first().map(|log| log.name.clone());
        let Some(oldest) = logs.first().map(|log| parse_file(&log.name)).transpose()? else { return Ok(()) };
        let is_next = logs.len() > 1 && durable.file.base() == oldest.base() && durable.file <= oldest;
        if is_next && !self.warned {
            tracing::warn!(
                %durable, %oldest,
                "the archive is still in the server's oldest binlog: what the server purges next may not be archived yet"
            );
        }
        self.warned = is_next;
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
