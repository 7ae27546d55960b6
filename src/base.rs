//! Base backups: a copy of the whole server, in the archive, on which the binlog can be replayed.
//!
//! ```text
//!   engine ─► bytes ─► frames ─► parts (zstd + age) ─► store ─► … ─► coordinates proven ─► manifest
//!   (tool)             1 MiB     16 MiB, several at a time              against the binlog     last
//! ```
//!
//! Owns: the engines behind one seam (`engine`), what is asked of the server for them, the pump to the store, and trying
//! again. Does not own: the form in the archive (`archive`, `chunk::part`), when one is due (`run`).
//!
//! Invariants: the manifest comes last, after the tool has ended well, its output was whole and its coordinates were
//! held against the server's binlog; whatever fails before leaves parts without a manifest, and nothing is deleted;
//! nothing of the data touches a local disk; production is never made to wait longer than the configured limits; one
//! backup at a time is taken of a server.

mod access;
mod command;
mod dump_text;
mod engine;
mod follow;
mod mysqldump;
mod options;
mod pattern;
mod prove;
mod pump;
mod schedule;
mod server;
mod statement;
mod tool;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use tokio_util::sync::CancellationToken;

use self::engine::{Engine, Site, Trouble};
use self::server::PROGRAM;
use crate::archive::{Archive, BaseManifest, BasePart};
use crate::chunk::FORMAT_VERSION;
use crate::chunk::compress::CompressOptions;
use crate::chunk::keys::Recipients;
use crate::clock;
use crate::error::{Context, Error, Kind, Result};
use crate::mysql::facts::ServerFacts;
use crate::mysql::{Connection, SourceOptions};
use crate::position::ServerUuid;
use crate::retry::{RetryOptions, Stopped, retry};

pub use options::{BaseOptions, CommandOptions, CoordinatesFrom, DdlRule, EngineName};
pub use schedule::Schedule;

/// How often a tool that fails by itself is started before that is believed.
const FAILURES_MAX: u32 = 3;

/// What taking base backups needs.
#[derive(Debug, Clone)]
pub struct BaseJob {
    /// The server.
    pub source: SourceOptions,
    /// The archive.
    pub archive: Archive,
    /// Whom parts are sealed to.
    pub recipients: Recipients,
    /// The engine and its manners.
    pub options: BaseOptions,
    /// How parts are compressed.
    pub compress: CompressOptions,
    /// Parts on their way to the store at a time.
    pub uploads: usize,
}

/// How far a backup has come. Counts of the current try.
#[derive(Debug, Default)]
pub struct Progress {
    raw: AtomicU64,
    stored: AtomicU64,
}

impl Progress {
    /// Bytes read from the tool.
    pub fn raw_bytes(&self) -> u64 {
        self.raw.load(Ordering::Relaxed)
    }

    /// Bytes of objects that the store has taken.
    pub fn stored_bytes(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }

    fn read(&self, bytes: u64) {
        self.raw.fetch_add(bytes, Ordering::Relaxed);
    }

    fn stored(&self, bytes: u64) {
        self.stored.fetch_add(bytes, Ordering::Relaxed);
    }

    fn begin(&self) {
        self.raw.store(0, Ordering::Relaxed);
        self.stored.store(0, Ordering::Relaxed);
    }
}

/// What the pump has stored.
#[derive(Debug, Default)]
struct Stored {
    parts: Vec<BasePart>,
    raw_bytes: u64,
    stored_bytes: u64,
}

/// What the server says before.
struct Survey {
    facts: ServerFacts,
    server: ServerUuid,
    settings: BTreeMap<String, String>,
}

/// What would be done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The engine.
    pub engine: EngineName,
    /// Its tool, as it names itself.
    pub tool: String,
    /// The server.
    pub server: ServerUuid,
    /// Its version.
    pub server_version: String,
    /// What the server's tables take on its disk, by its own statistics, bytes.
    pub estimated_bytes: Option<u64>,
    /// What is left out on purpose.
    pub left_out: Vec<String>,
}

impl BaseJob {
    /// Looks whether a backup could be taken, without taking one.
    ///
    /// # Errors
    /// What would keep it from being taken, as far as that can be seen beforehand.
    pub async fn plan(&self) -> Result<Plan> {
        let engine = self.engine()?;
        let tool = engine.tool().await?;
        let Survey { facts, server, .. } = self.survey().await?;
        Ok(Plan {
            engine: self.options.engine,
            tool,
            server,
            server_version: facts.version.to_string(),
            estimated_bytes: self.estimate().await,
            left_out: engine.left_out(),
        })
    }

    /// What the server's tables take on its disk, roughly.
    pub async fn estimate(&self) -> Option<u64> {
        let mut connection = Connection::connect(&self.source, PROGRAM).await.ok()?;
        let question = "SELECT CAST(SUM(data_length) AS UNSIGNED) FROM information_schema.tables \
            WHERE table_schema NOT IN ('information_schema', 'performance_schema', 'sys')";
        connection.query(question).await.ok()?.first()?.get_at(0)?.parse().ok()
    }

