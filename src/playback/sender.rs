//! One dump: files of the feed, one after the other, to one client.
//!
//! Bytes are read ahead by the archive's reader, walked and packed block by block, and written block by block: nothing is
//! awaited for a single event.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::feed::{Feed, PlayFile, Start};
use super::passage::{Choice, Halt, Limit, Passage, Place};
use super::shared::Shared;
use crate::archive::{Block, RangeReader};
use crate::clock::{self, Instant};
use crate::error::{Context, Error, Result};
use crate::mysql::event::{FIRST_EVENT, FormatDescription, types};
use crate::mysql::source::{self, Ask, DumpStream, EventPackets, Refusal, Replica};
use crate::mysql::walk::EventSplitter;
use crate::position::{ByteRange, ChecksumAlgorithm, CommitTime};

/// The shortest wait for a transaction that is due later: so many are sent together.
const DUE_WAIT_MIN: Duration = Duration::from_millis(200);

/// Why a dump is over.
pub(super) enum Stop {
    /// The client has gone away.
    Gone(Error),
    /// There is an error to be told to it.
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// A dump.
pub(super) struct Sender {
    shared: Arc<Shared>,
    feed: watch::Receiver<Arc<Feed>>,
    stream: DumpStream,
    packets: EventPackets,
    heartbeat: Option<Duration>,
    non_block: bool,
    /// The file that was asked for.
    asked: String,
    choice: Choice,
    last_sent: Instant,
    /// Whether made-up events have a CRC32 now.
    checksum: bool,
}

/// What is left of a block at which the stream has halted, and the reader behind it.
#[derive(Default)]
struct Source {
    rest: Option<Block>,
    reader: Option<RangeReader>,
}

/// How a file's turn ends.
enum Turn {
    NextFile,
    EndOfLog,
}

impl Sender {
    pub(super) fn new(
        shared: Arc<Shared>,
        (stream, packets): (DumpStream, EventPackets),
        replica: &Replica,
        ask: Ask,
    ) -> Self {
        let choice = Choice {
            have: ask.gtids.map(Arc::new),
            only: None,
            skip: Arc::default(),
            // Only a registered replica has one that matters: `mysqlbinlog` makes one up.
            replica_id: replica.server_id.unwrap_or(0),
            server_id: shared.server_id,
            heartbeat_v2: ask.heartbeat_v2,
        };
        Self {
            feed: shared.feed.clone(),
            shared,
            stream,
            packets,
            heartbeat: replica.heartbeat,
            non_block: ask.non_block,
            asked: ask.file,
            choice,
            last_sent: clock::monotonic(),
            checksum: replica.checksums == Some(true),
        }
    }

    /// Sends until the client goes away, the log ends for a client that does not wait, or there is an error; the error.
    pub(super) async fn run(mut self, start: Start) -> Option<Error> {
        let error = match self.play(start).await {
            Ok(()) => {
                self.packets.end_of_log();
                None
            }
            Err(Stop::Gone(error)) => {
                tracing::info!(why = %error.chain(), "a replica's connection has ended");
                return None;
            }
            // In the middle of an event nothing can be told: the connection ends, and the next one hears it. And a
            // replica that is told of an error gives up, where trying again may help.
            Err(Stop::Failed(error)) if self.packets.is_open() || error.is_retryable() => {
                drop(self.flush().await);
                return Some(error);
            }
            Err(Stop::Failed(error)) => {
                self.packets.refusal(&Refusal::of_dump(error.chain()));
                Some(error)
            }
        };
        // It may be gone; then it will ask again.
        drop(self.flush().await);
        drop(self.stream.close().await);
        error
    }

    async fn play(&mut self, mut start: Start) -> Result<(), Stop> {
        if start.index >= self.feed.borrow().playlist.files.len() && !self.wait_for_file(start.index).await? {
            return Ok(());
        }
        loop {
            match Box::pin(self.play_file(start)).await? {
                Turn::EndOfLog => return Ok(()),
                Turn::NextFile => {
                    let index = start.index.saturating_add(1);
                    let position = file_of(&self.feed.borrow(), index)?.from;
                    start = Start { index, position };
                }
            }
        }
    }

