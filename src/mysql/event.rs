//! Binlog events as far as an archiver looks into them. Pure.
//!
//! Owns: the 19-byte header, and the few bodies that steer archiving (format description, rotate, GTID in its three
//! forms, previous GTIDs, and the first words of a query).
//! Does not own: rows. Everything else is bytes to be kept verbatim, whatever it means.
//!
//! Invariants: nothing here panics on any input; a body that does not parse is an error, never skipped.
//! Layouts: MySQL's documented replication protocol, checked on 5.6 to 9.7 servers.

mod gtid_event;
mod tagged;
mod transaction_end;

use crate::error::{Error, Result};
use crate::position::{BinlogFile, ChecksumAlgorithm};

pub use gtid_event::GtidEvent;
pub use transaction_end::TransactionEnd;

/// Bytes in an event header.
pub const HEADER_BYTES: usize = 19;
/// Bytes of the CRC32 at an event's end, where the file has checksums.
pub const CHECKSUM_BYTES: usize = 4;
/// What every binlog file begins with.
pub const MAGIC: [u8; 4] = [0xfe, b'b', b'i', b'n'];
/// Offset of the first event in a file.
pub const FIRST_EVENT: u64 = 4;
/// Largest event a server writes: `max_allowed_packet` and the dump's own limit are 1 GiB.
pub const EVENT_BYTES_MAX: u32 = 1 << 30;

/// Event types, by their numbers on the wire.
pub mod types {
    /// Statement, BEGIN, COMMIT, DDL.
    pub const QUERY: u8 = 2;
    /// Last event of a file that a shutdown ended.
    pub const STOP: u8 = 3;
    /// Last event of a rotated file, or (artificial) the announcement of the file to come.
    pub const ROTATE: u8 = 4;
    /// First event of every file.
    pub const FORMAT_DESCRIPTION: u8 = 15;
    /// Commit of a transactional engine.
    pub const XID: u8 = 16;
    /// "Still here"; never in a file.
    pub const HEARTBEAT: u8 = 27;
    /// Begin of a transaction with a GTID.
    pub const GTID: u8 = 33;
    /// Begin of a transaction without.
    pub const ANONYMOUS_GTID: u8 = 34;
    /// What was executed before this file.
    pub const PREVIOUS_GTIDS: u8 = 35;
    /// XA PREPARE: ends its part of the transaction.
    pub const XA_PREPARE: u8 = 38;
    /// "Still here" with a 64-bit position (8.0.26 and later); never in a file.
    pub const HEARTBEAT_V2: u8 = 41;
    /// Begin of a transaction with a tagged GTID (8.3 and later).
    pub const TAGGED_GTID: u8 = 42;
}

/// Header flag: the event was made up for the connection, it is in no file.
pub const FLAG_ARTIFICIAL: u16 = 0x20;
/// Header flag of the format description: the file is being written. Cleared on the wire and in closed files.
pub const FLAG_IN_USE: u16 = 0x01;

/// An event's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Seconds since 1970; 0 in artificial events.
    pub timestamp_s: u32,
    /// The type, see [`types`].
    pub kind: u8,
    /// The originating server's id.
    pub server_id: u32,
    /// Bytes of the whole event, header and checksum included.
    pub length: u32,
    /// End of the event in its file, the low 32 bits; 0 where the server does not say.
    pub log_pos: u32,
    /// Flags, see the `FLAG_` constants.
    pub flags: u16,
}

impl Header {
    /// Reads a header from the first bytes of an event; `None` if there are fewer than [`HEADER_BYTES`].
    pub fn parse(event: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_BYTES] = event.first_chunk()?;
        let [t0, t1, t2, t3, kind, s0, s1, s2, s3, l0, l1, l2, l3, p0, p1, p2, p3, f0, f1] = *bytes;
        Some(Self {
            timestamp_s: u32::from_le_bytes([t0, t1, t2, t3]),
            kind,
            server_id: u32::from_le_bytes([s0, s1, s2, s3]),
            length: u32::from_le_bytes([l0, l1, l2, l3]),
            log_pos: u32::from_le_bytes([p0, p1, p2, p3]),
            flags: u16::from_le_bytes([f0, f1]),
        })
    }

    /// Whether this is a heartbeat of either form.
    pub fn is_heartbeat(&self) -> bool {
        matches!(self.kind, types::HEARTBEAT | types::HEARTBEAT_V2)
    }

    /// Whether the server made this event up for the connection: an artificial ROTATE. MySQL gives those timestamp 0,
    /// position 0 and the artificial flag; a real ROTATE has its time.
    pub fn is_artificial_rotate(&self) -> bool {
        self.kind == types::ROTATE
            && (self.flags & FLAG_ARTIFICIAL != 0 || (self.timestamp_s == 0 && self.log_pos == 0))
    }
}

