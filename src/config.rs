//! Configuration: file + environment + flags → [`RawConfig`] → [`Config`], checked once, every default once.
//!
//! Owns: names, defaults and meaning of every setting, and where secrets come from.
//! Does not own: the parts' own options types; it fills them.
//!
//! Invariants: an unknown name is an error, never ignored; a secret is never shown; commands that need no source or no
//! recipients do not ask for them.

mod base;
mod load;
mod metrics;
mod notify;
mod purge_guard;
mod raw;
mod restore;
mod retention;
mod sample;
mod semi_sync;
mod serve;
mod spool;
mod values;
mod verify;

use std::time::Duration;

use secrecy::ExposeSecret as _;
use uuid::Uuid;

use crate::chunk::compress::CompressOptions;
use crate::chunk::keys::Recipients;
use crate::error::{Error, Result};
use crate::mysql::{Address, SourceOptions, TlsOptions};
use crate::ship::ShipOptions;
use crate::store::StoreOptions;
use crate::store::disk::DiskOptions;
use crate::store::s3::{Checksums, PutIfAbsent, S3Options, Sse};

pub use base::{RawBase, RawBaseCommand, RestoreCommand, RestoreInto};
pub use load::load;
pub(crate) use load::read_text;
pub use metrics::{ObserveOptions, RawMetrics};
pub use notify::RawNotify;
pub use purge_guard::{PurgeOptions, RawPurgeGuard};
pub use raw::{LogFormat, RawConfig, StartAt};
pub use restore::{Objectives, server_options};
pub use sample::sample;
pub use semi_sync::{RawSemiSync, SemiSyncMode, SemiSyncOptions};
pub use serve::{RawServe, ServeSettings};
pub use spool::RawSpool;
pub use values::{parse_size, read_secret};
pub use verify::{RawVerify, VerifyOptions};

/// What the whole program goes by.
#[derive(Debug, Clone)]
pub struct Config {
    raw: RawConfig,
}

/// How the agent follows its source.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// Name of this agent among those of the archive.
    pub id: String,
    /// Where an empty archive begins.
    pub start: StartAt,
    /// Replica's server id; `None`: derived from the replica uuid.
    pub server_id: Option<u32>,
    /// Host shown by SHOW REPLICAS.
    pub report_host: String,
    /// Port shown by SHOW REPLICAS.
    pub report_port: u16,
    /// `net_write_timeout` of the dump, seconds.
    pub net_write_timeout_s: u32,
    /// Time between beacons.
    pub beacon_interval: Duration,
    /// Time between questions on the second connection.
    pub poll_interval: Duration,
    /// Accept a server that the archive does not know.
    pub adopt: bool,
    /// Accept one that shares the archived history, although not all of it.
    pub failover: bool,
}

/// Namespace of agents' replica uuids.
const AGENT_NAMESPACE: Uuid = Uuid::from_u128(0x6e9d_6c1c_52d5_4b4e_9d4c_8d2f_1a0b_7c33);

impl AgentOptions {
    /// This agent's replica uuid: fixed for an archive and an agent id, wherever the agent runs.
    pub fn replica_uuid(&self, archive: Uuid) -> Uuid {
        Uuid::new_v5(&AGENT_NAMESPACE, format!("{archive}/{}", self.id).as_bytes())
    }

    /// This agent's replica server id: configured, or derived from the uuid, in the upper half of the numbers, where
    /// people rarely choose theirs.
    pub fn replica_server_id(&self, archive: Uuid) -> u32 {
        let [a, b, c, d, ..] = *self.replica_uuid(archive).as_bytes();
        self.server_id.unwrap_or_else(|| u32::from_be_bytes([a, b, c, d]) | 0x8000_0000)
    }
}

impl Config {
    /// Checks what can be checked without asking anybody.
    ///
    /// # Errors
    /// [`crate::error::Kind::Config`], naming the setting.
    pub fn new(raw: RawConfig) -> Result<Self> {
        let config = Self { raw };
        config.store(false)?;
        config.ship()?;
        config.semi_sync()?;
        config.spool()?;
        config.observe()?;
        config.upkeep_schedules()?;
        config.purge_guard()?;
        config.agent(false)?;
        config.base(None)?;
        config.base_restore()?;
        if config.has_source() {
            // The password's file need not be where one only reads the archive.
            config.source_but_password()?;
        }
        Ok(config)
    }

    /// Whether a source is configured.
    pub fn has_source(&self) -> bool {
        let source = &self.raw.source;
        source.url.is_some() || source.socket.is_some() || !source.urls.0.is_empty()
    }

