//! Ranges over overlapping chunks, holes and damage, on the store in memory.

use bytes::Bytes;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::chunk::compress::{CompressOptions, Compressor};
use crate::chunk::keys::{Recipients, generate};
use crate::chunk::{ChunkMeta, Executed, FORMAT_VERSION, Link, seal};
use crate::position::{BinlogFile, ChecksumAlgorithm, CommitTime, GtidSet, Incarnation, ServerUuid};
use crate::store::memory::MemoryStore;
use crate::store::{Key, SharedStore};

#[tokio::test]
async fn of_several_first_chunks_the_longest_tells_where_the_file_goes_on() {
    let room = Room::new().await;
    room.put(0, 100).await;
    room.put(0, 300).await;
    let history = room.archive.history(&SERVER).await.unwrap();
    assert_eq!(history.files[0].last.as_ref().unwrap().end, 300);
    let places = room.archive.resume_points(&SERVER).await.unwrap();
    let inside = places[0].inside.as_ref().unwrap();
    assert_eq!((inside.end, inside.resume), (300, 300));
}

/// Found by `tests/sim`: an agent did not see yet what another had just archived, and began with the server's oldest file.
#[tokio::test]
async fn of_several_first_chunks_one_tells_what_the_file_follows() {
    let before = Link { file: BinlogFile::new("binlog.000000").unwrap(), created_s: 1, end: 9 };
    for (with, without) in [(100, 300), (300, 100), (100, 100)] {
        let room = Room::new().await;
        room.put(0, without).await;
        room.put_behind(Some(before.clone()), 0, with).await;
        let history = room.archive.history(&SERVER).await.unwrap();
        let first = history.files[0].first.as_ref().unwrap();
        assert_eq!((first.follows.as_ref(), first.end), (Some(&before), with.max(without)));
        // One that did not see the end of the file before.
        room.put_behind(Some(Link { end: 7, ..before.clone() }), 0, 200).await;
        room.put_behind(Some(Link { end: 7, ..before.clone() }), 0, 400).await;
        let history = room.archive.history(&SERVER).await.unwrap();
        let first = history.files[0].first.as_ref().unwrap();
        assert_eq!((first.follows.as_ref(), first.end), (Some(&before), 400));
    }
}

/// Found by `tests/sim`: the server was reset before the first chunk came, and what stands behind it was forgotten.
#[tokio::test]
async fn a_file_without_its_beginning_is_a_place_to_go_on() {
    let room = Room::new().await;
    room.put(100, 300).await;
    let places = room.archive.resume_points(&SERVER).await.unwrap();
    let ends = places.iter().map(|place| place.inside.as_ref().map(|inside| (inside.incarnation.clone(), inside.end)));
    assert_eq!(ends.collect::<Vec<_>>(), [None, Some((incarnation(), 0))]);
    room.put(0, 100).await;
    let places = room.archive.resume_points(&SERVER).await.unwrap();
    assert_eq!(places.iter().map(|place| place.inside.as_ref().unwrap().end).collect::<Vec<_>>(), [300]);
}

/// Found by `tests/sim`.
#[tokio::test]
async fn a_file_does_not_follow_itself() {
    let room = Room::new().await;
    let itself = Link { file: incarnation().file, created_s: incarnation().created_s, end: 100 };
    room.put_behind(Some(itself), 0, 300).await;
    let history = room.archive.history(&SERVER).await.unwrap();
    assert_eq!(history.files[0].seam, crate::archive::Seam::Begins);
    let before = Link { file: BinlogFile::new("binlog.000000").unwrap(), created_s: 1, end: 9 };
    room.put_behind(Some(before.clone()), 0, 100).await;
    let history = room.archive.history(&SERVER).await.unwrap();
    assert_eq!(history.files[0].first.as_ref().unwrap().follows, Some(before));
}

struct Room {
    archive: Archive,
    store: SharedStore,
    options: ReadOptions,
    recipients: Recipients,
}

const SERVER: ServerUuid = ServerUuid(Uuid::from_u128(2));

