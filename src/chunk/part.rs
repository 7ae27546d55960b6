//! A part of a base backup: `age( zstd( bytes of the backup ) )`, with a stanza `binvault-base` that says which.
//!
//! Owns: a part's metadata, its name, sealing and opening. Does not own: the manifest (`archive`), where the bytes come
//! from (`base`).
//!
//! Invariants: stock `age -d | zstd -d` of the parts, in the order of their names, gives the backup; a part opens only
//! if its name, its stanza and what the caller expects agree, and gives exactly the bytes promised; only the backup's
//! last part says that it is the last, so a cut-off list of parts cannot pass for the whole.

use std::fmt;
use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::envelope::{self, Payload};
use super::keys::{Identities, Recipients};
use super::{CHUNK_BYTES_MAX, DIGEST_HEX, digest_hex};
use crate::error::{Error, Result};
use crate::position::ParseError;

/// Tag of the stanza in the age header.
const STANZA_TAG: &str = "binvault-base";
/// Most parts of one base backup: as many as sort by name.
pub const PARTS_MAX: u32 = 999_999;
/// Longest id of a base backup, in bytes.
const ID_BYTES_MAX: usize = 100;
const PREFIX: &str = "part-";
const NUMBER_DIGITS: usize = 6;
const SUFFIX: &str = ".zst.age";

/// What a part holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartMeta {
    /// Format version, [`super::FORMAT_VERSION`].
    pub format: u32,
    /// The archive it belongs to.
    pub archive: Uuid,
    /// Id of the base backup: the name of its folder.
    pub base: String,
    /// Number of the part; the first is 1.
    pub number: u32,
    /// Offset of its first byte in the backup.
    pub offset: u64,
    /// How many bytes of the backup it holds: never none, for stock zstd takes an empty stream for a cut one.
    pub raw_bytes: u64,
    /// Whether the backup ends with it.
    pub last: bool,
}

impl PartMeta {
    fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| Error::failed("write the part's metadata").source(error))
    }

    /// Reads the JSON of a header.
    ///
    /// # Errors
    /// [`crate::error::Kind::Format`] for a newer format, [`crate::error::Kind::Corrupt`] for anything that does not fit.
    pub fn decode(json: &[u8]) -> Result<Self> {
        let meta: Self = super::read_document("the part's metadata", json)?;
        let fine = is_base_id(&meta.base)
            && (1..=PARTS_MAX).contains(&meta.number)
            && (1..=CHUNK_BYTES_MAX).contains(&meta.raw_bytes)
            && meta.offset.checked_add(meta.raw_bytes).is_some();
        if fine { Ok(meta) } else { Err(Error::corrupt("the part's metadata is impossible")) }
    }
}

/// Whether a text can be a base backup's id: what the names of its folder and of engines are made of.
pub fn is_base_id(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !text.is_empty() && text.len() <= ID_BYTES_MAX && !text.starts_with('.') && text.chars().all(plain)
}

/// A part's name inside the folder of its backup: `part-000001.<digest>.zst.age`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartName {
    /// Number of the part; the first is 1.
    pub number: u32,
    /// [`DIGEST_HEX`] lower-case hex digits of the SHA-256 of the object.
    pub digest: String,
}

impl PartName {
    /// Reads a name.
    ///
    /// # Errors
    /// If it is no part's name.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        parse(text).ok_or_else(|| ParseError { wanted: "part name", text: text.chars().take(120).collect() })
    }
}

fn parse(text: &str) -> Option<PartName> {
    let (digits, digest) = text.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.split_once('.')?;
    let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let fine = digits.len() == NUMBER_DIGITS
        && digits.bytes().all(|b| b.is_ascii_digit())
        && digest.len() == DIGEST_HEX
        && digest.bytes().all(lower_hex);
    let number = digits.parse().ok().filter(|number| (1..=PARTS_MAX).contains(number))?;
    fine.then(|| PartName { number, digest: digest.to_owned() })
}

impl fmt::Display for PartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{:0NUMBER_DIGITS$}.{}{SUFFIX}", self.number, self.digest)
    }
}

/// A part ready for the store.
#[derive(Debug)]
pub struct SealedPart {
    /// Its name in the backup's folder.
    pub name: PartName,
    /// The object.
    pub object: Vec<u8>,
}

/// Encrypts a part's zstd frames to the recipients, with the metadata in the header.
///
/// # Errors
/// If the metadata is impossible or encryption fails.
pub fn seal_part(meta: &PartMeta, recipients: &Recipients, frames: &[u8]) -> Result<SealedPart> {
    seal_part_into(meta, recipients, vec![frames], Vec::new())
}