    /// The server to follow, and the others of its cluster.
    ///
    /// # Errors
    /// If none is configured, or it cannot be understood.
    pub fn source(&self) -> Result<SourceOptions> {
        let source = &self.raw.source;
        let mut options = self.source_but_password()?;
        let given = values::one_secret("source.password", &source.password, source.password_file.as_deref())?;
        options.password = given.or(options.password);
        Ok(options)
    }

    /// As [`Config::source`], reading no file of secrets.
    fn source_but_password(&self) -> Result<SourceOptions> {
        let source = &self.raw.source;
        let given = source.url.iter().chain(&source.urls.0);
        let mut urls =
            given.map(|url| values::parse_source_url(url.expose_secret())).collect::<Result<Vec<_>>>()?.into_iter();
        if source.url.is_some() && !source.urls.0.is_empty() {
            return Err(Error::config("source.url and source.urls are both given").hint("keep one of them"));
        }
        let url = urls.next();
        let others = urls.map(|url| Address::Tcp { host: url.host, port: url.port }).collect();
        let (user, url_password) = url.as_ref().map_or((None, None), |u| (u.user.clone(), u.password.clone()));
        let address = match (&source.socket, url) {
            (Some(_), Some(_)) => {
                return Err(Error::config("source.url and source.socket are both given").hint("keep one of them"));
            }
            (Some(socket), None) => Address::Socket(socket.clone()),
            (None, Some(url)) => Address::Tcp { host: url.host, port: url.port },
            (None, None) => {
                return Err(Error::config("no source is configured").hint(
                    "set source.url = \"mysql://user@host:3306\" or source.socket = \"/run/mysqld/mysqld.sock\"",
                ));
            }
        };
        let user = source.user.clone().or(user).ok_or_else(|| {
            Error::config("no account for the source is configured")
                .hint("set source.user, or mysql://USER@host in source.url")
        })?;
        let mut options = SourceOptions::new(address, user, url_password);
        options.tls = TlsOptions {
            mode: source.tls,
            ca: source.tls_ca.clone(),
            cert: source.tls_cert.clone(),
            key: source.tls_key.clone(),
        };
        options.tls.check()?;
        options.others = others;
        options.connect_timeout = source.connect_timeout.get();
        Ok(options)
    }

    /// How the agent behaves; `adopt` comes from the command line.
    ///
    /// # Errors
    /// If a value cannot be used.
    pub fn agent(&self, adopt: bool) -> Result<AgentOptions> {
        let (agent, source) = (&self.raw.agent, &self.raw.source);
        let id = &agent.id;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if id.is_empty() || id.len() > 64 || !id.chars().all(plain) || id.starts_with('.') {
            return Err(Error::config(format!("agent.id {id:?} is no name")).hint("use up to 64 of A-Z a-z 0-9 - _ ."));
        }
        if source.server_id == Some(0) {
            return Err(
                Error::config("source.server_id is 0").hint("leave it out, or choose a number no other server has")
            );
        }
        let default_host = || format!("binvault-{id}");
        Ok(AgentOptions {
            id: id.clone(),
            start: source.start,
            server_id: source.server_id,
            report_host: source.report_host.clone().unwrap_or_else(default_host),
            report_port: source.report_port,
            net_write_timeout_s: u32::try_from(source.net_write_timeout.get().as_secs()).unwrap_or(u32::MAX),
            beacon_interval: agent.beacon_interval.at_least(Duration::from_secs(1), "agent.beacon_interval")?,
            poll_interval: agent.poll_interval.at_least(Duration::from_millis(100), "agent.poll_interval")?,
            adopt,
            failover: source.failover.map_or(source.urls.0.len() > 1, |flag| flag.0),
        })
    }

