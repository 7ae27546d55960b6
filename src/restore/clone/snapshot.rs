//! A clone stream followed record by record: which files there are, what became of them, which bytes go where. Pure.
//!
//! ```text
//!   FILE_COPY: all files, their bytes ─► changes by DDL ─► PAGE_COPY: pages ─► changes by DDL ─► REDO_COPY: redo ─► DONE
//! ```
//!
//! Owns: the order of states, the numbers of files, sizes. Does not own: writing (`write`), names' safety (`place`).
//!
//! Invariants: files lie under their numbers until everything is there, so that names may change places as they like;
//! bytes of a state replace those of the states before it, and the writer is told when those must be through; the sizes
//! together stay below what the manifest leads one to expect; a stream that does not end is never taken for a whole one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;

use super::page::Shape;
use super::place::{is_external, place};
use crate::error::{Error, Kind, Result};
use crate::mysql::clone::INNODB;
use crate::mysql::clone::descriptor::{Data, Descriptor, File, Secret, SpaceId, State, StateChange};
use crate::mysql::clone::packet::Response;

/// Files, at most: what `open_files_limit` may be is far less.
const FILES_MAX: usize = 8 << 20;
/// Redo files, at most: a donor archives a thousand.
const REDO_FILES_MAX: usize = 8192;
/// First size of a tablespace that is made, in pages; and of an undo tablespace, in bytes. Tested on 9.7.
const FIRST_PAGES: u64 = 7;
const FIRST_UNDO_BYTES: u64 = 16 << 20;
/// Pieces in which a file may come that are not next to each other, at most.
const PIECES_MAX: usize = 1 << 16;

/// Which file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Which {
    /// One of the data, by its number.
    Data(u32),
    /// One of the redo log, by its number.
    Redo(u32),
}

/// A file as it is known so far.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// Where it comes to lie.
    pub(super) place: PathBuf,
    /// Where the donor has it, if that is outside its data directory.
    pub(super) external: Option<String>,
    pub(super) space: SpaceId,
    pub(super) fsp_flags: u32,
    /// In bytes, as far as is known.
    pub(super) size: u64,
    /// Its key, if that came beside its pages.
    pub(super) secret: Option<Secret>,
    /// Its pages are compressed, with holes behind each.
    pub(super) holes: bool,
    deleted: bool,
    /// What FILE_COPY has sent of it: ends by beginnings.
    sent: BTreeMap<u64, u64>,
}

/// What is to be done with a record.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing.
    Nothing,
    /// Every write before this must be through before the next.
    Settle,
    /// Bytes of a file.
    Write {
        /// The file.
        which: Which,
        /// Where in it.
        offset: u64,
        /// What.
        bytes: Bytes,
        /// Zeros need not take room.
        holes: bool,
    },
}

/// What the stream is held against.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// The donor's `innodb_page_size`.
    pub(super) page_size: u32,
    /// Its version as one number.
    pub(super) version: u32,
    /// All files together, in bytes, at most.
    pub(super) bytes: u64,
}

/// The stream so far.
#[derive(Debug)]
pub(super) struct Snapshot {
    limits: Limits,
    state: State,
    /// The state has ended; what comes before the next one's start are changes by DDL.
    ended: bool,
    /// Answers that have ended: to the question for a snapshot, and to that for its bytes.
    answers: u32,
    awaited: Option<Data>,
    parts: BTreeMap<u32, Part>,
    redo: BTreeMap<u32, u64>,
    bytes: u64,
}