    /// Takes a base backup, trying again while that may help, for as long as the options say. Nothing else is taken at
    /// the same time of this server for this archive.
    ///
    /// # Errors
    /// The last try's error; [`Kind::Clash`] if another backup is on its way; [`Kind::Failed`] if told to stop.
    pub async fn take(&self, progress: &Arc<Progress>, stop: &CancellationToken) -> Result<BaseManifest> {
        let engine = self.engine()?;
        let schedule = RetryOptions {
            first_ms: 5_000,
            max_ms: 300_000,
            elapsed_max_ms: u64::try_from(self.options.give_up_after.as_millis()).ok(),
            ..RetryOptions::default()
        };
        let failures = AtomicU32::new(0);
        let again = |trouble: &Trouble| {
            let before = failures.fetch_add(u32::from(!trouble.busy), Ordering::Relaxed);
            trouble.error.is_retryable() && (trouble.busy || before.saturating_add(1) < FAILURES_MAX)
        };
        let what = || "the base backup".to_owned();
        let started = AtomicBool::new(false);
        let attempt = || Box::pin(self.attempt(engine.as_ref(), &started, progress));
        match retry(attempt, &schedule, again, what, stop).await {
            Ok(manifest) => Ok(manifest),
            Err(Stopped::Failed { error, .. }) => Err(error.error.context("take a base backup")),
            Err(Stopped::Cancelled(_)) => {
                // The try was dropped where it stood, and its tool with it.
                if started.load(Ordering::Relaxed) {
                    engine.clean_up(&self.source).await;
                }
                Err(Error::failed("stopped: no base backup was taken").definite())
            }
        }
    }

    fn engine(&self) -> Result<Box<dyn Engine>> {
        match (self.options.engine, &self.options.command) {
            (EngineName::Mysqldump, _) => Ok(Box::new(mysqldump::Mysqldump::new(&self.options))),
            (EngineName::Command, Some(command)) => Ok(Box::new(command::CommandEngine::new(command.clone()))),
            (EngineName::Command, None) => Err(Error::config("base.command.backup is not set")),
        }
    }

    /// Asks the server who it is, and refuses one that the archive does not know.
    async fn survey(&self) -> Result<Survey> {
        let mut connection = Connection::connect(&self.source, PROGRAM).await?;
        let facts = ServerFacts::read(&mut connection).await?;
        server::end_of_log(&mut connection).await?;
        let settings = server::settings(&mut connection).await?;
        let server = facts.server_uuid.map(ServerUuid).filter(|_| !facts.version.is_mariadb).ok_or_else(|| {
            Error::new(Kind::Unfit, format!("the server is no MySQL 5.7 or later ({})", facts.version))
                .hint("binvault archives MySQL 5.7 and later")
        })?;
        let known = self.archive.servers().await?;
        if known.is_empty() || known.contains(&server) {
            return Ok(Survey { facts, server, settings });
        }
        let names: Vec<String> = known.iter().map(ToString::to_string).collect();
        let message = format!(
            "the archive at {} is of server {}, this one is {server}",
            self.archive.store().url(),
            names.join(", ")
        );
        Err(Error::new(Kind::Diverged, message).hint(
            "correct source.url or archive.url; if the server really takes the other's place, `binvault run --adopt` first",
        ))
    }

    /// One try. `started` is set while something of the engine's may have to be cleaned up.
    async fn attempt(
        &self,
        engine: &dyn Engine,
        started: &AtomicBool,
        progress: &Arc<Progress>,
    ) -> Result<BaseManifest, Trouble> {
        let tool = engine.tool().await?;
        let Survey { facts, server, settings } = self.survey().await?;
        let only = server::one_at_a_time(&self.source, self.archive.id()).await?;
        let started_us = clock::now_us();
        let id = BaseManifest::id_of(started_us, self.options.engine.as_str());
        progress.begin();
        tracing::info!(base = %id, %server, %tool, "a base backup begins");
        let site = Site { source: &self.source, facts: &facts, options: &self.options };
        started.store(true, Ordering::Relaxed);
        let copied = self.copy(engine, &site, &id, progress).await;
        engine.clean_up(&self.source).await;
        started.store(false, Ordering::Relaxed);
        let (stored, coordinates) = copied?;
        if only.is_lost() {
            // Another may have begun meanwhile; both are whole, so this is no reason to throw this one away.
            tracing::warn!(base = %id, "the connection that kept other base backups away was lost meanwhile");
        }
        let manifest = BaseManifest {
            format: FORMAT_VERSION,
            archive: self.archive.id(),
            id,
            engine: self.options.engine.as_str().to_owned(),
            content: engine.content(),
            server,
            server_version: facts.version.to_string(),
            started_us,
            finished_us: clock::now_us(),
            coordinates,
            raw_bytes: stored.raw_bytes,
            stored_bytes: stored.stored_bytes,
            tool,
            left_out: engine.left_out(),
            settings,
            clone: None,
            parts: stored.parts,
        };
        self.archive.put_manifest(&manifest).await.context(|| format!("finish base backup {}", manifest.id))?;
        tracing::info!(
            base = %manifest.id, at = %manifest.coordinates.position(), raw_bytes = manifest.raw_bytes,
            stored_bytes = manifest.stored_bytes, seconds = manifest.duration().as_secs(), "a base backup was taken"
        );
        Ok(manifest)
    }

    async fn copy(
        &self,
        engine: &dyn Engine,
        site: &Site<'_>,
        id: &str,
        progress: &Arc<Progress>,
    ) -> Result<(Stored, crate::archive::Coordinates), Trouble> {
        let mut running = engine.start(site).await?;
        let pump = pump::Pump {
            archive: &self.archive,
            id,
            recipients: &self.recipients,
            compress: self.compress,
            part_bytes: self.options.part_bytes,
            uploads: self.uploads,
            progress,
        };
        let stored = pump.run(running.as_mut()).await?;
        let coordinates = running.finish(site).await?;
        if stored.raw_bytes == 0 {
            return Err(Error::failed("the tool ended well, but has written nothing").into());
        }
        Ok((stored, coordinates))
    }
}
