//! The bytes of a binlog file, event by event and transaction by transaction. Pure.
//!
//! Owns: the file's magic, the splitting into events, every check that can be made without looking into rows (length,
//! place, CRC32), and [`TransactionWalk`], which says where transactions begin and end.
//! Does not own: where the bytes come from, what an event means ([`super::event`], [`super::rows`]).
//!
//! Invariants: any cut of the same bytes gives the same events; an event that lies whole in what is fed is handed out
//! without a copy; control events, and any event of at most [`FIRST_PART_BYTES`], are always handed out whole; the last
//! part of an event is handed out only after its CRC32 was found right; at most [`CONTROL_EVENT_BYTES_MAX`] are held;
//! nothing panics on any input.

mod transactions;

#[cfg(test)]
pub(crate) mod tests;

use crc32fast::Hasher;

use super::event::{
    CHECKSUM_BYTES, EVENT_BYTES_MAX, FIRST_EVENT, FormatDescription, HEADER_BYTES, Header, MAGIC, checksum_holds, types,
};
use crate::error::{Error, Result};
use crate::position::ChecksumAlgorithm;

pub use transactions::{Step, Transaction, TransactionWalk};

/// What the first part of an event has at least, in bytes: this many, or the event whole.
pub const FIRST_PART_BYTES: usize = 64 << 10;
/// Largest control event handed out whole, in bytes: a PREVIOUS_GTIDS event of a server in deep trouble.
pub const CONTROL_EVENT_BYTES_MAX: usize = 16 << 20;
/// Capacity that is kept from one held event to the next, in bytes.
const KEPT_BYTES: usize = 1 << 20;

/// A piece of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalkedPart<'a> {
    /// The event's header, the same in all its parts.
    pub header: Header,
    /// Offset of the event in its file, the same in all its parts.
    pub start: u64,
    /// Whether the part begins with the header.
    pub first: bool,
    /// Whether the event ends with this part.
    pub last: bool,
    /// The bytes.
    pub bytes: &'a [u8],
    /// Bytes of the event's CRC32: 4, or 0 in a file without checksums.
    pub checksum_bytes: usize,
}

impl<'a> WalkedPart<'a> {
    /// One past the event's last byte.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(u64::from(self.header.length))
    }

    /// The event's body as far as the part has it: without the header and, in an event handed out whole, without the
    /// checksum.
    pub fn body(&self) -> &'a [u8] {
        let from = if self.first { HEADER_BYTES } else { 0 };
        let tail = if self.first && self.last { self.checksum_bytes } else { 0 };
        self.bytes.get(from..self.bytes.len().saturating_sub(tail)).unwrap_or(&[])
    }
}

/// Splits the bytes of a file into events. After an error it is of no more use.
#[derive(Debug)]
pub struct EventSplitter {
    /// Offset of the next byte.
    position: u64,
    checksum: ChecksumAlgorithm,
    /// Whether the events lie in a file, and therefore know their place.
    in_file: bool,
    /// Bytes of an event of which nothing was handed out yet.
    held: Vec<u8>,
    /// An event of which the first part was handed out.
    open: Option<OpenEvent>,
}

#[derive(Debug)]
struct OpenEvent {
    header: Header,
    start: u64,
    left: u64,
    checksum_bytes: usize,
    crc: Option<(Hasher, Tail)>,
}

/// The last bytes of an event, gathered: its CRC32.
#[derive(Debug, Default)]
struct Tail {
    bytes: [u8; CHECKSUM_BYTES],
    filled: usize,
}

impl EventSplitter {
    /// A splitter for a file from its first byte: the magic and a format description come first.
    pub fn at_file_start() -> Self {
        Self { position: 0, checksum: ChecksumAlgorithm::None, in_file: true, held: Vec::new(), open: None }
    }

    /// A splitter for bytes from an event's beginning at `position` (at least 4) in a file of the given checksums.
    pub fn inside(position: u64, checksum: ChecksumAlgorithm) -> Self {
        Self { position: position.max(FIRST_EVENT), checksum, ..Self::at_file_start() }
    }

    /// A splitter for the events inside a transaction payload: no checksums, and no place in the file.
    pub fn in_payload() -> Self {
        Self { in_file: false, ..Self::inside(FIRST_EVENT, ChecksumAlgorithm::None) }
    }

    /// Offset of the next byte to be fed.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether the next byte to be fed begins an event (or the file).
    pub fn is_between_events(&self) -> bool {
        self.open.is_none() && self.held.is_empty() && (self.position == 0 || self.position >= FIRST_EVENT)
    }

    /// How the file's events are protected, as far as is known.
    pub fn checksum(&self) -> ChecksumAlgorithm {
        self.checksum
    }