impl Snapshot {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Init,
            ended: false,
            answers: 0,
            awaited: None,
            parts: BTreeMap::new(),
            redo: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// Takes the next record.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] for what cannot be a donor's.
    pub(super) fn take(&mut self, record: &Bytes) -> Result<Step> {
        let response = Response::parse(record)?;
        if self.answers > 1 {
            return Err(Error::corrupt("the clone stream goes on behind its end"));
        }
        if let Some(data) = self.awaited.take() {
            return match response {
                Response::Data(_) => self.data(&data, record.slice(1..)),
                _ => Err(Error::corrupt("a clone stream lacks the bytes that it announces")),
            };
        }
        match response {
            Response::Descriptor { engine: INNODB, bytes, .. } => self.descriptor(Descriptor::parse(bytes)?),
            Response::Descriptor { engine, .. } => Err(Error::new(
                Kind::Unfit,
                format!("the clone stream has data of a storage engine (number {engine}) that is not InnoDB"),
            )
            .hint("choose a base backup of another engine with --base; `binvault list` shows them")),
            Response::Data(_) => Err(Error::corrupt("a clone stream has bytes that nothing announces")),
            Response::Error { code, message } => {
                let said = String::from_utf8_lossy(message).into_owned();
                Err(Error::corrupt(format!("the clone stream ends with an error of the donor: {code}: {said}")))
            }
            Response::Complete => {
                self.answers = self.answers.saturating_add(1);
                if self.answers > 1 && self.state != State::Done {
                    return Err(Error::corrupt(format!("the clone stream ends in {}", self.state)));
                }
                Ok(Step::Settle)
            }
            Response::Config { name: b"innodb_page_size", value } => self.page_size(value),
            // Facts of the donor: the manifest has those that matter.
            _ => Ok(Step::Nothing),
        }
    }

    /// At the stream's end: the files, where they belong.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if it is not whole, or two files want one place.
    pub(super) fn finish(self) -> Result<Files> {
        if self.answers < 2 {
            return Err(Error::corrupt(format!("the clone stream ends too early, in {}", self.state)));
        }
        let mut data: BTreeMap<u32, Part> = self.parts;
        data.retain(|_, part| !part.deleted);
        let mut places: BTreeMap<&PathBuf, u32> = BTreeMap::new();
        let mut again = Vec::new();
        for (index, part) in &data {
            if let Some(first) = places.insert(&part.place, *index) {
                // General tablespaces of two folders may have the same name; their ids differ.
                if part.external.is_none() {
                    let place = part.place.display();
                    return Err(Error::corrupt(format!(
                        "two files of the clone stream are {place} (numbers {first} and {index})"
                    )));
                }
                again.push(*index);
            }
        }
        for index in again {
            if let Some(part) = data.get_mut(&index) {
                let stem = part.place.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                part.place.set_file_name(format!("{stem}_{}.ibd", part.space.0));
            }
        }
        if !data.values().any(|part| part.space == SpaceId::SYSTEM) || self.redo.is_empty() {
            return Err(Error::corrupt("the clone stream has no system tablespace, or no redo"));
        }
        Ok(Files { data, redo: self.redo })
    }

    fn page_size(&self, value: &[u8]) -> Result<Step> {
        if value == self.limits.page_size.to_string().as_bytes() {
            return Ok(Step::Nothing);
        }
        let said = String::from_utf8_lossy(value).into_owned();
        Err(Error::corrupt(format!("the donor's pages have {said} bytes, by the manifest {}", self.limits.page_size)))
    }

    fn descriptor(&mut self, descriptor: Descriptor) -> Result<Step> {
        match descriptor {
            Descriptor::Locator | Descriptor::Task(_) => Ok(Step::Nothing),
            Descriptor::State(change) => self.change(&change),
            Descriptor::File(file) => self.file(file),
            Descriptor::Data(data) => {
                if data.state != self.state || self.ended {
                    return Err(Error::corrupt(format!(
                        "the clone stream has bytes of {} in {}",
                        data.state, self.state
                    )));
                }
                self.awaited = Some(data);
                Ok(Step::Nothing)
            }
        }
    }

    fn change(&mut self, change: &StateChange) -> Result<Step> {
        if change.is_keep_alive() {
            return Ok(Step::Nothing);
        }
        let fits = match (change.is_start(), change.state) {
            // INIT begins without a word, DONE ends without one.
            (true, state) => state as u32 == (self.state as u32).saturating_add(1) && self.ended,
            (false, state) => state == self.state && !self.ended && state != State::Done,
        };
        if !fits {
            let word = if change.is_start() { "begins" } else { "ends" };
            return Err(Error::corrupt(format!("in the clone stream {} {word} in {}", change.state, self.state)));
        }
        self.state = change.state;
        self.ended = change.is_end();
        Ok(Step::Settle)
    }

