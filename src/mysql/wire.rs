//! A cursor over bytes of the peer: every read may find too little, none can panic.

/// Reads little-endian integers and MySQL's length-encoded values from the front of a slice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    /// The next `count` bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    /// One byte.
    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Two bytes.
    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// Six bytes: a table's id.
    pub(crate) fn u48(&mut self) -> Option<u64> {
        self.array().map(|[a, b, c, d, e, f]| u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }

    /// A length-encoded integer; `None` also for the NULL mark (0xfb) and the error mark (0xff).
    pub(crate) fn lenenc(&mut self) -> Option<u64> {
        match self.u8()? {
            first @ 0..=0xfa => Some(u64::from(first)),
            0xfc => self.u16().map(u64::from),
            0xfd => self.array().map(|[a, b, c]| u64::from(u32::from_le_bytes([a, b, c, 0]))),
            0xfe => self.array().map(u64::from_le_bytes),
            0xfb | 0xff => None,
        }
    }

    /// A length-encoded string.
    pub(crate) fn lenenc_bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.lenenc()?).ok()?;
        self.bytes(length)
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_every_length_are_read_and_short_ones_refused() {
        let cases: [(&[u8], Option<u64>); 8] = [
            (&[0xfa], Some(0xfa)),
            (&[0xfb], None),
            (&[0xfc, 1, 2], Some(0x0201)),
            (&[0xfd, 1, 2, 3], Some(0x03_0201)),
            (&[0xfe, 1, 0, 0, 0, 0, 0, 0, 0x80], Some(0x8000_0000_0000_0001)),
            (&[0xfe, 1, 0, 0], None),
            (&[0xff], None),
            (&[], None),
        ];
        for (bytes, expected) in cases {
            assert_eq!(Reader(bytes).lenenc(), expected, "{bytes:x?}");
        }
    }

    #[test]
    fn a_string_longer_than_the_packet_is_refused() {
        assert_eq!(Reader(&[3, b'a', b'b']).lenenc_bytes(), None);
        assert_eq!(Reader(&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]).lenenc_bytes(), None);
        assert_eq!(Reader(&[2, b'a', b'b']).lenenc_bytes(), Some(&b"ab"[..]));
    }
}
