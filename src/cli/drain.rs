//! `drain`: what a spool holds goes to the store, without an agent and without a server.
//!
//! For the day when the database's host, or the agent, does not come back. stdout says what was sent; with `--json` the
//! document of `docs/JSON.md`.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;

use super::archive::open;
use super::output;
use crate::archive::{Archive, CHUNKS, chunk_spool, drain_options};
use crate::clock;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::position::CommitTime;
use crate::store::spool::{Spool, SpoolState};

/// How often the bar is moved.
const TICK: Duration = Duration::from_millis(200);

/// `binvault drain`
#[derive(Debug, Args)]
pub(super) struct DrainArgs {
    /// The spool's folder, instead of the configured one
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Say what is in the spool, and stop; also while an agent has it
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// The JSON of the result.
#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    dry_run: bool,
    dir: &'a Path,
    archive: String,
    objects: usize,
    bytes: u64,
    oldest: Option<String>,
}

pub(super) async fn run(config: &Config, args: &DrainArgs) -> Result<()> {
    let dir = args.dir.clone().or_else(|| config.spool_dir().map(Path::to_owned)).ok_or_else(|| {
        Error::config("no spool is configured").hint("give its folder with --dir DIR, or set spool.dir")
    })?;
    let found = Spool::look(&dir, CHUNKS).await?;
    let (owner, held) = found.ok_or_else(|| {
        Error::config(format!("{} is no spool: it has no spool.json", dir.display()))
            .hint("give the folder that spool.dir of the agent's configuration names")
    })?;
    if !args.dry_run {
        let archive = open(config).await?;
        send(&archive, &dir, config.ship()?.uploads, held).await?;
    }
    if args.json {
        let oldest = held.oldest_us.map(|us| CommitTime::from_micros(us).rfc3339());
        let (objects, bytes) = (held.objects, held.bytes);
        let (schema, dry_run) = (1, args.dry_run);
        return output::json(&Document { schema, dry_run, dir: &dir, archive: owner, objects, bytes, oldest });
    }
    let what = format!("{} objects, {}", held.objects, output::bytes(held.bytes));
    let word = if args.dry_run { "in the spool and not in the store" } else { "sent from the spool to the store" };
    output::line(format!("{what} {word}: {}", dir.display()));
    Ok(())
}

/// Sends everything, moving a bar meanwhile.
async fn send(archive: &Archive, dir: &Path, uploads: usize, held: SpoolState) -> Result<()> {
    // Nothing is put into it: it needs no bounds.
    let spool = Spool::open(chunk_spool(dir.to_owned(), u64::MAX, usize::MAX), &archive.id().to_string()).await?;
    let bar = output::bar("draining", held.bytes);
    let sent = tokio::select! {
        ended = spool.drain(archive.store(), drain_options(uploads, false)) => ended.map_err(Error::from),
        () = spool.drained() => Ok(()),
        never = tick(&spool, &bar) => match never {},
    };
    bar.finish_and_clear();
    sent
}

/// Moves the bar for ever.
async fn tick(spool: &Arc<Spool>, bar: &ProgressBar) -> Infallible {
    loop {
        bar.set_position(bar.length().unwrap_or(0).saturating_sub(spool.state().bytes));
        clock::sleep(TICK).await;
    }
}
