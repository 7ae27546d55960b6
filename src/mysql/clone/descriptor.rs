//! InnoDB's descriptors: what a snapshot consists of, and which bytes come next.
//!
//! Owns: their layout (integers big-endian, a header of 12 bytes; tested on 9.7, unchanged since 8.0.17 but for flags of
//! files from 8.0.27 on). Does not own: what files become of them (`restore`).
//!
//! Invariants: a descriptor is as long as it says, to the byte; states and lengths are what they can be; unknown flags
//! are kept.

use crate::error::{Error, Result};

/// The version of all descriptors so far.
pub const DESCRIPTOR_VERSION: u32 = 100;
/// Bytes of a locator without chunk map.
pub const LOCATOR_BYTES: usize = 34;
/// Longest file name taken, in bytes.
pub const NAME_BYTES_MAX: usize = 4096;
/// Bytes of a tablespace's key, and of its initialisation vector.
pub const KEY_BYTES: usize = 32;

const HEADER_BYTES: usize = 12;

/// Where in the snapshot the donor is. Data of a later state replaces that of an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum State {
    /// Begins.
    Init = 1,
    /// Files as they lie on the disk, pages perhaps torn.
    FileCopy = 2,
    /// Pages that were changed meanwhile, whole.
    PageCopy = 3,
    /// The redo of the time in which pages were copied.
    RedoCopy = 4,
    /// All is sent.
    Done = 5,
}

impl State {
    fn of(number: u32) -> Result<Self> {
        Ok(match number {
            1 => Self::Init,
            2 => Self::FileCopy,
            3 => Self::PageCopy,
            4 => Self::RedoCopy,
            5 => Self::Done,
            other => return Err(Error::corrupt(format!("a CLONE descriptor is of the unknown state {other}"))),
        })
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Init => "INIT",
            Self::FileCopy => "FILE_COPY",
            Self::PageCopy => "PAGE_COPY",
            Self::RedoCopy => "REDO_COPY",
            Self::Done => "DONE",
        })
    }
}

/// A tablespace's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpaceId(pub u32);

impl SpaceId {
    /// The system tablespace.
    pub const SYSTEM: Self = Self(0);
    /// `mysql.ibd`: the data dictionary and the tables of the schema `mysql`.
    pub const DICTIONARY: Self = Self(0xffff_fffe);
    /// The redo log.
    pub const REDO: Self = Self(0xffff_fff0);
    /// A file that is no tablespace.
    pub const NONE: Self = Self(0xffff_ffff);

    /// Whether it is an undo tablespace.
    pub fn is_undo(self) -> bool {
        // 127 undo tablespaces, each with 400 000 numbers of its own for truncation.
        (0xffff_fff0 - 127 * 400_000..=0xffff_ffef).contains(&self.0)
    }
}

/// What a worker of the donor calls itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Task {
    /// Its number.
    pub task: u32,
    /// Where it is.
    pub chunk: u32,
    /// Where in the chunk.
    pub block: u32,
}

/// A state begins or ends; or the donor says that it is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateChange {
    /// The state.
    pub state: State,
    /// The worker.
    pub task: u32,
    /// Chunks of the state.
    pub chunks: u32,
    /// Files of the state; in PAGE_COPY pages.
    pub files: u32,
    /// Bytes to come, estimated.
    pub estimate: u64,
    /// The same as they take on a disk.
    pub disk_estimate: u64,
    /// [`StateChange::START`], [`StateChange::ACK`].
    pub flags: u16,
}

impl StateChange {
    /// The state begins; without, it ends.
    pub const START: u16 = 1;
    /// From the recipient: acknowledges; from the donor: a sign of life, to be ignored.
    pub const ACK: u16 = 2;

    /// Whether it only says that the donor is there.
    pub fn is_keep_alive(&self) -> bool {
        self.flags & Self::ACK != 0
    }

    /// Whether the state begins.
    pub fn is_start(&self) -> bool {
        self.flags & Self::START != 0 && !self.is_keep_alive()
    }

    /// Whether the state ends, and waits to be acknowledged.
    pub fn is_end(&self) -> bool {
        self.flags & Self::START == 0 && !self.is_keep_alive()
    }

    /// The acknowledgement of this end.
    pub fn acknowledged(self) -> Self {
        Self { flags: self.flags | Self::ACK, ..self }
    }
}

/// The secret of an encrypted tablespace, in clear.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret {
    /// AES key.
    pub key: [u8; KEY_BYTES],
    /// Initialisation vector.
    pub iv: [u8; KEY_BYTES],
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A file, or what became of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The state it belongs to; behind the end of a state, the next one: a change by DDL.
    pub state: State,
    /// Its size in bytes.
    pub size: u64,
    /// What it takes on the donor's disk, in bytes.
    pub allocated: u64,
    /// Flags of the tablespace; [`File::NO_TABLESPACE`] if it is none.
    pub fsp_flags: u32,
    /// Block size of the donor's file system, in bytes.
    pub fs_block: u32,
    /// [`File::ZLIB`] and its like.
    pub flags: u16,
    /// The tablespace.
    pub space: SpaceId,
    /// Its number in the snapshot. Redo files have numbers of their own.
    pub index: u32,
    /// Its first chunk.
    pub first_chunk: u32,
    /// Its last chunk.
    pub last_chunk: u32,
    /// Its name, if it has one; not to be trusted as a path.
    pub name: Option<String>,
    /// Its secret, if that comes here.
    pub secret: Option<Secret>,
}

