//! Cutting: pieces of events become frames and chunk ends. Pure but for the buffers it is given.
//!
//! Owns: the position, which bytes go into which chunk, where a chunk may end, and everything a chunk's metadata says.
//! Does not own: the socket (`receive`), time (it is told when a chunk should end), compression (`seal`).
//!
//! Invariants: every byte between the resume point and the position is in exactly one frame, in order, unchanged;
//! a chunk ends at a transaction's end, except inside a transaction larger than a chunk (or of unknown length), or when
//! the agent is told to stop; artificial events and heartbeats never get in; an event that does not fit its place
//! stops the line.

mod file;
mod transaction;

use std::collections::VecDeque;

use uuid::Uuid;

use self::file::FileState;
use super::buffers::Buffer;
use crate::archive::{ResumeInFile, ResumePoint};
use crate::chunk::{ChunkMeta, Close, Link};
use crate::error::{Error, Kind, Result};
use crate::mysql::dump::{BUFFER_BYTES as DUMP_BUFFER_BYTES, EventPart};
use crate::mysql::event::{
    FIRST_EVENT, FormatDescription, GtidEvent, HEADER_BYTES, Header, MAGIC, Rotate, artificial_body, types,
};
use crate::position::{BinlogFile, CommitTime, GtidSet, Position, ServerUuid};

/// Empty buffers the cutter must have before it is given a piece: the piece may end a chunk before it begins, fill as
/// many frames (or chunks of a frame) as it is long, and begin one more.
pub(super) fn spares(frame_bytes: usize) -> usize {
    DUMP_BUFFER_BYTES.div_ceil(frame_bytes.max(1)).saturating_add(2)
}

/// Sizes, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CutOptions {
    /// Raw bytes of a chunk.
    pub chunk_bytes: u64,
    /// Raw bytes of a frame.
    pub frame_bytes: usize,
}

/// What goes to the sealer, in order.
#[derive(Debug)]
pub(crate) enum Cut {
    /// The next bytes of the open chunk.
    Frame(Buffer),
    /// The open chunk ends; this is what it holds.
    End(Box<ChunkMeta>),
}

/// What the first file must be, if it is read from its first byte. The server has said so when it was chosen, and may have been
/// reset since.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// When it was begun, seconds since 1970.
    pub created_s: Option<u32>,
    /// What was executed before it.
    pub before: Option<GtidSet>,
}

/// The file whose events come next, as an artificial ROTATE announced it.
#[derive(Debug)]
struct Announced {
    file: BinlogFile,
    position: u64,
}

/// Cuts the stream of one server.
#[derive(Debug)]
pub(crate) struct Cutter {
    options: CutOptions,
    archive: Uuid,
    server: ServerUuid,
    /// Where the archive ends, until the stream has reached it.
    resume: Option<ResumeInFile>,
    /// What the next new file follows.
    link: Option<Link>,
    high_commit: CommitTime,
    /// The server's `gtid_purged` when the stream began.
    purged: GtidSet,
    expected: Expected,
    announced: Option<Announced>,
    file: Option<FileState>,
    current: Option<Buffer>,
    spares: Vec<Buffer>,
    /// [`spares`] of the frame size: asked for with every piece.
    spares_needed: usize,
    out: VecDeque<Cut>,
    /// The open chunk should end at the next place where it may.
    end_wanted: bool,
}

impl Cutter {
    /// A cutter that goes on where the archive ends.
    pub(crate) fn new(options: CutOptions, archive: Uuid, server: ServerUuid, from: &ResumePoint) -> Self {
        Self {
            options,
            archive,
            server,
            resume: from.inside.clone(),
            link: from.follows.clone(),
            high_commit: from.high_commit,
            purged: GtidSet::new(),
            expected: Expected::default(),
            announced: None,
            file: None,
            current: None,
            spares: Vec::new(),
            spares_needed: spares(options.frame_bytes),
            out: VecDeque::new(),
            end_wanted: false,
        }
    }

    /// Tells what the server had executed that none of its binlogs has, for the files that begin from here on.
    pub(crate) fn with_purged(mut self, purged: GtidSet) -> Self {
        self.purged = purged;
        self
    }

    /// Tells what the first file must be.
    pub(crate) fn expecting(mut self, expected: Expected) -> Self {
        self.expected = expected;
        self
    }

    /// How many spare buffers it would like to be given before the next piece.
    pub(crate) fn spares_wanted(&self) -> usize {
        self.spares_needed.saturating_sub(self.spares.len())
    }

    /// Takes an empty buffer of at least a frame's capacity.
    pub(crate) fn give_spare(&mut self, buffer: Buffer) {
        self.spares.push(buffer);
    }

    /// The next thing for the sealer.
    pub(crate) fn take(&mut self) -> Option<Cut> {
        self.out.pop_front()
    }