/// As [`seal_part`], into `object` (cleared first, so that its memory can be used again). Each frame is dropped as soon
/// as it is in the object: the part is never in memory twice.
///
/// # Errors
/// As [`seal_part`].
pub fn seal_part_into(
    meta: &PartMeta,
    recipients: &Recipients,
    frames: Vec<impl AsRef<[u8]>>,
    object: Vec<u8>,
) -> Result<SealedPart> {
    let json = meta.encode()?;
    PartMeta::decode(&json)?;
    let bytes = frames.iter().map(|frame| frame.as_ref().len()).fold(0, usize::saturating_add);
    let object = envelope::wrap(STANZA_TAG, &json, recipients, (frames, bytes), object)?;
    let name = PartName { number: meta.number, digest: digest_hex(&object) };
    Ok(SealedPart { name, object })
}

/// A part being opened: gives exactly the bytes that its metadata promises, or an error.
///
/// That no byte is missing or too many shows at the end of reading: believe what was read only after [`Read`] has
/// returned 0.
pub struct OpenedPart<'a> {
    payload: Payload<'a>,
}

impl<'a> OpenedPart<'a> {
    /// Checks an object against its name and against what is expected of it, and prepares to read it.
    ///
    /// # Errors
    /// [`crate::error::Kind::Corrupt`] if the object is not the one its name says, or another part than `expected`;
    /// [`crate::error::Kind::Key`] if no identity opens it; [`crate::error::Kind::Format`] if its format is newer.
    pub fn new(name: &PartName, expected: &PartMeta, object: &'a [u8], identities: &Identities) -> Result<Self> {
        Self::check(name, expected, object)?;
        // The header's MAC vouches for the stanza once a key fits, so what was compared is what was sealed.
        let payload = Payload::open(object, expected.raw_bytes, identities, "part")?;
        Ok(Self { payload })
    }

    /// Checks an object against its name and against what is expected of it. Needs no key.
    ///
    /// # Errors
    /// [`crate::error::Kind::Corrupt`] if the object is not the one its name says, or another part than `expected`;
    /// [`crate::error::Kind::Format`] if its format is newer.
    pub fn check(name: &PartName, expected: &PartMeta, object: &[u8]) -> Result<()> {
        check_digest(name, object)?;
        let json = envelope::peek(object, STANZA_TAG, "part of a base backup")?;
        let json = json.ok_or_else(|| Error::corrupt("the age header is cut short"))?;
        let meta = PartMeta::decode(&json)?;
        if meta != *expected || meta.number != name.number {
            return Err(Error::corrupt(format!(
                "the object is part {} of {} ({} bytes from {}{}) of archive {}, wanted is part {} of {} ({} bytes from {}{}) of archive {}",
                meta.number,
                meta.base,
                meta.raw_bytes,
                meta.offset,
                if meta.last { ", the last" } else { "" },
                meta.archive,
                expected.number,
                expected.base,
                expected.raw_bytes,
                expected.offset,
                if expected.last { ", the last" } else { "" },
                expected.archive,
            )));
        }
        Ok(())
    }
}

/// Whether an object is the one that its name says, by its digest. Needs no key.
///
/// # Errors
/// [`crate::error::Kind::Corrupt`] if it is not.
pub fn check_digest(name: &PartName, object: &[u8]) -> Result<()> {
    let digest = digest_hex(object);
    if digest == name.digest {
        return Ok(());
    }
    Err(Error::corrupt(format!(
        "the object's {} bytes have digest {digest}, its name says {}: it was damaged or exchanged",
        object.len(),
        name.digest
    ))
    .hint("use another base backup (`binvault list` shows them), or look for an older version of the object"))
}

impl Read for OpenedPart<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.payload.read(out)
    }
}

