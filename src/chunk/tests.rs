//! Sealing and opening, together and against damage.

use std::io::Read;

use proptest::prelude::*;
use uuid::Uuid;

use super::compress::{CompressOptions, Compressor};
use super::keys::{Identities, Recipients, generate};
use super::*;
use crate::error::{Kind, Result};
use crate::position::{BinlogFile, ChecksumAlgorithm, CommitTime, GtidSet, ServerUuid};

fn meta(length: u64) -> ChunkMeta {
    let gtids: GtidSet = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5".parse().unwrap();
    ChunkMeta {
        format: FORMAT_VERSION,
        archive: Uuid::from_u128(1),
        server: ServerUuid(Uuid::from_u128(2)),
        file: BinlogFile::new("binlog.000001").unwrap(),
        created_s: 1_795_342_530,
        start: 0,
        end: length,
        first_commit_us: CommitTime::from_micros(1_795_342_530_000_001),
        last_commit_us: CommitTime::from_micros(1_795_342_530_000_005),
        high_commit_us: CommitTime::from_micros(1_795_342_530_000_005),
        transactions: 5,
        executed: Executed::new(&GtidSet::new(), &gtids),
        gtids,
        previous: Some(GtidSet::new()),
        unlogged: GtidSet::new(),
        follows: None,
        starts_inside: false,
        open: None,
        resume: length,
        closes: None,
        checksum: ChecksumAlgorithm::Crc32,
        server_version: "9.7.4".into(),
    }
}

fn keys() -> (Recipients, Identities) {
    let (secret, public) = generate();
    (Recipients::parse(&[public]).unwrap(), Identities::parse("test", &secret).unwrap())
}

/// Seals bytes as a run of frames of at most `frame` bytes.
fn sealed(raw: &[u8], frame: usize, recipients: &Recipients) -> Sealed {
    let mut compressor = Compressor::new(CompressOptions { level: 1, long_window_log: None }).unwrap();
    let (mut frames, mut one) = (Vec::new(), Vec::new());
    for piece in raw.chunks(frame) {
        compressor.frame(piece, &mut one).unwrap();
        frames.extend_from_slice(&one);
    }
    seal(&meta(raw.len() as u64), recipients, &frames, Vec::new()).unwrap()
}

fn opened(sealed: &Sealed, identities: &Identities) -> Result<Vec<u8>> {
    let mut chunk = OpenedChunk::new(&sealed.name, &sealed.object, identities)?;
    let mut raw = Vec::new();
    chunk.read_to_end(&mut raw).map_err(|e| crate::error::Error::corrupt("read").source(e))?;
    Ok(raw)
}

#[test]
fn the_header_is_read_without_a_key() {
    let (recipients, _) = keys();
    let sealed = sealed(&[7; 1000], 300, &recipients);
    let HeaderRead::Whole(found) = read_header(&sealed.object).unwrap() else { panic!("cut short") };
    assert_eq!(*found, meta(1000));
    for length in [0, 10, 100, 400] {
        assert!(matches!(read_header(&sealed.object[..length]).unwrap(), HeaderRead::NeedsMore), "{length}");
    }
    assert_eq!(read_header(b"something else entirely, no age").unwrap_err().kind(), Kind::Corrupt);
}

/// A set in scattered pieces. What takes a moment took minutes, so a limit on the time is not needed.
#[test]
fn a_header_of_megabytes_is_read_at_once() {
    let (recipients, identities) = keys();
    let scattered: Vec<String> = (1..400_000_u32).rev().map(|n| (n * 2).to_string()).collect();
    let gtids = format!("3e11fa47-71ca-11e1-9e33-c80aa9429562:{}", scattered.join(":")).parse().unwrap();
    let meta = ChunkMeta { gtids, ..meta(9) };
    let mut frames = Vec::new();
    let mut compressor = Compressor::new(CompressOptions { level: 1, long_window_log: None }).unwrap();
    compressor.frame(b"the bytes", &mut frames).unwrap();
    let sealed = seal(&meta, &recipients, &frames, Vec::new()).unwrap();
    assert!(sealed.object.len() > 3 << 20, "{}", sealed.object.len());
    let HeaderRead::Whole(found) = read_header(&sealed.object).unwrap() else { panic!("cut short") };
    assert!(found.gtids.minus(&meta.gtids).is_empty() && found.gtids.count() == 399_999);
    assert_eq!(opened(&sealed, &identities).unwrap(), b"the bytes");
    let endless = [b"age-encryption.org/v1\n-> x\n".to_vec(), vec![b'A'; 17 << 20]].concat();
    assert_eq!(read_header(&endless).unwrap_err().kind(), Kind::Corrupt);
}

