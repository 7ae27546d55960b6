//! Drill: a restore into a throw-away server, proven and looked into, and written down in the archive.
//!
//! Owns: the throw-away place, the record.
//! Does not own: restoring (`restore`), what to restore (`timeline`).
//!
//! Invariants: nothing of the throw-away server stays behind, unless it is asked for; a drill that failed is recorded
//! like one that held; its time is the whole time, from the first look at the archive to the proof.

use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::archive::{Archive, Drill, ReadOptions};
use crate::clock;
use crate::error::{Context, Error, Kind, Result};
use crate::position::CommitTime;
use crate::restore::{DatadirOptions, Examine, Into, LoadOptions, OnStep, RestoreOptions, Restored, restore};
use crate::timeline::{Plan, PlanOptions, plan};

/// What a drill needs.
#[derive(Clone)]
pub struct DrillOptions {
    /// What to restore.
    pub plan: PlanOptions,
    /// How to put back the base.
    pub load: LoadOptions,
    /// What to look at.
    pub examine: Examine,
    /// The server to run; its `datadir` is the folder in which the throw-away one is made.
    pub server: DatadirOptions,
    /// Leave the data directory where it is.
    pub keep: bool,
    /// Told about each step.
    pub on_step: OnStep,
    /// The order to stop.
    pub stop: CancellationToken,
}

/// A drill that was run: its record, and where the data are if they were kept.
#[derive(Debug)]
pub struct Drilled {
    /// The record, as it was put into the archive.
    pub record: Drill,
    /// The data directory.
    pub datadir: Option<PathBuf>,
    /// What went wrong, if something did.
    pub error: Option<Error>,
}

/// Runs a drill, and records it.
///
/// # Errors
/// If the record could not be stored, or the drill was told to stop; a failed restore is told in the record.
pub async fn drill(archive: &Archive, options: &DrillOptions) -> Result<Drilled> {
    let (started_us, since) = (clock::now_us(), clock::monotonic());
    let name: String = Uuid::new_v4().simple().to_string().chars().take(8).collect();
    let datadir = options.server.datadir.join(format!("binvault-drill-{name}"));
    let mut server = options.server.clone();
    // The keyring of a throw-away server goes with its data, unless the server knows one place only.
    server.keyring = Some(server.keyring.unwrap_or_else(|| datadir.join("keyring")));
    server.datadir.clone_from(&datadir);
    let keyring = Keyring::of(&server.keyring_path());
    let mut planned = None;
    let result = run(archive, options, server, &mut planned).await;
    if options.stop.is_cancelled() {
        keyring.remove()?;
        remove(&datadir)?;
        return Err(result.err().unwrap_or_else(|| Error::failed("told to stop")));
    }
    let seconds = clock::monotonic().duration_since(since).as_secs_f64();
    let record = record(options, planned.as_ref(), &result, started_us, seconds);
    archive.put_drill(&record).await?;
    if !options.keep {
        keyring.remove()?;
        remove(&datadir)?;
    }
    Ok(Drilled { record, datadir: options.keep.then_some(datadir), error: failure(result) })
}

async fn run(
    archive: &Archive,
    options: &DrillOptions,
    server: DatadirOptions,
    planned: &mut Option<Plan>,
) -> Result<Restored> {
    let plan = planned.insert(plan(archive, &options.plan).await?);
    let restore_options = RestoreOptions {
        archive: archive.clone(),
        plan: plan.clone(),
        read: ReadOptions::clone(&options.plan.read),
        load: options.load.clone(),
        into: Into::Datadir(DatadirOptions { keep_running: false, ..server }),
        examine: options.examine.clone(),
        on_step: Arc::clone(&options.on_step),
        stop: options.stop.clone(),
    };
    restore(&restore_options).await
}

fn failure(result: Result<Restored>) -> Option<Error> {
    match result {
        Ok(restored) => restored.examined.trouble().map(|trouble| Error::new(Kind::Failed, trouble)),
        Err(error) => Some(error),
    }
}

fn record(
    options: &DrillOptions,
    plan: Option<&Plan>,
    result: &Result<Restored>,
    started_us: u64,
    seconds: f64,
) -> Drill {
    let restored = result.as_ref().ok();
    let problem = match result {
        Ok(restored) => restored.examined.trouble(),
        Err(error) => Some(error.chain()),
    };
    let examined = restored.map(|restored| restored.examined.clone()).unwrap_or_default();
    let held = examined.assertions.iter().filter(|assertion| assertion.ok).count();
    Drill {
        schema: 1,
        started_us,
        finished_us: clock::now_us(),
        ok: problem.is_none(),
        problem,
        base: plan.map(|plan| plan.base.id.clone()),
        target: options.plan.target.to_string(),
        position: restored.map(|restored| restored.position.clone()),
        reached_us: restored.and(plan).and_then(Plan::reached).map(CommitTime::micros),
        executed: restored.map(|restored| restored.executed.clone()),
        transactions: restored.map_or(0, |restored| restored.transactions),
        load_seconds: restored.map_or(0.0, |restored| restored.load_seconds),
        replay_seconds: restored.map_or(0.0, |restored| restored.replay_seconds),
        seconds,
        base_bytes: plan.map_or(0, |plan| plan.base.raw_bytes),
        binlog_bytes: plan.map_or(0, |plan| plan.raw_bytes),
        tables: examined.tables,
        assertions: u64::try_from(held).unwrap_or(u64::MAX),
        server_version: restored.map(|restored| restored.server_version.clone()).unwrap_or_default(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// The keyring that a drill may write.
struct Keyring(Option<PathBuf>);

impl Keyring {
    /// One that is there before is somebody else's.
    fn of(path: &std::path::Path) -> Self {
        Self((!path.exists()).then(|| path.to_owned()))
    }

    fn remove(&self) -> Result<()> {
        let Some(path) = self.0.as_ref().filter(|path| path.exists()) else { return Ok(()) };
        std::fs::remove_file(path).context(|| format!("remove {}", path.display()))
    }
}

fn remove(datadir: &std::path::Path) -> Result<()> {
    match std::fs::remove_dir_all(datadir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context(|| format!("remove {}", datadir.display()))
        }
        _ => Ok(()),
    }
}
