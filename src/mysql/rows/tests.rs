//! Made events of every kind, whole and in parts, packed and not; and any bytes.

use proptest::prelude::*;

use super::*;
use crate::mysql::walk::Step;
use crate::mysql::walk::TransactionWalk;
use crate::mysql::walk::tests::{FileMaker, event_bytes};

/// `shop.orders (id INT, name VARCHAR(200), note TEXT, j JSON, price DECIMAL(10,2), at DATETIME(3))`.
fn orders_map() -> Vec<u8> {
    let names = [&b"\x04shop\0"[..], b"\x06orders\0"].concat();
    let types = [3, 15, 252, 245, 246, 18];
    let metadata = [200, 0, 2, 4, 10, 2, 3];
    [&[7, 0, 0, 0, 0, 0, 1, 0][..], &names, &[6], &types, &[7], &metadata, &[0]].concat()
}

/// One row image of it, with a note of `note` bytes.
fn image(note: usize, null_json: bool) -> Vec<u8> {
    let note_bytes = u16::try_from(note).unwrap().to_le_bytes();
    let json: &[u8] = if null_json { &[] } else { &[3, 0, 0, 0, 1, 2, 3] };
    let nulls = if null_json { 0b1000 } else { 0 };
    [&[nulls][..], &[1, 0, 0, 0], b"\x03abc", &note_bytes, &vec![9; note], json, &[0; 5], &[0; 7]].concat()
}

/// A row event's body: version 1 or 2, one bitmap of columns or two.
fn rows(kind: u8, bitmaps: usize, images: &[Vec<u8>]) -> Vec<u8> {
    let extra: &[u8] = if kind >= 30 { &[2, 0] } else { &[] };
    [&[7, 0, 0, 0, 0, 0, 1, 0][..], extra, &[6], &vec![0xff; bitmaps], &images.concat()].concat()
}

/// What a file's events are, as one line.
fn contents(file: &[u8], cut: usize) -> String {
    let mut shown: Vec<String> = Vec::new();
    let mut reader = ContentReader::new();
    let mut walk = TransactionWalk::at_file_start();
    for piece in file.chunks(cut) {
        let fed = walk.feed(piece, &mut |step| {
            if let Step::Part(part, _) = step {
                reader.take(&part, &mut |content| shown.push(show(&content)));
            }
            Ok(())
        });
        fed.unwrap();
    }
    shown.join(" ")
}

fn show(content: &Content<'_>) -> String {
    match content {
        Content::Query(query) => {
            format!("query({},{}{})", query.schema, text(query.text).len(), if query.cut { "+" } else { "" })
        }
        Content::Load(query) => format!("load({},{})", query.schema, text(query.text)),
        Content::Original(sql) => format!("original({})", text(sql)),
        Content::Table(table) => format!("table({}.{})", table.schema, table.table),
        Content::Rows { table, action, rows, exact } => {
            format!("{action:?}({}{rows}{})", if table.is_some() { "" } else { "?" }, if *exact { "" } else { "+" })
        }
        Content::Payload => "payload".to_owned(),
        Content::XaPrepare => "prepare".to_owned(),
        Content::Unread(kind) => format!("unread({kind})"),
    }
}

#[test]
fn rows_of_every_version_are_counted_however_the_file_is_cut() {
    let mut file = FileMaker::new(true);
    file.gtid(None).query("BEGIN").event(ROWS_QUERY, b"\x06insert").event(TABLE_MAP, &orders_map());
    file.event(30, &rows(30, 1, &[image(5, false), image(0, true), image(300, false)]));
    file.event(23, &rows(23, 1, &[image(5, false)]));
    file.event(31, &rows(31, 2, &[image(1, false), image(2, false), image(3, true), image(4, false)]));
    file.event(25, &rows(25, 1, &[image(60_000, false), image(60_000, true)]));
    file.event(types::XA_PREPARE, &[0; 12]).event(200, &[]);
    let expected =
        "query(db,5) original(insert) table(shop.orders) Insert(3) Insert(1) Update(2) Delete(2) prepare unread(200)";
    for cut in [1, 13, 1000, 65_000, usize::MAX] {
        assert_eq!(contents(&file.bytes, cut), expected, "cut at {cut}");
    }
}

#[test]
fn partial_json_updates_are_counted() {
    let mut file = FileMaker::new(false);
    // After images with a partial value (options 1, a bit for the one JSON column) and without.
    let partial = [&[1, 1][..], &image(3, false)].concat();
    let plain = [&[0][..], &image(3, false)].concat();
    file.event(TABLE_MAP, &orders_map());
    file.event(PARTIAL, &rows(PARTIAL, 2, &[image(3, false), partial, image(4, true), plain]));
    assert_eq!(contents(&file.bytes, 100), "table(shop.orders) Update(2)");
}

const PARTIAL: u8 = 39;

