//! The donor's answers as a base backup keeps them: a magic, then each answer behind its length.
//!
//! ```text
//!   "BVCLONE1" │ u32 LE length │ answer │ u32 LE length │ answer │ …
//! ```
//!
//! Owns: the framing. Does not own: which answers are kept, and in which order (`base`).
//!
//! Invariants: a record is at least one byte and at most [`MESSAGE_BYTES_MAX`] long; a reader holds one record and what
//! was pushed with it, never more.

use bytes::{Buf, Bytes, BytesMut};

use super::MESSAGE_BYTES_MAX;
use crate::error::{Error, Result};

/// What a clone stream begins with.
pub const MAGIC: [u8; 8] = *b"BVCLONE1";
/// Bytes before each record.
pub const LENGTH_BYTES: usize = 4;

/// What stands before a record of this length.
///
/// # Errors
/// If no record can be so long.
pub fn record_head(length: usize) -> Result<[u8; LENGTH_BYTES]> {
    let fine = u32::try_from(length).ok().filter(|_| (1..=MESSAGE_BYTES_MAX).contains(&length));
    let fine = fine.ok_or_else(|| Error::corrupt(format!("an answer of the donor has {length} bytes")))?;
    Ok(fine.to_le_bytes())
}

/// Takes a clone stream apart, in pieces of any size.
#[derive(Debug, Default)]
pub struct RecordReader {
    buffer: BytesMut,
    begun: bool,
    taken: u64,
}

impl RecordReader {
    /// At the stream's beginning.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives it the next bytes. Take every record out before the next piece, and memory stays bounded.
    pub fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next record, if it is there as a whole.
    ///
    /// # Errors
    /// [`crate::error::Kind::Corrupt`] for what is no clone stream.
    #[expect(clippy::should_implement_trait, reason = "what is not there yet may come: this is no iterator's end")]
    pub fn next(&mut self) -> Result<Option<Bytes>> {
        if !self.begun {
            if self.buffer.len() < MAGIC.len() {
                return Ok(None);
            }
            if !self.buffer.starts_with(&MAGIC) {
                return Err(Error::corrupt("the base backup does not begin as a clone stream does"));
            }
            self.skip(MAGIC.len());
            self.begun = true;
        }
        let Some(head) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let said = u32::from_le_bytes(*head);
        let length = usize::try_from(said).ok().filter(|length| (1..=MESSAGE_BYTES_MAX).contains(length));
        let length = length.ok_or_else(|| {
            Error::corrupt(format!("the clone stream has a record of {said} bytes at byte {}", self.taken))
        })?;
        if self.buffer.len().saturating_sub(LENGTH_BYTES) < length {
            return Ok(None);
        }
        self.skip(LENGTH_BYTES);
        self.taken = self.taken.saturating_add(length as u64);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    fn skip(&mut self, bytes: usize) {
        self.buffer.advance(bytes);
        self.taken = self.taken.saturating_add(bytes as u64);
    }

    /// At the stream's end: that it ended behind a record.
    ///
    /// # Errors
    /// [`crate::error::Kind::Corrupt`] if it did not.
    pub fn finish(&self) -> Result<()> {
        if self.begun && self.buffer.is_empty() {
            return Ok(());
        }
        Err(Error::corrupt(format!("the clone stream ends in the middle of a record, at byte {}", self.taken)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stream(records: &[Vec<u8>]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for record in records {
            out.extend_from_slice(&record_head(record.len()).unwrap());
            out.extend_from_slice(record);
        }
        out
    }

    /// Reads it in pieces of a size.
    fn read(bytes: &[u8], piece: usize) -> Result<Vec<Vec<u8>>> {
        let (mut reader, mut found) = (RecordReader::new(), Vec::new());
        for piece in bytes.chunks(piece) {
            reader.push(piece);
            while let Some(record) = reader.next()? {
                found.push(record.to_vec());
            }
        }
        reader.finish()?;
        Ok(found)
    }

    proptest! {
        #[test]
        fn records_come_back_however_they_are_cut(
            records in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 0..20), piece in 1_usize..500,
        ) {
            prop_assert_eq!(read(&stream(&records), piece).unwrap(), records);
        }

        #[test]
        fn a_stream_that_is_cut_short_is_refused(
            records in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 1..9),
            cut in any::<prop::sample::Index>(),
        ) {
            let bytes = stream(&records);
            let short = &bytes[..cut.index(bytes.len())];
            // Behind a record it may end: what comes last says that it is the last.
            let mut ends = vec![MAGIC.len()];
            records.iter().for_each(|record| ends.push(ends.last().unwrap() + LENGTH_BYTES + record.len()));
            prop_assert_eq!(read(short, 7).is_ok(), ends.contains(&short.len()));
        }

        #[test]
        fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..300), begin in any::<bool>()) {
            let bytes = if begin { [&MAGIC[..], &noise].concat() } else { noise };
            let _ = read(&bytes, 13);
        }
    }

    #[test]
    fn what_no_record_can_be_is_refused() {
        assert!(record_head(0).is_err() && record_head(MESSAGE_BYTES_MAX + 1).is_err());
        assert_eq!(record_head(258).unwrap(), [2, 1, 0, 0]);
        let too_long = [&MAGIC[..], &[0, 0, 0, 0x80]].concat();
        assert!(read(&too_long, 99).unwrap_err().to_string().contains("at byte 8"));
        assert!(read(b"-- MySQL dump", 99).unwrap_err().to_string().contains("does not begin"));
        assert!(read(b"", 99).is_err());
    }
}
