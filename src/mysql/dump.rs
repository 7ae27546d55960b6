//! The dump stream: raw bytes of the connection become checked pieces of binlog events, without a copy.
//!
//! Owns: the receive buffer, the packet framing of a dump, the check that packet length, event length and CRC32 agree,
//! and the end or error packet.
//! Does not own: the socket (the caller reads into [`DumpReader::space`]), or what the events mean to the archive.
//!
//! Invariants: an event that fits [`WHOLE_EVENT_MAX`] comes in one piece; a larger one in pieces, its last piece only
//! after its checksum was found right; nothing else is ever held than the buffer.
//!
//! Wire facts: each event travels as a packet `00` + event; packets of 0xffffff bytes go on in the next one, and only
//! the first has the `00`. To a semi-synchronous replica the `00` is followed by `ef` and a flag, on every packet of the
//! stream, and the flag's lowest bit asks for an acknowledgement (tested on 9.7). The event's own checksum algorithm comes from the file's format description event, which
//! itself always carries a CRC32.

use crc32fast::Hasher;

use super::dump_error::dump_error;
use super::event::{CHECKSUM_BYTES, EVENT_BYTES_MAX, FormatDescription, HEADER_BYTES, Header, checksum_holds, types};
use crate::error::{Error, Result};
use crate::position::ChecksumAlgorithm;

/// Bytes of the receive buffer.
pub const BUFFER_BYTES: usize = 256 << 10;
/// Largest event delivered in one piece, in bytes.
pub const WHOLE_EVENT_MAX: usize = BUFFER_BYTES - PACKET_HEADER - 1 - SEMI_SYNC_HEADER;

const PACKET_HEADER: usize = 4;
const PACKET_MAX: usize = 0xff_ffff;
/// Bytes of the semi-synchronous header behind the `00`.
const SEMI_SYNC_HEADER: usize = 2;
/// Its first byte.
const SEMI_SYNC_MAGIC: u8 = 0xef;
/// The bit of its second byte that asks for an acknowledgement.
const SEMI_SYNC_ASKS: u8 = 0x01;

/// One piece of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventPart<'a> {
    /// The event's header, the same in all its pieces.
    pub header: Header,
    /// Whether the piece begins with the header.
    pub first: bool,
    /// Whether the event ends with this piece.
    pub last: bool,
    /// Whether the server waits for the acknowledgement of the event, the same in all its pieces.
    pub asks_ack: bool,
    /// The bytes.
    pub bytes: &'a [u8],
}

/// What the stream gave next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DumpItem<'a> {
    /// A piece of an event.
    Part(EventPart<'a>),
    /// The server ends the stream: a non-blocking dump is through, or the server shuts down.
    End,
}

/// An event larger than the buffer, on its way.
#[derive(Debug)]
struct Large {
    header: Header,
    asks_ack: bool,
    /// Bytes of the event not delivered yet.
    left: usize,
    /// Bytes of the current packet not delivered yet.
    packet_left: usize,
    /// Whether another packet follows this one.
    more: bool,
    crc: Option<LargeCrc>,
}

/// The checksum of an event that comes in pieces: a running CRC and the event's last four bytes.
#[derive(Debug)]
struct LargeCrc {
    hasher: Hasher,
    tail: Vec<u8>,
}

/// What stands between the `00` and the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prefix {
    Nothing,
    /// The header was asked for; the first packet tells whether the server sends it. That is an artificial ROTATE,
    /// whose own first byte is 0.
    Undecided,
    SemiSync,
}

/// Turns socket bytes into pieces of events.
#[derive(Debug)]
pub struct DumpReader {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    checksum: ChecksumAlgorithm,
    prefix: Prefix,
    large: Option<Large>,
    /// An event ended exactly with a full packet: an empty one must follow.
    empty_packet_due: bool,
}

