//! The second connection: asks how far the server is, says how far the archive is, and writes the beacon.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::PROGRAM;
use super::purge::purge;
use super::sight::Sight;
use super::spool::{Keeper, Stored};
use super::start::plain_size;
use super::survey::parse_file;
use crate::archive::{Archive, Beacon};
use crate::chunk::FORMAT_VERSION;
use crate::clock::{self, Instant};
use crate::config::{AgentOptions, PurgeOptions};
use crate::error::{Error, Kind, Result};
use crate::mysql::facts::{BinaryLog, binary_logs, binlog_status, resets};
use crate::mysql::members::{primary, takes_writes};
use crate::mysql::{Connection, SourceOptions};
use crate::observe::Answered;
use crate::position::{BinlogFile, Position, ServerUuid};
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
    /// The server's binlogs, when they were last asked for.
    pub(super) logs: Vec<BinaryLog>,
    /// How often the server had been reset when they were asked for first.
    pub(super) resets: u64,
    /// How old one may become.
    pub(super) expiry_s: Option<u64>,
    /// What may be purged on the server.
    pub(super) purge: Option<PurgeOptions>,
    pub(super) sight: Arc<Sight>,
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
                end.run_until_cancelled(Box::pin(self.purge())).await;
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
        let asked = clock::with_timeout(LAST_WORD_LIMIT, self.ask_at_last()).await;
        if !matches!(asked, Some(Ok(()))) {
            tracing::debug!("the server's last position could not be asked");
        }
        clock::with_timeout(LAST_WORD_LIMIT, self.beacon(true)).await;
    }

    /// Asks by another connection, if need be: the end may have come in the middle of a question.
    async fn ask_at_last(&mut self) -> Result<()> {
        if self.ask().await.is_ok() {
            return Ok(());
        }
        self.asked = Connection::connect(&self.source, PROGRAM).await?;
        self.ask().await
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
            self.count_resets(&position).await?;
            self.show(&position, as_of_us).await?;
            self.answer = Some(Answer { position, as_of_us });
        }
        self.look_round().await
    }

    /// Shows what the server said to who watches.
    async fn show(&mut self, position: &Position, as_of_us: u64) -> Result<()> {
        let durable = self.progress.durable().position;
        let known = |logs: &[BinaryLog]| logs.iter().any(|log| log.name == position.file.as_str());
        if durable.as_ref().is_some_and(|durable| durable.file != position.file) && !known(&self.logs) {
            self.logs = binary_logs(&mut self.asked).await?;
        }
        let answered = Answered {
            lag_bytes: durable.as_ref().and_then(|durable| lag_bytes(durable, position, &self.logs)),
            margin_files: durable.as_ref().map(|durable| margin_files(durable, &self.logs)),
            position: position.clone(),
            as_of_us,
            expiry_s: self.expiry_s,
        };
        let mut seen = self.sight.seen();
        seen.answered = Some(answered);
        seen.server = Some(self.server);
        seen.server_version = Some(self.server_version.clone());
        Ok(())
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

    /// A server that was reset and has written exactly as much as before looks as it did, and the stream stays silent. So
    /// where nothing is to come, the server is asked how often it was reset.
    async fn count_resets(&mut self, position: &Position) -> Result<()> {
        let idle = self.progress.reached() == (position.file.number(), position.offset);
        if !idle || self.reset.is_some() || planted(Bug::ResetUnnoticed) {
            return Ok(());
        }
        let now = resets(&mut self.asked).await?;
        if now != self.resets {
            let message = "a RESET was run on the server: its binlogs are looked at anew".to_owned();
            self.reset = Some(Error::new(Kind::Unreachable, message));
        }
        Ok(())
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
        let several = logs.len() > 1;
        self.logs = logs;
        let Some(oldest) = self.logs.first().map(|log| parse_file(&log.name)).transpose()? else { return Ok(()) };
        let is_next = several && durable.file.base() == oldest.base() && durable.file <= oldest;
        if is_next && !self.warned {
            tracing::warn!(
                %durable, %oldest,
                "the archive is still in the server's oldest binlog: what the server purges next may not be archived yet"
            );
        }
        self.warned = is_next;
        Ok(())
    }

    /// Has the server's binlogs purged that are safe in the store, where that is wanted.
    async fn purge(&mut self) {
        let (Some(options), Some(stored)) = (self.purge, self.stored.behind(self.progress.durable().position)) else {
            return;
        };
        let purged = purge(&options, &self.archive, &mut self.asked, self.server, &stored, &self.logs).await;
        let mut seen = self.sight.seen();
        let total = seen.guard_purged.get_or_insert_default();
        match purged {
            Ok(files) => {
                *total = total.saturating_add(files);
                seen.guard.done();
            }
            Err(error) => {
                let hint = "GRANT BINLOG_ADMIN ON *.* TO the agent's account, or set purge_guard.enabled = false";
                tracing::warn!(error = %error.chain(), hint, "the purge guard could not have binlogs purged");
                seen.guard.failed(&error.hint(hint));
            }
        }
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
            oldest_file: self.logs.first().map(|log| log.name.clone()),
            stopped,
            version: env!("CARGO_PKG_VERSION").into(),
            semi_sync: self.ledger.as_ref().map(|ledger| ledger.word()),
            spool: self.keeper.word(),
            verified: self.sight.seen().verified.clone(),
        };
        if let Err(error) = self.archive.put_beacon(&beacon).await {
            tracing::warn!(error = %error.chain(), "the beacon could not be written");
        }
    }
}

