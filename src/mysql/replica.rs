//! The replica's words before the dump: what it is, how it wants to be treated, and from where the stream shall start.
//!
//! Owns: the session's variables, COM_REGISTER_SLAVE, COM_BINLOG_DUMP and COM_BINLOG_DUMP_GTID. Does not own: reading
//! what follows.
//!
//! MySQL and MariaDB know the variables under an old or a new name, or under both; setting a user variable that nobody
//! reads does no harm, so both are always set. The dump commands are written here byte by byte: `mysql_common` masks
//! flag bits away that servers do read.

use std::time::Duration;

use bytes::BufMut;
use mysql_common::constants::Command;
use mysql_common::packets::ComRegisterSlave;
use mysql_common::proto::MySerialize;
use uuid::Uuid;

use crate::error::{Context, Error, Result};
use crate::position::BinlogFile;

use super::connect::{Connection, RawStream};
use super::event::FIRST_EVENT;
use super::facts::{Need, with_grant};
use super::fault::server_code;

/// The stream ends, with an EOF packet, where the log ends now.
pub(super) const NON_BLOCK: u16 = 0x0001;
/// Heartbeats carry the full 64-bit position (MySQL 8.0.26 and later); on MariaDB: send annotation events.
pub(super) const HEARTBEAT_V2: u16 = 0x0002;

/// The longest host name that servers before 8.0.17 take at registration, bytes.
const REPORT_HOST_BYTES_MAX: usize = 60;
/// MySQL's longest heartbeat period, seconds.
const HEARTBEAT_SECONDS_MAX: u64 = 4_294_967;

const UNKNOWN_VARIABLE: u16 = 1193;

/// A dump to ask for.
#[derive(Debug, Clone)]
pub struct DumpRequest {
    /// Our server id: unique among the source's replicas, and not 0.
    pub server_id: u32,
    /// Our uuid. The source ends an older dump of the same uuid, so a half-dead former connection of ours goes away.
    pub replica_uuid: Uuid,
    /// What `SHOW REPLICAS` shall show; at most 60 bytes are sent.
    pub report_host: String,
    /// The same.
    pub report_port: u16,
    /// The longest silence on the stream: the source sends a heartbeat then.
    pub heartbeat: Duration,
    /// How long the source waits, while we do not read, before it gives up on us, seconds.
    pub net_write_timeout_s: u32,
    /// The binlog file's name.
    pub file: String,
    /// The position in it; 4 is its first event.
    pub position: u64,
    /// Ask by COM_BINLOG_DUMP_GTID with an empty set, which starts exactly there, also beyond 4 GiB, and sends the
    /// format description as it is on disk. The source's GTID_MODE must be ON.
    pub by_gtid: bool,
    /// End the stream where the log ends now.
    pub non_block: bool,
    /// Register, so that `SHOW REPLICAS` shows us.
    pub register: bool,
    /// Be a semi-synchronous replica, if the source has the plugin. **The start itself acknowledges everything before
    /// it** (tested on 9.7, with both commands): it must be a durable position.
    pub semi_sync: bool,
}

impl DumpRequest {
    /// A file from its first event, as a replica that nobody knows: a dump that goes on elsewhere is not disturbed.
    pub fn unknown(file: &BinlogFile) -> Self {
        let replica_uuid = Uuid::new_v4();
        let [a, b, c, d, ..] = *replica_uuid.as_bytes();
        Self {
            server_id: u32::from_be_bytes([a, b, c, d]) | 0x8000_0000,
            replica_uuid,
            report_host: String::new(),
            report_port: 0,
            heartbeat: Duration::from_secs(2),
            net_write_timeout_s: 600,
            file: file.to_string(),
            position: FIRST_EVENT,
            by_gtid: false,
            non_block: false,
            register: false,
            semi_sync: false,
        }
    }

    fn check(&self) -> Result<()> {
        if self.server_id == 0 {
            return Err(Error::config("a replica's server id must not be 0"));
        }
        if self.position < 4 {
            return Err(Error::failed(format!("{}:{} is before the first event", self.file, self.position)).definite());
        }
        Ok(())
    }

    /// The statements that prepare the session, in order.
    fn session(&self, is_mariadb: bool) -> Vec<String> {
        let seconds = self.heartbeat.as_secs().min(HEARTBEAT_SECONDS_MAX);
        let nanoseconds =
            seconds.saturating_mul(1_000_000_000).saturating_add(u64::from(self.heartbeat.subsec_nanos()));
        let uuid = self.replica_uuid.hyphenated();
        let mut statements = vec![
            format!("SET @master_heartbeat_period = {nanoseconds}, @source_heartbeat_period = {nanoseconds}"),
            // Merely marks us as one who understands checksums; events come as they are stored, whatever it says.
            "SET @master_binlog_checksum = @@global.binlog_checksum, @source_binlog_checksum = @@global.binlog_checksum"
                .to_owned(),
            format!("SET @slave_uuid = '{uuid}', @replica_uuid = '{uuid}'"),
            format!("SET SESSION net_write_timeout = {}", self.net_write_timeout_s.max(1)),
        ];
        if self.semi_sync {
            statements.push("SET @rpl_semi_sync_replica = 1, @rpl_semi_sync_slave = 1".to_owned());
        }
        if is_mariadb {
            statements.push("SET @mariadb_slave_capability = 4".to_owned());
        }
        statements
    }

    fn registration(&self) -> Vec<u8> {
        let end = (0..=REPORT_HOST_BYTES_MAX.min(self.report_host.len())).rev();
        let host = end.into_iter().find_map(|end| self.report_host.get(..end)).unwrap_or_default();
        let mut payload = Vec::new();
        ComRegisterSlave::new(self.server_id)
            .with_hostname(host.as_bytes())
            .with_port(self.report_port)
            .serialize(&mut payload);
        payload
    }