    /// Takes the file's next bytes and hands out events: whole where they lie whole in `bytes` (no copy), else in parts.
    ///
    /// # Errors
    /// [`crate::error::Kind::Corrupt`], naming the offset, at the first thing that is wrong; whatever `sink` fails with.
    pub fn feed(&mut self, mut bytes: &[u8], sink: &mut impl FnMut(WalkedPart<'_>) -> Result<()>) -> Result<()> {
        while !bytes.is_empty() {
            bytes = if self.position < FIRST_EVENT {
                self.magic(bytes)?
            } else if self.open.is_some() {
                self.go_on(bytes, sink)?
            } else if self.held.is_empty() {
                self.direct(bytes, sink)?
            } else {
                self.gather(bytes, sink)?
            };
        }
        Ok(())
    }

    fn magic<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8]> {
        let at = usize::try_from(self.position).unwrap_or(0);
        let (now, rest) = bytes.split_at(MAGIC.len().saturating_sub(at).min(bytes.len()));
        if MAGIC.get(at..at.saturating_add(now.len())) != Some(now) {
            return Err(wrong(0, "not a binlog: wrong magic"));
        }
        self.position = self.position.saturating_add(now.len() as u64);
        Ok(rest)
    }

    /// Hands out events straight from the buffer, until one does not lie whole in it.
    fn direct<'a>(
        &mut self,
        mut bytes: &'a [u8],
        sink: &mut impl FnMut(WalkedPart<'_>) -> Result<()>,
    ) -> Result<&'a [u8]> {
        while let Some(header) = Header::parse(bytes) {
            self.check(&header, self.position)?;
            let length = usize::try_from(header.length).unwrap_or(usize::MAX);
            let Some((event, rest)) = bytes.split_at_checked(length) else {
                if bytes.len() >= first_part(&header) {
                    self.position = self.position.saturating_add(bytes.len() as u64);
                    let start = self.position.saturating_sub(bytes.len() as u64);
                    self.open_with(header, start, bytes, sink)?;
                    return Ok(&[]);
                }
                break;
            };
            let start = self.position;
            self.position = start.saturating_add(length as u64);
            self.whole(header, start, event, sink)?;
            bytes = rest;
        }
        // Too little to be handed out: it waits for more.
        self.held.extend_from_slice(bytes);
        self.position = self.position.saturating_add(bytes.len() as u64);
        Ok(&[])
    }

    /// Adds to the held bytes until they can be handed out.
    fn gather<'a>(&mut self, bytes: &'a [u8], sink: &mut impl FnMut(WalkedPart<'_>) -> Result<()>) -> Result<&'a [u8]> {
        let wanted = match Header::parse(&self.held) {
            Some(header) => first_part(&header),
            None => HEADER_BYTES,
        };
        let (now, rest) = bytes.split_at(wanted.saturating_sub(self.held.len()).min(bytes.len()));
        self.held.extend_from_slice(now);
        self.position = self.position.saturating_add(now.len() as u64);
        if self.held.len() < wanted {
            return Ok(rest);
        }
        let Some(header) = Header::parse(&self.held) else { return Ok(rest) };
        let start = self.position.saturating_sub(self.held.len() as u64);
        if wanted == HEADER_BYTES {
            self.check(&header, start)?;
        }
        if self.held.len() < first_part(&header) {
            return Ok(rest);
        }
        let mut held = std::mem::take(&mut self.held);
        if u64::from(header.length) == held.len() as u64 {
            self.whole(header, start, &held, sink)?;
        } else {
            self.open_with(header, start, &held, sink)?;
        }
        // The memory goes round.
        held.clear();
        held.shrink_to(KEPT_BYTES);
        self.held = held;
        Ok(rest)
    }

    /// Checks a header against its place.
    fn check(&self, header: &Header, start: u64) -> Result<()> {
        let length = u64::from(header.length);
        let least = HEADER_BYTES.saturating_add(self.checksum_bytes(header));
        if length < least as u64 || length > u64::from(EVENT_BYTES_MAX).saturating_add(1 << 20) {
            return Err(wrong(start, format!("an event of impossible length {length}")));
        }
        if self.in_file && start == FIRST_EVENT && header.kind != types::FORMAT_DESCRIPTION {
            return Err(wrong(start, "the first event is no format description"));
        }
        // Sets of GTIDs may grow; the other control events have no way to be that large.
        if is_control(header.kind) && header.kind != types::PREVIOUS_GTIDS && length > CONTROL_EVENT_BYTES_MAX as u64 {
            return Err(wrong(start, format!("an event of type {} with {length} bytes", header.kind)));
        }
        let end = start.saturating_add(length);
        #[expect(clippy::cast_possible_truncation, reason = "the header has the low 32 bits")]
        if self.in_file && header.log_pos != 0 && header.log_pos != end as u32 {
            return Err(wrong(start, format!("the event says that it ends at {}, it ends at {end}", header.log_pos)));
        }
        Ok(())
    }

    /// A format description carries a CRC32 in any file.
    fn checksum_bytes(&self, header: &Header) -> usize {
        let checked = self.checksum == ChecksumAlgorithm::Crc32 || header.kind == types::FORMAT_DESCRIPTION;
        if checked { CHECKSUM_BYTES } else { 0 }
    }

    fn whole(
        &mut self,
        header: Header,
        start: u64,
        event: &[u8],
        sink: &mut impl FnMut(WalkedPart<'_>) -> Result<()>,
    ) -> Result<()> {
        let checksum_bytes = self.checksum_bytes(&header);
        if checksum_bytes > 0 && !checksum_holds(event) {
            return Err(bad_checksum(&header, start));
        }
        if header.kind == types::FORMAT_DESCRIPTION {
            self.checksum = FormatDescription::parse(event).map_err(|error| wrong(start, error))?.checksum;
        }
        sink(WalkedPart { header, start, first: true, last: true, bytes: event, checksum_bytes })
    }

    /// Hands out the first part of an event that goes on.
    fn open_with(
        &mut self,
        header: Header,
        start: u64,
        bytes: &[u8],
        sink: &mut impl FnMut(WalkedPart<'_>) -> Result<()>,
    ) -> Result<()> {
        let checksum_bytes = self.checksum_bytes(&header);
        let crc = (checksum_bytes > 0).then(|| (Hasher::new(), Tail::default()));
        let mut open = OpenEvent { header, start, left: u64::from(header.length), checksum_bytes, crc };
        open.take(bytes);
        self.open = Some(open);
        sink(WalkedPart { header, start, first: true, last: false, bytes, checksum_bytes })
    }

    /// Hands out the next part of the open event.
    fn go_on<'a>(&mut self, bytes: &'a [u8], sink: &mut impl FnMut(WalkedPart<'_>) -> Result<()>) -> Result<&'a [u8]> {
        let Some(open) = self.open.as_mut() else { return Ok(bytes) };
        let (now, rest) = bytes.split_at(usize::try_from(open.left).unwrap_or(usize::MAX).min(bytes.len()));
        open.take(now);
        self.position = self.position.saturating_add(now.len() as u64);
        let OpenEvent { header, start, checksum_bytes, .. } = *open;
        let last = open.left == 0;
        if last && let Some(open) = self.open.take() {
            open.check()?;
        }
        sink(WalkedPart { header, start, first: false, last, bytes: now, checksum_bytes })?;
        Ok(rest)
    }
}

impl OpenEvent {
    fn take(&mut self, bytes: &[u8]) {
        if let Some((hasher, tail)) = self.crc.as_mut() {
            let data = usize::try_from(self.left.saturating_sub(CHECKSUM_BYTES as u64)).unwrap_or(usize::MAX);
            let (data, last) = bytes.split_at(data.min(bytes.len()));
            hasher.update(data);
            for (to, from) in tail.bytes.iter_mut().skip(tail.filled).zip(last) {
                *to = *from;
            }
            tail.filled = tail.filled.saturating_add(last.len());
        }
        self.left = self.left.saturating_sub(bytes.len() as u64);
    }

    fn check(self) -> Result<()> {
        let Some((hasher, tail)) = self.crc else { return Ok(()) };
        if hasher.finalize().to_le_bytes() == tail.bytes { Ok(()) } else { Err(bad_checksum(&self.header, self.start)) }
    }
}

/// Events that steer reading, and are therefore handed out whole.
fn is_control(kind: u8) -> bool {
    use types::{ANONYMOUS_GTID, FORMAT_DESCRIPTION, GTID, PREVIOUS_GTIDS, ROTATE, STOP, TAGGED_GTID};
    matches!(kind, FORMAT_DESCRIPTION | ROTATE | STOP | PREVIOUS_GTIDS | GTID | ANONYMOUS_GTID | TAGGED_GTID)
}

/// How many bytes of an event must be there before something of it is handed out.
fn first_part(header: &Header) -> usize {
    let length = usize::try_from(header.length).unwrap_or(usize::MAX);
    if is_control(header.kind) && length <= CONTROL_EVENT_BYTES_MAX { length } else { length.min(FIRST_PART_BYTES) }
}

fn wrong(at: u64, why: impl std::fmt::Display) -> Error {
    Error::corrupt(format!("at offset {at}: {why}"))
}

fn bad_checksum(header: &Header, start: u64) -> Error {
    wrong(start, format!("the CRC32 of an event of type {} is wrong", header.kind))
}
