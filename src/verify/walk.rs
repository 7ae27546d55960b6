//! Walks the bytes of a binlog file, event by event, and checks everything that can be checked. Pure.

use crc32fast::Hasher;

use crate::error::{Error, Result};
use crate::mysql::event::{
    CHECKSUM_BYTES, EVENT_BYTES_MAX, FIRST_EVENT, FormatDescription, GtidEvent, HEADER_BYTES, Header, MAGIC, types,
};
use crate::position::{ChecksumAlgorithm, GtidSet, decode_set};

/// Bytes of an event held so that its body can be read: all that matter are far smaller.
const HELD_BYTES_MAX: usize = 16 << 20;

/// A walk through one file.
#[derive(Debug, Default)]
pub(super) struct FileWalk {
    /// Offset of the next byte.
    position: u64,
    /// The open event's bytes, as far as they are held.
    held: Vec<u8>,
    /// The open event's header, once it is there.
    open: Option<OpenEvent>,
    checksum: ChecksumAlgorithm,
    /// Counted: events, transactions.
    pub(super) events: u64,
    pub(super) transactions: u64,
    /// What the PREVIOUS_GTIDS event says, and what came since.
    pub(super) previous: GtidSet,
    pub(super) since_start: GtidSet,
    /// The transaction that is open: its GTID goes into the set when it ends.
    pending: Option<(u64, GtidEvent)>,
}

#[derive(Debug)]
struct OpenEvent {
    header: Header,
    start: u64,
    left: u64,
    hasher: Option<Hasher>,
    tail: Vec<u8>,
}

