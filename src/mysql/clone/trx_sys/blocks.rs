//! Redo as blocks of 512 bytes: which follow one another, what is in them, and those that are encrypted.
//!
//! A block has a head of 12 bytes (number, bytes used, first record, epoch) and a checksum of 4 behind it. A file has a
//! header of four blocks. The last block comes a second time, as it was when the snapshot was complete.
//!
//! Encrypted is all but the head, AES-256-CBC, each block by itself: first as much as fits the cipher's blocks (496 bytes);
//! then, for the 4 that are left, the last 32 bytes *again* (seen on 9.7: only so the checksum, which is of the block in
//! clear, fits).

use std::collections::VecDeque;

use aws_lc_rs::cipher::{AES_256, DecryptingKey, DecryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use crc_fast::crc32_iscsi;

use crate::error::{Error, Result};
use crate::mysql::clone::descriptor::Secret;

/// What a block can hold.
pub(super) const CONTENT_BYTES: usize = 496;
/// Each redo file begins with this.
pub const REDO_HEADER_BYTES: u64 = 2048;

const BLOCK_BYTES: usize = 512;
const HEAD_BYTES: usize = 12;
/// In the number of bytes used: the block is encrypted.
const ENCRYPTED: u16 = 0x8000;
/// Encrypted blocks are kept until the key has come, which is at the very end. The notes of interest are in the last
/// ones: the donor makes them while it waits for a few transactions.
const WAITING_MAX: usize = (8 << 20) / BLOCK_BYTES;
/// AES in blocks: 16 bytes of the initialisation vector are used.
const IV_BYTES: usize = 16;
/// What was encrypted a second time.
const TAIL_BYTES: usize = 2 * IV_BYTES;
/// In the checksum's place with `innodb_log_checksums = OFF`.
const NO_CHECKSUM: u32 = 0xdead_beef;

/// The content of a block.
#[derive(Debug)]
pub(super) enum Content<'a> {
    /// It follows on all that came before.
    Next(&'a [u8]),
    /// It stands in the last one's place.
    Again {
        /// How long the last one was.
        before: usize,
        /// What it is now.
        bytes: &'a [u8],
    },
}

/// Puts blocks into their order.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// The last block's place and the length of its content.
    last: Option<(u32, u64, usize)>,
    waiting: VecDeque<[u8; BLOCK_BYTES]>,
}

impl Blocks {
    /// Takes bytes of a redo file apart; headers of files are passed over, and so is what is no whole block.
    pub(super) fn take(&mut self, file: u32, offset: u64, bytes: &[u8], mut give: impl FnMut(Content<'_>)) {
        let (blocks, _) = bytes.as_chunks::<BLOCK_BYTES>();
        for (index, block) in blocks.iter().enumerate() {
            let at = offset.saturating_add((index as u64).saturating_mul(BLOCK_BYTES as u64));
            if at < REDO_HEADER_BYTES || !at.is_multiple_of(BLOCK_BYTES as u64) {
                continue;
            }
            let again = self.last.filter(|(last_file, last_at, _)| (*last_file, *last_at) == (file, at));
            // The last block comes in clear the second time, whatever the others are: it must stay the last.
            if used(block) & ENCRYPTED != 0 || !self.waiting.is_empty() {
                if again.is_some() {
                    self.waiting.pop_back();
                }
                if self.waiting.len() >= WAITING_MAX {
                    self.waiting.pop_front();
                }
                self.waiting.push_back(*block);
                self.last = Some((file, at, 0));
                continue;
            }
            let content = content(block);
            match again {
                Some((_, _, before)) => give(Content::Again { before, bytes: content }),
                None => give(Content::Next(content)),
            }
            self.last = Some((file, at, content.len()));
        }
    }

    pub(super) fn is_encrypted(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The content of the encrypted blocks.
    ///
    /// # Errors
    /// If there are some and there is no secret, or the library refuses it. [`crate::error::Kind::Corrupt`] if one does
    /// not fit its checksum then.
    pub(super) fn decrypted(self, secret: Option<&Secret>) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        if self.waiting.is_empty() {
            return Ok(out);
        }
        let secret = secret.ok_or_else(|| Error::corrupt("the donor's redo is encrypted, and its key did not come"))?;
        let key = UnboundCipherKey::new(&AES_256, &secret.key).and_then(DecryptingKey::cbc).map_err(refused)?;
        let iv = secret.iv.first_chunk::<IV_BYTES>().copied().unwrap_or_default();
        for mut block in self.waiting {
            if used(&block) & ENCRYPTED != 0 {
                decrypt(&mut block, &key, iv)?;
            }
            out.extend_from_slice(content(&block));
        }
        Ok(out)
    }
}

/// Makes of an encrypted block one in clear.
fn decrypt(block: &mut [u8; BLOCK_BYTES], key: &DecryptingKey, iv: [u8; IV_BYTES]) -> Result<()> {
    let apply = |bytes: &mut [u8]| {
        key.decrypt(bytes, DecryptionContext::Iv128(FixedLength::from(iv))).map(drop).map_err(refused)
    };
    if let Some(tail) = block.last_chunk_mut::<TAIL_BYTES>() {
        apply(tail)?;
    }
    if let Some(body) = block.get_mut(HEAD_BYTES..HEAD_BYTES + CONTENT_BYTES) {
        apply(body)?;
    }
    let [_, _, _, _, high, ..] = block;
    *high &= !ENCRYPTED.to_be_bytes()[0];
    let [covered @ .., a, b, c, d] = &*block;
    let sum = u32::from_be_bytes([*a, *b, *c, *d]);
    if sum == NO_CHECKSUM || sum == crc32_iscsi(covered) {
        return Ok(());
    }
    Err(Error::corrupt("a block of the donor's encrypted redo does not fit its checksum when it is decrypted"))
}

fn refused(_: aws_lc_rs::error::Unspecified) -> Error {
    Error::failed("the key of the donor's redo cannot be used")
}

fn used(block: &[u8; BLOCK_BYTES]) -> u16 {
    let [_, _, _, _, high, low, ..] = *block;
    u16::from_be_bytes([high, low])
}

/// The log in a block.
fn content(block: &[u8; BLOCK_BYTES]) -> &[u8] {
    let end = usize::from(used(block) & !ENCRYPTED).min(HEAD_BYTES + CONTENT_BYTES);
    block.get(HEAD_BYTES..end).unwrap_or(&[])
}
