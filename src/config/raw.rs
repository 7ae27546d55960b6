//! The configuration as it stands in the file: every name, its default and what it means.
//!
//! Each value may come from the environment as `BINVAULT_SECTION__NAME`, as text.

use std::path::PathBuf;

use secrecy::SecretString;
use serde::Deserialize;

use super::base::RawBase;
use super::metrics::RawMetrics;
use super::notify::RawNotify;
use super::purge_guard::RawPurgeGuard;
use super::restore::{RawDrill, RawObjectives, RawRestore};
use super::retention::RawRetention;
use super::semi_sync::RawSemiSync;
use super::serve::RawServe;
use super::spool::RawSpool;
use super::values::{Flag, Lines, Paths, SecretLines, Size, Span, de};
use super::verify::RawVerify;
use crate::mysql::TlsMode;

/// The whole file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawConfig {
    /// The MySQL server.
    pub source: RawSource,
    /// Where the archive is.
    pub archive: RawArchive,
    /// The agent.
    pub agent: RawAgent,
    /// Commits that wait until they are durable.
    pub semi_sync: RawSemiSync,
    /// A folder in front of the store.
    pub spool: RawSpool,
    /// Compression.
    pub compression: RawCompression,
    /// Base backups.
    pub base: RawBase,
    /// Bringing data back.
    pub restore: RawRestore,
    /// Restore drills.
    pub drill: RawDrill,
    /// What the archive should be good for.
    pub objectives: RawObjectives,
    /// What is to be kept.
    pub retention: RawRetention,
    /// Having the server's own binlogs purged.
    pub purge_guard: RawPurgeGuard,
    /// Looking whether all of it is whole.
    pub verify: RawVerify,
    /// The archive as a replication source.
    pub serve: RawServe,
    /// Numbers for who watches.
    pub metrics: RawMetrics,
    /// Whom to tell when something goes wrong.
    pub notify: RawNotify,
    /// Logging.
    pub log: RawLog,
}

/// Where archiving begins when the archive has nothing of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartAt {
    /// With the oldest binlog the server has.
    #[default]
    Oldest,
    /// With the first byte of the current one.
    Current,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// `[source]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawSource {
    /// `mysql://user@host:3306`; there may be a password in it.
    pub url: Option<SecretString>,
    /// The servers of a cluster, instead of `url`: the one that takes writes is followed.
    pub urls: SecretLines,
    /// Whether a server that takes the archived one's place is accepted although it lost transactions.
    pub failover: Option<Flag>,
    /// Path of a unix socket, instead of `url`.
    pub socket: Option<PathBuf>,
    /// Account; wins over the URL's.
    pub user: Option<String>,
    /// Password, in clear in the file: `password_file` is better.
    pub password: Option<SecretString>,
    /// File whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// auto, disabled, required, verify-ca or verify-full.
    #[serde(deserialize_with = "de::parsed")]
    pub tls: TlsMode,
    /// PEM file of trusted CAs.
    pub tls_ca: Option<PathBuf>,
    /// PEM file of the client's certificate.
    pub tls_cert: Option<PathBuf>,
    /// PEM file of the client's key.
    pub tls_key: Option<PathBuf>,
    /// oldest or current.
    pub start: StartAt,
    /// Replica's server id; derived if left out.
    #[serde(deserialize_with = "de::number_opt")]
    pub server_id: Option<u32>,
    /// Shown by SHOW REPLICAS.
    pub report_host: Option<String>,
    /// Shown by SHOW REPLICAS.
    #[serde(deserialize_with = "de::number")]
    pub report_port: u16,
    /// The server's heartbeat on an idle stream.
    pub heartbeat: Span,
    /// How long the server waits for us to read.
    pub net_write_timeout: Span,
    /// Limit on connecting and logging in.
    pub connect_timeout: Span,
}