/// Bytes from `durable` to `end` in a server's files; `None` if one of them is unknown. Pure.
fn lag_bytes(durable: &Position, end: &Position, logs: &[BinaryLog]) -> Option<u64> {
    if durable >= end {
        return Some(0);
    }
    if durable.file == end.file {
        return end.offset.checked_sub(durable.offset);
    }
    let files: Vec<(BinlogFile, u64)> =
        logs.iter().filter_map(|log| Some((parse_file(&log.name).ok()?, plain_size(log)))).collect();
    let (_, first) = files.iter().find(|(file, _)| *file == durable.file)?;
    let between = files.iter().filter(|(file, _)| *file > durable.file && *file < end.file);
    let between = between.fold(0_u64, |sum, (_, size)| sum.saturating_add(*size));
    Some(first.saturating_sub(durable.offset).saturating_add(between).saturating_add(end.offset))
}

/// Files that the server has and that are durable as a whole. Pure.
fn margin_files(durable: &Position, logs: &[BinaryLog]) -> u64 {
    let before = |log: &&BinaryLog| {
        parse_file(&log.name).is_ok_and(|file| file.base() == durable.file.base() && file < durable.file)
    };
    logs.iter().filter(before).count() as u64
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(file: &str, offset: u64) -> Position {
        Position { file: BinlogFile::new(file).unwrap(), offset }
    }

    #[test]
    fn what_is_not_durable_is_counted_over_the_servers_files() {
        let log = |name: &str, size| BinaryLog { name: name.into(), size, encrypted: None };
        let logs = [log("b.000001", 100), log("b.000002", 200), log("b.000003", 300), log("b.000004", 40)];
        let lag = |durable, end| lag_bytes(&durable, &end, &logs);
        assert_eq!(lag(at("b.000004", 50), at("b.000004", 50)), Some(0));
        assert_eq!(lag(at("b.000004", 20), at("b.000004", 50)), Some(30));
        assert_eq!(lag(at("b.000002", 150), at("b.000004", 50)), Some(50 + 300 + 50));
        assert_eq!(lag(at("b.000009", 150), at("b.000010", 50)), None, "of a file that is not listed");
        assert_eq!(margin_files(&at("b.000003", 4), &logs), 2);
        assert_eq!(margin_files(&at("b.000001", 4), &logs), 0);
        assert_eq!(margin_files(&at("a.000003", 4), &logs), 0, "of other names");
    }
}
