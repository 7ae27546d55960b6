//! `run`: the agent.

use clap::Args;

use super::{output, signals};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::run::{RunOptions, run as run_agent};

/// `binvault run`
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// End when everything is archived that the server has now
    #[arg(long)]
    once: bool,
    /// Accept a server that the archive does not know, beside those it does
    #[arg(long)]
    adopt: bool,
}

pub(super) async fn run(config: &Config, args: &RunArgs) -> Result<()> {
    let options = RunOptions {
        source: config.source()?,
        agent: config.agent(args.adopt)?,
        ship: config.ship()?,
        semi_sync: config.semi_sync()?,
        spool: config.spool()?,
        metrics: config.metrics()?,
        store: config.store(true)?,
        recipients: config.recipients()?,
        once: args.once,
        base: Some(config.base(None)?),
    };
    let stop = signals::stop_token(
        "sending what has been received",
        "what was not sent is fetched from the server again at the next start",
    )?;
    let report = run_agent(options, stop).await?;
    let (counts, durable) = (report.counts, report.durable);
    let position = durable.position.map_or_else(|| "nowhere yet".to_owned(), |position| position.to_string());
    tracing::info!(
        chunks = counts.chunks, raw = output::bytes(counts.raw_bytes), stored = output::bytes(counts.stored_bytes),
        transactions = counts.transactions, durable = %position, "stopped in good order"
    );
    if args.once && report.gaps > 0 {
        return Err(Error::new(Kind::Gap, "everything that the server has is archived, but there is a gap before it")
            .hint("`binvault status` tells what is missing; `binvault base` takes a base backup, without which nothing behind the gap can be restored"));
    }
    Ok(())
}