impl Default for RawSource {
    fn default() -> Self {
        Self {
            url: None,
            urls: SecretLines::default(),
            failover: None,
            socket: None,
            user: None,
            password: None,
            password_file: None,
            tls: TlsMode::Auto,
            tls_ca: None,
            tls_cert: None,
            tls_key: None,
            start: StartAt::Oldest,
            server_id: None,
            report_host: None,
            report_port: 0,
            heartbeat: Span::seconds(5),
            net_write_timeout: Span::seconds(3600),
            connect_timeout: Span::seconds(10),
        }
    }
}

/// `[archive]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawArchive {
    /// `s3://bucket/prefix` or `file:///folder`
    pub url: Option<String>,
    /// Public keys, `age1…`.
    pub recipients: Lines,
    /// Private key files, only where chunks are to be opened.
    pub identities: Paths,
    /// Endpoint of a store that is not Amazon's.
    pub endpoint: Option<String>,
    /// Region.
    pub region: Option<String>,
    /// `https://host/bucket/key` instead of `https://bucket.host/key`.
    pub path_style: Option<Flag>,
    /// Storage class of new objects.
    pub storage_class: Option<String>,
    /// none, AES256 or aws:kms.
    pub sse: Option<String>,
    /// Key for aws:kms.
    pub sse_kms_key_id: Option<String>,
    /// PEM file of CAs to trust for the store.
    pub ca_file: Option<PathBuf>,
    /// Access key; without it the AWS chain.
    pub access_key: Option<String>,
    /// Secret key.
    pub secret_key: Option<SecretString>,
    /// File whose first line is the secret key.
    pub secret_key_file: Option<PathBuf>,
    /// Token of temporary credentials.
    pub session_token: Option<SecretString>,
    /// auto, always or never.
    pub put_if_absent: Option<String>,
    /// auto, when_required or when_supported.
    pub checksums: Option<String>,
    /// Limit on one request.
    pub timeout: Span,
    /// How long a failing call is tried again before its stage fails.
    pub give_up_after: Span,
}

impl Default for RawArchive {
    fn default() -> Self {
        Self {
            url: None,
            recipients: Lines::default(),
            identities: Paths::default(),
            endpoint: None,
            region: None,
            path_style: None,
            storage_class: None,
            sse: None,
            sse_kms_key_id: None,
            ca_file: None,
            access_key: None,
            secret_key: None,
            secret_key_file: None,
            session_token: None,
            put_if_absent: None,
            checksums: None,
            timeout: Span::seconds(60),
            give_up_after: Span::seconds(300),
        }
    }
}

/// `[agent]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawAgent {
    /// Name of this agent among those of the archive.
    pub id: String,
    /// Raw bytes of a chunk.
    pub chunk_size: Size,
    /// How long bytes may wait for their chunk to be cut.
    pub flush_interval: Span,
    /// Compression threads.
    #[serde(deserialize_with = "de::number")]
    pub sealers: usize,
    /// Uploads at a time.
    #[serde(deserialize_with = "de::number")]
    pub uploads: usize,
    /// Time between beacons.
    pub beacon_interval: Span,
    /// Time between questions about the server's position.
    pub poll_interval: Span,
}

impl Default for RawAgent {
    fn default() -> Self {
        Self {
            id: "main".into(),
            chunk_size: Size::mebibytes(8),
            flush_interval: Span::seconds(1),
            sealers: 2,
            uploads: 4,
            beacon_interval: Span::seconds(60),
            poll_interval: Span::seconds(10),
        }
    }
}

/// `[compression]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawCompression {
    /// zstd level.
    #[serde(deserialize_with = "de::number")]
    pub level: i32,
    /// Long-distance matching with a window of 2^this.
    #[serde(deserialize_with = "de::number_opt")]
    pub long_window_log: Option<u32>,
}

impl Default for RawCompression {
    fn default() -> Self {
        Self { level: 1, long_window_log: None }
    }
}

/// `[log]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawLog {
    /// text or json.
    pub format: LogFormat,
    /// error, warn, info, debug or trace, or a filter of `tracing`'s.
    pub level: String,
}

impl Default for RawLog {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".into() }
    }
}