    /// Whether something waits for the sealer.
    pub(crate) fn has_output(&self) -> bool {
        !self.out.is_empty()
    }

    /// Whether the open chunk has bytes.
    pub(crate) fn chunk_is_open(&self) -> bool {
        self.file.as_ref().is_some_and(|file| file.chunk_bytes() > 0)
    }

    /// Up to where the stream has been received, and whether a transaction ends there.
    pub(crate) fn position(&self) -> Option<(Position, bool)> {
        let file = self.file.as_ref()?;
        Some((Position { file: file.incarnation.file.clone(), offset: file.position }, file.is_aligned()))
    }

    /// The same as numbers: of the file, and the offset.
    pub(crate) fn reached(&self) -> Option<(u64, u64)> {
        let file = self.file.as_ref()?;
        Some((file.incarnation.file.number(), file.position))
    }

    /// Ends the open chunk now if a transaction ends here, else as soon as one does.
    pub(crate) fn end_chunk_soon(&mut self) -> Result<()> {
        match self.file.as_ref() {
            Some(file) if file.chunk_bytes() > 0 && file.is_aligned() => self.end_chunk(None),
            Some(file) if file.chunk_bytes() > 0 => {
                self.end_wanted = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Ends the open chunk wherever it is: the agent stops. In a file's head that chunk would not tell what was executed
    /// before the file, and nobody after it: its few bytes are left to the next run.
    pub(crate) fn end_chunk_here(&mut self) -> Result<()> {
        match &self.file {
            Some(file) if !file.is_past_head() => {
                (self.file, self.current) = (None, None);
                Ok(())
            }
            Some(file) if file.chunk_bytes() > 0 => self.end_chunk(None),
            _ => Ok(()),
        }
    }

    /// Takes the next piece of the stream.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if an event does not fit its place, [`Kind::Diverged`] if the file is not the archived one, or not
    /// the one that was chosen.
    pub(crate) fn accept(&mut self, part: EventPart<'_>) -> Result<()> {
        let header = part.header;
        if header.is_heartbeat() {
            return Ok(());
        }
        if header.is_artificial_rotate() {
            return self.announce(part);
        }
        if part.first {
            if header.kind == types::FORMAT_DESCRIPTION && !self.begin_events(part)? {
                return Ok(());
            }
            self.begin_event(&header, part.bytes)?;
        }
        self.append(part.bytes)?;
        if let Some(file) = self.file.as_mut() {
            file.watch_head(&part)?;
        }
        if part.last { self.end_event(&header, part) } else { Ok(()) }
    }

    /// An artificial ROTATE: says which file's events follow. If it is another one, the former file has ended.
    fn announce(&mut self, part: EventPart<'_>) -> Result<()> {
        if !(part.first && part.last) {
            return Err(Error::corrupt("an artificial rotate event of impossible size"));
        }
        // Made up for the connection and, as it may come without a checksum, not checked: it was damaged on the way.
        let rotate = Rotate::parse(artificial_body(part.bytes)).map_err(Error::transient)?;
        let Rotate { file, position } = rotate;
        let goes_on = self.file.as_ref().is_some_and(|open| open.incarnation.file == file && position == open.position);
        if goes_on {
            return Ok(());
        }
        self.leave_file()?;
        self.announced = Some(Announced { file, position });
        Ok(())
    }

    /// Ends the current file without an event of its own: what was flushed is all there is.
    fn leave_file(&mut self) -> Result<()> {
        if self.chunk_is_open() {
            self.end_chunk(None)?;
        }
        if let Some(file) = self.file.take() {
            self.link = Some(file.link());
        }
        Ok(())
    }

    /// A format description: the first event of a file, or, if the stream starts in the middle, a repetition of it.
    /// Returns whether it is to be stored.
    fn begin_events(&mut self, part: EventPart<'_>) -> Result<bool> {
        let description = FormatDescription::parse(part.bytes)?;
        let Some(Announced { file, position }) = self.announced.take() else {
            // An older server's description in the middle of a file would be an event like any other.
            return Ok(self.file.is_some());
        };
        let resume = self.resume.take().filter(|resume| resume.incarnation.file == file);
        if let Some(resume) = &resume
            && resume.incarnation.created_s != description.timestamp_s
        {
            return Err(Error::new(
                Kind::Diverged,
                format!(
                    "{file} on the server was begun at {}, the archived one at {}: it is not the same file",
                    crate::position::created_text(description.timestamp_s),
                    crate::position::created_text(resume.incarnation.created_s),
                ),
            )
            .hint("the server's binlogs were reset, or it was restored from a backup; `binvault list` shows what is archived"));
        }
        if position == FIRST_EVENT {
            let mut state = FileState::new(file, &description, self.link.take())
                .with_purged(self.purged.clone())
                .expecting(std::mem::take(&mut self.expected))?;
            if let Some(resume) = resume {
                state.skip_to(resume);
            }
            self.file = Some(state);
            self.append(&MAGIC)?;
            return Ok(true);
        }
        match resume {
            Some(resume) if resume.resume == position => {
                self.file = Some(FileState::inside(resume, &description));
                Ok(false)
            }
            _ => Err(Error::corrupt(format!("the server starts {file} at {position}, which was not asked for"))),
        }
    }

    /// An event that goes into the file begins: check that it fits its place, and cut before it if it asks for that.
    fn begin_event(&mut self, header: &Header, bytes: &[u8]) -> Result<()> {
        let file = self.file.as_mut().ok_or_else(|| {
            Error::corrupt(format!("an event of type {} came before any file was announced", header.kind))
        })?;
        file.check_place(header)?;
        let opens = matches!(header.kind, types::GTID | types::ANONYMOUS_GTID | types::TAGGED_GTID);
        if !opens {
            return Ok(());
        }
        let event = GtidEvent::parse(header, file.body_of(bytes))?;
        file.end_transaction_at_next();
        let limit = self.options.chunk_bytes;
        // A transaction that does not fit the rest of this chunk but fits one of its own begins the next.
        let fits_one = event.transaction_bytes.is_none_or(|bytes| bytes <= limit);
        let overflows = file.chunk_bytes().saturating_add(event.transaction_bytes.unwrap_or(0)) > limit;
        if file.chunk_bytes() > 0 && (self.end_wanted || (overflows && fits_one)) {
            self.end_chunk(None)?;
        }
        if let Some(file) = self.file.as_mut() {
            file.transaction.begin(file.position, event);
        }
        Ok(())
    }

    /// Puts bytes of the open event where they belong.
    fn append(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let Some(file) = self.file.as_mut() else { return Ok(()) };
            let (skipped, wanted) = file.split_at_resume(bytes);
            file.position = file.position.saturating_add(skipped);
            if wanted.is_empty() {
                return Ok(());
            }
            let chunk_room = file.chunk_room(self.options.chunk_bytes);
            if chunk_room == 0 {
                self.end_chunk(None)?;
                bytes = wanted;
                continue;
            }
            let buffer = match self.current.as_mut() {
                Some(buffer) => buffer,
                None => {
                    let spare =
                        self.spares.pop().ok_or_else(|| Error::failed("the cutter was left without a buffer"))?;
                    self.current.insert(spare)
                }
            };
            let room = self.options.frame_bytes.saturating_sub(buffer.len());
            let take = wanted.len().min(room).min(usize::try_from(chunk_room).unwrap_or(usize::MAX));
            let (now, rest) = wanted.split_at(take);
            buffer.extend_from_slice(now);
            file.took(take);
            bytes = rest;
            if take == room {
                self.out.extend(self.current.take().map(Cut::Frame));
            }
        }
        Ok(())
    }

    /// The open event is complete.
    fn end_event(&mut self, header: &Header, part: EventPart<'_>) -> Result<()> {
        let Some(file) = self.file.as_mut() else { return Ok(()) };
        file.event_start = file.position;
        let whole = if part.first { part.bytes.get(HEADER_BYTES..).unwrap_or(&[]) } else { &[] };
        if let Some(ended) = file.transaction.event_ended(header.kind, whole, file.position) {
            self.high_commit = self.high_commit.max(ended.commit_us);
            file.transaction_ended(ended);
        }
        let close = match header.kind {
            types::ROTATE => Some(Close::Rotate(Rotate::parse(file.body_of(part.bytes))?.file)),
            types::STOP => Some(Close::Stop),
            _ => None,
        };
        if close.is_some() {
            return if file.chunk_bytes() > 0 { self.end_chunk(close) } else { Ok(()) };
        }
        let full = file.chunk_bytes() >= self.options.chunk_bytes;
        if file.is_aligned() && file.chunk_bytes() > 0 && (self.end_wanted || full) {
            return self.end_chunk(None);
        }
        Ok(())
    }

    /// Ends the open chunk at the position.
    fn end_chunk(&mut self, close: Option<Close>) -> Result<()> {
        self.end_wanted = false;
        let Some(file) = self.file.as_mut() else { return Ok(()) };
        let meta = file.end_chunk(self.archive, self.server, self.high_commit, close);
        meta.range()?;
        self.out.extend(self.current.take().filter(|buffer| !buffer.is_empty()).map(Cut::Frame));
        self.out.push_back(Cut::End(Box::new(meta)));
        Ok(())
    }
}

#[cfg(test)]
pub(super) use tests::meta_for_tests;

#[cfg(test)]
mod tests;
