//! Base backups: a copy of the whole server, in the archive, on which the binlog can be replayed.
//!
//! ```text
//!   engine ─► bytes ─► frames ─► parts (zstd + age) ─► store ─► … ─► coordinates proven ─► manifest
//!   (tool)             1 MiB      8 MiB, several at a time              against the binlog     last
//! ```
//!
//! Owns: the engines behind one seam (`engine`), what is asked of the server for them, the pump to the store, and trying
//! again. Does not own: the form in the archive (`archive`, `chunk::part`), when one is due (`run`).
//!
//! Invariants: the manifest comes last, after the tool has ended well, its output was whole and its coordinates were
//! held against the server's binlog; whatever fails before leaves parts without a manifest, and nothing is deleted;
//! nothing of the data touches a local disk but sealed under a key that is in memory only; production is never made to wait longer than the configured limits; one
//! backup at a time is taken of a server.

mod access;
mod clone;
mod command;
mod dump_text;
mod engine;
mod follow;
mod mysqldump;
mod options;
mod pattern;
mod prove;
mod pump;
mod server;
mod statement;
mod tool;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use self::engine::{Ending, Engine, Site, Trouble};
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

pub(crate) use clone::follow_donor;
pub use clone::{CloneObstacle, clone_obstacles};
pub use options::{BaseOptions, CommandOptions, CoordinatesFrom, DdlRule, EngineName};

/// How often a tool that fails by itself is started before that is believed.
const FAILURES_MAX: u32 = 3;

/// Reads a text as each of those that tools and the binlog tell a base backup: the door of `fuzzing`.
pub(crate) fn read_said(said: &[u8]) {
    drop(dump_text::parse_head(said));
    dump_text::is_closed(said);
    statement::judge(said);
    statement::query_text(said);
    statement::mapped_table(said);
    let text = String::from_utf8_lossy(said);
    dump_text::judge_failure(&text);
    drop(dump_text::parse_version(&text));
    pattern::find("filename '{file}', position '{position}'", &text);
}

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
    asked: Connection,
}

/// The engine that takes a backup, and why it is this one.
struct Choice {
    engine: Arc<dyn Engine>,
    name: EngineName,
    /// `None` where it is configured.
    reason: Option<String>,
}

impl Choice {
    /// The engine's tool, as it names itself.
    ///
    /// # Errors
    /// Of the tool that is not there, with why none was found that needs no tool.
    async fn tool(&self) -> Result<String> {
        let tool = self.engine.tool().await;
        tool.map_err(|error| match &self.reason {
            Some(reason) => error.context(reason.clone()),
            None => error,
        })
    }
}

/// The engine of the try that is on its way, if something of it may have to be cleaned up.
type Started = Mutex<Option<Arc<dyn Engine>>>;

