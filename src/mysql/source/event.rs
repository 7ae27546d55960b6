//! Events that are in no file: they are made up for a connection. Pure.

use bytes::BufMut;

use crate::mysql::event::{CHECKSUM_BYTES, FLAG_ARTIFICIAL, FLAG_IN_USE, HEADER_BYTES, types};

/// Offset of `created` in a format description: behind header, binlog version u16, server version 50 bytes.
const CREATED_AT: usize = HEADER_BYTES + 2 + 50;
/// Offset of the position of its end, in every header.
const LOG_POS_AT: usize = 13;
/// Offset of the flags, in every header.
const FLAGS_AT: usize = 17;

/// The announcement of a file: the events that follow are its, from `position` on.
pub fn rotate(server_id: u32, file: &str, position: u64, checksum: bool) -> Vec<u8> {
    let body = [&position.to_le_bytes()[..], file.as_bytes()].concat();
    made_up(types::ROTATE, server_id, 0, FLAG_ARTIFICIAL, &body, checksum)
}

/// "Still here": the stream stands at `position` of `file`. `v2` is the form that says 64 bits of it.
pub fn heartbeat(v2: bool, server_id: u32, file: &str, position: u64, checksum: bool) -> Vec<u8> {
    #[expect(clippy::cast_possible_truncation, reason = "a header has the low 32 bits")]
    let low = position as u32;
    if !v2 {
        return made_up(types::HEARTBEAT, server_id, low, 0, file.as_bytes(), checksum);
    }
    // Fields: type, length, value. 1 is the file's name, 2 its position, length-encoded; 0 ends them.
    let mut body = vec![1];
    put_length_encoded(&mut body, file.len() as u64);
    body.extend_from_slice(file.as_bytes());
    let mut value = Vec::new();
    put_length_encoded(&mut value, position);
    body.push(2);
    put_length_encoded(&mut body, value.len() as u64);
    body.extend_from_slice(&value);
    body.push(0);
    made_up(types::HEARTBEAT_V2, server_id, low, 0, &body, checksum)
}

/// A file's format description as a source sends it: never "in use". `resumed` says that the client has seen the file
/// before, so that it must not take it for a server's start (which would drop the temporary tables); `inside` says that
/// what follows does not begin behind it, so that it moves no position.
pub fn format_description(event: &[u8], resumed: bool, inside: bool) -> Vec<u8> {
    let mut out = event.to_vec();
    let mut clear = |at: usize, bytes: &[u8]| {
        for (byte, mask) in out.iter_mut().skip(at).zip(bytes) {
            *byte &= mask;
        }
    };
    clear(FLAGS_AT, &(!FLAG_IN_USE).to_le_bytes());
    if resumed || inside {
        clear(CREATED_AT, &[0; 4]);
    }
    if inside {
        clear(LOG_POS_AT, &[0; 4]);
    }
    if out != event
        && let Some((data, crc)) = out.split_last_chunk_mut::<CHECKSUM_BYTES>()
    {
        *crc = crc32fast::hash(data).to_le_bytes();
    }
    out
}

fn made_up(kind: u8, server_id: u32, log_pos: u32, flags: u16, body: &[u8], checksum: bool) -> Vec<u8> {
    let tail = if checksum { CHECKSUM_BYTES } else { 0 };
    let length = HEADER_BYTES.saturating_add(body.len()).saturating_add(tail);
    let mut event = Vec::with_capacity(length);
    event.put_u32_le(0);
    event.put_u8(kind);
    event.put_u32_le(server_id);
    event.put_u32_le(u32::try_from(length).unwrap_or(u32::MAX));
    event.put_u32_le(log_pos);
    event.put_u16_le(flags);
    event.put_slice(body);
    if checksum {
        event.put_u32_le(crc32fast::hash(&event));
    }
    event
}

/// MySQL's length-encoded integer.
pub(super) fn put_length_encoded(out: &mut Vec<u8>, value: u64) {
    let bytes = value.to_le_bytes();
    let (mark, width) = match value {
        0..=0xfa => (None, 1),
        0xfb..=0xffff => (Some(0xfc), 2),
        0x1_0000..=0xff_ffff => (Some(0xfd), 3),
        _ => (Some(0xfe), 8),
    };
    out.extend(mark);
    out.extend_from_slice(bytes.get(..width).unwrap_or(&bytes));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mysql::event::{Header, Rotate, artificial_body, checksum_holds};
    use crate::mysql::wire::Reader;

    #[test]
    fn a_format_description_is_changed_only_where_it_must() {
        let mut event = vec![7_u8; 120];
        event[FLAGS_AT..FLAGS_AT + 2].copy_from_slice(&[0, 0]);
        assert_eq!(format_description(&event, false, false), event, "not even its CRC32");
        event[FLAGS_AT] = 1;
        let sent = format_description(&event, false, false);
        assert!(checksum_holds(&sent) && sent[FLAGS_AT] == 0 && sent[CREATED_AT] == 7);
        let sent = format_description(&event, true, true);
        assert!(checksum_holds(&sent));
        assert_eq!((&sent[CREATED_AT..CREATED_AT + 4], &sent[LOG_POS_AT..LOG_POS_AT + 4]), (&[0; 4][..], &[0; 4][..]));
        for length in 0..30 {
            assert_eq!(format_description(&event[..length], true, true).len(), length);
        }
    }

    proptest! {
        #[test]
        fn made_up_events_are_read_back(position: u64, server_id: u32, number in 0_u32..999_999, checksum: bool, v2: bool) {
            let file = format!("binlog.{number:06}");
            let event = rotate(server_id, &file, position, checksum);
            let header = Header::parse(&event).unwrap();
            prop_assert!(header.is_artificial_rotate() && header.length as usize == event.len());
            prop_assert_eq!(checksum_holds(&event), checksum);
            let read = Rotate::parse(artificial_body(&event)).unwrap();
            prop_assert_eq!((read.file.as_str(), read.position), (file.as_str(), position));

            let event = heartbeat(v2, server_id, &file, position, checksum);
            let header = Header::parse(&event).unwrap();
            prop_assert!(header.is_heartbeat() && header.length as usize == event.len());
            prop_assert_eq!(u64::from(header.log_pos), position & 0xffff_ffff);
            let mut body = Reader(artificial_body(&event));
            if v2 {
                prop_assert_eq!(body.u8(), Some(1));
                prop_assert_eq!(body.lenenc_bytes(), Some(file.as_bytes()));
                prop_assert_eq!(body.u8(), Some(2));
                prop_assert_eq!(Reader(body.lenenc_bytes().unwrap()).lenenc(), Some(position));
                prop_assert_eq!(body.0, [0]);
            } else {
                prop_assert_eq!(body.0, file.as_bytes());
            }
        }
    }
}
