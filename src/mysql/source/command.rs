//! The commands of a replica. Pure.
//!
//! Layouts: MySQL's documented protocol. COM_BINLOG_DUMP: position u32, flags u16, server id u32, file name to the end.
//! COM_BINLOG_DUMP_GTID: flags u16, server id u32, name length u32, name, position u64, set length u32, set.

use mysql_common::constants::Command as Code;

use crate::mysql::replica::{HEARTBEAT_V2, NON_BLOCK};
use crate::mysql::wire::Reader;
use crate::position::{GtidSet, decode_set};

/// Longest file name taken, in bytes.
const NAME_BYTES_MAX: usize = 512;

/// A dump that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The asking replica's id; `mysqlbinlog` says 0.
    pub server_id: u32,
    /// The file, without any folder; empty: the first one, or (with a set) the one that the set leads to.
    pub file: String,
    /// The position in it.
    pub position: u64,
    /// End where the log ends now.
    pub non_block: bool,
    /// Heartbeats may have the 64-bit form.
    pub heartbeat_v2: bool,
    /// Auto-positioning: what the replica has; `None`: by file and position.
    pub gtids: Option<GtidSet>,
}

/// What a client says once it is logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command<'a> {
    Quit,
    Ping,
    InitDb,
    Query(&'a [u8]),
    Register {
        server_id: u32,
    },
    Dump(Ask),
    /// One that we do not know.
    Other,
    /// One that is cut short or impossible.
    Malformed,
}

impl<'a> Command<'a> {
    pub(super) fn parse(payload: &'a [u8]) -> Self {
        let Some((code, body)) = payload.split_first() else { return Self::Malformed };
        let dump = |ask: Option<Ask>| ask.map_or(Self::Malformed, Self::Dump);
        match *code {
            code if code == Code::COM_QUIT as u8 => Self::Quit,
            code if code == Code::COM_PING as u8 => Self::Ping,
            code if code == Code::COM_INIT_DB as u8 => Self::InitDb,
            code if code == Code::COM_QUERY as u8 => Self::Query(body),
            code if code == Code::COM_REGISTER_SLAVE as u8 => {
                u32(&mut Reader(body)).map_or(Self::Malformed, |server_id| Self::Register { server_id })
            }
            code if code == Code::COM_BINLOG_DUMP as u8 => dump(by_position(Reader(body))),
            code if code == Code::COM_BINLOG_DUMP_GTID as u8 => dump(by_gtid(Reader(body))),
            _ => Self::Other,
        }
    }
}

fn u32(input: &mut Reader<'_>) -> Option<u32> {
    input.bytes(4)?.try_into().ok().map(u32::from_le_bytes)
}

fn name(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok().filter(|name| name.len() <= NAME_BYTES_MAX)?;
    // Relay logs hold the bare name; an index may have "./" before it.
    Some(text.trim_end_matches('\0').trim_start_matches("./").to_owned())
}

fn by_position(mut input: Reader<'_>) -> Option<Ask> {
    let (position, flags, server_id) = (u32(&mut input)?, input.u16()?, u32(&mut input)?);
    Some(Ask {
        server_id,
        file: name(input.0)?,
        position: u64::from(position),
        // Without an id of its own it cannot be a replica that waits.
        non_block: flags & NON_BLOCK != 0 || server_id == 0,
        heartbeat_v2: flags & HEARTBEAT_V2 != 0,
        gtids: None,
    })
}

fn by_gtid(mut input: Reader<'_>) -> Option<Ask> {
    let (flags, server_id) = (input.u16()?, u32(&mut input)?);
    let length = usize::try_from(u32(&mut input)?).ok()?;
    let file = name(input.bytes(length)?)?;
    let position = input.bytes(8)?.try_into().ok().map(u64::from_le_bytes)?;
    let length = usize::try_from(u32(&mut input)?).ok()?;
    let gtids = decode_set(input.bytes(length)?).ok()?;
    Some(Ask {
        server_id,
        file,
        position,
        non_block: flags & NON_BLOCK != 0 || server_id == 0,
        heartbeat_v2: flags & HEARTBEAT_V2 != 0,
        gtids: Some(gtids),
    })
}

#[cfg(test)]
mod tests {
    use mysql_common::packets::{ComBinlogDumpGtid, ComRegisterSlave, GnoInterval, Sid};
    use mysql_common::proto::MySerialize;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_dump_commands_are_read() {
        let Command::Dump(ask) = Command::parse(b"\x12\x9d\0\0\0\x02\0\x04\x03\x02\x01binlog.000007") else { panic!() };
        assert_eq!((ask.server_id, ask.position, ask.file.as_str()), (0x0102_0304, 157, "binlog.000007"));
        assert!(ask.heartbeat_v2 && !ask.non_block && ask.gtids.is_none());
        let Command::Dump(ask) = Command::parse(b"\x12\x04\0\0\0\0\0\0\0\0\0") else { panic!() };
        assert!(ask.non_block && ask.file.is_empty(), "an id of 0 does not wait");
    }

    #[test]
    fn the_set_of_another_implementation_is_read() {
        let uuid = [7; 16];
        let mut payload = Vec::new();
        ComBinlogDumpGtid::new(9)
            .with_pos(1_u64 << 33)
            .with_filename(&b"b.1"[..])
            .with_sids(vec![Sid::new(uuid).with_intervals(vec![GnoInterval::new(1, 6)])])
            .serialize(&mut payload);
        let Command::Dump(ask) = Command::parse(&payload) else { panic!("{payload:x?}") };
        assert_eq!((ask.server_id, ask.position, ask.file.as_str()), (9, 1 << 33, "b.1"));
        assert_eq!(ask.gtids.unwrap().to_string(), "07070707-0707-0707-0707-070707070707:1-5");
    }

    #[test]
    fn the_small_commands_are_read() {
        let mut register = Vec::new();
        ComRegisterSlave::new(77).serialize(&mut register);
        assert_eq!(Command::parse(&register), Command::Register { server_id: 77 });
        assert_eq!(Command::parse(b"\x03SELECT 1"), Command::Query(b"SELECT 1"));
        assert_eq!(Command::parse(b"\x0e"), Command::Ping);
        assert_eq!(Command::parse(b"\x01"), Command::Quit);
        assert_eq!(Command::parse(b"\x17"), Command::Other);
        assert_eq!(Command::parse(b""), Command::Malformed);
        assert_eq!(Command::parse(b"\x12\x04\0"), Command::Malformed);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_or_refused(code in 0_u8..40, body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Command::parse(&body);
            let _ = Command::parse(&[&[code], &body[..]].concat());
        }
    }
}
