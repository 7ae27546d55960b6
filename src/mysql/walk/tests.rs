//! Files made of chosen events, cut anywhere: the same events come out. Also the maker of such files for other tests.

use proptest::prelude::*;

use super::*;
use crate::error::Kind;

/// Makes the bytes of a binlog file, event by event.
#[derive(Debug, Clone)]
pub(crate) struct FileMaker {
    pub(crate) bytes: Vec<u8>,
    crc: bool,
}

impl FileMaker {
    /// A file with its magic and its format description.
    pub(crate) fn new(crc: bool) -> Self {
        let mut file = Self { bytes: MAGIC.to_vec(), crc: true };
        let version = [&b"9.7.4"[..], &[0; 45]].concat();
        let body = [&4_u16.to_le_bytes()[..], &version, &[0; 4], &[19], &[0; 40], &[u8::from(crc)]].concat();
        file.event(types::FORMAT_DESCRIPTION, &body);
        Self { crc, ..file }
    }

    /// Adds an event.
    pub(crate) fn event(&mut self, kind: u8, body: &[u8]) -> &mut Self {
        let event = event_bytes(kind, body, self.bytes.len() as u64, self.crc);
        self.bytes.extend(event);
        self
    }

    /// Adds an anonymous GTID event that tells (or does not tell) the transaction's length.
    pub(crate) fn gtid(&mut self, transaction_bytes: Option<u64>) -> &mut Self {
        let mut body = [&[1][..], &[0; 16], &[0; 8], &[2], &[0; 16]].concat();
        if let Some(bytes) = transaction_bytes {
            body.extend([&5_u64.to_le_bytes()[..7], &[0xfe], &bytes.to_le_bytes()].concat());
        }
        self.event(types::ANONYMOUS_GTID, &body)
    }

    /// Adds a query event in schema `db`.
    pub(crate) fn query(&mut self, text: &str) -> &mut Self {
        self.event(types::QUERY, &[&[0; 8][..], &[2, 0, 0, 3, 0], b"vvv", b"db\0", text.as_bytes()].concat())
    }
}

/// An event as it lies in a file at `at`.
pub(crate) fn event_bytes(kind: u8, body: &[u8], at: u64, crc: bool) -> Vec<u8> {
    let length = HEADER_BYTES + body.len() + if crc { CHECKSUM_BYTES } else { 0 };
    let mut event = 1_700_000_000_u32.to_le_bytes().to_vec();
    event.push(kind);
    event.extend(1_u32.to_le_bytes());
    event.extend(u32::try_from(length).unwrap().to_le_bytes());
    event.extend(u32::try_from(at + length as u64).unwrap().to_le_bytes());
    event.extend([0; 2]);
    event.extend(body);
    if crc {
        let sum = crc32fast::hash(&event);
        event.extend(sum.to_le_bytes());
    }
    event
}

/// Offset, type and bytes of an event.
type Whole = (u64, u8, Vec<u8>);

/// Events put together again, and the splitter behind them.
fn events(file: &[u8], cuts: impl Iterator<Item = usize>) -> Result<(Vec<Whole>, EventSplitter)> {
    let mut splitter = EventSplitter::at_file_start();
    let mut all: Vec<Whole> = Vec::new();
    let mut done = true;
    let mut rest = file;
    for cut in cuts {
        let (now, later) = rest.split_at(cut.min(rest.len()));
        rest = later;
        splitter.feed(now, &mut |part| {
            assert_eq!(part.first, done, "a part out of its order");
            if part.first {
                let least = FIRST_PART_BYTES.min(usize::try_from(part.header.length).unwrap());
                assert!(part.bytes.len() >= least, "a first part of {} bytes", part.bytes.len());
                assert!(part.last || !is_control(part.header.kind));
                all.push((part.start, part.header.kind, Vec::new()));
            }
            all.last_mut().unwrap().2.extend(part.bytes);
            done = part.last;
            Ok(())
        })?;
        if rest.is_empty() {
            break;
        }
    }
    assert_eq!(splitter.position(), (file.len() - rest.len()) as u64);
    Ok((all, splitter))
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..60),
        1 => (60_000_usize..200_000, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]),
    ]
}

