//! The binlog position that a snapshot holds in itself, read without a server.
//!
//! While a donor brings a snapshot to its end, InnoDB notes the binlog position of each commit in the page of the
//! transaction system (space 0, page 5), and commits keep the binlog's order; once the donor notes by itself where the binlog
//! ends. This finds the notes by the look of the redo records for these fields; it is no redo parser, so what it finds are
//! candidates, which the caller holds against the binlog.
//!
//! Owns: the fields, the redo's blocks, encrypted ones included. Does not own: which note is believed.
//!
//! Invariants: memory is bounded, whatever the redo's size; nothing of the donor is trusted for a length.

mod blocks;

use std::collections::VecDeque;

use self::blocks::{Blocks, Content};
use super::descriptor::Secret;
use crate::error::Result;
use crate::position::{BinlogFile, Position};

pub use self::blocks::REDO_HEADER_BYTES;

/// The number of the page in the system tablespace.
pub const PAGE: u64 = 5;

/// The last notes that are kept.
const NOTES: usize = 1024;
/// Behind the page's header; the fields lie this far before its end.
const PAGE_HEADER_BYTES: u32 = 38;
const FIELDS_BEFORE_END: u32 = 1000;
const MAGIC: u32 = 873_422_344;
/// Room of the file's name.
const NAME_BYTES: usize = 512;
/// Redo records: four bytes are written, a string is written. The high bit says that nothing belongs to the record.
const FOUR_BYTES: u8 = 4;
const STRING: u8 = 30;
const ALONE: u8 = 0x80;
/// Type, space 0, page 5, offset in the page.
const HEAD_BYTES: usize = 5;
/// No record of these is longer: head, length, name.
const RECORD_BYTES_MAX: usize = HEAD_BYTES + 2 + NAME_BYTES;

/// What looks like notes of positions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// In the page, when it was copied last.
    pub in_page: Option<Position>,
    /// In the redo, in order; the newest ones, if there are very many. Repeated ones are there as often as they were made.
    pub in_redo: Vec<Position>,
}

/// Collects notes of a snapshot's position.
#[derive(Debug)]
pub struct PositionScanner {
    fields: Fields,
    blocks: Blocks,
    /// Redo that was not looked at yet: a record may go on in the next block, and the last block may come again.
    window: Vec<u8>,
    in_page: Option<Position>,
    in_redo: VecDeque<Position>,
}

/// The fields as they are now.
#[derive(Debug)]
struct Fields {
    /// Offset in the page of the magic; high, low and name follow.
    at: u16,
    high: u32,
    low: u32,
    name: Vec<u8>,
}

impl PositionScanner {
    /// For a snapshot with pages of this size; `None` if InnoDB has none such.
    pub fn new(page_bytes: u32) -> Option<Self> {
        let fine = (4096..=65_536).contains(&page_bytes) && page_bytes.is_power_of_two();
        let at = page_bytes.checked_sub(FIELDS_BEFORE_END)?.checked_add(PAGE_HEADER_BYTES)?;
        let at = u16::try_from(at).ok().filter(|_| fine)?;
        Some(Self {
            fields: Fields { at, high: 0, low: 0, name: Vec::new() },
            blocks: Blocks::default(),
            window: Vec::new(),
            in_page: None,
            in_redo: VecDeque::new(),
        })
    }

    /// Takes the page itself, where it comes in the data. A later one replaces an earlier one.
    pub fn page(&mut self, page: &[u8]) {
        if let Some(fields) = self.fields.in_page(page) {
            self.fields = fields;
            self.in_page = self.fields.position();
        }
    }

    /// Takes redo: bytes of a redo file, in the order in which they come.
    pub fn redo(&mut self, file: u32, offset: u64, bytes: &[u8]) {
        let Self { blocks, window, .. } = self;
        blocks.take(file, offset, bytes, |content| match content {
            Content::Next(bytes) => window.extend_from_slice(bytes),
            Content::Again { before, bytes } => {
                window.truncate(window.len().saturating_sub(before));
                window.extend_from_slice(bytes);
            }
        });
        // The last block stays, and so does what may go on in the next one.
        let keep = RECORD_BYTES_MAX + blocks::CONTENT_BYTES;
        self.look(self.window.len().saturating_sub(keep));
    }

