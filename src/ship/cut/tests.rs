//! The cutter against made-up servers: whatever the transactions, the bytes come out in order, cut where they may be.

use std::sync::Arc;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::archive::ResumePoint;
use crate::chunk::Executed;
use crate::mysql::event::{CHECKSUM_BYTES, FLAG_ARTIFICIAL};
use crate::position::GtidSet;
use crate::ship::buffers::BufferPool;

const CHUNK: u64 = 4000;
const FRAME: usize = 1000;
/// What each event says of when it was written.
const BEGUN_S: u32 = 1_700_000_000;

/// Writes a binlog file as a server does.
struct Server {
    file: Vec<u8>,
    /// Where transactions end, and how long they are.
    ends: Vec<(u64, u64)>,
    gno: u64,
}

impl Server {
    fn new() -> Self {
        let mut server = Self { file: MAGIC.to_vec(), ends: Vec::new(), gno: 0 };
        let description = [&4_u16.to_le_bytes()[..], b"9.7.4", &[0; 45], &[0; 4], &[19], &[0; 41], &[1]].concat();
        server.event(types::FORMAT_DESCRIPTION, &description);
        server.event(types::PREVIOUS_GTIDS, &[0; 8]);
        server
    }

    fn event(&mut self, kind: u8, body: &[u8]) {
        let length = HEADER_BYTES + body.len() + CHECKSUM_BYTES;
        let end = u32::try_from(self.file.len() + length).unwrap();
        let mut event = BEGUN_S.to_le_bytes().to_vec();
        event.push(kind);
        event.extend(1_u32.to_le_bytes());
        event.extend(u32::try_from(length).unwrap().to_le_bytes());
        event.extend(end.to_le_bytes());
        event.extend([0; 2]);
        event.extend(body);
        event.extend(crc32fast::hash(&event).to_le_bytes());
        self.file.extend(event);
    }

    /// A transaction of events with these body sizes; `told` says whether its GTID event tells its length.
    fn transaction(&mut self, bodies: &[usize], told: bool) {
        self.gno += 1;
        let start = self.file.len() as u64;
        let overhead = HEADER_BYTES + CHECKSUM_BYTES;
        let tail = if told { 7 + 9 + 4 } else { 0 };
        let gtid_bytes = overhead + 42 + tail;
        let begin = [&[0; 13][..], b"\0BEGIN"].concat();
        let rest: usize = bodies.iter().map(|body| body + overhead).sum::<usize>() + begin.len() + 8 + 2 * overhead;
        let length = (gtid_bytes + rest) as u64;
        let mut body = vec![0];
        body.extend([9; 16]);
        body.extend(self.gno.to_le_bytes());
        body.extend([2]);
        body.extend([0; 16]);
        if told {
            body.extend(&(1_700_000_000_000_000 + self.gno).to_le_bytes()[..7]);
            body.push(0xfe);
            body.extend(length.to_le_bytes());
            body.extend([0; 4]);
        }
        self.event(types::GTID, &body);
        self.event(types::QUERY, &begin);
        for size in bodies {
            self.event(30, &vec![3; *size]);
        }
        self.event(types::XID, &[0; 8]);
        self.ends.push((self.file.len() as u64, self.file.len() as u64 - start));
    }
}

/// The artificial ROTATE before a stream.
fn rotate(position: u64) -> Vec<u8> {
    let mut event = vec![0; 4];
    event.push(types::ROTATE);
    event.extend(1_u32.to_le_bytes());
    event.extend(u32::try_from(HEADER_BYTES + 8 + 13).unwrap().to_le_bytes());
    event.extend([0; 4]);
    event.extend(FLAG_ARTIFICIAL.to_le_bytes());
    event.extend(position.to_le_bytes());
    event.extend(b"binlog.000001");
    event
}

/// What came out: the chunks' bytes and metadata.
#[derive(Default)]
struct Out {
    chunks: Vec<(Vec<u8>, ChunkMeta)>,
    open: Vec<u8>,
}

struct Feed {
    cutter: Cutter,
    pool: Arc<BufferPool>,
    out: Out,
}

impl Feed {
    fn new(from: &ResumePoint) -> Self {
        let options = CutOptions { chunk_bytes: CHUNK, frame_bytes: FRAME };
        let cutter = Cutter::new(options, Uuid::nil(), ServerUuid(Uuid::nil()), from);
        Self { cutter, pool: BufferPool::new(64 << 20, 64 << 20), out: Out::default() }
    }

    async fn part(&mut self, part: EventPart<'_>) -> Result<()> {
        for _ in 0..self.cutter.spares_wanted() {
            self.cutter.give_spare(self.pool.lend(FRAME).await);
        }
        self.cutter.accept(part)?;
        self.collect();
        Ok(())
    }