/// Types that are not looked into.
fn kind() -> impl Strategy<Value = u8> {
    prop_oneof![Just(types::STOP), Just(types::ROTATE), Just(types::PREVIOUS_GTIDS), 5_u8..15, 16_u8..27, 28_u8..33]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_cut_gives_the_same_events(
        crc: bool,
        bodies in prop::collection::vec((kind(), body()), 0..12),
        cuts in prop::collection::vec(prop_oneof![1_usize..40, 1_usize..100_000], 1..60),
    ) {
        let mut file = FileMaker::new(crc);
        let mut expected = vec![(FIRST_EVENT, types::FORMAT_DESCRIPTION, file.bytes[4..].to_vec())];
        for (kind, body) in &bodies {
            let at = file.bytes.len();
            file.event(*kind, body);
            expected.push((at as u64, *kind, file.bytes[at..].to_vec()));
        }
        let (whole, splitter) = events(&file.bytes, std::iter::once(usize::MAX)).unwrap();
        prop_assert_eq!(&whole, &expected);
        prop_assert!(splitter.is_between_events());
        let (cut, splitter) = events(&file.bytes, cuts.iter().copied().cycle()).unwrap();
        prop_assert_eq!(&cut, &expected);
        prop_assert!(splitter.is_between_events());
        prop_assert_eq!(splitter.checksum() == ChecksumAlgorithm::Crc32, crc);
    }

    #[test]
    fn a_flipped_bit_is_found_before_the_event_is_whole(
        body in body(), at: prop::sample::Index, bit in 0_u8..8, cut in 1_usize..90_000,
    ) {
        let mut file = FileMaker::new(true);
        let from = file.bytes.len();
        file.event(30, &body);
        let flipped = from + at.index(file.bytes.len() - from);
        file.bytes[flipped] ^= 1 << bit;
        file.event(30, b"behind");
        let mut whole = 0;
        let mut splitter = EventSplitter::at_file_start();
        let fed = file.bytes.chunks(cut).try_for_each(|piece| splitter.feed(piece, &mut |part| {
            whole += usize::from(part.last);
            Ok(())
        }));
        // A changed length may make the walk wait for bytes that never come; the event is not handed out either way.
        prop_assert!(whole == 1 && (fed.is_err() || !splitter.is_between_events()), "{whole} events");
    }

    #[test]
    fn any_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400), cut in 1_usize..50, made: bool) {
        let mut file = if made { FileMaker::new(false).bytes } else { MAGIC.to_vec() };
        file.extend(&bytes);
        let mut walk = TransactionWalk::at_file_start();
        let _ = file.chunks(cut).try_for_each(|piece| walk.feed(piece, &mut |_| Ok(())));
        let _ = walk.finish();
        let mut walk = TransactionWalk::inside(1000, ChecksumAlgorithm::None);
        let _ = bytes.chunks(cut).try_for_each(|piece| walk.feed(piece, &mut |_| Ok(())));
    }
}

/// Text of the steps of a walk through a file fed in pieces of `cut` bytes.
fn steps(file: &[u8], cut: usize) -> String {
    let mut text = String::new();
    let mut walk = TransactionWalk::at_file_start();
    for piece in file.chunks(cut) {
        let fed = walk.feed(piece, &mut |step| {
            match step {
                Step::Begin(_) => text.push('('),
                Step::Part(part, inside) if part.last => text.push(if inside.is_some() { 'e' } else { '-' }),
                Step::Part(..) => {}
                Step::End(transaction) => text.push(if transaction.complete { ')' } else { '!' }),
            }
            Ok(())
        });
        fed.unwrap();
    }
    if walk.finish().is_some() {
        text.push('?');
    }
    text
}

#[test]
fn transactions_end_where_their_length_says() {
    let mut file = FileMaker::new(true);
    file.event(types::PREVIOUS_GTIDS, &[0; 8]);
    let mut inner = FileMaker { bytes: Vec::new(), crc: true };
    inner.gtid(Some(0)).query("BEGIN").event(30, &[7; 100]).event(types::XID, &[0; 8]);
    let length = inner.bytes.len() as u64;
    file.gtid(Some(length)).query("BEGIN").event(30, &[7; 100]).event(types::XID, &[0; 8]);
    file.gtid(Some(length + 30)).query("COMMIT").gtid(Some(1 << 40)).event(30, &[1]).event(types::ROTATE, &[4; 20]);
    file.gtid(Some(1 << 40)).event(30, &[1]);
    for cut in [1, 7, 100, usize::MAX] {
        assert_eq!(steps(&file.bytes, cut), "--(eeee)(ee!(ee!-(ee?", "cut at {cut}");
    }
}

#[test]
fn transactions_without_a_length_end_where_they_commit() {
    let mut file = FileMaker::new(false);
    file.gtid(None)
        .query("BEGIN")
        .event(19, &[0; 20])
        .event(30, &[0; 20])
        .query("SAVEPOINT `a`")
        .event(types::XID, &[0; 8]);
    file.gtid(None).query("CREATE TABLE t (a INT)");
    // A server before 5.7, without GTID events at all.
    file.query("BEGIN").event(5, &[0; 9]).query("INSERT INTO t VALUES (1)").query("COMMIT").query("DROP TABLE t");
    file.query(&format!("CREATE TABLE t (a INT COMMENT '{}')", "x".repeat(200_000)));
    for cut in [1, 7, 100, 100_000, usize::MAX] {
        assert_eq!(steps(&file.bytes, cut), "-(eeeeee)(ee)(eeee)(e)(e)", "cut at {cut}");
    }
}

#[test]
fn what_cannot_be_a_binlog_is_refused_with_its_offset() {
    let cases: [(&str, Vec<u8>); 4] = [
        ("wrong magic", b"\xfd\x62\x69\x6e".to_vec()),
        ("no format description", [&MAGIC[..], &event_bytes(2, &[0; 30], 4, false)].concat()),
        ("impossible length", {
            let mut file = FileMaker::new(true).bytes;
            file.extend([&[0; 9][..], &22_u32.to_le_bytes(), &[0; 30]].concat());
            file
        }),
        ("says that it ends", {
            let mut file = FileMaker::new(true).bytes;
            file.extend(event_bytes(2, &[0; 30], 4, true));
            file
        }),
    ];
    for (why, file) in cases {
        let error = events(&file, std::iter::once(usize::MAX)).unwrap_err();
        assert!(error.kind() == Kind::Corrupt && error.chain().contains(why), "{error:?}");
        assert!(error.chain().contains("at offset"), "{error:?}");
    }
}