    /// Waits until the file is there that follows the last one; not for a client that does not wait.
    async fn wait_for_file(&mut self, index: usize) -> Result<bool, Stop> {
        let (asked, checksum) = (self.asked.clone(), self.checksum);
        let place = Place { file: &asked, position: FIRST_EVENT, checksum };
        self.packets.event(&source::rotate(self.choice.server_id, &asked, FIRST_EVENT, checksum));
        self.flush().await?;
        while index >= self.feed.borrow_and_update().playlist.files.len() {
            if self.non_block {
                return Ok(false);
            }
            self.wait(place, None).await?;
        }
        Ok(true)
    }

    /// Sends one file until another one follows it and all of it is sent that shall be.
    async fn play_file(&mut self, start: Start) -> Result<Turn, Stop> {
        let index = start.index;
        let mut passage = self.announce(start).await?;
        let mut source = Source::default();
        loop {
            let feed = Arc::clone(&self.feed.borrow_and_update());
            let file = file_of(&feed, index)?;
            let broken = self.shared.broken_event(file);
            let until = broken.as_ref().map_or(file.until, |(at, _)| file.until.min(*at));
            let committed_by = feed.delay.map(|delay| {
                let delay = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
                CommitTime::from_micros(clock::now_us().saturating_sub(delay))
            });
            passage.set_limit(Limit { until, committed_by });
            let halt = self.pump(&mut passage, &mut source, file, (index, &feed)).await?;
            self.checksum = passage.place().checksum;
            let mut wake = None;
            if let Some(Halt::Due { commit, .. }) = halt {
                let due_us = commit
                    .micros()
                    .saturating_add(feed.delay.map_or(0, |delay| u64::try_from(delay.as_micros()).unwrap_or(u64::MAX)));
                let wait = Duration::from_micros(due_us.saturating_sub(clock::now_us())).max(DUE_WAIT_MIN);
                wake = Some(clock::monotonic() + wait);
            } else if let Some((_, error)) = broken {
                self.shared.forget_broken();
                return Err(Stop::Failed(error));
            } else if index.saturating_add(1) < feed.playlist.files.len() {
                passage.release(&mut self.packets);
                self.choice.have = passage.take_have();
                return Ok(Turn::NextFile);
            }
            passage.release(&mut self.packets);
            self.flush().await?;
            if self.non_block {
                return Ok(Turn::EndOfLog);
            }
            self.wait(passage.place(), wake).await?;
        }
    }

    /// Says which file comes, and how its events are laid out where they do not begin with the first.
    async fn announce(&mut self, start: Start) -> Result<Passage, Stop> {
        let feed = Arc::clone(&self.feed.borrow());
        let file = file_of(&feed, start.index)?;
        let name = file.name();
        self.choice.only = file.only.clone();
        self.choice.skip = Arc::new(feed.skip.clone());
        self.packets.event(&source::rotate(self.choice.server_id, name, start.position, self.checksum));
        if start.position <= FIRST_EVENT {
            return Ok(Passage::from_start(name, self.choice.clone(), self.checksum));
        }
        let (event, checksum) = self.head(file).await?;
        self.packets.event(&source::format_description(&event, true, true));
        Ok(Passage::from_inside(name, self.choice.clone(), start.position, checksum))
    }

    /// A file's format description.
    async fn head(&self, file: &PlayFile) -> Result<(Vec<u8>, ChecksumAlgorithm)> {
        let mut reader = self.read(file, 0, file.chunks.cover.contiguous_end);
        let mut splitter = EventSplitter::at_file_start();
        let mut found = None;
        while let (None, Some(block)) = (&found, reader.next().await?) {
            splitter
                .feed(&block.bytes, &mut |part| {
                    if found.is_none() && part.header.kind == types::FORMAT_DESCRIPTION {
                        found = Some((part.bytes.to_vec(), FormatDescription::parse(part.bytes)?.checksum));
                    }
                    Ok(())
                })
                .context(|| format!("read the head of {}", file.name()))?;
        }
        found.ok_or_else(|| Error::corrupt(format!("{} has no format description", file.name())))
    }

    fn read(&self, file: &PlayFile, from: u64, until: u64) -> RangeReader {
        let range = ByteRange::new(from, until.max(from)).unwrap_or_default();
        self.shared.archive.read_range(Arc::clone(&file.chunks), range, &self.shared.read)
    }

