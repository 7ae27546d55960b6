//! A chunk's name says which bytes of which file it holds, and ends in the digest of the object.
//!
//! `chunks/<server_uuid>/<file>.<created>/<start>-<end>.<last commit>.<digest>.zst.age`

use std::fmt;

use crate::position::{ByteRange, CommitTime, Incarnation, ParseError, ServerUuid};

/// Hex digits of the digest in a name: the first half of a SHA-256.
pub const DIGEST_HEX: usize = 32;
/// Digits an offset is padded to: names sort as numbers up to ten petabytes.
const OFFSET_DIGITS: usize = 16;
const SUFFIX: &str = ".zst.age";

/// A parsed chunk name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ChunkName {
    /// The server.
    pub server: ServerUuid,
    /// The file and its incarnation.
    pub incarnation: Incarnation,
    /// The bytes.
    pub range: ByteRange,
    /// The highest commit time up to the range's end.
    pub high_commit: CommitTime,
    /// [`DIGEST_HEX`] lower-case hex digits of the SHA-256 of the object.
    pub digest: String,
}

impl ChunkName {
    /// The folder of all chunks of a server, with its `/`.
    pub fn server_folder(server: &ServerUuid) -> String {
        format!("chunks/{server}/")
    }

    /// The folder of all chunks of one incarnation of a file, with its `/`.
    pub fn folder(server: &ServerUuid, incarnation: &Incarnation) -> String {
        format!("chunks/{server}/{incarnation}/")
    }

    /// Reads an object's name.
    ///
    /// # Errors
    /// If it is no chunk's name.
    pub fn parse(key: &str) -> Result<Self, ParseError> {
        parse(key).ok_or_else(|| ParseError { wanted: "chunk name", text: key.chars().take(200).collect() })
    }
}

fn parse(key: &str) -> Option<ChunkName> {
    let mut parts = key.strip_prefix("chunks/")?.split('/');
    let (server, incarnation, object) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let object = object.strip_suffix(SUFFIX)?;
    let (rest, digest) = object.rsplit_once('.')?;
    let (offsets, commit) = rest.split_once('.')?;
    let (start, end) = offsets.split_once('-')?;
    let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if digest.len() != DIGEST_HEX || !digest.bytes().all(lower_hex) {
        return None;
    }
    Some(ChunkName {
        server: server.parse().ok()?,
        incarnation: incarnation.parse().ok()?,
        // A longer one would stand before all the chunks that it claims to hold.
        range: ByteRange::new(offset(start)?, offset(end)?)
            .filter(|range| !range.is_empty() && range.len() <= super::CHUNK_BYTES_MAX)?,
        high_commit: commit.parse().ok()?,
        digest: digest.to_owned(),
    })
}

fn offset(digits: &str) -> Option<u64> {
    let fine = digits.len() >= OFFSET_DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
    // One value has one text: longer than the padding only where the number needs it.
    let exact = digits.len() == OFFSET_DIGITS || !digits.starts_with('0');
    if fine && exact { digits.parse().ok() } else { None }
}

impl fmt::Display for ChunkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, incarnation, range, high_commit, digest } = self;
        let (start, end, width) = (range.start(), range.end(), OFFSET_DIGITS);
        write!(f, "chunks/{server}/{incarnation}/{start:0width$}-{end:0width$}.{high_commit}.{digest}{SUFFIX}")
    }
}

/// The digest of an object as it stands in its name.
pub fn digest_hex(object: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, object);
    let bytes = digest.as_ref();
    let mut text = String::with_capacity(DIGEST_HEX);
    for byte in bytes.iter().take(DIGEST_HEX / 2) {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAME: &str = "chunks/3e11fa47-71ca-11e1-9e33-c80aa9429562/binlog.000042.20261122T101530Z/\
        0000000000000000-0000000008388608.20261122T101531.000001Z.ba7816bf8f01cfea414140de5dae2223.zst.age";

    #[test]
    fn a_name_parses_back() {
        let name = ChunkName::parse(NAME).unwrap();
        assert_eq!(name.range.end(), 8 << 20);
        assert_eq!(name.incarnation.file.as_str(), "binlog.000042");
        assert_eq!(name.to_string(), NAME);
    }

    #[test]
    fn the_digest_is_the_first_half_of_sha256() {
        assert_eq!(digest_hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223");
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for (from, to) in [
            ("chunks/", "bases/"),
            ("0000000008388608", "0000000000000000"),
            ("0000000008388608", "8388608"),
            ("0000000008388608", "0000001073741825"),
            ("0000000008388608", "00000000008388608"),
            ("ba78", "BA78"),
            (".zst.age", ".zst.age.tmp"),
            ("binlog.000042", "binlog"),
            ("20261122T101531.000001Z", "20261122T101531Z"),
            // One value has one text.
            ("3e11fa47", "3E11FA47"),
            ("20261122T101531.", "20261122T101560."),
            ("20261122T101530Z", "20261122T101560Z"),
        ] {
            let bad = NAME.replace(from, to);
            assert!(ChunkName::parse(&bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in "\\PC{0,200}") {
            let _ = ChunkName::parse(&text);
        }

        #[test]
        fn offsets_have_one_text(start: u64, length in 1_u64..1000) {
            let range = ByteRange::new(start.min(u64::MAX - 1000), start.min(u64::MAX - 1000) + length).unwrap();
            let name = ChunkName { range, ..ChunkName::parse(NAME).unwrap() };
            prop_assert_eq!(ChunkName::parse(&name.to_string()).unwrap(), name);
        }
    }
}
