//! The state of the file being cut: position, open chunk, executed sets.

use uuid::Uuid;

use super::Expected;
use super::transaction::{Ended, Transaction};
use crate::archive::ResumeInFile;
use crate::chunk::{ChunkMeta, Close, Executed, FORMAT_VERSION, Link};
use crate::error::{Error, Kind, Result};
use crate::mysql::dump::EventPart;
use crate::mysql::event::{CHECKSUM_BYTES, FIRST_EVENT, FormatDescription, HEADER_BYTES, Header, types};
use crate::position::{
    BinlogFile, ChecksumAlgorithm, CommitTime, GtidSet, Incarnation, ServerUuid, created_text, decode_set,
};

/// How far a chunk may grow past its size for what stands between transactions (rotate, stop, the head of a file).
const SLACK_BYTES: u64 = 32 << 20;
/// Largest PREVIOUS_GTIDS event whose set is read; a larger one is archived all the same, its set just not known.
const HELD_BYTES_MAX: usize = 16 << 20;

/// The beginning of a file: its PREVIOUS_GTIDS event, put together if it comes in pieces.
#[derive(Debug, Default)]
struct HeldHead {
    bytes: Vec<u8>,
    done: bool,
}

#[derive(Debug)]
pub(super) struct FileState {
    pub(super) incarnation: Incarnation,
    /// Offset of the next byte.
    pub(super) position: u64,
    /// Where the open event began; equals `position` between events.
    pub(super) event_start: u64,
    pub(super) transaction: Transaction,
    checksum: ChecksumAlgorithm,
    server_version: String,
    follows: Option<Link>,
    previous: GtidSet,
    /// The server's `gtid_purged` when the stream began.
    purged: GtidSet,
    /// What the file must say was executed before it.
    before: Option<GtidSet>,
    since_start: GtidSet,
    head: HeldHead,
    /// Bytes before this are in the archive already.
    archived: u64,
    chunk: OpenChunk,
}

/// What the open chunk holds so far.
#[derive(Debug, Default)]
struct OpenChunk {
    start: u64,
    starts_inside: bool,
    transactions: u64,
    gtids: GtidSet,
    first_commit: CommitTime,
    last_commit: CommitTime,
}

impl FileState {
    /// A file from its first byte.
    pub(super) fn new(file: BinlogFile, description: &FormatDescription, follows: Option<Link>) -> Self {
        Self {
            incarnation: Incarnation { file, created_s: description.timestamp_s },
            position: 0,
            event_start: FIRST_EVENT,
            transaction: Transaction::default(),
            checksum: description.checksum,
            server_version: description.server_version.clone(),
            follows,
            previous: GtidSet::new(),
            purged: GtidSet::new(),
            before: None,
            since_start: GtidSet::new(),
            head: HeldHead::default(),
            archived: 0,
            chunk: OpenChunk::default(),
        }
    }

    /// Tells what the server had executed that none of its binlogs has.
    pub(super) fn with_purged(mut self, purged: GtidSet) -> Self {
        self.purged = purged;
        self
    }

    /// Checks that the file is the one that was chosen; what was executed before it is checked as soon as it is told.
    ///
    /// # Errors
    /// [`Kind::Diverged`] if it is another one. The next choice sees why.
    pub(super) fn expecting(mut self, expected: Expected) -> Result<Self> {
        let Expected { created_s, before } = expected;
        if let Some(chosen_s) = created_s.filter(|created_s| *created_s != self.incarnation.created_s) {
            let [is, was] = [self.incarnation.created_s, chosen_s].map(created_text);
            return Err(self.is_another(&format!("was begun at {is}, and a moment ago it was one begun at {was}")));
        }
        self.before = before;
        Ok(self)
    }

    /// A file whose stream starts at the archive's resume point.
    pub(super) fn inside(resume: ResumeInFile, description: &FormatDescription) -> Self {
        let mut state = Self::new(resume.incarnation.file.clone(), description, None);
        state.position = resume.resume;
        state.event_start = resume.resume;
        state.head.done = true;
        if let Some(open) = &resume.open {
            state.transaction = Transaction::resumed(open);
        }
        state.skip_to(resume);
        state
    }

    /// Says what the archive has of this file: those bytes are read again, but not stored again.
    pub(super) fn skip_to(&mut self, resume: ResumeInFile) {
        self.archived = resume.end;
        self.previous = resume.previous;
        self.since_start = resume.since_start;
        self.chunk.start = resume.end;
        self.chunk.starts_inside = resume.open.is_some();
    }

    pub(super) fn link(&self) -> Link {
        Link { file: self.incarnation.file.clone(), created_s: self.incarnation.created_s, end: self.position }
    }

    /// Bytes in the open chunk.
    pub(super) fn chunk_bytes(&self) -> u64 {
        self.position.saturating_sub(self.chunk.start)
    }

    /// Whether what was executed before the file has been read, if the file tells it.
    pub(super) fn is_past_head(&self) -> bool {
        self.head.done
    }

    /// Whether a chunk may end here in good order.
    pub(super) fn is_aligned(&self) -> bool {
        self.head.done
            && self.event_start == self.position
            && !self.transaction.is_open()
            && self.position >= self.archived
    }

    /// How many more bytes the open chunk takes.
    pub(super) fn chunk_room(&self, limit: u64) -> u64 {
        let limit = if self.transaction.may_be_cut(limit) { limit } else { limit.saturating_add(SLACK_BYTES) };
        limit.saturating_sub(self.chunk_bytes())
    }