    fn collect(&mut self) {
        while let Some(cut) = self.cutter.take() {
            match cut {
                Cut::Frame(buffer) => {
                    assert!(buffer.len() <= FRAME && !buffer.is_empty());
                    self.out.open.extend_from_slice(&buffer);
                }
                Cut::End(meta) => self.out.chunks.push((std::mem::take(&mut self.out.open), *meta)),
            }
        }
    }

    /// Feeds an event in pieces of at most `piece` bytes (the first has the header).
    async fn event(&mut self, event: &[u8], piece: usize) -> Result<()> {
        let header = Header::parse(event).unwrap();
        // Only rows may come in pieces: what is looked into is small and comes whole.
        let piece = if header.kind == 30 { piece.clamp(HEADER_BYTES + 1, FRAME) } else { event.len() };
        let count = event.chunks(piece).count();
        for (index, bytes) in event.chunks(piece).enumerate() {
            self.part(EventPart { header, first: index == 0, last: index + 1 == count, asks_ack: false, bytes })
                .await?;
        }
        Ok(())
    }

    /// Feeds a file from `from` on, as a server sends it.
    async fn file(&mut self, file: &[u8], from: u64, piece: usize) -> Result<()> {
        let announced = rotate(if from == FIRST_EVENT { FIRST_EVENT } else { from });
        self.event(&announced, usize::MAX).await?;
        let mut at = 4;
        while at < file.len() {
            let length = Header::parse(&file[at..]).unwrap().length as usize;
            if at as u64 >= from || at == 4 {
                self.event(&file[at..at + length], piece).await?;
            }
            at += length;
        }
        Ok(())
    }
}

/// A resume point as the archive would give it after these chunks.
fn resume_after(chunks: &[(Vec<u8>, ChunkMeta)]) -> ResumePoint {
    let (_, last) = chunks.last().unwrap();
    let inside = ResumeInFile {
        incarnation: last.incarnation(),
        end: last.end,
        resume: last.resume,
        open: last.open.clone(),
        previous: GtidSet::new(),
        since_start: last.executed.resolve(&GtidSet::new()),
        closes: last.closes.clone(),
        torn: false,
    };
    ResumePoint { inside: Some(inside), high_commit: last.high_commit_us, ..ResumePoint::default() }
}

fn check(server: &Server, out: &Out, until: usize) {
    let mut at = 0;
    for (bytes, meta) in &out.chunks {
        assert_eq!((meta.start, meta.end), (at as u64, (at + bytes.len()) as u64));
        assert!(bytes[..] == server.file[at..at + bytes.len()], "bytes differ in {}-{}", meta.start, meta.end);
        at += bytes.len();
        let ended: Vec<_> = server.ends.iter().filter(|(end, _)| *end > meta.start && *end <= meta.end).collect();
        assert_eq!(meta.transactions, ended.len() as u64);
        assert_eq!(meta.gtids.count(), ended.len() as u64);
        let all = server.ends.iter().filter(|(end, _)| *end <= meta.end).count() as u64;
        assert_eq!(meta.executed.resolve(&GtidSet::new()).count(), all);
        assert!(matches!(meta.executed, Executed::Whole(_)));
        let cuts = server.ends.iter().find(|(end, length)| *end > meta.end && end - length < meta.end);
        assert_eq!(meta.open.is_some(), cuts.is_some());
    }
    assert_eq!(at, until);
}

fn sizes() -> impl Strategy<Value = Vec<Vec<usize>>> {
    let body = prop_oneof![4 => 1_usize..200, 2 => 200_usize..1500, 1 => 3000_usize..9000];
    prop::collection::vec(prop::collection::vec(body, 1..5), 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn bytes_come_out_in_order_whatever_the_cuts(bodies in sizes(), told: bool, piece in 20_usize..1200, stop in 0_usize..30) {
        let mut server = Server::new();
        bodies.iter().for_each(|bodies| server.transaction(bodies, told));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut feed = Feed::new(&ResumePoint::default());
            feed.file(&server.file, FIRST_EVENT, piece).await.unwrap();
            feed.cutter.end_chunk_here().unwrap();
            feed.collect();
            check(&server, &feed.out, server.file.len());
            if told {
                for (_, meta) in feed.out.chunks.iter().filter(|(_, meta)| meta.open.is_some()) {
                    let whole = server.ends.iter().find(|(end, _)| *end > meta.end).unwrap();
                    assert!(whole.1 > CHUNK, "a transaction of {} bytes was cut", whole.1);
                }
            }

            // Killed after any chunk, it goes on from there, by position or by reading the file again.
            let keep = stop % feed.out.chunks.len() + 1;
            for again_from_start in [false, true] {
                let from = resume_after(&feed.out.chunks[..keep]);
                let position = if again_from_start { FIRST_EVENT } else { from.inside.as_ref().unwrap().resume };
                let mut second = Feed::new(&from);
                second.file(&server.file, position, piece).await.unwrap();
                second.cutter.end_chunk_here().unwrap();
                second.collect();
                let mut all = Out { chunks: feed.out.chunks[..keep].to_vec(), open: Vec::new() };
                all.chunks.extend(second.out.chunks);
                check(&server, &all, server.file.len());
            }
        });
    }
}

