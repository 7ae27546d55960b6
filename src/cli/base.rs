//! `base`: a base backup now.
//!
//! stdout has the backup's id and what it is; with `--json` the document of `docs/JSON.md`. Progress is on stderr, on a
//! terminal only.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{output, signals};
use crate::archive::{Archive, BaseManifest};
use crate::base::{BaseJob, EngineName, Plan, Progress};
use crate::clock;
use crate::config::Config;
use crate::error::Result;
use crate::position::{CommitTime, GtidSet, Position, ServerUuid};
use crate::store;

/// How often the bar is moved.
const TICK: Duration = Duration::from_millis(200);

/// `binvault base`
#[derive(Debug, Args)]
pub(super) struct BaseArgs {
    /// clone, mysqldump or command; the configured one if left out, else chosen by what the server can
    #[arg(long, value_name = "ENGINE", value_parser = parse_engine)]
    engine: Option<EngineName>,
    /// Look whether it could be taken, print what would be done, and stop
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

fn parse_engine(text: &str) -> Result<EngineName, String> {
    text.parse().map_err(|error: crate::error::Error| format!("{error}: {}", error.hint_text().unwrap_or_default()))
}

/// The JSON of a plan or a result.
#[derive(Serialize)]
struct Document {
    schema: u32,
    dry_run: bool,
    engine: String,
    reason: Option<String>,
    tool: String,
    server: ServerUuid,
    server_version: String,
    left_out: Vec<String>,
    estimated_bytes: Option<u64>,
    base: Option<Taken>,
}

/// A backup that was taken.
#[derive(Serialize)]
struct Taken {
    id: String,
    started: String,
    seconds: f64,
    raw_bytes: u64,
    stored_bytes: u64,
    parts: usize,
    position: Position,
    executed: Option<GtidSet>,
    gtid_mode: String,
}

pub(super) async fn run(config: &Config, args: &BaseArgs) -> Result<()> {
    let ship = config.ship()?;
    let options = config.base(args.engine)?;
    let (source, recipients) = (config.source()?, config.recipients()?);
    let stop = signals::stop_token(
        "the base backup is given up; what was stored of it stays, unfinished",
        "nothing was cleaned up",
    )?;
    let store = store::open(&config.store(!args.dry_run)?, &CancellationToken::new()).await?;
    let archive = Archive::open(store, !args.dry_run).await?;
    let job = BaseJob { source, archive, recipients, options, compress: ship.compress, uploads: ship.uploads };
    if args.dry_run {
        return show_plan(&job.plan().await?, args.json);
    }
    let manifest = take(&job, &stop).await?;
    show_result(manifest, args.json)
}

/// Takes it, moving a bar meanwhile.
async fn take(job: &BaseJob, stop: &CancellationToken) -> Result<BaseManifest> {
    let progress = Arc::new(Progress::default());
    let bar = output::bar("base backup", 0);
    let ticking = tick(job, &progress, &bar);
    let taken = tokio::select! {
        taken = job.take(&progress, stop) => taken,
        never = ticking => match never {},
    };
    bar.finish_and_clear();
    taken
}

/// Moves the bar for ever.
async fn tick(job: &BaseJob, progress: &Progress, bar: &ProgressBar) -> Infallible {
    // Statistics of the server's: a little more or less than what comes.
    let estimate = if bar.is_hidden() { None } else { job.estimate().await };
    loop {
        bar.set_length(estimate.unwrap_or(0).max(progress.raw_bytes()));
        bar.set_position(progress.raw_bytes());
        clock::sleep(TICK).await;
    }
}

fn show_plan(plan: &Plan, json: bool) -> Result<()> {
    if json {
        return output::json(&Document {
            schema: 1,
            dry_run: true,
            engine: plan.engine.as_str().to_owned(),
            reason: plan.reason.clone(),
            tool: plan.tool.clone(),
            server: plan.server,
            server_version: plan.server_version.clone(),
            left_out: plan.left_out.clone(),
            estimated_bytes: plan.estimated_bytes,
            base: None,
        });
    }
    let size =
        plan.estimated_bytes.map_or_else(|| "unknown".to_owned(), |bytes| format!("about {}", output::bytes(bytes)));
    output::line(format!("would take a base backup of server {} ({})", plan.server, plan.server_version));
    output::line(format!("engine   {}: {}", plan.engine.as_str(), plan.tool));
    if let Some(reason) = &plan.reason {
        output::line(format!("because  {reason}"));
    }
    output::line(format!("tables   {size}"));
    if !plan.left_out.is_empty() {
        output::line(format!("without  {}", plan.left_out.join(", ")));
    }
    Ok(())
}

fn show_result(manifest: BaseManifest, json: bool) -> Result<()> {
    let position = manifest.coordinates.position();
    let seconds = manifest.duration().as_secs_f64();
    if json {
        return output::json(&Document {
            schema: 1,
            dry_run: false,
            engine: manifest.engine,
            reason: None,
            tool: manifest.tool,
            server: manifest.server,
            server_version: manifest.server_version,
            left_out: manifest.left_out,
            estimated_bytes: None,
            base: Some(Taken {
                id: manifest.id,
                started: CommitTime::from_micros(manifest.started_us).rfc3339(),
                seconds,
                raw_bytes: manifest.raw_bytes,
                stored_bytes: manifest.stored_bytes,
                parts: manifest.parts.len(),
                position,
                executed: Some(manifest.coordinates.executed).filter(|set| !set.is_empty()),
                gtid_mode: manifest.coordinates.gtid_mode,
            }),
        });
    }
    output::line(format!(
        "{}: {} as {} in {} parts, in {}, at {position}",
        manifest.id,
        output::bytes(manifest.raw_bytes),
        output::bytes(manifest.stored_bytes),
        manifest.parts.len(),
        output::seconds(seconds),
    ));
    Ok(())
}