    /// The dump command.
    ///
    /// # Errors
    /// If the position needs more than 32 bits and the command has no more.
    fn command(&self) -> Result<Vec<u8>> {
        let flags = HEARTBEAT_V2 | if self.non_block { NON_BLOCK } else { 0 };
        let name = self.file.as_bytes();
        let mut payload = Vec::with_capacity(name.len().saturating_add(40));
        if self.by_gtid {
            let name_length = u32::try_from(name.len()).map_err(|_| Error::failed("the file name is too long"))?;
            payload.put_u8(Command::COM_BINLOG_DUMP_GTID as u8);
            payload.put_u16_le(flags);
            payload.put_u32_le(self.server_id);
            payload.put_u32_le(name_length);
            payload.put_slice(name);
            payload.put_u64_le(self.position);
            // The set: its length in bytes, then the number of uuids in it, none.
            payload.put_u32_le(8);
            payload.put_u64_le(0);
        } else {
            let position = u32::try_from(self.position).map_err(|_| {
                Error::failed(format!(
                    "{}:{} is beyond 4 GiB, where only the GTID command reaches",
                    self.file, self.position
                ))
                .definite()
            })?;
            payload.put_u8(Command::COM_BINLOG_DUMP as u8);
            payload.put_u32_le(position);
            payload.put_u16_le(flags);
            payload.put_u32_le(self.server_id);
            payload.put_slice(name);
        }
        Ok(payload)
    }
}

/// Introduces us as a replica and asks for the dump. The stream then carries the source's answer from its first
/// packet on; if the source refuses, that packet is an ERR packet (see [`super::ServerError::parse`]).
///
/// # Errors
/// Those of [`Connection::query`]; a definite error if the position cannot be asked for.
pub async fn start_dump(mut connection: Connection, request: &DumpRequest) -> Result<RawStream> {
    request.check()?;
    let command = request.command()?;
    for statement in request.session(connection.server_version().is_mariadb) {
        match connection.execute(&statement).await {
            // A server before 5.6 has no checksums, and then nobody needs to understand them.
            Err(error) if server_code(&error) == Some(UNKNOWN_VARIABLE) => {}
            other => {
                other.context(|| "prepare the dump".to_owned())?;
            }
        }
    }
    if request.register {
        // Refused with the same code as a wrong password, but we are logged in: it is the privilege.
        if let Err(error) = connection.command(&request.registration(), "register as a replica").await {
            return Err(with_grant(&mut connection, error, Need::Slave).await);
        }
    }
    connection.write_command(&command).await?;
    Ok(connection.into_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> DumpRequest {
        DumpRequest {
            server_id: 0x0102_0304,
            replica_uuid: Uuid::from_u128(1),
            report_host: "agent".to_owned(),
            report_port: 3306,
            heartbeat: Duration::from_millis(2500),
            net_write_timeout_s: 600,
            file: "b.1".to_owned(),
            position: 4,
            by_gtid: true,
            non_block: false,
            register: true,
            semi_sync: false,
        }
    }

    #[test]
    fn the_commands_are_laid_out_as_servers_read_them() {
        let gtid = DumpRequest { position: 0x1_0000_0004, ..request() }.command().unwrap();
        assert_eq!(gtid, b"\x1e\x02\0\x04\x03\x02\x01\x03\0\0\0b.1\x04\0\0\0\x01\0\0\0\x08\0\0\0\0\0\0\0\0\0\0\0");
        let plain = DumpRequest { by_gtid: false, non_block: true, ..request() }.command().unwrap();
        assert_eq!(plain, b"\x12\x04\0\0\0\x03\0\x04\x03\x02\x01b.1");
        let register = request().registration();
        assert_eq!(register, b"\x15\x04\x03\x02\x01\x05agent\0\0\xea\x0c\0\0\0\0\0\0\0\0");
    }

    #[test]
    fn a_position_that_the_old_command_cannot_say_is_an_error() {
        let error = DumpRequest { by_gtid: false, position: 1 << 32, ..request() }.command().unwrap_err();
        assert!(!error.is_retryable());
        assert!(DumpRequest { position: 3, ..request() }.check().is_err());
        assert!(DumpRequest { server_id: 0, ..request() }.check().is_err());
    }

    #[test]
    fn the_session_is_told_by_old_and_new_names() {
        let statements = request().session(false).join(";");
        for name in [
            "@master_heartbeat_period = 2500000000",
            "@source_heartbeat_period = 2500000000",
            "@master_binlog_checksum",
            "@source_binlog_checksum",
            "@slave_uuid = '00000000-0000-0000-0000-000000000001'",
            "@replica_uuid = '00000000-0000-0000-0000-000000000001'",
            "net_write_timeout = 600",
        ] {
            assert!(statements.contains(name), "{name} is not in {statements}");
        }
        assert!(!statements.contains("mariadb") && !statements.contains("semi_sync"));
        let semi_sync = DumpRequest { semi_sync: true, ..request() }.session(false).join(";");
        assert!(semi_sync.contains("SET @rpl_semi_sync_replica = 1, @rpl_semi_sync_slave = 1"), "{semi_sync}");
    }

    #[test]
    fn a_long_host_is_cut_between_characters() {
        let long = DumpRequest { report_host: "ü".repeat(40), ..request() }.registration();
        assert_eq!(long[5], 60);
        let odd = DumpRequest { report_host: format!("a{}", "ü".repeat(40)), ..request() }.registration();
        assert_eq!(odd[5], 59);
    }
}