    /// How bytes are shipped.
    ///
    /// # Errors
    /// If a value is out of range.
    pub fn ship(&self) -> Result<ShipOptions> {
        let (agent, compression) = (&self.raw.agent, &self.raw.compression);
        let chunk_bytes = agent.chunk_size.get();
        let range = |name: &str, fine: bool, range: &str| {
            if fine { Ok(()) } else { Err(Error::config(format!("{name} must be {range}"))) }
        };
        range("agent.chunk_size", (64 << 10..=16 << 20).contains(&chunk_bytes), "from 64KiB to 16MiB")?;
        range("agent.sealers", (1..=16).contains(&agent.sealers), "from 1 to 16")?;
        range("agent.uploads", (1..=16).contains(&agent.uploads), "from 1 to 16")?;
        range("compression.level", (-7..=19).contains(&compression.level), "from -7 to 19")?;
        let long = compression.long_window_log;
        range("compression.long_window_log", long.is_none_or(|log| (20..=27).contains(&log)), "from 20 to 27")?;
        let heartbeat = self.raw.source.heartbeat.at_least(Duration::from_millis(100), "source.heartbeat")?;
        Ok(ShipOptions {
            chunk_bytes,
            flush_interval: agent.flush_interval.at_least(Duration::from_millis(10), "agent.flush_interval")?,
            compress: CompressOptions { level: compression.level, long_window_log: long },
            sealers: agent.sealers,
            uploads: agent.uploads,
            heartbeat,
        })
    }

    /// Whom chunks are sealed to.
    ///
    /// # Errors
    /// If there is none, or one that is no recipient.
    pub fn recipients(&self) -> Result<Recipients> {
        Recipients::parse(&self.raw.archive.recipients.0)
    }

    /// The store; `create` says whether a missing folder may be made.
    ///
    /// # Errors
    /// If no archive is configured or a secret cannot be read.
    pub fn store(&self, create: bool) -> Result<StoreOptions> {
        let archive = &self.raw.archive;
        let url = archive.url.clone().ok_or_else(|| {
            Error::config("no archive is configured")
                .hint("set archive.url = \"s3://bucket/prefix\" or \"file:///folder\", or give -c FILE")
        })?;
        let sse = match (archive.sse.as_deref(), &archive.sse_kms_key_id) {
            (None | Some("none"), None) => Sse::None,
            (Some("AES256"), None) => Sse::Aes256,
            (Some("aws:kms"), key_id) => Sse::Kms { key_id: key_id.clone() },
            (other, _) => {
                return Err(Error::config(format!("archive.sse {other:?} with archive.sse_kms_key_id cannot be used"))
                    .hint("use none, AES256 or aws:kms; a key id goes with aws:kms"));
            }
        };
        let secret_key =
            values::one_secret("archive.secret_key", &archive.secret_key, archive.secret_key_file.as_deref())?;
        if archive.access_key.is_some() != secret_key.is_some() {
            return Err(Error::config("archive.access_key and archive.secret_key go together, but only one is given"));
        }
        let defaults = S3Options::default();
        let s3 = S3Options {
            endpoint: archive.endpoint.clone(),
            region: archive.region.clone(),
            path_style: archive.path_style.as_ref().map(|flag| flag.0),
            storage_class: archive.storage_class.clone(),
            sse,
            ca_file: archive.ca_file.clone(),
            access_key: archive.access_key.clone(),
            secret_key,
            session_token: archive.session_token.clone(),
            put_if_absent: values::named(
                "archive.put_if_absent",
                archive.put_if_absent.as_deref(),
                &[("auto", PutIfAbsent::Auto), ("always", PutIfAbsent::Always), ("never", PutIfAbsent::Never)],
            )?,
            checksums: values::named(
                "archive.checksums",
                archive.checksums.as_deref(),
                &[
                    ("auto", Checksums::Auto),
                    ("when_required", Checksums::WhenRequired),
                    ("when_supported", Checksums::WhenSupported),
                ],
            )?,
            attempt_timeout_ms: archive.timeout.millis(),
            operation_timeout_ms: archive.timeout.millis().saturating_add(archive.timeout.millis() / 2),
            ..defaults
        };
        let mut retry = StoreOptions::default().retry;
        retry.elapsed_max_ms = Some(archive.give_up_after.millis());
        let call_timeout_ms = archive.timeout.millis().saturating_mul(2);
        Ok(StoreOptions {
            url,
            s3,
            disk: DiskOptions { create, ..DiskOptions::default() },
            retry,
            call_timeout_ms,
            ..StoreOptions::default()
        })
    }

    /// How to be a source; `listen` comes from the command line.
    ///
    /// # Errors
    /// If a value cannot be used, or a file of secrets or certificates cannot be read.
    pub fn serve(&self, listen: Option<&str>) -> Result<ServeSettings> {
        self.raw.serve.settings(listen)
    }

    /// How to log.
    pub fn log(&self) -> (LogFormat, &str) {
        (self.raw.log.format, &self.raw.log.level)
    }

    /// Identity files named by the configuration (on hosts that restore and verify).
    pub fn identities(&self) -> &[std::path::PathBuf] {
        &self.raw.archive.identities.0
    }
}

#[cfg(test)]
mod tests;