/// What would be done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The engine.
    pub engine: EngineName,
    /// Why it is this one, if it was chosen by what the server can.
    pub reason: Option<String>,
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
        let (mut survey, Choice { engine, name, reason }, tool) = self.ready().await?;
        Ok(Plan {
            engine: name,
            reason,
            tool,
            server: survey.server,
            server_version: survey.facts.version.to_string(),
            estimated_bytes: self.estimate().await,
            left_out: engine.left_out(&mut survey.asked).await?,
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
        if let Some(name) = self.options.engine {
            self.engine(name)?;
        }
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
        let started = Started::default();
        let attempt = || Box::pin(self.attempt(&started, progress));
        match retry(attempt, &schedule, again, what, stop).await {
            Ok(manifest) => Ok(manifest),
            Err(Stopped::Failed { error, .. }) => Err(error.error.context("take a base backup")),
            Err(Stopped::Cancelled(_)) => {
                // The try was dropped where it stood, and its tool with it.
                let engine = started.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(engine) = engine {
                    engine.clean_up(&self.source).await;
                }
                Err(Error::failed("stopped: no base backup was taken").definite())
            }
        }
    }

    fn engine(&self, name: EngineName) -> Result<Arc<dyn Engine>> {
        match (name, &self.options.command) {
            (EngineName::Clone, _) => Ok(Arc::new(clone::CloneEngine::default())),
            (EngineName::Mysqldump, _) => Ok(Arc::new(mysqldump::Mysqldump::new(&self.options))),
            (EngineName::Command, Some(command)) => Ok(Arc::new(command::CommandEngine::new(command.clone()))),
            (EngineName::Command, None) => Err(Error::config("base.command.backup is not set")),
        }
    }

    /// The server, the engine for it, and its tool, which is there.
    async fn ready(&self) -> Result<(Survey, Choice, String)> {
        if let Some(name) = self.options.engine {
            // A tool that is not there is said before anything is asked.
            self.engine(name)?.tool().await?;
        }
        let mut survey = self.survey().await?;
        let choice = self.choose(&mut survey).await?;
        let tool = choice.tool().await?;
        Ok((survey, choice, tool))
    }

    /// The configured engine; else a clone where the server gives one that is all of it, else mysqldump.
    async fn choose(&self, survey: &mut Survey) -> Result<Choice> {
        if let Some(name) = self.options.engine {
            return Ok(Choice { engine: self.engine(name)?, name, reason: None });
        }
        let obstacles = clone_obstacles(&self.source, &survey.facts, &mut survey.asked).await?;
        let (name, reason) = engine_for(&obstacles);
        Ok(Choice { engine: self.engine(name)?, name, reason: Some(reason) })
    }

    /// Asks the server who it is, and refuses one that the archive does not know.
    async fn survey(&self) -> Result<Survey> {
        let mut connection = Connection::connect(&self.source, PROGRAM).await?;
        let facts = ServerFacts::read(&mut connection).await?;
        server::end_of_log(&mut connection).await?;
        let server = facts.server_uuid.map(ServerUuid).filter(|_| !facts.version.is_mariadb).ok_or_else(|| {
            Error::new(Kind::Unfit, format!("the server is no MySQL 5.7 or later ({})", facts.version))
                .hint("binvault archives MySQL 5.7 and later")
        })?;
        let known = self.archive.servers().await?;
        if known.is_empty() || known.contains(&server) {
            return Ok(Survey { facts, server, asked: connection });
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
    async fn attempt(&self, started: &Started, progress: &Arc<Progress>) -> Result<BaseManifest, Trouble> {
        let (mut survey, Choice { engine, name, reason }, tool) = self.ready().await?;
        let left_out = engine.left_out(&mut survey.asked).await?;
        let settings = server::settings(&mut survey.asked, engine.settings()).await?;
        let Survey { facts, server, asked } = survey;
        drop(asked);
        let only = server::one_at_a_time(&self.source, self.archive.id()).await?;
        let started_us = clock::now_us();
        let id = BaseManifest::id_of(started_us, name.as_str());
        progress.begin();
        let reason = reason.as_deref().unwrap_or("it is configured");
        tracing::info!(base = %id, %server, %tool, reason, "a base backup begins");
        let site = Site { source: &self.source, facts: &facts, options: &self.options };
        let begun = |engine| *started.lock().unwrap_or_else(PoisonError::into_inner) = engine;
        begun(Some(Arc::clone(&engine)));
        let copied = self.copy(engine.as_ref(), &site, &id, progress).await;
        engine.clean_up(&self.source).await;
        begun(None);
        let (stored, Ending { coordinates, clone }) = copied?;
        if only.is_lost() {
            // Another may have begun meanwhile; both are whole, so this is no reason to throw this one away.
            tracing::warn!(base = %id, "the connection that kept other base backups away was lost meanwhile");
        }
        let manifest = BaseManifest {
            format: FORMAT_VERSION,
            archive: self.archive.id(),
            id,
            engine: name.as_str().to_owned(),
            content: engine.content(),
            server,
            server_version: facts.version.to_string(),
            started_us,
            finished_us: clock::now_us(),
            coordinates,
            raw_bytes: stored.raw_bytes,
            stored_bytes: stored.stored_bytes,
            tool,
            left_out,
            settings,
            clone,
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
    ) -> Result<(Stored, Ending), Trouble> {
        let mut running = engine.start(site).await?;
        let pump = pump::Pump {
            archive: &self.archive,
            id,
            recipients: &self.recipients,
            compress: self.compress,
            part_bytes: self.options.part_bytes,
            uploads: self.uploads.min(engine.uploads_max()),
            progress,
        };
        let stored = pump.run(running.as_mut()).await?;
        let ending = running.finish(site).await?;
        if stored.raw_bytes == 0 {
            return Err(Error::failed("the tool ended well, but has written nothing").into());
        }
        Ok((stored, ending))
    }
}

/// The engine for a server with these obstacles to a clone, and why. A clone that lacks rows, or whose place is not
/// proven by GTIDs, is nobody's default.
pub fn engine_for(obstacles: &[CloneObstacle]) -> (EngineName, String) {
    match obstacles.first() {
        None => (EngineName::Clone, "the server gives a clone".to_owned()),
        Some(obstacle) => {
            let more = obstacle.fix().map(|fix| format!(" ({fix})")).unwrap_or_default();
            (EngineName::Mysqldump, format!("no clone: {}{more}", obstacle.title()))
        }
    }
}