/// What a format description event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatDescription {
    /// Header timestamp: when the file was begun. Names the incarnation.
    pub timestamp_s: u32,
    /// The server's version, as it writes it (`9.7.4-debug`, say).
    pub server_version: String,
    /// How the events that follow are protected. The event itself always carries a CRC32.
    pub checksum: ChecksumAlgorithm,
}

impl FormatDescription {
    /// Reads a whole event, header included.
    ///
    /// # Errors
    /// If it is too short, of another binlog version than 4, or names an unknown checksum algorithm.
    pub fn parse(event: &[u8]) -> Result<Self> {
        let wrong = |why: &str| Error::corrupt(format!("format description event: {why}"));
        let header = Header::parse(event).ok_or_else(|| wrong("shorter than a header"))?;
        let body = event.get(HEADER_BYTES..).unwrap_or(&[]);
        let (version, rest) = body.split_first_chunk::<2>().ok_or_else(|| wrong("cut short"))?;
        if u16::from_le_bytes(*version) != 4 {
            return Err(wrong("not of binlog version 4"));
        }
        let (server_version, rest) = rest.split_first_chunk::<50>().ok_or_else(|| wrong("cut short"))?;
        let length = server_version.iter().position(|b| *b == 0).unwrap_or(server_version.len());
        let text = server_version.get(..length).unwrap_or(&[]);
        // created u32, header length u8, a table of lengths, algorithm u8, CRC32
        if rest.len() < 5 + 1 + CHECKSUM_BYTES {
            return Err(wrong("cut short"));
        }
        let algorithm = rest.len().checked_sub(CHECKSUM_BYTES + 1).and_then(|at| rest.get(at));
        let checksum = match algorithm {
            Some(0) => ChecksumAlgorithm::None,
            Some(1) => ChecksumAlgorithm::Crc32,
            other => return Err(wrong(&format!("unknown checksum algorithm {other:?}"))),
        };
        let server_version = String::from_utf8_lossy(text).into_owned();
        Ok(Self { timestamp_s: header.timestamp_s, server_version, checksum })
    }
}

/// What a rotate event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotate {
    /// The file that comes next (real) or whose events follow (artificial).
    pub file: BinlogFile,
    /// Where they begin.
    pub position: u64,
}

impl Rotate {
    /// Reads the body: what stands between header and checksum.
    ///
    /// # Errors
    /// If it is too short or the name is no binlog file name.
    pub fn parse(body: &[u8]) -> Result<Self> {
        let wrong = |why: String| Error::corrupt(format!("rotate event: {why}"));
        let (position, name) = body.split_first_chunk::<8>().ok_or_else(|| wrong("cut short".into()))?;
        let name = std::str::from_utf8(name).map_err(|_| wrong("file name is no text".into()))?;
        // The server's index may hold paths; the wire form is bare, but a leading "./" is harmless.
        let file = BinlogFile::new(name.trim_start_matches("./")).map_err(|e| wrong(e.to_string()))?;
        Ok(Self { file, position: u64::from_le_bytes(*position) })
    }
}

/// Whether an event's CRC32 (its last four bytes) is right.
pub fn checksum_holds(event: &[u8]) -> bool {
    match event.split_last_chunk::<CHECKSUM_BYTES>() {
        Some((data, crc)) => crc32fast::hash(data) == u32::from_le_bytes(*crc),
        None => false,
    }
}

