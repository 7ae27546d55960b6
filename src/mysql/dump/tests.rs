//! The dump reader against events of every size, cut anywhere.

use proptest::prelude::*;

use super::*;

fn event(kind: u8, body: &[u8], crc: bool) -> Vec<u8> {
    let length = HEADER_BYTES + body.len() + if crc { CHECKSUM_BYTES } else { 0 };
    let mut event = 7_u32.to_le_bytes().to_vec();
    event.push(kind);
    event.extend(1_u32.to_le_bytes());
    event.extend(u32::try_from(length).unwrap().to_le_bytes());
    event.extend([0; 6]);
    event.extend(body);
    if crc {
        event.extend(crc32fast::hash(&event).to_le_bytes());
    }
    event
}

fn format_description(algorithm: u8) -> Vec<u8> {
    let body = [&4_u16.to_le_bytes()[..], &[0; 50], &[0; 4], &[19], &[0; 41], &[algorithm]].concat();
    event(types::FORMAT_DESCRIPTION, &body, true)
}

fn packets(event: &[u8]) -> Vec<u8> {
    let payload = [&[0], event].concat();
    let mut out = Vec::new();
    let mut rest = &payload[..];
    loop {
        let take = rest.len().min(PACKET_MAX);
        out.extend(&u32::try_from(take).unwrap().to_le_bytes()[..3]);
        out.push(9);
        out.extend(&rest[..take]);
        rest = &rest[take..];
        if take < PACKET_MAX {
            return out;
        }
    }
}

/// Feeds the stream in pieces and puts the events together again.
fn read(stream: &[u8], piece: usize) -> Result<(Vec<Vec<u8>>, bool)> {
    let mut reader = DumpReader::new(&[])?;
    let (mut events, mut open, mut fed) = (Vec::new(), Vec::new(), 0);
    loop {
        while let Some(item) = reader.next()? {
            let DumpItem::Part(part) = item else { return Ok((events, true)) };
            assert_eq!(part.first, open.is_empty());
            open.extend_from_slice(part.bytes);
            if part.last {
                events.push(std::mem::take(&mut open));
            }
        }
        if fed == stream.len() {
            return Ok((events, reader.is_between_packets()));
        }
        let space = reader.space();
        let take = space.len().min(piece).min(stream.len() - fed);
        assert!(take > 0, "no room to read on");
        space[..take].copy_from_slice(&stream[fed..fed + take]);
        reader.filled(take);
        fed += take;
    }
}

fn check(sizes: &[usize], algorithm: u8, piece: usize) {
    let mut events = vec![format_description(algorithm)];
    events.extend(sizes.iter().map(|size| event(30, &vec![5; *size], algorithm == 1)));
    let stream: Vec<u8> = events.iter().flat_map(|event| packets(event)).collect();
    let (got, clean) = read(&stream, piece).unwrap();
    assert!(clean);
    assert_eq!(got.len(), events.len());
    assert!(got == events, "bytes differ");
}

#[test]
fn events_of_every_awkward_size_arrive() {
    let whole = WHOLE_EVENT_MAX - HEADER_BYTES - CHECKSUM_BYTES;
    let packet = PACKET_MAX - 1 - HEADER_BYTES - CHECKSUM_BYTES;
    check(&[0, 1, whole - 1, whole, whole + 1, 3, 600_000], 1, 64 << 10);
    check(&[packet - 1, packet, packet + 1, 2 * PACKET_MAX, 8], 1, 200_000);
    check(&[packet + 4, 0, packet + PACKET_MAX + 4], 0, usize::MAX);
}

#[test]
fn a_flipped_byte_is_noticed_in_small_and_large_events() {
    for size in [100, 700_000, 17 << 20] {
        let good = [packets(&format_description(1)), packets(&event(30, &vec![5; size], true))].concat();
        for at in [good.len() - 1, good.len() - 40, good.len() - size / 2] {
            let mut bad = good.clone();
            bad[at] ^= 4;
            let error = read(&bad, 1 << 20).unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::Corrupt, "size {size} at {at}");
        }
    }
}

#[test]
fn the_end_and_an_error_are_told_apart() {
    assert_eq!(read(&[5, 0, 0, 1, 0xfe, 0, 0, 2, 0], 3).unwrap(), (vec![], true));
    let error = read(&[&[9, 0, 0, 1, 0xff, 0xd4, 4][..], b"#HY000"].concat(), 100).unwrap_err();
    assert!(error.to_string().contains("1236"));
}

proptest! {
    #[test]
    fn cuts_do_not_matter(sizes in prop::collection::vec(0_usize..2000, 0..20), algorithm in 0_u8..2, piece in 1_usize..5000) {
        check(&sizes, algorithm, piece);
    }

    #[test]
    fn any_stream_is_taken_or_refused(stream in prop::collection::vec(any::<u8>(), 0..2000), piece in 1_usize..500) {
        let _ = read(&stream, piece);
    }
}

#[test]
fn a_repeated_description_of_a_file_without_checksums_may_keep_its_old_one() {
    let end_at = |algorithm: u8, log_pos: u32| {
        let mut event = format_description(algorithm);
        event[0] ^= 1;
        event[13..17].copy_from_slice(&log_pos.to_le_bytes());
        read(&packets(&event), 4096)
    };
    assert_eq!(end_at(0, 0).unwrap().0.len(), 1);
    // A checksum that is wrong anywhere else is damage.
    assert_eq!(end_at(0, 127).unwrap_err().kind(), crate::error::Kind::Corrupt);
    let mut event = format_description(1);
    let last = event.len() - 1;
    event[last] ^= 1;
    assert_eq!(read(&packets(&event), 4096).unwrap_err().kind(), crate::error::Kind::Corrupt);
}
