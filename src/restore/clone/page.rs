//! InnoDB's pages, as much of them as putting a clone back takes: checksums, a first page for a file that was made meanwhile,
//! and where an encrypted tablespace keeps its key. Pure.
//!
//! Integers are big-endian. Tested against the files of a 9.7: every first page of its own has the checksum computed here.

use crate::error::{Error, Result};

/// Where a page's header ends, and what is said of the tablespace begins.
const HEADER_BYTES: usize = 38;
/// Bytes at a page's end: its checksum once more, and the low half of its LSN.
const TRAILER_BYTES: usize = 8;
/// On a tablespace's first page: where the descriptors of its extents begin.
const EXTENTS_AT: usize = 150;

const CRC32C: [u32; 256] = crc32c_table();

/// Castagnoli's polynomial, reflected.
const fn crc32c_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0_u32;
    while byte < 256 {
        let (mut value, mut bit) = (byte, 0);
        while bit < 8 {
            value = (value >> 1) ^ (0x82f6_3b78 * (value & 1));
            bit += 1;
        }
        table[byte as usize] = value;
        byte += 1;
    }
    table
}

/// CRC-32C, by which InnoDB checks its pages, its redo blocks and its keys.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        let [low, ..] = crc.to_le_bytes();
        (crc >> 8) ^ CRC32C.get(usize::from(low ^ byte)).copied().unwrap_or(0)
    };
    !bytes.iter().fold(u32::MAX, step)
}

/// The size and kind of a tablespace's pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// Bytes of a page in its file.
    pub(super) bytes: usize,
    /// `innodb_page_size`.
    whole: usize,
    /// ROW_FORMAT=COMPRESSED: pages smaller than the server's, with a checksum of their own kind.
    zip: bool,
}

impl Shape {
    /// By the tablespace's flags and the server's `innodb_page_size`.
    ///
    /// # Errors
    /// For sizes that no server has.
    pub(super) fn of(fsp_flags: u32, page_size: u32) -> Result<Self> {
        if !page_size.is_power_of_two() || !(4096..=65536).contains(&page_size) {
            return Err(Error::corrupt(format!("no server has pages of {page_size} bytes")));
        }
        let whole = usize::try_from(page_size).unwrap_or(usize::MAX);
        let zip = (fsp_flags >> 1) & 0xf;
        let bytes = if zip == 0 { whole } else { 512 << zip };
        if bytes > whole || bytes > 16384 && zip != 0 {
            return Err(Error::corrupt(format!("a tablespace of compressed pages of {bytes} bytes")));
        }
        Ok(Self { bytes, whole, zip: zip != 0 })
    }

    /// Where on the first page the key of an encrypted tablespace lies: behind the descriptors of all the extents that the
    /// page can describe.
    pub(super) fn key_at(&self) -> usize {
        // An extent is 1 MiB, and 64 pages at least; its descriptor has two bits a page behind 24 bytes.
        let pages = ((1 << 20) / self.whole).max(64);
        EXTENTS_AT + (24 + pages / 4) * (self.bytes / pages)
    }

    /// The checksum that a page should have; `None` if it is no page of this size.
    fn checksum(&self, page: &[u8]) -> Option<u32> {
        if page.len() != self.bytes {
            return None;
        }
        let of = |range: std::ops::Range<usize>| page.get(range).map(crc32c);
        if self.zip {
            return Some(of(4..16)? ^ of(24..26)? ^ of(34..self.bytes)?);
        }
        Some(of(4..26)? ^ of(HEADER_BYTES..self.bytes.checked_sub(TRAILER_BYTES)?)?)
    }

    /// Whether a page has the checksum that it should have.
    #[cfg(test)]
    pub(super) fn is_sound(&self, page: &[u8]) -> bool {
        let sum = self.checksum(page).map(u32::to_be_bytes);
        sum.is_some_and(|sum| page.starts_with(&sum))
    }

    /// Gives a page its checksum.
    pub(super) fn seal(&self, page: &mut [u8]) {
        let Some(sum) = self.checksum(page).map(u32::to_be_bytes) else { return };
        put(page, 0, &sum);
        if !self.zip {
            put(page, self.bytes.saturating_sub(TRAILER_BYTES), &sum);
        }
    }

    /// The first page of a file that was made while the snapshot was taken. Its content comes by later pages and by redo;
    /// but before recovery opens the file it must tell which tablespace it is. `version` is the server's as one number.
    pub(super) fn first_page(&self, space: u32, fsp_flags: u32, version: u32) -> Vec<u8> {
        let mut page = vec![0; self.bytes];
        put(&mut page, 8, &version.to_be_bytes());
        put(&mut page, 12, &1_u32.to_be_bytes());
        put(&mut page, 34, &space.to_be_bytes());
        put(&mut page, HEADER_BYTES, &space.to_be_bytes());
        put(&mut page, HEADER_BYTES + 16, &fsp_flags.to_be_bytes());
        self.seal(&mut page);
        page
    }
}

/// Overwrites bytes of a page.
pub(super) fn put(page: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(room) = page.get_mut(at..at.saturating_add(bytes.len())) {
        room.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(b""), 0);
    }

    #[test]
    fn keys_lie_behind_the_extents() {
        let at = |flags, size| Shape::of(flags, size).unwrap().key_at();
        assert_eq!(at(0, 16384), 10390);
        assert_eq!(at(0, 4096), 150 + 88 * 16);
        assert_eq!(at(0, 8192), 150 + 56 * 64);
        assert_eq!(at(0, 65536), 150 + 40 * 1024);
        assert_eq!(at(4 << 1, 16384), 150 + 40 * 128, "8 KiB of a server with 16 KiB");
    }

    #[test]
    fn sizes_that_nobody_has_are_refused() {
        assert_eq!(Shape::of(4 << 1, 16384).unwrap().bytes, 8192);
        for (flags, size) in
            [(0, 0), (0, 2048), (0, 5000), (0, 1 << 20), (6 << 1, 32768), (5 << 1, 8192), (15 << 1, 16384)]
        {
            assert!(Shape::of(flags, size).is_err(), "{flags} {size}");
        }
    }

    proptest! {
        #[test]
        fn sealed_pages_are_sound_and_changed_ones_are_not(
            zip in 0_u32..6, space in 1_u32..1000, at in any::<prop::sample::Index>(), bit in 0_u32..8,
        ) {
            let shape = Shape::of(zip << 1, 16384).unwrap();
            let mut page = shape.first_page(space, zip << 1, 90704);
            prop_assert!(shape.is_sound(&page));
            prop_assert_eq!(page.len(), shape.bytes);
            let at = at.index(page.len());
            page[at] ^= 1 << bit;
            // The LSN, and what a checksum does not look at, may change without notice.
            let looked_at = if zip == 0 { (0..26).contains(&at) || (38..page.len() - 8).contains(&at) }
                else { (0..16).contains(&at) || (24..26).contains(&at) || at >= 34 };
            prop_assert_eq!(shape.is_sound(&page), !looked_at);
        }
    }
}
