//! The questions that replicas and `mysqlbinlog` ask before a dump, and what they set. Pure.
//!
//! Whatever is not known here gets error 1193 (unknown variable): a replica's probe for semi-sync must fail, or it would
//! expect two more bytes before each event.

use std::time::Duration;

use uuid::Uuid;

use super::{Face, Refusal};

/// Longest question taken, in bytes.
const TEXT_BYTES_MAX: usize = 64 << 10;

/// What a client has told about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replica {
    /// Its server id, from its registration.
    pub server_id: Option<u32>,
    /// Its uuid.
    pub uuid: Option<Uuid>,
    /// The longest silence it wants; `None`: it wants no heartbeats.
    pub heartbeat: Option<Duration>,
    /// Whether artificial events before the first file carry a CRC32; `None`: it does not know checksums.
    pub checksums: Option<bool>,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Ok,
    /// One row of one column.
    Row {
        column: String,
        value: Option<String>,
    },
    Refused(Refusal),
}

/// Answers one statement.
pub(super) fn answer(text: &[u8], face: &Face, replica: &mut Replica, now_s: u64) -> Answer {
    let Some(text) = std::str::from_utf8(text).ok().filter(|text| text.len() <= TEXT_BYTES_MAX) else {
        return unknown("that");
    };
    let text = text.trim().trim_end_matches(';').trim_end();
    if let Some(assignments) = word(text, "SET") {
        set(assignments, replica);
        return Answer::Ok;
    }
    let Some(asked) = word(text, "SELECT") else { return unknown(text) };
    let yes = |value: String| Answer::Row { column: asked.to_owned(), value: Some(value) };
    let checksum = |on: bool| if on { "CRC32" } else { "NONE" }.to_owned();
    match asked.to_ascii_lowercase().as_str() {
        "unix_timestamp()" => yes(now_s.to_string()),
        "version()" | "@@version" | "@@global.version" => yes(face.server_version.clone()),
        "@@version_comment limit 1" | "@@global.version_comment" => yes("binvault archive".to_owned()),
        "@@global.server_id" | "@@server_id" => yes(face.server_id.to_string()),
        "@@global.server_uuid" | "@@server_uuid" => yes(face.server_uuid.to_string()),
        "@@global.gtid_mode" => yes(if face.gtid_mode { "ON" } else { "OFF" }.to_owned()),
        "@@global.binlog_checksum" => yes(checksum(true)),
        "@source_binlog_checksum" | "@master_binlog_checksum" => {
            Answer::Row { column: asked.to_owned(), value: replica.checksums.map(checksum) }
        }
        _ => unknown(asked),
    }
}

fn unknown(what: &str) -> Answer {
    let what: String = what.chars().filter(|c| !c.is_control()).take(80).collect();
    let text = format!("this is an archive that answers replicas and mysqlbinlog only; it does not know '{what}'");
    Answer::Refused(Refusal::new(1193, b"HY000", text))
}

/// What follows a first word.
fn word<'a>(text: &'a str, wanted: &str) -> Option<&'a str> {
    let (first, rest) = text.split_once(|c: char| c.is_whitespace())?;
    first.eq_ignore_ascii_case(wanted).then(|| rest.trim_start())
}

/// Takes assignments, several with commas between. What we have no use for is ignored: setting it does no harm.
fn set(assignments: &str, replica: &mut Replica) {
    for assignment in assignments.split(',') {
        let Some((name, value)) = assignment.split_once('=') else { continue };
        let value = value.trim().trim_matches(['\'', '"']);
        match name.trim().trim_end_matches(':').trim_end().to_ascii_lowercase().as_str() {
            "@master_heartbeat_period" | "@source_heartbeat_period" => {
                replica.heartbeat = value.parse().ok().filter(|ns| *ns > 0).map(Duration::from_nanos);
            }
            "@master_binlog_checksum" | "@source_binlog_checksum" => {
                // Our own, which clients refer to as @@global.binlog_checksum, is CRC32.
                replica.checksums = Some(!value.eq_ignore_ascii_case("NONE"));
            }
            "@slave_uuid" | "@replica_uuid" => replica.uuid = Uuid::try_parse(value).ok().or(replica.uuid),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn face() -> Face {
        Face { server_version: "9.7.4".into(), server_id: 8, server_uuid: Uuid::from_u128(5), gtid_mode: true }
    }

    fn ask(text: &str, replica: &mut Replica) -> Answer {
        answer(text.as_bytes(), &face(), replica, 1_795_342_530)
    }

    #[test]
    fn a_replica_hears_what_it_asks_for() {
        let mut replica = Replica::default();
        for (question, expected) in [
            ("SELECT UNIX_TIMESTAMP()", "1795342530"),
            ("SELECT @@GLOBAL.SERVER_ID", "8"),
            ("SELECT @@GLOBAL.GTID_MODE", "ON"),
            ("SELECT @@GLOBAL.SERVER_UUID", "00000000-0000-0000-0000-000000000005"),
            ("SELECT VERSION()", "9.7.4"),
            ("  select version() ;", "9.7.4"),
        ] {
            let Answer::Row { value, .. } = ask(question, &mut replica) else { panic!("{question}") };
            assert_eq!(value.as_deref(), Some(expected), "{question}");
        }
        for unknown in
            ["SELECT @@global.rpl_semi_sync_source_enabled", "SHOW BINARY LOGS", "DROP DATABASE x", "", "SELECT"]
        {
            assert!(matches!(ask(unknown, &mut replica), Answer::Refused(Refusal { code: 1193, .. })), "{unknown}");
        }
    }

    #[test]
    fn what_is_set_is_remembered() {
        let mut replica = Replica::default();
        let heartbeat = "SET @master_heartbeat_period = 30000001024, @source_heartbeat_period = 30000001024";
        assert_eq!(ask(heartbeat, &mut replica), Answer::Ok);
        assert_eq!(replica.heartbeat, Some(Duration::from_nanos(30_000_001_024)));
        let checksum = "SET @master_binlog_checksum = @@global.binlog_checksum, @source_binlog_checksum = @@global.binlog_checksum";
        let asked = "SELECT @source_binlog_checksum";
        for (statement, expected) in
            [(checksum, "CRC32"), ("SET @master_binlog_checksum='NONE', @source_binlog_checksum='NONE'", "NONE")]
        {
            ask(statement, &mut replica);
            let Answer::Row { value, .. } = ask(asked, &mut replica) else { panic!() };
            assert_eq!(value.as_deref(), Some(expected));
        }
        ask("SET @slave_uuid = '3e11fa47-71ca-11e1-9e33-c80aa9429562', @replica_uuid = 'x'", &mut replica);
        assert!(replica.uuid.is_some());
        ask("SET @source_heartbeat_period = 0", &mut replica);
        assert_eq!(replica.heartbeat, None);
    }

    proptest! {
        #[test]
        fn any_text_is_answered(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "(SET|SELECT) [@a-z_=',. 0-9]{0,80}") {
            let _ = answer(&bytes, &face(), &mut Replica::default(), 0);
            let _ = ask(&text, &mut Replica::default());
        }
    }
}