    /// The notes. Looks through what has been waiting, and through encrypted redo.
    ///
    /// # Errors
    /// If encrypted redo cannot be decrypted.
    pub fn finish(mut self, secret: Option<&Secret>) -> Result<Notes> {
        let waiting = std::mem::take(&mut self.blocks).decrypted(secret)?;
        self.window.extend_from_slice(&waiting);
        self.look(self.window.len());
        Ok(Notes { in_page: self.in_page, in_redo: self.in_redo.into() })
    }

    /// Whether there is encrypted redo, so that a secret is needed.
    pub fn is_encrypted(&self) -> bool {
        self.blocks.is_encrypted()
    }

    /// Looks at the records that begin in the first `bytes` of the window, and drops these.
    fn look(&mut self, bytes: usize) {
        let window = std::mem::take(&mut self.window);
        for start in 0..bytes {
            let Some(record) = window.get(start..) else { break };
            if self.fields.apply(record) {
                self.note();
            }
        }
        self.window = window;
        self.window.drain(..bytes.min(self.window.len()));
    }

    fn note(&mut self) {
        let Some(position) = self.fields.position() else { return };
        if self.in_redo.len() >= NOTES {
            self.in_redo.pop_front();
        }
        self.in_redo.push_back(position);
    }
}

impl Fields {
    /// The fields in a whole page.
    fn in_page(&self, page: &[u8]) -> Option<Self> {
        let fields = page.get(usize::from(self.at)..)?;
        let (magic, rest) = fields.split_first_chunk::<4>()?;
        let (high, rest) = rest.split_first_chunk::<4>()?;
        let (low, rest) = rest.split_first_chunk::<4>()?;
        let name = rest.get(..NAME_BYTES)?;
        (u32::from_be_bytes(*magic) == MAGIC).then(|| Self {
            at: self.at,
            high: u32::from_be_bytes(*high),
            low: u32::from_be_bytes(*low),
            name: until_nul(name),
        })
    }

    /// Applies the redo record that begins here, if it is one for these fields; whether a position is complete with it.
    fn apply(&mut self, record: &[u8]) -> bool {
        let Some(([kind, 0, 5, high, low], body)) = record.split_first_chunk::<HEAD_BYTES>() else { return false };
        let Some(field) = u16::from_be_bytes([*high, *low]).checked_sub(self.at) else { return false };
        match (kind & !ALONE, field) {
            (FOUR_BYTES, 4) => {
                if let Some(value) = compressed(body) {
                    self.high = value;
                }
                false
            }
            // Written with every note, and last.
            (FOUR_BYTES, 8) => match compressed(body) {
                Some(value) => {
                    self.low = value;
                    true
                }
                None => false,
            },
            (STRING, 12) => {
                let name = body.split_first_chunk::<2>().and_then(|(length, rest)| {
                    let length = usize::from(u16::from_be_bytes(*length));
                    rest.get(..length).filter(|_| (1..=NAME_BYTES).contains(&length))
                });
                if let Some(name) = name {
                    self.name = until_nul(name);
                }
                false
            }
            _ => false,
        }
    }

    /// What the fields say, if that is a position.
    fn position(&self) -> Option<Position> {
        let path = std::str::from_utf8(&self.name).ok()?;
        // The name may have a folder before it, as the donor was configured.
        let file = BinlogFile::new(path.rsplit(['/', '\\']).next()?).ok()?;
        let offset = u64::from(self.high) << 32 | u64::from(self.low);
        (offset > 0).then_some(Position { file, offset })
    }
}

fn until_nul(bytes: &[u8]) -> Vec<u8> {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

/// An integer in InnoDB's compressed form: the first bits say how many bytes there are.
fn compressed(bytes: &[u8]) -> Option<u32> {
    let first = *bytes.first()?;
    let (length, own_bits, ones) = match first {
        0..0x80 => (1, 0x7f, 0),
        0x80..0xc0 => (2, 0x3f, 0),
        0xc0..0xe0 => (3, 0x1f, 0),
        0xe0..0xf0 => (4, 0x0f, 0),
        0xf0..0xf8 => (5, 0, 0),
        // Numbers near the largest one: the leading ones are left out.
        0xf8..0xfc => (2, 0x03, 0xffff_fc00),
        0xfc..0xfe => (3, 0x01, 0xfffe_0000),
        0xfe => (4, 0, 0xff00_0000),
        0xff => return None,
    };
    let rest = bytes.get(1..length)?;
    Some(rest.iter().fold(u32::from(first & own_bits), |value, byte| value << 8 | u32::from(*byte)) | ones)
}

#[cfg(test)]
mod tests;
