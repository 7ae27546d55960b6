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
    packets_with(&[0], event)
}

fn packets_with(head: &[u8], event: &[u8]) -> Vec<u8> {
    let payload = [head, event].concat();
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

/// An artificial ROTATE, as every stream begins with one.
fn rotate() -> Vec<u8> {
    let mut event = event(types::ROTATE, b"\x04\0\0\0\0\0\0\0b.000001", true);
    event[..4].fill(0);
    event[17] = 0x20;
    event
}

/// Feeds the stream to a reader that asked for the header; the events, and which of them ask for an acknowledgement.
fn read_semi_sync(stream: &[u8], piece: usize) -> Result<(Vec<Vec<u8>>, Vec<bool>)> {
    let mut reader = DumpReader::new(&[])?.asked_semi_sync();
    assert_eq!(reader.is_semi_sync(), None);
    let (mut events, mut asks, mut open) = (Vec::new(), Vec::new(), Vec::new());
    let mut left = stream;
    while !left.is_empty() {
        let space = reader.space();
        let (bytes, rest) = left.split_at(piece.min(space.len()).min(left.len()));
        space[..bytes.len()].copy_from_slice(bytes);
        reader.filled(bytes.len());
        left = rest;
        while let Some(DumpItem::Part(part)) = reader.next()? {
            open.extend_from_slice(part.bytes);
            if part.last {
                asks.push(part.asks_ack);
                events.push(std::mem::take(&mut open));
            }
        }
    }
    assert!(reader.is_between_packets());
    Ok((events, asks))
}

/// A stream with the header: the sizes of the rows events' bodies, and who asks.
fn semi_sync_stream(rows: &[(usize, bool)]) -> (Vec<Vec<u8>>, Vec<u8>) {
    let mut events = vec![(rotate(), false), (format_description(1), false)];
    events.extend(rows.iter().map(|(size, asks)| (event(30, &vec![5; *size], true), *asks)));
    let stream = events.iter().flat_map(|(event, asks)| packets_with(&[0, SEMI_SYNC_MAGIC, u8::from(*asks)], event));
    let stream = stream.collect();
    (events.into_iter().map(|(event, _)| event).collect(), stream)
}

#[test]
fn the_semi_sync_header_comes_off_events_of_every_awkward_size() {
    let (whole, packet) = (WHOLE_EVENT_MAX - 23, PACKET_MAX - 3 - 23);
    let sizes =
        [0, 1, whole - 1, whole, whole + 1, whole + 3, 600_000, packet - 1, packet, packet + 1, PACKET_MAX + packet];
    let rows: Vec<(usize, bool)> = sizes.iter().enumerate().map(|(index, size)| (*size, index % 2 == 0)).collect();
    let (events, stream) = semi_sync_stream(&rows);
    let (got, asks) = read_semi_sync(&stream, 50_000).unwrap();
    assert!(got == events, "bytes differ");
    assert_eq!(asks[2..], rows.iter().map(|(_, asks)| *asks).collect::<Vec<_>>());
}

#[test]
fn a_server_without_the_plugin_sends_no_header() {
    let events = [rotate(), format_description(1), event(30, &[0xef, 1, 0xef], true)];
    let stream: Vec<u8> = events.iter().flat_map(|event| packets(event)).collect();
    let (got, asks) = read_semi_sync(&stream, 7).unwrap();
    assert!(got == events && asks == [false; 3]);
}

#[test]
fn a_packet_that_lost_its_header_is_refused() {
    let (_, mut stream) = semi_sync_stream(&[(10, true)]);
    stream.extend(packets(&event(30, &[1; 10], true)));
    assert_eq!(read_semi_sync(&stream, 900).unwrap_err().kind(), crate::error::Kind::Corrupt);
}

proptest! {
    #[test]
    fn cuts_do_not_matter_to_the_semi_sync_header(
        rows in prop::collection::vec((0_usize..2000, any::<bool>()), 0..20), piece in 1_usize..5000,
    ) {
        let (events, stream) = semi_sync_stream(&rows);
        let (got, asks) = read_semi_sync(&stream, piece).unwrap();
        prop_assert!(got == events);
        prop_assert_eq!(&asks[2..], &rows.iter().map(|(_, asks)| *asks).collect::<Vec<_>>()[..]);
    }

    #[test]
    fn any_semi_sync_stream_is_taken_or_refused(noise in prop::collection::vec(any::<u8>(), 0..2000), piece in 1_usize..500) {
        let (_, mut stream) = semi_sync_stream(&[(5, true)]);
        stream.extend(noise);
        let mut reader = DumpReader::new(&[]).unwrap().asked_semi_sync();
        for bytes in stream.chunks(piece) {
            reader.space()[..bytes.len()].copy_from_slice(bytes);
            reader.filled(bytes.len());
            while let Ok(Some(DumpItem::Part(_))) = reader.next() {}
        }
    }
}
