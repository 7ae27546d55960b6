//! Positions are found in redo however it is cut, and noise is none.

use aws_lc_rs::cipher::{AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use proptest::prelude::*;

use super::*;
use crate::error::Kind;

const PAGE_BYTES: u32 = 16_384;
const AT: u16 = 15_422;

/// InnoDB's compressed form.
fn compress(value: u32) -> Vec<u8> {
    let [a, b, c, d] = value.to_be_bytes();
    match value {
        0..0x80 => vec![d],
        0x80..0x4000 => vec![c | 0x80, d],
        0x4000..0x20_0000 => vec![b | 0xc0, c, d],
        0x20_0000..0x1000_0000 => vec![a | 0xe0, b, c, d],
        0x1000_0000..0xff00_0000 => vec![0xf0, a, b, c, d],
        0xff00_0000..0xfffe_0000 => vec![0xfe, b, c, d],
        0xfffe_0000..0xffff_fc00 => vec![0xfc | (b & 1), c, d],
        0xffff_fc00.. => vec![0xf8 | (c & 3), d],
    }
}

fn four(field: u16, value: u32) -> Vec<u8> {
    let [high, low] = (AT + field).to_be_bytes();
    [&[FOUR_BYTES | ALONE, 0, 5, high, low][..], &compress(value)].concat()
}

fn name(text: &str) -> Vec<u8> {
    let [high, low] = (AT + 12).to_be_bytes();
    let length = u16::try_from(text.len() + 1).unwrap().to_be_bytes();
    [&[STRING, 0, 5, high, low], &length[..], text.as_bytes(), &[0]].concat()
}

fn page(file: &str, high: u32, low: u32) -> Vec<u8> {
    let mut page = vec![0; PAGE_BYTES as usize];
    let fields = [&MAGIC.to_be_bytes()[..], &high.to_be_bytes(), &low.to_be_bytes(), file.as_bytes()].concat();
    page[usize::from(AT)..usize::from(AT) + fields.len()].copy_from_slice(&fields);
    page
}

/// Log as blocks of a file, the first behind the file's header; the last one is partly used.
fn blocks(log: &[u8]) -> Vec<[u8; 512]> {
    log.chunks(blocks::CONTENT_BYTES)
        .map(|piece| {
            let mut block = [0xee; 512];
            let used = if piece.len() == blocks::CONTENT_BYTES { 512 } else { 12 + piece.len() };
            block[4..6].copy_from_slice(&u16::try_from(used).unwrap().to_be_bytes());
            block[12..12 + piece.len()].copy_from_slice(piece);
            block
        })
        .collect()
}

fn position(file: &str, offset: u64) -> Position {
    Position { file: BinlogFile::new(file).unwrap(), offset }
}

/// What is found in redo that comes in pieces of so many blocks.
fn scan(start: Option<&[u8]>, blocks: &[[u8; 512]], at_once: usize, secret: Option<&Secret>) -> Notes {
    let mut scanner = PositionScanner::new(PAGE_BYTES).unwrap();
    if let Some(page) = start {
        scanner.page(page);
    }
    let mut offset = REDO_HEADER_BYTES;
    for piece in blocks.chunks(at_once) {
        scanner.redo(0, offset, piece.as_flattened());
        offset += 512 * piece.len() as u64;
    }
    // The header and the last block come again.
    scanner.redo(0, 0, &[0x11; 2048]);
    if let Some(last) = blocks.last() {
        scanner.redo(0, offset - 512, last);
    }
    scanner.finish(secret).unwrap()
}

proptest! {
    #[test]
    fn compressed_integers_come_back(value in any::<u32>(), near in 0_u32..0x0200_0000) {
        for value in [value, near, u32::MAX - near] {
            prop_assert_eq!(compressed(&compress(value)), Some(value));
        }
    }

    #[test]
    fn the_last_note_is_found_wherever_blocks_are_cut(
        before in 0_usize..3000, after in 0_usize..3000, at_once in 1_usize..9,
        high in 0_u32..3, lows in prop::collection::vec(1_u32.., 1..30),
    ) {
        let mut log = vec![1; before];
        log.extend(name("./binlog.000012"));
        log.extend(four(4, high));
        for low in &lows {
            log.extend([7; 90]);
            log.extend(four(8, *low));
        }
        log.extend(vec![2; after]);
        let found = scan(Some(&page("binlog.000001", 9, 9)), &blocks(&log), at_once, None);
        let last = position("binlog.000012", u64::from(high) << 32 | u64::from(*lows.last().unwrap()));
        prop_assert_eq!(found.in_redo.last(), Some(&last));
        prop_assert_eq!(found.in_redo.len(), lows.len(), "repeated ones too");
        prop_assert_eq!(found.in_page, Some(position("binlog.000001", 9 << 32 | 9)));
    }

    #[test]
    fn noise_never_panics(
        noise in prop::collection::vec(any::<u8>(), 0..4096), file in any::<u32>(), offset in any::<u64>(),
    ) {
        let mut scanner = PositionScanner::new(PAGE_BYTES).unwrap();
        scanner.page(&noise);
        scanner.redo(file, offset, &noise);
        scanner.redo(0, 2048, &noise);
        scanner.redo(0, 2048, &noise);
        let _ = scanner.finish(Some(&Secret { key: [1; 32], iv: [2; 32] }));
    }
}

/// As a donor encrypts its redo.
fn encrypted(blocks: &[[u8; 512]], secret: &Secret) -> Vec<[u8; 512]> {
    let key = EncryptingKey::cbc(UnboundCipherKey::new(&AES_256, &secret.key).unwrap()).unwrap();
    let encrypt = |bytes: &mut [u8]| {
        let iv = *secret.iv.first_chunk::<16>().unwrap();
        key.less_safe_encrypt(bytes, EncryptionContext::Iv128(FixedLength::from(iv))).unwrap();
    };
    let mut blocks = blocks.to_vec();
    for block in &mut blocks {
        let sum = crc_fast::crc32_iscsi(&block[..508]);
        block[508..].copy_from_slice(&sum.to_be_bytes());
        block[4] |= 0x80;
        encrypt(&mut block[12..508]);
        encrypt(&mut block[480..]);
    }
    blocks
}

#[test]
fn encrypted_redo_is_read_with_its_key() {
    let secret = Secret { key: [3; 32], iv: [4; 32] };
    let log = [vec![1; 700], name("binlog.000002"), four(4, 0), four(8, 4321), vec![1; 700]].concat();
    let blocks = encrypted(&blocks(&log), &secret);
    assert_eq!(scan(None, &blocks, 2, Some(&secret)).in_redo, [position("binlog.000002", 4321)]);
    let mut scanner = PositionScanner::new(PAGE_BYTES).unwrap();
    scanner.redo(0, 2048, blocks.as_flattened());
    assert!(scanner.is_encrypted());
    assert!(scanner.finish(None).is_err());
    let mut scanner = PositionScanner::new(PAGE_BYTES).unwrap();
    scanner.redo(0, 2048, blocks.as_flattened());
    let other = scanner.finish(Some(&Secret { key: [5; 32], iv: [4; 32] })).unwrap_err();
    assert_eq!(other.kind(), Kind::Corrupt, "{other}");
}

/// Blocks of a real server's redo, behind their key: one note ends in the last bytes of a block, and its repetition goes on
/// in the next one.
#[test]
fn a_real_servers_encrypted_redo_is_read_to_the_end_of_each_block() {
    let (key, rest) = include_bytes!("encrypted-9.7.bin").split_first_chunk::<32>().unwrap();
    let (iv, redo) = rest.split_first_chunk::<32>().unwrap();
    let mut scanner = PositionScanner::new(PAGE_BYTES).unwrap();
    scanner.page(&page("binlog.000001", 0, 4));
    scanner.redo(0, 2048, redo);
    let found = scanner.finish(Some(&Secret { key: *key, iv: *iv })).unwrap().in_redo;
    assert_eq!(found, [position("binlog.000001", 10_946_171), position("binlog.000001", 10_946_171)]);
}

/// Seen on 9.7: the last block's second coming is in clear, though all the others are encrypted.
#[test]
fn a_last_block_in_clear_stays_the_last() {
    let secret = Secret { key: [3; 32], iv: [4; 32] };
    // The last note begins in the last block but one, and ends in the last.
    let first = [name("binlog.000002"), four(8, 4321)].concat();
    let filler = vec![1; 3 * blocks::CONTENT_BYTES - first.len() - 3];
    let log = [first, filler, four(8, 5555)].concat();
    let clear = blocks(&log);
    let hidden = encrypted(&clear, &secret);
    let mut scanner = PositionScanner::new(PAGE_BYTES).unwrap();
    scanner.redo(0, 2048, hidden.as_flattened());
    scanner.redo(0, 2048 + 512 * (clear.len() as u64 - 1), &clear[clear.len() - 1]);
    let found = scanner.finish(Some(&secret)).unwrap().in_redo;
    assert_eq!(found, [position("binlog.000002", 4321), position("binlog.000002", 5555)]);
}

#[test]
fn the_last_block_replaces_what_it_was_before() {
    let mut scanner = PositionScanner::new(PAGE_BYTES).unwrap();
    let early = [name("binlog.000002"), four(8, 100)].concat();
    let late = [early.clone(), four(8, 200)].concat();
    scanner.redo(0, 2048, blocks(&early).as_flattened());
    scanner.redo(0, 2048, blocks(&late).as_flattened());
    let found = scanner.finish(None).unwrap().in_redo;
    assert_eq!(found, [position("binlog.000002", 100), position("binlog.000002", 200)]);
}

#[test]
fn only_pages_that_innodb_has_are_taken() {
    assert!(PositionScanner::new(65_536).is_some() && PositionScanner::new(4096).is_some());
    assert!(PositionScanner::new(0).is_none() && PositionScanner::new(20_000).is_none());
    assert!(PositionScanner::new(2048).is_none() && PositionScanner::new(1 << 20).is_none());
}