impl DumpReader {
    /// A reader for a fresh dump; `leftover` is what the login phase read too much.
    ///
    /// # Errors
    /// If the leftover alone is more than the buffer holds.
    pub fn new(leftover: &[u8]) -> Result<Self> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let room =
            buffer.get_mut(..leftover.len()).ok_or_else(|| Error::failed("the login left too many bytes behind"))?;
        room.copy_from_slice(leftover);
        let end = leftover.len();
        // Until the first format description comes, only artificial events do, and those are judged by looking.
        Ok(Self {
            buffer,
            start: 0,
            end,
            checksum: ChecksumAlgorithm::None,
            prefix: Prefix::Nothing,
            large: None,
            empty_packet_due: false,
        })
    }

    /// For a dump that was asked for as a semi-synchronous replica.
    #[must_use]
    pub fn asked_semi_sync(mut self) -> Self {
        self.prefix = Prefix::Undecided;
        self
    }

    /// Whether the server treats us as a semi-synchronous replica; `None` before its first packet.
    pub fn is_semi_sync(&self) -> Option<bool> {
        match self.prefix {
            Prefix::Nothing => Some(false),
            Prefix::Undecided => None,
            Prefix::SemiSync => Some(true),
        }
    }

    /// Room to read into. Never empty after [`DumpReader::next`] has returned `None`.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 && self.end > BUFFER_BYTES / 2 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        self.buffer.get_mut(self.end..).unwrap_or(&mut [])
    }

    /// Says how many bytes were read into [`DumpReader::space`].
    pub fn filled(&mut self, bytes: usize) {
        self.end = self.end.saturating_add(bytes).min(BUFFER_BYTES);
    }

    /// Whether the connection may end here without cutting anything.
    pub fn is_between_packets(&self) -> bool {
        self.start == self.end && self.large.is_none() && !self.empty_packet_due
    }

    /// The next piece, or `None` if more bytes are needed.
    ///
    /// # Errors
    /// The server's error packet; [`crate::error::Kind::Corrupt`] if lengths or checksums do not agree.
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot lend from itself")]
    pub fn next(&mut self) -> Result<Option<DumpItem<'_>>> {
        if self.large.is_some() {
            return self.next_of_large();
        }
        let Some(length) = self.packet_length() else { return Ok(None) };
        if self.empty_packet_due {
            return self.empty_packet(length);
        }
        let available = self.end - self.start - PACKET_HEADER;
        if length > BUFFER_BYTES - PACKET_HEADER {
            return if available > HEADER_BYTES + SEMI_SYNC_HEADER { self.begin_large(length) } else { Ok(None) };
        }
        if available < length {
            return Ok(None);
        }
        let from = self.start + PACKET_HEADER;
        self.start = from + length;
        let packet = self.buffer.get(from..from + length).unwrap_or(&[]);
        match packet.split_first() {
            Some((0, rest)) => {
                let (event, asks_ack) = strip(&mut self.prefix, rest)?;
                let header = whole_event(event, &mut self.checksum)?;
                Ok(Some(DumpItem::Part(EventPart { header, first: true, last: true, asks_ack, bytes: event })))
            }
            Some((0xfe, rest)) if rest.len() < 8 => Ok(Some(DumpItem::End)),
            Some((0xff, rest)) => Err(dump_error(rest)),
            other => Err(Error::corrupt(format!("a dump packet begins with {:?}", other.map(|(first, _)| first)))),
        }
    }

    /// Length of the packet that begins at `start`, once its header is there.
    fn packet_length(&self) -> Option<usize> {
        match *self.buffer.get(self.start..self.end)? {
            [a, b, c, _sequence, ..] => Some(usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16),
            _ => None,
        }
    }

    fn empty_packet(&mut self, length: usize) -> Result<Option<DumpItem<'_>>> {
        if length != 0 {
            return Err(Error::corrupt("an event's last packet was full, but no empty packet follows"));
        }
        self.start += PACKET_HEADER;
        self.empty_packet_due = false;
        self.next()
    }

    /// The first packet of an event that does not fit the buffer: its header decides what has to come.
    fn begin_large(&mut self, length: usize) -> Result<Option<DumpItem<'_>>> {
        let from = self.start + PACKET_HEADER;
        let head = self.buffer.get(from..self.end).unwrap_or(&[]);
        let (event, asks_ack) = match head.split_first() {
            Some((0, rest)) => strip(&mut self.prefix, rest)?,
            other => return Err(Error::corrupt(format!("a large dump packet begins with {:?}", other.map(|o| o.0)))),
        };
        let header = Header::parse(event).ok_or_else(|| Error::corrupt("an event shorter than its header"))?;
        let total = usize::try_from(header.length).unwrap_or(usize::MAX);
        let prefix = 1 + if self.prefix == Prefix::SemiSync { SEMI_SYNC_HEADER } else { 0 };
        let (more, in_packet) = (length == PACKET_MAX, length - prefix);
        let fits = if more { total >= in_packet } else { total == in_packet };
        if header.length > EVENT_BYTES_MAX.saturating_add(1 << 20) || !fits {
            return Err(length_mismatch(&header, in_packet));
        }
        let crc = match self.checksum {
            ChecksumAlgorithm::Crc32 => {
                Some(LargeCrc { hasher: Hasher::new(), tail: Vec::with_capacity(CHECKSUM_BYTES) })
            }
            ChecksumAlgorithm::None => None,
        };
        self.start = from + prefix;
        self.large = Some(Large { header, asks_ack, left: total, packet_left: in_packet, more, crc });
        self.next_of_large()
    }

    fn next_of_large(&mut self) -> Result<Option<DumpItem<'_>>> {
        let length = self.packet_length();
        let Some(large) = self.large.as_mut() else { return Ok(None) };
        if large.packet_left == 0 {
            let Some(length) = length else { return Ok(None) };
            if !large.more || length > large.left {
                return Err(length_mismatch(&large.header, length));
            }
            large.packet_left = length;
            large.more = length == PACKET_MAX;
            self.start += PACKET_HEADER;
        }
        let available = self.end - self.start;
        let take = available.min(large.packet_left);
        if take == 0 && large.packet_left > 0 {
            return Ok(None);
        }
        let bytes = self.buffer.get(self.start..self.start + take).unwrap_or(&[]);
        self.start += take;
        let first = large.left == usize::try_from(large.header.length).unwrap_or(usize::MAX);
        large.advance(bytes);
        let packet_done = large.packet_left == 0;
        let last = large.left == 0;
        if packet_done && !large.more && !last {
            return Err(length_mismatch(&large.header, 0));
        }
        let (header, asks_ack) = (large.header, large.asks_ack);
        if last {
            large.check()?;
            self.empty_packet_due = large.more;
            self.large = None;
        }
        Ok(Some(DumpItem::Part(EventPart { header, first, last, asks_ack, bytes })))
    }
}

