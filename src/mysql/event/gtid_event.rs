//! The event that opens a transaction: GTID (33), anonymous (34) and tagged (42).

use uuid::Uuid;

use super::{Header, tagged, types};
use crate::error::{Error, Result};
use crate::position::{CommitTime, Gtid, Sid, Tag};

/// What the opening event says of its transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GtidEvent {
    /// The GTID; `None` for an anonymous transaction.
    pub gtid: Option<Gtid>,
    /// When this server committed it. Before MySQL 8.0.1 the header's whole seconds.
    pub commit: CommitTime,
    /// Bytes from the start of this event to the end of the transaction; `None` before MySQL 8.0.2.
    pub transaction_bytes: Option<u64>,
}

/// Bit 55 of the immediate commit timestamp: the original one follows.
const ORIGINAL_FOLLOWS: u64 = 1 << 55;

impl GtidEvent {
    /// Reads the body (between header and checksum) of an event of one of the three types.
    ///
    /// # Errors
    /// If it is cut short or holds impossible values.
    pub fn parse(header: &Header, body: &[u8]) -> Result<Self> {
        let parsed = if header.kind == types::TAGGED_GTID { tagged::parse(body) } else { plain(header, body) };
        parsed.ok_or_else(|| {
            Error::corrupt(format!(
                "GTID event of type {} with a body of {} bytes cannot be read",
                header.kind,
                body.len()
            ))
        })
    }
}

/// flags u8, uuid 16, gno u64, type u8, last_committed u64, sequence u64 | 8.0: immediate 7 bytes, original 7 bytes if
/// bit 55 says so, transaction length as a length-encoded integer, versions.
fn plain(header: &Header, body: &[u8]) -> Option<GtidEvent> {
    let (_flags, rest) = body.split_first_chunk::<1>()?;
    let (uuid, rest) = rest.split_first_chunk::<16>()?;
    let (gno, rest) = rest.split_first_chunk::<8>()?;
    let gno = u64::from_le_bytes(*gno);
    let gtid = match header.kind {
        types::GTID => {
            let sid = Sid { uuid: Uuid::from_bytes(*uuid), tag: Tag::NONE };
            Some(Gtid { sid, gno: Some(gno).filter(|gno| (1..=crate::position::GNO_MAX).contains(gno))? })
        }
        _ => None,
    };
    let old = GtidEvent { gtid, commit: CommitTime::from_seconds(header.timestamp_s), transaction_bytes: None };
    // Logical clocks came with 5.7, commit timestamps with 8.0.1; what a server does not write is simply not there.
    let Some(rest) = rest.get(17..).filter(|rest| !rest.is_empty()) else { return Some(old) };
    let (immediate, rest) = u56(rest)?;
    let rest = if immediate & ORIGINAL_FOLLOWS == 0 { rest } else { u56(rest)?.1 };
    let commit = CommitTime::from_micros(immediate & (ORIGINAL_FOLLOWS - 1));
    let transaction_bytes = if rest.is_empty() { None } else { Some(length_encoded(rest)?) };
    Some(GtidEvent { commit, transaction_bytes, ..old })
}

fn u56(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let ([a, b, c, d, e, f, g], rest) = bytes.split_first_chunk::<7>()?;
    Some((u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, 0]), rest))
}

fn length_encoded(bytes: &[u8]) -> Option<u64> {
    let (first, rest) = bytes.split_first()?;
    let width = match first {
        0..=0xfa => return Some(u64::from(*first)),
        0xfc => 2,
        0xfd => 3,
        0xfe => 8,
        _ => return None,
    };
    Some(rest.get(..width)?.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(kind: u8) -> Header {
        Header { timestamp_s: 1_700_000_000, kind, server_id: 1, length: 79, log_pos: 300, flags: 0 }
    }

    fn body(tail: &[u8]) -> Vec<u8> {
        [&[1][..], &[7; 16], &42_u64.to_le_bytes(), &[2], &1_u64.to_le_bytes(), &2_u64.to_le_bytes(), tail].concat()
    }

    #[test]
    fn an_8_0_event_tells_time_and_length() {
        let time = 1_795_342_530_123_456_u64;
        let bytes = body(&[&time.to_le_bytes()[..7], &[0xfc, 0x10, 0x27], &[0; 4]].concat());
        let event = GtidEvent::parse(&header(types::GTID), &bytes).unwrap();
        assert_eq!(event.gtid.unwrap().to_string(), "07070707-0707-0707-0707-070707070707:42");
        assert_eq!(event.commit.micros(), time);
        assert_eq!(event.transaction_bytes, Some(10_000));
    }

    #[test]
    fn the_original_timestamp_is_stepped_over() {
        let time = 1_795_342_530_123_456_u64;
        let bytes = body(&[&(time | ORIGINAL_FOLLOWS).to_le_bytes()[..7], &[9; 7], &[200], &[0; 4]].concat());
        let event = GtidEvent::parse(&header(types::ANONYMOUS_GTID), &bytes).unwrap();
        assert_eq!((event.gtid, event.commit.micros(), event.transaction_bytes), (None, time, Some(200)));
    }

    #[test]
    fn a_5_7_event_has_seconds_and_no_length() {
        let event = GtidEvent::parse(&header(types::GTID), &body(&[])).unwrap();
        assert_eq!(event.commit.micros(), 1_700_000_000_000_000);
        assert_eq!(event.transaction_bytes, None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..120), kind in 33_u8..43) {
            let _ = GtidEvent::parse(&header(kind), &bytes);
        }
    }
}