    /// Sends what may be sent now of a file.
    async fn pump(
        &mut self,
        passage: &mut Passage,
        source: &mut Source,
        file: &PlayFile,
        (index, feed): (usize, &Feed),
    ) -> Result<Option<Halt>, Stop> {
        // A broken event's bytes are not read again: the limit stands before it.
        let until = passage.limit().until.max(passage.position());
        loop {
            let block = match source.rest.take() {
                Some(rest) => rest,
                None => {
                    if source.reader.is_none() && passage.position() >= until {
                        return Ok(None);
                    }
                    let reader = source.reader.take();
                    let mut reader = reader.unwrap_or_else(|| self.read(file, passage.position(), until));
                    match self.next_block(&mut reader, passage.place()).await {
                        Ok(Some(block)) => {
                            source.reader = Some(reader);
                            block
                        }
                        Ok(None) => continue,
                        Err(stop) => return Err(self.broken(stop, file, passage)),
                    }
                }
            };
            let halt = passage.feed(&block.bytes, &mut self.packets);
            let halt = halt.context(|| format!("read {}", file.name())).map_err(Stop::Failed);
            let halt = halt.map_err(|stop| self.broken(stop, file, passage))?;
            self.flush().await?;
            self.beat_if_due(passage.place()).await?;
            self.shared.progressed(feed, index, passage);
            if let Some(halt) = halt {
                let used = usize::try_from(halt.start().saturating_sub(block.offset)).unwrap_or(usize::MAX);
                if halt.start() >= block.offset && used <= block.bytes.len() {
                    let bytes: Bytes = block.bytes.slice(used..);
                    source.rest = Some(Block { offset: halt.start(), bytes }).filter(|rest| !rest.bytes.is_empty());
                } else {
                    // It begins in an earlier block, which is gone.
                    source.reader = None;
                }
                return Ok(Some(halt));
            }
        }
    }

    /// Remembers where reading broke off, if the client cannot be told now.
    fn broken(&self, stop: Stop, file: &PlayFile, passage: &Passage) -> Stop {
        if let Stop::Failed(error) = &stop
            && self.packets.is_open()
            && !error.is_retryable()
        {
            self.shared.remember_broken(file, passage.at(), error);
        }
        stop
    }

    /// The next bytes. While they are long in coming, the client hears that we are still here.
    async fn next_block(&mut self, reader: &mut RangeReader, place: Place<'_>) -> Result<Option<Block>, Stop> {
        loop {
            let Some(period) = self.heartbeat else { return Ok(reader.next().await?) };
            let left = period.saturating_sub(self.last_sent.elapsed());
            match clock::with_timeout(left.max(Duration::from_millis(1)), reader.next()).await {
                Some(block) => return Ok(block?),
                None => self.beat(place).await?,
            }
        }
    }

    /// Waits for the feed to grow, or for a time.
    async fn wait(&mut self, place: Place<'_>, wake: Option<Instant>) -> Result<(), Stop> {
        loop {
            let beat = self.heartbeat.map(|period| self.last_sent + period);
            tokio::select! {
                () = self.stream.gone() => return Err(Stop::Gone(Error::failed("the client has closed it"))),
                changed = self.feed.changed() => {
                    return changed.map_err(|_| Stop::Gone(Error::failed("serving has ended")));
                }
                () = clock::sleep_until(wake.unwrap_or(self.last_sent)), if wake.is_some() => return Ok(()),
                () = clock::sleep_until(beat.unwrap_or(self.last_sent)), if beat.is_some() => self.beat(place).await?,
            }
        }
    }

    async fn beat_if_due(&mut self, place: Place<'_>) -> Result<(), Stop> {
        match self.heartbeat {
            Some(period) if self.last_sent.elapsed() >= period => self.beat(place).await,
            _ => Ok(()),
        }
    }

    /// A heartbeat, unless an event is on its way.
    async fn beat(&mut self, place: Place<'_>) -> Result<(), Stop> {
        if !self.packets.is_open() {
            let Choice { heartbeat_v2, server_id, .. } = self.choice;
            let Place { file, position, checksum } = place;
            self.packets.event(&source::heartbeat(heartbeat_v2, server_id, file, position, checksum));
        }
        self.flush().await?;
        self.last_sent = clock::monotonic();
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Stop> {
        if !self.packets.buffered().is_empty() {
            self.stream.write(&mut self.packets).await.map_err(Stop::Gone)?;
            self.last_sent = clock::monotonic();
        }
        Ok(())
    }
}

fn file_of(feed: &Feed, index: usize) -> Result<&PlayFile> {
    feed.playlist.files.get(index).ok_or_else(|| Error::failed("the playlist has become shorter"))
}