#[tokio::test]
async fn stopped_in_a_files_head_it_leaves_no_chunk_that_does_not_tell_what_was_before() {
    let server = Server::new();
    let description = Header::parse(&server.file[4..]).unwrap().length as usize;
    let mut feed = Feed::new(&ResumePoint::default());
    feed.file(&server.file[..4 + description], FIRST_EVENT, usize::MAX).await.unwrap();
    feed.cutter.end_chunk_here().unwrap();
    feed.collect();
    assert!(feed.out.chunks.is_empty(), "{:?}", feed.out.chunks);
}

#[tokio::test]
async fn an_event_that_does_not_fit_its_place_stops_the_line() {
    let mut server = Server::new();
    server.transaction(&[10], true);
    let gap = server.file.len();
    server.transaction(&[10], true);
    server.transaction(&[10], true);
    let mut feed = Feed::new(&ResumePoint::default());
    feed.file(&server.file[..gap], FIRST_EVENT, usize::MAX).await.unwrap();
    let third = usize::try_from(server.ends[1].0).unwrap();
    let length = Header::parse(&server.file[third..]).unwrap().length as usize;
    let error = feed.event(&server.file[third..third + length], usize::MAX).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
}

#[tokio::test]
async fn an_announcement_that_was_damaged_on_the_way_is_asked_for_again() {
    let mut announced = rotate(FIRST_EVENT);
    announced[HEADER_BYTES + 8] ^= 0x80;
    let error = Feed::new(&ResumePoint::default()).event(&announced, usize::MAX).await.unwrap_err();
    assert!(error.kind() == Kind::Corrupt && error.is_retryable(), "{error:?}");
}

#[tokio::test]
async fn another_incarnation_is_refused() {
    let mut server = Server::new();
    server.transaction(&[10], true);
    let mut feed = Feed::new(&ResumePoint::default());
    feed.file(&server.file, FIRST_EVENT, usize::MAX).await.unwrap();
    feed.cutter.end_chunk_here().unwrap();
    feed.collect();
    let mut from = resume_after(&feed.out.chunks);
    from.inside.as_mut().unwrap().incarnation.created_s += 1;
    let error = Feed::new(&from).file(&server.file, server.file.len() as u64, 100).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Diverged);
    assert!(error.hint_text().is_some());
}

/// Metadata of a range of a file, for the tests of other stages.
pub(in crate::ship) fn meta_for_tests(file: &str, start: u64, end: u64) -> ChunkMeta {
    let description = FormatDescription {
        timestamp_s: 1,
        server_version: "9.7.4".into(),
        checksum: crate::position::ChecksumAlgorithm::Crc32,
    };
    let mut state = FileState::new(BinlogFile::new(file).unwrap(), &description, None);
    state.position = end;
    let meta = state.end_chunk(Uuid::nil(), ServerUuid(Uuid::nil()), CommitTime::NONE, None);
    ChunkMeta { start, ..meta }
}

#[tokio::test]
async fn a_file_that_is_not_the_chosen_one_any_more_is_not_taken() {
    let mut server = Server::new();
    server.transaction(&[100], true);
    let before = |text: &str| Expected { before: Some(text.parse().unwrap()), ..Expected::default() };
    let begun = |created_s| Expected { created_s: Some(created_s), ..Expected::default() };
    let sent = async |expected| {
        let mut feed = Feed::new(&ResumePoint::default());
        feed.cutter = feed.cutter.expecting(expected);
        feed.file(&server.file, FIRST_EVENT, usize::MAX).await.map(|()| feed.cutter.position().unwrap().0.offset)
    };
    // It says that nothing was executed before it.
    assert_eq!(sent(Expected::default()).await.unwrap(), server.file.len() as u64);
    assert_eq!(sent(before("")).await.unwrap(), server.file.len() as u64);
    assert_eq!(sent(begun(BEGUN_S)).await.unwrap(), server.file.len() as u64);
    for other in [before("aaaaaaaa-0000-0000-0000-000000000001:1-7"), begun(BEGUN_S + 1)] {
        let error = sent(other).await.unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (Kind::Diverged, true), "{error}");
    }
}