fn incarnation() -> Incarnation {
    Incarnation { file: BinlogFile::new("binlog.000001").unwrap(), created_s: 1_795_342_530 }
}

/// The byte at an offset of the file.
fn byte(offset: u64) -> u8 {
    u8::try_from(offset.wrapping_mul(2_654_435_761) >> 7 & 0xff).unwrap()
}

impl Room {
    async fn new() -> Self {
        let store: SharedStore = Arc::new(MemoryStore::new());
        let (secret, public) = generate();
        let archive = Archive::open(Arc::clone(&store), true).await.unwrap();
        let keys = Arc::new(Identities::parse("test", &secret).unwrap());
        Self { archive, store, options: ReadOptions::new(keys), recipients: Recipients::parse(&[public]).unwrap() }
    }

    async fn put(&self, start: u64, end: u64) -> Key {
        self.put_behind(None, start, end).await
    }

    async fn put_behind(&self, follows: Option<Link>, start: u64, end: u64) -> Key {
        let meta = ChunkMeta {
            format: FORMAT_VERSION,
            archive: self.archive.id(),
            server: SERVER,
            file: incarnation().file,
            created_s: incarnation().created_s,
            start,
            end,
            first_commit_us: CommitTime::NONE,
            last_commit_us: CommitTime::NONE,
            high_commit_us: CommitTime::NONE,
            transactions: 0,
            executed: Executed::new(&GtidSet::new(), &GtidSet::new()),
            gtids: GtidSet::new(),
            previous: None,
            unlogged: GtidSet::new(),
            follows,
            starts_inside: false,
            open: None,
            resume: end,
            closes: None,
            checksum: ChecksumAlgorithm::Crc32,
            server_version: "9.7.4".into(),
        };
        let raw: Vec<u8> = (start..end).map(byte).collect();
        let mut frames = Vec::new();
        let mut compressor = Compressor::new(CompressOptions { level: 1, long_window_log: None }).unwrap();
        compressor.frame(&raw, &mut frames).unwrap();
        let sealed = seal(&meta, &self.recipients, &frames, Vec::new()).unwrap();
        let key = Key::new(sealed.name.to_string()).unwrap();
        self.store.put_new(&key, Bytes::from(sealed.object)).await.unwrap();
        key
    }

    /// Reads a range to its end or to an error.
    async fn read(&self, start: u64, end: u64) -> (Vec<u8>, Option<Error>) {
        let chunks = Arc::new(self.archive.chunks(&SERVER, &incarnation()).await.unwrap());
        let mut reader = self.archive.read_range(chunks, ByteRange::new(start, end).unwrap(), &self.options);
        let mut got = Vec::new();
        loop {
            match reader.next().await {
                Ok(Some(block)) => {
                    assert_eq!(block.offset, start + got.len() as u64);
                    assert!(!block.bytes.is_empty() && block.bytes.len() <= 1 << 20);
                    got.extend_from_slice(&block.bytes);
                }
                Ok(None) => return (got, None),
                Err(error) => {
                    assert!(reader.next().await.is_err(), "an error is no end");
                    return (got, Some(error));
                }
            }
        }
    }
}

fn expected(start: u64, end: u64) -> Vec<u8> {
    (start..end).map(byte).collect()
}

#[tokio::test]
async fn a_large_chunk_comes_in_blocks_and_a_reader_can_be_left_at_any_time() {
    let room = Room::new().await;
    room.put(0, 3_000_000).await;
    room.put(3_000_000, 3_000_001).await;
    assert_eq!(room.read(0, 3_000_001).await.0, expected(0, 3_000_001));
    assert_eq!(room.read(2_999_999, 3_000_001).await.0, expected(2_999_999, 3_000_001));
    assert!(room.read(7, 7).await.0.is_empty());
    let chunks = Arc::new(room.archive.chunks(&SERVER, &incarnation()).await.unwrap());
    let mut reader = room.archive.read_range(chunks, ByteRange::new(0, 3_000_001).unwrap(), &room.options);
    assert!(reader.next().await.unwrap().is_some());
}