/// An artificial rotate's body without the checksum that may or may not be there.
///
/// Whether the server adds one depends on what the connection asked for and on the former file, so it is found by
/// looking: four bytes that are the right CRC32 of the rest are one.
pub fn artificial_body(event: &[u8]) -> &[u8] {
    let end = if checksum_holds(event) { event.len().saturating_sub(CHECKSUM_BYTES) } else { event.len() };
    event.get(HEADER_BYTES..end).unwrap_or(&[])
}

/// What a query event does to the transaction around it. Needed only for servers whose GTID events do not tell the
/// transaction's length (before MySQL 8.0.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryRole {
    /// BEGIN or XA START: more events follow.
    Begin,
    /// COMMIT, ROLLBACK: the transaction ends here.
    End,
    /// SAVEPOINT, ROLLBACK TO, XA END and statements inside a transaction.
    Inside,
}

/// Judges a query event by its text. `body` begins behind the header and may be cut anywhere behind the first words.
/// Inside a transaction (`after_begin`) a plain statement is a part of it; outside it is a transaction by itself.
pub fn query_role(body: &[u8], after_begin: bool) -> Option<QueryRole> {
    let schema = usize::from(*body.get(8)?);
    let status = usize::from(u16::from_le_bytes([*body.get(11)?, *body.get(12)?]));
    let text = body.get(13 + status + schema + 1..)?;
    let words = text.get(..32).unwrap_or(text).to_ascii_uppercase();
    let is = |word: &[u8]| words.starts_with(word);
    Some(if is(b"BEGIN") || is(b"XA START") || is(b"XA BEGIN") || is(b"START TRANSACTION") {
        QueryRole::Begin
    } else if is(b"ROLLBACK TO") || is(b"SAVEPOINT") || is(b"XA END") || is(b"RELEASE") {
        QueryRole::Inside
    } else if is(b"COMMIT") || is(b"ROLLBACK") || !after_begin {
        QueryRole::End
    } else {
        QueryRole::Inside
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rotate_event(flags: u16, timestamp: u32, name: &str, crc: bool) -> Vec<u8> {
        let mut event = timestamp.to_le_bytes().to_vec();
        event.push(types::ROTATE);
        event.extend(1_u32.to_le_bytes());
        event.extend([0; 4]);
        event.extend([0; 4]);
        event.extend(flags.to_le_bytes());
        event.extend(4_u64.to_le_bytes());
        event.extend(name.as_bytes());
        if crc {
            let sum = crc32fast::hash(&event);
            event.extend(sum.to_le_bytes());
        }
        event
    }

    #[test]
    fn artificial_rotates_are_read_with_and_without_checksum() {
        for crc in [false, true] {
            let event = rotate_event(FLAG_ARTIFICIAL, 0, "binlog.000007", crc);
            assert!(Header::parse(&event).unwrap().is_artificial_rotate());
            let rotate = Rotate::parse(artificial_body(&event)).unwrap();
            assert_eq!((rotate.file.as_str(), rotate.position), ("binlog.000007", 4));
        }
        assert!(!Header::parse(&rotate_event(0, 1_700_000_000, "binlog.000007", true)).unwrap().is_artificial_rotate());
    }

    #[test]
    fn query_roles() {
        let query = |text: &str| [&[0; 8][..], &[2, 0, 0, 3, 0], b"vvv", b"db\0", text.as_bytes()].concat();
        assert_eq!(query_role(&query("BEGIN"), false), Some(QueryRole::Begin));
        assert_eq!(query_role(&query("COMMIT"), true), Some(QueryRole::End));
        assert_eq!(query_role(&query("create table t (a int)"), false), Some(QueryRole::End));
        assert_eq!(query_role(&query("INSERT INTO t VALUES (1)"), true), Some(QueryRole::Inside));
        assert_eq!(query_role(&query("ROLLBACK TO `a`"), true), Some(QueryRole::Inside));
        assert_eq!(query_role(&query("XA START X'61',X'',1"), false), Some(QueryRole::Begin));
        assert_eq!(query_role(&[0; 5], true), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_or_refused(event in prop::collection::vec(any::<u8>(), 0..200), inside: bool) {
            let _ = Header::parse(&event);
            let _ = FormatDescription::parse(&event);
            let _ = Rotate::parse(&event);
            let _ = Rotate::parse(artificial_body(&event));
            let _ = query_role(&event, inside);
        }
    }
}
