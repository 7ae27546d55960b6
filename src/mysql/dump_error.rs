//! What the server says when it refuses or ends a dump: error 1236 for nearly everything, so the text decides.

use crate::error::{Error, Kind};

/// Reads an error packet (behind its `ff`) of a dump.
pub(super) fn dump_error(packet: &[u8]) -> Error {
    let Some((code, rest)) = packet.split_first_chunk::<2>() else {
        return Error::corrupt("the server sent an error packet that is cut short");
    };
    let text = rest.strip_prefix(b"#").and_then(|rest| rest.get(5..)).unwrap_or(rest);
    let text: String = String::from_utf8_lossy(text).chars().take(2000).collect();
    classify(u16::from_le_bytes(*code), &text)
}

/// The beginnings of the server's texts, in the order they are looked for, as seen on 5.6 to 9.7 servers.
const TEXTS: &[(&str, Kind, bool, &str)] = &[
    (
        "with the same server_uuid/server_id",
        Kind::Clash,
        false,
        "another agent runs with the same archive and agent.id: stop it, or give this one its own agent.id",
    ),
    (
        "purged required binary logs",
        Kind::Purged,
        false,
        "raise binlog_expire_logs_seconds on the server; a fresh base backup has to close the gap",
    ),
    // Passing, since the list that the agent chose from was older: asked anew, the server's list decides.
    (
        "Could not find first log file name",
        Kind::Purged,
        true,
        "the server has purged or reset its binlogs, or is another server: compare SHOW BINARY LOGS with `binvault list`",
    ),
    ("could not find next log", Kind::Diverged, false, "the server's binlogs were reset or removed by hand"),
    (
        "position > file size",
        Kind::Diverged,
        false,
        "the server lost binlog that was archived (crash with sync_binlog <> 1?)",
    ),
    (
        "impossible position",
        Kind::Diverged,
        false,
        "the server lost binlog that was archived (crash with sync_binlog <> 1?)",
    ),
    ("more GTIDs than the source", Kind::Diverged, false, "the server lost transactions that were archived"),
    ("Binary log is not open", Kind::Unfit, false, "start the server with log_bin"),
    ("server_id is 0", Kind::Unfit, false, "SET PERSIST server_id = <a number that no other server has>"),
    // Nothing can read these events from a server in GTID_MODE = ON. Passing, because whoever lowers the mode mends it.
    (
        "Cannot replicate anonymous transaction",
        Kind::Unfit,
        true,
        "gtid_mode was raised to ON before its anonymous transactions were archived: SET GLOBAL gtid_mode = ON_PERMISSIVE until `binvault status` shows no lag, then ON",
    ),
    ("AUTO_POSITION mode", Kind::Failed, true, "gtid_mode was changed on the server: the agent starts again"),
    ("bogus data in log event", Kind::Corrupt, false, "the server's binlog is damaged, or was exchanged by hand"),
    (
        "truncated in the middle of event",
        Kind::Corrupt,
        true,
        "the server's binlog is damaged, or still being repaired",
    ),
    (
        "did not pass crc check",
        Kind::Corrupt,
        false,
        "the server's binlog is damaged: mysqlbinlog --verify-binlog-checksum",
    ),
    (
        "I/O error reading log event",
        Kind::Diverged,
        true,
        "the server cannot read its binlog there: reset, or a bad disk",
    ),
    ("exceeded max_allowed_packet", Kind::Corrupt, false, "the server's binlog is damaged at that place"),
];

/// Sorts an error of a dump by its code and text.
pub(crate) fn classify(code: u16, text: &str) -> Error {
    let message = format!("the server ends the dump: error {code}: {text}");
    match code {
        1045 | 1227 | 1142 => {
            return Error::new(Kind::Refused, message)
                .hint("GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO the account");
        }
        // 1053: server shutdown in progress
        1053 => return Error::new(Kind::Unreachable, message),
        _ => {}
    }
    match TEXTS.iter().find(|(begin, ..)| text.contains(begin)) {
        Some((_, kind, retryable, hint)) => {
            let error = Error::new(*kind, message).hint(*hint);
            if *retryable { error.transient() } else { error.definite() }
        }
        None => Error::failed(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_decide() {
        let packet =
            [&1236_u16.to_le_bytes()[..], b"#HY000Could not find first log file name in binary log index file"]
                .concat();
        let error = dump_error(&packet);
        assert_eq!(error.kind(), Kind::Purged);
        assert!(error.is_retryable(), "purged between the list and the dump: the list decides");
        assert!(error.to_string().contains("1236: Could not find"), "{error}");
        let anonymous =
            "Cannot replicate anonymous transaction when AUTO_POSITION = 1, at file ./b.000003, position 407.";
        let error = classify(1236, anonymous);
        assert_eq!((error.kind(), error.is_retryable()), (Kind::Unfit, true));
        assert!(error.hint_text().unwrap().contains("ON_PERMISSIVE"), "{error:?}");
        assert_eq!(classify(1236, "something new").kind(), Kind::Failed);
        assert_eq!(dump_error(b"x").kind(), Kind::Corrupt);
    }
}