    fn file(&mut self, file: File) -> Result<Step> {
        if self.state == State::RedoCopy {
            return self.redo_file(&file);
        }
        let next = self.ended && file.state as u32 == (self.state as u32).saturating_add(1);
        let now = !self.ended && file.state == self.state;
        if !(next || now) || self.state == State::Init {
            return Err(Error::corrupt(format!("the clone stream has a file of {} in {}", file.state, self.state)));
        }
        if let Some(part) = self.parts.get_mut(&file.index) {
            part.deleted |= file.has(File::DELETED);
            if file.name.is_some() && !part.deleted {
                part.name(&file)?;
            }
            part.secret = file.secret.or(part.secret);
            part.fsp_flags = file.fsp_flags;
            part.holes = has_holes(&file);
            self.grow(file.index, file.size)?;
            return Ok(Step::Nothing);
        }
        if self.parts.len() >= FILES_MAX {
            return Err(Error::corrupt(format!("the clone stream has more than {FILES_MAX} files")));
        }
        let mut part = Part {
            place: PathBuf::new(),
            external: None,
            space: file.space,
            fsp_flags: file.fsp_flags,
            size: 0,
            secret: file.secret,
            holes: has_holes(&file),
            deleted: file.has(File::DELETED),
            sent: BTreeMap::new(),
        };
        if !part.deleted {
            part.name(&file)?;
        }
        let (made, deleted) = (file.state != State::FileCopy, part.deleted);
        self.parts.insert(file.index, part);
        if deleted {
            return Ok(Step::Nothing);
        }
        self.grow(file.index, file.size)?;
        if made { self.make(&file) } else { Ok(Step::Nothing) }
    }

    /// A file that was made while the snapshot was taken: nothing of it was copied as it lies on the disk.
    fn make(&mut self, file: &File) -> Result<Step> {
        let shape = Shape::of(file.fsp_flags, self.limits.page_size)?;
        let bytes = if file.space.is_undo() { FIRST_UNDO_BYTES } else { FIRST_PAGES * shape.bytes as u64 };
        self.grow(file.index, bytes)?;
        let page = shape.first_page(file.space.0, file.fsp_flags, self.limits.version);
        Ok(Step::Write { which: Which::Data(file.index), offset: 0, bytes: page.into(), holes: false })
    }

    fn redo_file(&mut self, file: &File) -> Result<Step> {
        if self.ended || file.state != State::RedoCopy || file.name.is_some() {
            return Err(Error::corrupt("the clone stream has a file of data among its redo"));
        }
        if self.redo.len() >= REDO_FILES_MAX {
            return Err(Error::corrupt(format!("the clone stream has more than {REDO_FILES_MAX} redo files")));
        }
        self.redo.entry(file.index).or_insert(0);
        self.grow_redo(file.index, file.size)?;
        Ok(Step::Nothing)
    }

    fn data(&mut self, data: &Data, bytes: Bytes) -> Result<Step> {
        let length = u64::from(data.length);
        if u64::try_from(bytes.len()).ok() != Some(length) {
            return Err(Error::corrupt(format!("the clone stream announces {length} bytes and has {}", bytes.len())));
        }
        let end = data.offset.checked_add(length).ok_or_else(|| too_large(u64::MAX))?;
        if self.state == State::RedoCopy {
            self.grow_redo(data.file, end)?;
            return Ok(Step::Write { which: Which::Redo(data.file), offset: data.offset, bytes, holes: false });
        }
        let Some(part) = self.parts.get_mut(&data.file) else { return Err(unknown(data.file)) };
        if part.deleted {
            return Ok(Step::Nothing);
        }
        if self.state == State::FileCopy && !claim(&mut part.sent, data.offset, end) {
            let place = part.place.display();
            return Err(Error::corrupt(format!(
                "the clone stream has the bytes {}..{end} of {place} twice",
                data.offset
            )));
        }
        let holes = part.holes;
        // With its first page comes how large the file is by now.
        self.grow(data.file, if data.offset == 0 { end.max(data.file_size) } else { end })?;
        Ok(Step::Write { which: Which::Data(data.file), offset: data.offset, bytes, holes })
    }