impl File {
    /// Pages compressed by zlib.
    pub const ZLIB: u16 = 1;
    /// Pages compressed by LZ4.
    pub const LZ4: u16 = 2;
    /// Encrypted.
    pub const AES: u16 = 4;
    /// Renamed meanwhile. From 8.0.27 on, as the next two.
    pub const RENAMED: u16 = 8;
    /// Deleted meanwhile.
    pub const DELETED: u16 = 16;
    /// A secret follows the name.
    pub const KEY: u16 = 32;
    /// In [`File::fsp_flags`]: no tablespace.
    pub const NO_TABLESPACE: u32 = u32::MAX;

    /// Whether a flag is set.
    pub fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// Bytes of a file; they come in the message behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Data {
    /// The state.
    pub state: State,
    /// The worker.
    pub task: u32,
    /// The chunk.
    pub chunk: u32,
    /// The block in the chunk.
    pub block: u32,
    /// The file's number.
    pub file: u32,
    /// Bytes that follow.
    pub length: u32,
    /// Where in the file they belong.
    pub offset: u64,
    /// The file's size now.
    pub file_size: u64,
}

/// Any of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Descriptor {
    /// What the snapshot is called by.
    Locator,
    /// A worker begins.
    Task(Task),
    /// A state begins or ends.
    State(StateChange),
    /// A file.
    File(File),
    /// Bytes of a file.
    Data(Data),
}

impl Descriptor {
    /// Reads one.
    ///
    /// # Errors
    /// [`crate::error::Kind::Corrupt`] for anything that does not fit; [`crate::error::Kind::Unfit`] for another version.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let at = At(bytes);
        let (version, length, kind) = (at.u32(0)?, at.u32(4)?, at.u32(8)?);
        if version != DESCRIPTOR_VERSION {
            let message =
                format!("the donor's CLONE descriptors are of version {version}, known is {DESCRIPTOR_VERSION}");
            return Err(Error::new(crate::error::Kind::Unfit, message).hint(
                "take base backups of this server by another engine (base.engine), and look for a newer binvault",
            ));
        }
        if usize::try_from(length).ok() != Some(bytes.len()) {
            return Err(wrong(&format!("says {length} bytes, and has {}", bytes.len())));
        }
        let exactly = |wanted: usize| if bytes.len() == wanted { Ok(()) } else { Err(at.odd(wanted)) };
        match kind {
            1 if bytes.len() >= LOCATOR_BYTES => Ok(Self::Locator),
            2 => exactly(24).and_then(|()| at.task()).map(Self::Task),
            3 => exactly(46).and_then(|()| at.state()).map(Self::State),
            4 => at.file().map(Self::File),
            5 => exactly(52).and_then(|()| at.data()).map(Self::Data),
            other => Err(wrong(&format!("is of the unknown kind {other}"))),
        }
    }
}

fn wrong(why: &str) -> Error {
    Error::corrupt(format!("a CLONE descriptor {why}"))
}

/// Fields by their offset.
struct At<'a>(&'a [u8]);