#[test]
fn what_cannot_be_counted_is_said_to_be_inexact() {
    let mut file = FileMaker::new(true);
    file.event(TABLE_MAP, &orders_map());
    // A row cut short, a table never mapped, the empty event that ends a statement, one too large to be held.
    file.event(30, &rows(30, 1, &[image(3, false)[..9].to_vec()]));
    let mut other = rows(30, 1, &[image(3, false)]);
    other[0] = 8;
    file.event(30, &other);
    file.event(32, &[&[0xff; 6][..], &[1, 0, 2, 0, 0]].concat());
    let large = [&[0][..], &[1, 0, 0, 0], b"\x03abc", &[0; 2], &[0, 0, 0, 2], &vec![1; 32 << 20], &[0; 12]].concat();
    file.event(30, &rows(30, 1, &[large]));
    file.event(30, &[1, 2, 3]).event(TABLE_MAP, &[9; 9]).event(types::QUERY, &[1]);
    let expected = "table(shop.orders) Insert(1+) Insert(?0+) Delete(?0) Insert(1+) unread(30) unread(19) unread(2)";
    for cut in [100_000, 1 << 20] {
        assert_eq!(contents(&file.bytes, cut), expected, "cut at {cut}");
    }
}

/// A TRANSACTION_PAYLOAD body around some events.
fn payload(inner: &[u8], packed: Option<&[u8]>) -> Vec<u8> {
    let (compression, data) = match packed {
        Some(data) => (0, data),
        None => (255, inner),
    };
    let mut body = Vec::new();
    for (field, value) in [(2, compression), (1, data.len() as u64), (3, inner.len() as u64)] {
        body.extend([field, 9, 0xfe]);
        body.extend(value.to_le_bytes());
    }
    body.push(0);
    body.extend(data);
    body
}

#[test]
fn a_payload_is_opened_in_a_stream() {
    let mut inner = Vec::new();
    let query = [&[0; 8][..], &[2, 0, 0, 0, 0], b"db\0BEGIN"].concat();
    for (kind, body) in [
        (types::QUERY, query),
        (TABLE_MAP, orders_map()),
        (30, rows(30, 1, &vec![image(60_000, false); 40])),
        (types::XID, vec![0; 8]),
    ] {
        inner.extend(event_bytes(kind, &body, 0, false));
    }
    let packed = zstd::encode_all(inner.as_slice(), 1).unwrap();
    let whole = "payload query(db,5) table(shop.orders) Insert(40)";
    for data in [None, Some(packed.as_slice())] {
        let mut file = FileMaker::new(true);
        file.event(TRANSACTION_PAYLOAD, &payload(&inner, data));
        for cut in [100, 70_000, usize::MAX] {
            assert_eq!(contents(&file.bytes, cut), whole, "cut at {cut}");
        }
    }
    let mut torn = FileMaker::new(true);
    torn.event(TRANSACTION_PAYLOAD, &payload(&inner, Some(&packed[..packed.len() / 2])));
    assert!(contents(&torn.bytes, 1000).ends_with("unread(40)"));
    let mut file = FileMaker::new(true);
    file.event(TRANSACTION_PAYLOAD, &payload(&inner[..30], Some(&packed))).event(TRANSACTION_PAYLOAD, &[2, 1, 7, 0]);
    assert_eq!(
        contents(&file.bytes, 1000),
        "payload unread(40) unread(40)",
        "more bytes than it says; unknown packing"
    );
}

#[test]
fn tables_are_forgotten_before_they_are_too_many() {
    let mut reader = ContentReader::new();
    let mut file = FileMaker::new(false);
    for id in 0..3 * u16::try_from(TABLES_MAX).unwrap() {
        let mut map = orders_map();
        map[..2].copy_from_slice(&id.to_le_bytes());
        file.event(TABLE_MAP, &map);
    }
    let mut splitter = EventSplitter::at_file_start();
    splitter
        .feed(&file.bytes, &mut |part| {
            reader.take(&part, &mut |_| ());
            Ok(())
        })
        .unwrap();
    assert!(reader.events.tables.len() <= TABLES_MAX);
}

proptest! {
    #[test]
    fn any_bodies_are_read_or_counted(
        bodies in prop::collection::vec((prop_oneof![Just(2_u8), 17_u8..45], prop::collection::vec(any::<u8>(), 0..80)), 0..10),
        flip in any::<prop::sample::Index>(), with in any::<u8>(), cut in 1_usize..200,
    ) {
        let mut file = FileMaker::new(false);
        // Something near the truth: a right map and right rows, one byte of them changed.
        let mut near = rows(31, 2, &[image(1, false), image(2, true)]);
        let at = flip.index(near.len());
        near[at] = with;
        let mut map = orders_map();
        let at = flip.index(map.len());
        map[at] = with;
        file.event(TABLE_MAP, &orders_map()).event(31, &near).event(TABLE_MAP, &map).event(31, &near).event(39, &near);
        for (kind, body) in bodies {
            if !matches!(kind, types::GTID | types::ANONYMOUS_GTID | types::TAGGED_GTID) {
                file.event(kind, &body);
            }
        }
        let _ = contents(&file.bytes, cut);
    }
}