#[test]
fn any_recipient_opens_and_nobody_else() {
    let (one, first) = keys();
    let (two, second) = keys();
    let both = Recipients::parse(&[one.texts(), two.texts()].concat()).unwrap();
    let sealed = sealed(b"the bytes", 4, &both);
    assert_eq!(opened(&sealed, &first).unwrap(), b"the bytes");
    assert_eq!(opened(&sealed, &second).unwrap(), b"the bytes");
    assert_eq!(opened(&sealed, &keys().1).unwrap_err().kind(), Kind::Key);
}

#[test]
fn a_flipped_or_missing_byte_is_noticed_by_the_digest() {
    let (recipients, identities) = keys();
    let good = sealed(&[1; 5000], 5000, &recipients);
    for at in (0..good.object.len()).step_by(37) {
        let mut object = good.object.clone();
        object[at] ^= 1;
        let bad = Sealed { name: good.name.clone(), object };
        assert_eq!(opened(&bad, &identities).unwrap_err().kind(), Kind::Corrupt, "byte {at}");
        let cut = Sealed { name: good.name.clone(), object: good.object[..at].to_vec() };
        assert_eq!(opened(&cut, &identities).unwrap_err().kind(), Kind::Corrupt, "cut at {at}");
    }
}

#[test]
fn damage_that_comes_with_a_new_digest_is_noticed_too() {
    let (recipients, identities) = keys();
    let good = sealed(&(0..200_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>(), 1 << 16, &recipients);
    for at in (0..good.object.len()).step_by(good.object.len() / 40) {
        let mut object = good.object.clone();
        object[at] ^= 0x20;
        let name = ChunkName { digest: digest_hex(&object), ..good.name.clone() };
        assert!(opened(&Sealed { name, object }, &identities).is_err(), "byte {at}");
        let object = good.object[..at].to_vec();
        let name = ChunkName { digest: digest_hex(&object), ..good.name.clone() };
        assert!(opened(&Sealed { name, object }, &identities).is_err(), "cut at {at}");
    }
}

#[test]
fn a_chunk_under_another_name_is_refused() {
    let (recipients, identities) = keys();
    let mut moved = sealed(&[1; 100], 100, &recipients);
    moved.name.incarnation.created_s += 1;
    assert_eq!(opened(&moved, &identities).unwrap_err().kind(), Kind::Corrupt);
}

#[test]
fn more_bytes_than_promised_are_refused() {
    let (recipients, identities) = keys();
    let mut compressor = Compressor::new(CompressOptions { level: 1, long_window_log: None }).unwrap();
    let mut bomb = Vec::new();
    compressor.frame(&vec![0; 50 << 20], &mut bomb).unwrap();
    let sealed = seal(&meta(10), &recipients, &bomb, Vec::new()).unwrap();
    assert_eq!(opened(&sealed, &identities).unwrap_err().kind(), Kind::Corrupt);
    let mut frames = Vec::new();
    compressor.frame(&[0; 9], &mut frames).unwrap();
    let short = seal(&meta(10), &recipients, &frames, Vec::new()).unwrap();
    assert_eq!(opened(&short, &identities).unwrap_err().kind(), Kind::Corrupt);
}

#[test]
fn a_newer_format_is_refused_politely() {
    let mut newer = meta(10);
    newer.format = FORMAT_VERSION + 1;
    let error = ChunkMeta::decode(&newer.encode().unwrap()).unwrap_err();
    assert_eq!(error.kind(), Kind::Format);
    assert!(error.hint_text().unwrap().contains("newer"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_sealed_is_opened(raw in prop::collection::vec(any::<u8>(), 1..5000), frame in 1_usize..6000) {
        let (recipients, identities) = keys();
        prop_assert_eq!(opened(&sealed(&raw, frame, &recipients), &identities).unwrap(), raw);
    }

    #[test]
    fn any_head_is_taken_or_refused(head in prop::collection::vec(any::<u8>(), 0..300), text in "[ -~\n]{0,300}") {
        let _ = read_header(&head);
        let _ = read_header(&[b"age-encryption.org/v1\n", text.as_bytes()].concat());
        let _ = ChunkMeta::decode(text.as_bytes());
    }
}