    fn grow(&mut self, index: u32, size: u64) -> Result<()> {
        let part = self.parts.get_mut(&index).ok_or_else(|| unknown(index))?;
        grow(&mut part.size, size, &mut self.bytes, self.limits.bytes)
    }

    fn grow_redo(&mut self, index: u32, size: u64) -> Result<()> {
        let old = self.redo.get_mut(&index).ok_or_else(|| unknown(index))?;
        grow(old, size, &mut self.bytes, self.limits.bytes)
    }
}

/// The files of a snapshot.
#[derive(Debug)]
pub(super) struct Files {
    /// By their numbers; without those that were deleted meanwhile.
    pub(super) data: BTreeMap<u32, Part>,
    /// Sizes by number.
    pub(super) redo: BTreeMap<u32, u64>,
}

impl Part {
    /// A part with nothing but what counts for its place.
    #[cfg(test)]
    pub(super) fn of(place: &str, space: u32, fsp_flags: u32, size: u64) -> Self {
        Self {
            place: PathBuf::from(place),
            external: None,
            space: SpaceId(space),
            fsp_flags,
            size,
            secret: None,
            holes: false,
            deleted: false,
            sent: BTreeMap::new(),
        }
    }

    fn name(&mut self, file: &File) -> Result<()> {
        self.place = place(file)?;
        self.external = file.name.clone().filter(|name| is_external(name));
        Ok(())
    }

    /// Its size when it is put back, in bytes: InnoDB forgets what is beyond a whole extent, so a tablespace that is larger
    /// than one ends with one.
    pub(super) fn final_size(&self, page_size: u32) -> u64 {
        let extent = u64::from(page_size).saturating_mul(64).max(1 << 20);
        // The files of the system tablespace are as large as innodb_data_file_path says.
        let fixed = self.space == SpaceId::NONE || self.space == SpaceId::SYSTEM;
        if fixed || self.size <= extent {
            self.size
        } else {
            self.size.checked_next_multiple_of(extent).unwrap_or(self.size)
        }
    }
}

fn has_holes(file: &File) -> bool {
    file.has(File::ZLIB) || file.has(File::LZ4)
}

fn unknown(index: u32) -> Error {
    Error::corrupt(format!("the clone stream has bytes of a file that it has not named (number {index})"))
}

fn too_large(bytes: u64) -> Error {
    Error::corrupt(format!("the clone stream has more data ({} MiB) than its manifest says", bytes >> 20))
}

fn grow(size: &mut u64, to: u64, all: &mut u64, limit: u64) -> Result<()> {
    let more = to.saturating_sub(*size);
    *all = all.checked_add(more).filter(|all| *all <= limit).ok_or_else(|| too_large(to.max(*all)))?;
    *size = size.saturating_add(more);
    Ok(())
}

/// Marks a range as sent; false if some of it was already. Neighbours become one, so that what is sent in order is one range.
fn claim(sent: &mut BTreeMap<u64, u64>, start: u64, end: u64) -> bool {
    if start >= end {
        return start == end;
    }
    let (mut start, mut end) = (start, end);
    if let Some((&before, &until)) = sent.range(..=start).next_back() {
        if until > start {
            return false;
        }
        if until == start {
            sent.remove(&before);
            start = before;
        }
    }
    if let Some((&after, &until)) = sent.range(start..).next() {
        if after < end {
            return false;
        }
        if after == end {
            sent.remove(&after);
            end = until;
        }
    }
    sent.insert(start, end);
    sent.len() <= PIECES_MAX
}

#[cfg(test)]
mod tests;