impl At<'_> {
    fn odd(&self, wanted: usize) -> Error {
        wrong(&format!("has {} bytes instead of {wanted}", self.0.len()))
    }

    fn array<const N: usize>(&self, offset: usize) -> Result<[u8; N]> {
        let found = self.0.get(offset..).and_then(|rest| rest.first_chunk::<N>()).copied();
        found.ok_or_else(|| wrong(&format!("of {} bytes ends too early", self.0.len())))
    }

    fn u16(&self, offset: usize) -> Result<u16> {
        self.array(offset).map(u16::from_be_bytes)
    }

    fn u32(&self, offset: usize) -> Result<u32> {
        self.array(offset).map(u32::from_be_bytes)
    }

    fn u64(&self, offset: usize) -> Result<u64> {
        self.array(offset).map(u64::from_be_bytes)
    }

    fn task(&self) -> Result<Task> {
        Ok(Task { task: self.u32(12)?, chunk: self.u32(16)?, block: self.u32(20)? })
    }

    fn state(&self) -> Result<StateChange> {
        Ok(StateChange {
            state: State::of(self.u32(12)?)?,
            task: self.u32(16)?,
            chunks: self.u32(20)?,
            files: self.u32(24)?,
            estimate: self.u64(28)?,
            disk_estimate: self.u64(36)?,
            flags: self.u16(44)?,
        })
    }

    fn data(&self) -> Result<Data> {
        Ok(Data {
            state: State::of(self.u32(12)?)?,
            task: self.u32(16)?,
            chunk: self.u32(20)?,
            block: self.u32(24)?,
            file: self.u32(28)?,
            length: self.u32(32)?,
            offset: self.u64(36)?,
            file_size: self.u64(44)?,
        })
    }

    fn file(&self) -> Result<File> {
        const NAME: usize = 62;
        let (flags, length) = (self.u16(40)?, self.u32(58)?);
        let length = usize::try_from(length).ok().filter(|length| *length <= NAME_BYTES_MAX);
        let length = length.ok_or_else(|| wrong("has a file name that is too long"))?;
        let end = NAME.saturating_add(length);
        let name = self.0.get(NAME..end).ok_or_else(|| wrong("ends within a file's name"))?;
        let name = match name.split_last() {
            None => None,
            Some((0, name)) => {
                let text = std::str::from_utf8(name).ok().filter(|text| !text.contains('\0'));
                Some(text.ok_or_else(|| wrong("has a file name that is no text"))?.to_owned())
            }
            Some(_) => return Err(wrong("has a file name without its end")),
        };
        let has_key = flags & File::KEY != 0;
        let whole = end.saturating_add(if has_key { 2 * KEY_BYTES } else { 0 });
        if self.0.len() != whole {
            return Err(self.odd(whole));
        }
        let secret = if has_key {
            Some(Secret { key: self.array(end)?, iv: self.array(end.saturating_add(KEY_BYTES))? })
        } else {
            None
        };
        Ok(File {
            state: State::of(self.u32(12)?)?,
            size: self.u64(16)?,
            allocated: self.u64(24)?,
            fsp_flags: self.u32(32)?,
            fs_block: self.u32(36)?,
            flags,
            space: SpaceId(self.u32(42)?),
            index: self.u32(46)?,
            first_chunk: self.u32(50)?,
            last_chunk: self.u32(54)?,
            name,
            secret,
        })
    }
}

/// Writes a descriptor: the header last, when its length is known.
struct Out(Vec<u8>);

impl Out {
    fn new() -> Self {
        Self(vec![0; HEADER_BYTES])
    }

    fn u32s(mut self, values: &[u32]) -> Self {
        values.iter().for_each(|value| self.0.extend_from_slice(&value.to_be_bytes()));
        self
    }

    fn u64s(mut self, values: &[u64]) -> Self {
        values.iter().for_each(|value| self.0.extend_from_slice(&value.to_be_bytes()));
        self
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn end(mut self, kind: u32) -> Vec<u8> {
        // Names are bounded, so the length fits.
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        let header = [DESCRIPTOR_VERSION, length, kind];
        for (room, value) in self.0.chunks_exact_mut(4).zip(header) {
            room.copy_from_slice(&value.to_be_bytes());
        }
        self.0
    }
}

/// The locator that asks for a snapshot: no ids yet, padded as the server's own recipient does.
pub fn first_locator() -> Vec<u8> {
    const PADDED_BYTES: usize = 128;
    let mut bytes = Out::new().bytes(&[0; LOCATOR_BYTES - HEADER_BYTES]).end(1);
    bytes.resize(PADDED_BYTES, 0);
    bytes
}

impl Task {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        Out::new().u32s(&[self.task, self.chunk, self.block]).end(2)
    }
}

impl StateChange {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let out = Out::new().u32s(&[self.state as u32, self.task, self.chunks, self.files]);
        out.u64s(&[self.estimate, self.disk_estimate]).bytes(&self.flags.to_be_bytes()).end(3)
    }
}

impl File {
    /// Its bytes. [`File::KEY`] is set if there is a secret.
    ///
    /// # Errors
    /// If the name is too long.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let name = self.name.as_ref().map(|name| [name.as_bytes(), &[0]].concat()).unwrap_or_default();
        let length = u32::try_from(name.len()).ok().filter(|_| name.len() <= NAME_BYTES_MAX);
        let length = length.ok_or_else(|| wrong("would have a file name that is too long"))?;
        let flags = if self.secret.is_some() { self.flags | Self::KEY } else { self.flags & !Self::KEY };
        let out = Out::new()
            .u32s(&[self.state as u32])
            .u64s(&[self.size, self.allocated])
            .u32s(&[self.fsp_flags, self.fs_block])
            .bytes(&flags.to_be_bytes())
            .u32s(&[self.space.0, self.index, self.first_chunk, self.last_chunk, length])
            .bytes(&name);
        Ok(match &self.secret {
            None => out,
            Some(secret) => out.bytes(&secret.key).bytes(&secret.iv),
        }
        .end(4))
    }
}

impl Data {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let out = Out::new().u32s(&[self.state as u32, self.task, self.chunk, self.block, self.file, self.length]);
        out.u64s(&[self.offset, self.file_size]).end(5)
    }
}

#[cfg(test)]
mod tests;