impl FileWalk {
    /// Takes the file's next bytes.
    ///
    /// # Errors
    /// [`crate::error::Kind::Corrupt`], naming the offset, at the first thing that is wrong.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.position < FIRST_EVENT {
                bytes = self.magic(bytes)?;
            } else if self.open.is_some() {
                bytes = self.body(bytes)?;
            } else {
                let missing = HEADER_BYTES.saturating_sub(self.held.len());
                let (now, rest) = bytes.split_at(missing.min(bytes.len()));
                self.held.extend_from_slice(now);
                bytes = rest;
                if self.held.len() == HEADER_BYTES {
                    self.begin()?;
                }
            }
        }
        Ok(())
    }

    /// Whether the walk stands between two events.
    pub(super) fn is_between_events(&self) -> bool {
        self.open.is_none() && self.held.is_empty()
    }

    fn wrong(&self, at: u64, why: impl std::fmt::Display) -> Error {
        Error::corrupt(format!("at offset {at}: {why}"))
    }

    fn magic<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8]> {
        let at = usize::try_from(self.position).unwrap_or(0);
        let missing = MAGIC.len().saturating_sub(at);
        let (now, rest) = bytes.split_at(missing.min(bytes.len()));
        if MAGIC.get(at..at.saturating_add(now.len())) != Some(now) {
            return Err(self.wrong(0, "not a binlog: wrong magic"));
        }
        self.position = self.position.saturating_add(now.len() as u64);
        Ok(rest)
    }

    fn begin(&mut self) -> Result<()> {
        let Some(header) = Header::parse(&self.held) else { return Ok(()) };
        let (start, length) = (self.position, u64::from(header.length));
        let checked = self.checksum == ChecksumAlgorithm::Crc32 || header.kind == types::FORMAT_DESCRIPTION;
        let least = HEADER_BYTES.saturating_add(if checked { CHECKSUM_BYTES } else { 0 });
        if length < least as u64 || length > u64::from(EVENT_BYTES_MAX).saturating_add(1 << 20) {
            return Err(self.wrong(start, format!("an event of impossible length {length}")));
        }
        if start == FIRST_EVENT && header.kind != types::FORMAT_DESCRIPTION {
            return Err(self.wrong(start, "the first event is no format description"));
        }
        let end = start.saturating_add(length);
        #[expect(clippy::cast_possible_truncation, reason = "the header has the low 32 bits")]
        if header.log_pos != 0 && header.log_pos != end as u32 {
            return Err(
                self.wrong(start, format!("the event says that it ends at {}, it ends at {end}", header.log_pos))
            );
        }
        let mut hasher = checked.then(Hasher::new);
        if let Some(hasher) = hasher.as_mut() {
            hasher.update(&self.held);
        }
        let left = length.saturating_sub(HEADER_BYTES as u64);
        self.position = start.saturating_add(HEADER_BYTES as u64);
        self.open = Some(OpenEvent { header, start, left, hasher, tail: Vec::with_capacity(CHECKSUM_BYTES) });
        if left == 0 { self.end() } else { Ok(()) }
    }

    fn body<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8]> {
        let Some(open) = self.open.as_mut() else { return Ok(bytes) };
        let take = usize::try_from(open.left).unwrap_or(usize::MAX).min(bytes.len());
        let (now, rest) = bytes.split_at(take);
        if let Some(hasher) = open.hasher.as_mut() {
            let data = usize::try_from(open.left.saturating_sub(CHECKSUM_BYTES as u64)).unwrap_or(usize::MAX);
            let (data, tail) = now.split_at(data.min(now.len()));
            hasher.update(data);
            open.tail.extend_from_slice(tail);
        }
        let wanted = matches!(
            open.header.kind,
            types::FORMAT_DESCRIPTION
                | types::GTID
                | types::ANONYMOUS_GTID
                | types::TAGGED_GTID
                | types::PREVIOUS_GTIDS
        );
        if wanted && self.held.len().saturating_add(now.len()) <= HELD_BYTES_MAX {
            self.held.extend_from_slice(now);
        }
        open.left = open.left.saturating_sub(take as u64);
        self.position = self.position.saturating_add(take as u64);
        if open.left == 0 {
            self.end()?;
        }
        Ok(rest)
    }

    fn end(&mut self) -> Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let OpenEvent { header, start, hasher, tail, .. } = open;
        if let Some(hasher) = hasher
            && hasher.finalize().to_le_bytes() != *tail
        {
            return Err(self.wrong(start, format!("the CRC32 of an event of type {} is wrong", header.kind)));
        }
        self.events = self.events.saturating_add(1);
        let event = std::mem::take(&mut self.held);
        let trailing = if self.checksum == ChecksumAlgorithm::Crc32 { CHECKSUM_BYTES } else { 0 };
        let body = event.get(HEADER_BYTES..event.len().saturating_sub(trailing)).unwrap_or(&[]);
        match header.kind {
            types::FORMAT_DESCRIPTION => self.checksum = FormatDescription::parse(&event)?.checksum,
            types::PREVIOUS_GTIDS => {
                self.previous = decode_set(body).map_err(|error| self.wrong(start, error))?;
            }
            types::GTID | types::ANONYMOUS_GTID | types::TAGGED_GTID => {
                self.end_transaction();
                let opened = GtidEvent::parse(&header, body).map_err(|error| self.wrong(start, error))?;
                let end = start.saturating_add(opened.transaction_bytes.unwrap_or(u64::MAX));
                self.pending = Some((end, opened));
            }
            types::ROTATE | types::STOP => self.end_transaction(),
            _ => {}
        }
        if self.pending.as_ref().is_some_and(|(end, _)| self.position >= *end) {
            self.end_transaction();
        }
        // The memory goes round.
        self.held = event;
        self.held.clear();
        Ok(())
    }

    fn end_transaction(&mut self) {
        if let Some((_, event)) = self.pending.take() {
            self.transactions = self.transactions.saturating_add(1);
            if let Some(gtid) = event.gtid {
                self.since_start.add(&gtid);
            }
        }
    }

    /// The set executed here.
    pub(super) fn executed(&self) -> GtidSet {
        let mut executed = self.previous.clone();
        executed.union_with(&self.since_start);
        executed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400), cut in 1_usize..50) {
            let mut walk = FileWalk::default();
            let file = [&MAGIC[..], &bytes].concat();
            let _ = file.chunks(cut).try_for_each(|piece| walk.feed(piece));
        }
    }
}