impl fmt::Debug for OpenedPart<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenedPart").field("left", &self.payload.left()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::chunk::FORMAT_VERSION;
    use crate::chunk::compress::{CompressOptions, Compressor};
    use crate::chunk::keys::generate;
    use crate::error::Kind;

    fn meta(raw_bytes: u64) -> PartMeta {
        PartMeta {
            format: FORMAT_VERSION,
            archive: Uuid::from_u128(1),
            base: "20261122T101530.000001Z-mysqldump".into(),
            number: 2,
            offset: 1000,
            raw_bytes,
            last: false,
        }
    }

    fn keys() -> (Recipients, Identities) {
        let (secret, public) = generate();
        (Recipients::parse(&[public]).unwrap(), Identities::parse("test", &secret).unwrap())
    }

    fn frames(raw: &[u8]) -> Vec<u8> {
        let mut compressor = Compressor::new(CompressOptions { level: 1, long_window_log: None }).unwrap();
        let (mut all, mut one) = (Vec::new(), Vec::new());
        for piece in raw.chunks(100) {
            compressor.frame(piece, &mut one).unwrap();
            all.extend_from_slice(&one);
        }
        all
    }

    fn opened(sealed: &SealedPart, expected: &PartMeta, keys: &Identities) -> Result<Vec<u8>> {
        let mut part = OpenedPart::new(&sealed.name, expected, &sealed.object, keys)?;
        let mut raw = Vec::new();
        part.read_to_end(&mut raw).map_err(|error| Error::corrupt("read").source(error))?;
        Ok(raw)
    }

    #[test]
    fn a_part_opens_only_as_what_it_is() {
        let (recipients, identities) = keys();
        let sealed = seal_part(&meta(300), &recipients, &frames(&[7; 300])).unwrap();
        assert_eq!(opened(&sealed, &meta(300), &identities).unwrap(), [7; 300]);
        for other in [
            PartMeta { archive: Uuid::from_u128(2), ..meta(300) },
            PartMeta { base: "20261122T101530.000002Z-mysqldump".into(), ..meta(300) },
            PartMeta { number: 3, ..meta(300) },
            PartMeta { offset: 1001, ..meta(300) },
            PartMeta { last: true, ..meta(300) },
            meta(299),
        ] {
            assert_eq!(opened(&sealed, &other, &identities).unwrap_err().kind(), Kind::Corrupt, "{other:?}");
        }
        assert_eq!(opened(&sealed, &meta(300), &keys().1).unwrap_err().kind(), Kind::Key);
        let renamed = SealedPart { name: PartName { number: 3, ..sealed.name.clone() }, ..sealed };
        assert_eq!(opened(&renamed, &meta(300), &identities).unwrap_err().kind(), Kind::Corrupt);
    }

    #[test]
    fn damage_is_noticed_with_the_old_name_and_with_a_new_one() {
        let (recipients, identities) = keys();
        let raw: Vec<u8> = (0..50_000_u32).flat_map(u32::to_le_bytes).collect();
        let expected = PartMeta { raw_bytes: raw.len() as u64, ..meta(0) };
        let good = seal_part(&expected, &recipients, &frames(&raw)).unwrap();
        for at in (0..good.object.len()).step_by(good.object.len() / 40) {
            let mut flipped = good.object.clone();
            flipped[at] ^= 0x20;
            for object in [flipped, good.object[..at].to_vec()] {
                let renamed = PartName { digest: digest_hex(&object), ..good.name.clone() };
                let old = SealedPart { name: good.name.clone(), object: object.clone() };
                assert_eq!(opened(&old, &expected, &identities).unwrap_err().kind(), Kind::Corrupt, "byte {at}");
                assert!(opened(&SealedPart { name: renamed, object }, &expected, &identities).is_err(), "byte {at}");
            }
        }
    }

    #[test]
    fn more_or_fewer_bytes_than_promised_are_refused() {
        let (recipients, identities) = keys();
        for count in [299, 301] {
            let sealed = seal_part(&meta(300), &recipients, &frames(&vec![1; count])).unwrap();
            assert_eq!(opened(&sealed, &meta(300), &identities).unwrap_err().kind(), Kind::Corrupt, "{count}");
        }
    }

    #[test]
    fn names_have_one_form() {
        let name = "part-000042.ba7816bf8f01cfea414140de5dae2223.zst.age";
        assert_eq!(PartName::parse(name).unwrap().to_string(), name);
        for (from, to) in
            [("000042", "42"), ("000042", "000000"), ("ba78", "BA78"), (".zst.age", ".zst"), ("part", "p")]
        {
            assert!(PartName::parse(&name.replacen(from, to, 1)).is_err(), "{to}");
        }
    }

    #[test]
    fn impossible_metadata_is_refused() {
        for bad in [
            PartMeta { number: 0, ..meta(1) },
            meta(0),
            meta(CHUNK_BYTES_MAX + 1),
            PartMeta { offset: u64::MAX, ..meta(1) },
            PartMeta { base: "../x".into(), ..meta(1) },
        ] {
            assert!(seal_part(&bad, &keys().0, &[]).is_err(), "{bad:?}");
        }
        let newer = PartMeta { format: FORMAT_VERSION + 1, ..meta(1) };
        assert_eq!(PartMeta::decode(&newer.encode().unwrap()).unwrap_err().kind(), Kind::Format);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_sealed_is_opened(raw in prop::collection::vec(any::<u8>(), 1..3000), last: bool) {
            let (recipients, identities) = keys();
            let expected = PartMeta { last, ..meta(raw.len() as u64) };
            let sealed = seal_part(&expected, &recipients, &frames(&raw)).unwrap();
            prop_assert_eq!(opened(&sealed, &expected, &identities).unwrap(), raw);
        }

        #[test]
        fn any_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400), text in "[ -~\n]{0,300}") {
            let identities = keys().1;
            let framed = [b"age-encryption.org/v1\n", text.as_bytes()].concat();
            for object in [&bytes, &framed] {
                let name = PartName { number: 2, digest: digest_hex(object) };
                prop_assert!(OpenedPart::new(&name, &meta(1), object, &identities).is_err());
            }
            let _ = PartMeta::decode(text.as_bytes());
            let _ = PartName::parse(&text);
            let _ = PartName::parse(&format!("part-{text}.zst.age"));
        }
    }
}