#[tokio::test]
async fn a_hole_and_the_end_are_gaps_behind_all_that_is_there() {
    let room = Room::new().await;
    room.put(0, 100).await;
    room.put(100, 250).await;
    room.put(300, 400).await;
    for (start, end) in [(0, 260), (0, 350), (249, 400), (250, 251), (310, 320)] {
        let (got, error) = room.read(start, end).await;
        assert_eq!(got, expected(start, 250.max(start)), "{start}-{end}");
        assert_eq!(error.unwrap().kind(), Kind::Gap, "{start}-{end}");
    }
}

#[tokio::test]
async fn damage_comes_in_its_place_and_is_named() {
    let room = Room::new().await;
    room.put(0, 700_000).await;
    let bad = room.put(700_000, 900_000).await;
    room.put(900_000, 1_000_000).await;
    let good = room.store.get_range(&bad, 0, u64::MAX).await.unwrap();
    let mut damaged = good.to_vec();
    damaged[good.len() / 2] ^= 1;
    room.store.put_over(&bad, Bytes::from(damaged)).await.unwrap();
    let (got, error) = room.read(5, 1_000_000).await;
    assert_eq!(got, expected(5, 700_000));
    let error = error.unwrap();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(error.to_string().contains(bad.as_str()), "{error}");
    room.store.delete(&bad).await.unwrap();
    let chunks = Arc::new(room.archive.chunks(&SERVER, &incarnation()).await.unwrap());
    assert_eq!(chunks.cover.contiguous_end, 700_000);
}

#[tokio::test]
async fn a_chunk_that_is_lost_after_the_listing_is_named() {
    let room = Room::new().await;
    room.put(0, 100).await;
    let lost = room.put(100, 200).await;
    let chunks = Arc::new(room.archive.chunks(&SERVER, &incarnation()).await.unwrap());
    room.store.delete(&lost).await.unwrap();
    let mut reader = room.archive.read_range(chunks, ByteRange::new(0, 200).unwrap(), &room.options);
    assert_eq!(reader.next().await.unwrap().unwrap().bytes, expected(0, 100));
    let error = reader.next().await.unwrap_err();
    assert!(error.to_string().contains(lost.as_str()), "{error}");
}

#[tokio::test]
async fn the_wrong_key_is_said() {
    let mut room = Room::new().await;
    room.put(0, 100).await;
    room.options.keys = Arc::new(Identities::parse("other", &generate().0).unwrap());
    assert_eq!(room.read(0, 100).await.1.unwrap().kind(), Kind::Key);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_range_over_overlapping_chunks_is_the_file(
        ranges in prop::collection::vec((0_u64..3000, 1_u64..1500), 1..8),
        start in 0_u64..3000,
        length in 0_u64..3000,
        at_a_time in 0_usize..4,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut room = Room::new().await;
            room.options.chunks_at_a_time = at_a_time;
            for (from, bytes) in &ranges {
                room.put(*from, from + bytes).await;
            }
            let there = room.archive.chunks(&SERVER, &incarnation()).await.unwrap().cover.contiguous_end;
            let end = start + length;
            let (got, error) = room.read(start, end).await;
            prop_assert_eq!(got, expected(start, end.min(there).max(start)));
            prop_assert_eq!(error.map(|error| error.kind()), (length > 0 && end > there).then_some(Kind::Gap));
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_chunk_of_another_archive_is_refused() {
    let (room, other) = (Room::new().await, Room::new().await);
    let key = other.put(0, 100).await;
    let object = other.store.get_range(&key, 0, u64::MAX).await.unwrap();
    room.store.put_new(&key, object).await.unwrap();
    let error = room.read(0, 100).await.1.unwrap();
    assert!(error.kind() == Kind::Corrupt && error.hint_text().is_some(), "{error:?}");
    for word in [other.archive.id().to_string(), room.archive.id().to_string(), key.to_string()] {
        assert!(error.chain().contains(&word), "{word} is not in {error:?}");
    }
    let chunks = room.archive.chunks(&SERVER, &incarnation()).await.unwrap();
    assert_eq!(room.archive.meta(&chunks.chunks[0]).await.unwrap_err().kind(), Kind::Corrupt);
}