    /// Checks that an event follows what was received before it.
    pub(super) fn check_place(&mut self, header: &Header) -> Result<()> {
        let end = self.position.saturating_add(u64::from(header.length));
        // The header has room for the low 32 bits only; 0 means the server does not say.
        #[expect(clippy::cast_possible_truncation, reason = "the low 32 bits are what the header holds")]
        let low = end as u32;
        if header.log_pos != 0 && header.log_pos != low {
            return Err(Error::corrupt(format!(
                "{} at {}: the event of type {} says that it ends at {}, its bytes end at {end}",
                self.incarnation.file, self.position, header.kind, header.log_pos
            )));
        }
        if !matches!(header.kind, types::FORMAT_DESCRIPTION | types::PREVIOUS_GTIDS) {
            self.head.done = true;
        }
        Ok(())
    }

    /// An event's body, without the file's checksum.
    pub(super) fn body_of<'a>(&self, event: &'a [u8]) -> &'a [u8] {
        let tail = if self.checksum == ChecksumAlgorithm::Crc32 { CHECKSUM_BYTES } else { 0 };
        event.get(HEADER_BYTES..event.len().saturating_sub(tail)).unwrap_or(&[])
    }

    /// Divides bytes at the position into how many are archived already, and the rest.
    pub(super) fn split_at_resume<'a>(&self, bytes: &'a [u8]) -> (u64, &'a [u8]) {
        let old = usize::try_from(self.archived.saturating_sub(self.position)).unwrap_or(usize::MAX).min(bytes.len());
        (old as u64, bytes.get(old..).unwrap_or(&[]))
    }

    /// Bytes went into the open chunk.
    pub(super) fn took(&mut self, bytes: usize) {
        self.position = self.position.saturating_add(bytes as u64);
    }

    /// A new transaction begins, so the former one is over, whatever it said of its length.
    pub(super) fn end_transaction_at_next(&mut self) {
        if let Some(ended) = self.transaction.end_now() {
            tracing::warn!(
                file = %self.incarnation.file, offset = self.position,
                "a transaction ended before the length its GTID event tells"
            );
            self.transaction_ended(ended);
        }
    }

    /// Counts a transaction that ended at the position, unless the archive has counted it.
    pub(super) fn transaction_ended(&mut self, ended: Ended) {
        if self.position <= self.archived {
            return;
        }
        let chunk = &mut self.chunk;
        chunk.transactions = chunk.transactions.saturating_add(1);
        if chunk.first_commit.is_none() {
            chunk.first_commit = ended.commit_us;
        }
        chunk.last_commit = ended.commit_us;
        if let Some(gtid) = ended.gtid {
            chunk.gtids.add(&gtid);
            self.since_start.add(&gtid);
        }
    }

    /// Reads the PREVIOUS_GTIDS event as it goes by.
    pub(super) fn watch_head(&mut self, part: &EventPart<'_>) -> Result<()> {
        if part.header.kind != types::PREVIOUS_GTIDS || self.head.done {
            return Ok(());
        }
        if self.head.bytes.len().saturating_add(part.bytes.len()) <= HELD_BYTES_MAX {
            self.head.bytes.extend_from_slice(part.bytes);
        }
        if part.last {
            let event = std::mem::take(&mut self.head.bytes);
            self.head.done = true;
            if u32::try_from(event.len()).ok() == Some(part.header.length) {
                self.previous = decode_set(self.body_of(&event)).map_err(|error| {
                    Error::corrupt(format!("{}: the PREVIOUS_GTIDS event cannot be read", self.incarnation.file))
                        .source(error)
                })?;
                self.check_before()?;
            }
        }
        Ok(())
    }

    fn check_before(&mut self) -> Result<()> {
        let Some(before) = self.before.take().filter(|before| *before != self.previous) else { return Ok(()) };
        let [is, was] = [self.previous.shown(), before.shown()];
        Err(self.is_another(&format!("begins behind \"{is}\", and a moment ago it began behind \"{was}\"")))
    }

    fn is_another(&self, how: &str) -> Error {
        let message = format!("{} {how}: the server's binlogs were reset meanwhile", self.incarnation.file);
        Error::new(Kind::Diverged, message).transient()
    }

    /// Closes the open chunk at the position and begins the next.
    pub(super) fn end_chunk(
        &mut self,
        archive: Uuid,
        server: ServerUuid,
        high_commit: CommitTime,
        closes: Option<Close>,
    ) -> ChunkMeta {
        let open = self.transaction.as_open();
        let next = OpenChunk { start: self.position, starts_inside: open.is_some(), ..OpenChunk::default() };
        let chunk = std::mem::replace(&mut self.chunk, next);
        let first = chunk.start == 0;
        ChunkMeta {
            format: FORMAT_VERSION,
            archive,
            server,
            file: self.incarnation.file.clone(),
            created_s: self.incarnation.created_s,
            start: chunk.start,
            end: self.position,
            first_commit_us: chunk.first_commit,
            last_commit_us: chunk.last_commit,
            high_commit_us: high_commit,
            transactions: chunk.transactions,
            gtids: chunk.gtids,
            executed: Executed::new(&self.previous, &self.since_start),
            previous: first.then(|| self.previous.clone()),
            unlogged: if first { self.purged.minus(&self.previous) } else { GtidSet::new() },
            follows: if first { self.follows.clone() } else { None },
            starts_inside: chunk.starts_inside,
            open,
            resume: self.event_start,
            closes,
            checksum: self.checksum,
            server_version: self.server_version.clone(),
        }
    }
}