/// Takes the semi-synchronous header off, if there is one: the event, and whether it asks for an acknowledgement.
fn strip<'a>(prefix: &mut Prefix, rest: &'a [u8]) -> Result<(&'a [u8], bool)> {
    if *prefix == Prefix::Undecided {
        *prefix = if rest.first() == Some(&SEMI_SYNC_MAGIC) { Prefix::SemiSync } else { Prefix::Nothing };
    }
    match (*prefix, rest) {
        (Prefix::SemiSync, [SEMI_SYNC_MAGIC, flags, event @ ..]) => Ok((event, flags & SEMI_SYNC_ASKS != 0)),
        (Prefix::SemiSync, _) => Err(Error::corrupt("a dump packet lacks its semi-synchronous header")),
        _ => Ok((rest, false)),
    }
}

impl Large {
    fn advance(&mut self, bytes: &[u8]) {
        if let Some(crc) = self.crc.as_mut() {
            let data = self.left.saturating_sub(CHECKSUM_BYTES).min(bytes.len());
            let (data, tail) = bytes.split_at_checked(data).unwrap_or((bytes, &[]));
            crc.hasher.update(data);
            crc.tail.extend_from_slice(tail);
        }
        self.left = self.left.saturating_sub(bytes.len());
        self.packet_left = self.packet_left.saturating_sub(bytes.len());
    }

    fn check(&mut self) -> Result<()> {
        let Some(crc) = self.crc.take() else { return Ok(()) };
        if crc.hasher.finalize().to_le_bytes() == *crc.tail { Ok(()) } else { Err(bad_checksum(&self.header)) }
    }
}

/// Checks an event that is there as a whole, and learns the checksum algorithm from a format description.
fn whole_event(event: &[u8], checksum: &mut ChecksumAlgorithm) -> Result<Header> {
    let header = Header::parse(event).ok_or_else(|| Error::corrupt("an event shorter than its header"))?;
    if usize::try_from(header.length).ok() != Some(event.len()) {
        return Err(length_mismatch(&header, event.len()));
    }
    let checked = match header.kind {
        types::FORMAT_DESCRIPTION => true,
        // Made up for the connection; whether they carry a checksum depends on its state, and they are never stored.
        types::HEARTBEAT | types::HEARTBEAT_V2 => false,
        _ => *checksum == ChecksumAlgorithm::Crc32 && !header.is_artificial_rotate(),
    };
    let holds = !checked || checksum_holds(event);
    if header.kind == types::FORMAT_DESCRIPTION {
        *checksum = FormatDescription::parse(event)?.checksum;
        // Repeated for a dump that starts inside the file, it is changed (its end becomes 0), and of a file without
        // checksums the server then leaves the old one as it was. That copy is never stored.
        if header.log_pos == 0 && *checksum == ChecksumAlgorithm::None {
            return Ok(header);
        }
    }
    if holds { Ok(header) } else { Err(bad_checksum(&header)) }
}

fn length_mismatch(header: &Header, packet: usize) -> Error {
    let Header { kind, length, log_pos, .. } = header;
    Error::corrupt(format!(
        "event of type {kind} ending at {log_pos}: its length {length} does not fit its packet ({packet} bytes)"
    ))
}

fn bad_checksum(header: &Header) -> Error {
    let Header { kind, length, log_pos, .. } = header;
    Error::corrupt(format!("event of type {kind}, {length} bytes, ending at {log_pos}: its CRC32 is wrong"))
        .transient()
        .hint("damaged on the way or in the server's file: check with `mysqlbinlog --verify-binlog-checksum` on the server")
}

#[cfg(test)]
mod tests;
