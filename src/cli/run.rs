//! `run`: the agent, and again with another configuration after SIGHUP.

use clap::Args;
use tokio::signal::unix::Signal;
use tokio_util::sync::CancellationToken;

use super::{output, signals};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::run::{RunOptions, RunReport, UpkeepOptions, run as run_agent, service};

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

/// `again` reads the configuration anew.
pub(super) async fn run(config: Config, again: &dyn Fn() -> Result<Config>, args: &RunArgs) -> Result<()> {
    let mut options = options(&config, args)?;
    let stop = signals::stop_token(
        "sending what has been received",
        "what was not sent is fetched from the server again at the next start",
    )?;
    let mut hangups = signals::hangups()?;
    let report = loop {
        let turn = stop.child_token();
        let mut running = std::pin::pin!(run_agent(options, turn.clone()));
        let next = tokio::select! {
            ended = &mut running => break ended?,
            next = reloaded(&mut hangups, again, args, &stop) => next,
        };
        turn.cancel();
        let report = running.await?;
        // Told to stop, it ends for good.
        let Some(next) = next else { break report };
        tracing::info!(durable = %position(&report), "the configuration was read again: going on with it");
        options = next;
    };
    service::stopping();
    let counts = report.counts;
    tracing::info!(
        chunks = counts.chunks, raw = output::bytes(counts.raw_bytes), stored = output::bytes(counts.stored_bytes),
        transactions = counts.transactions, durable = %position(&report), "stopped in good order"
    );
    if args.once && report.gaps > 0 {
        return Err(Error::new(Kind::Gap, "everything that the server has is archived, but there is a gap before it")
            .hint("`binvault status` tells what is missing; `binvault base` takes a base backup, without which nothing behind the gap can be restored"));
    }
    Ok(())
}

/// Waits for SIGHUP and a configuration that can be used: one that cannot changes nothing. `None`: told to stop.
async fn reloaded(
    hangups: &mut Signal,
    again: &dyn Fn() -> Result<Config>,
    args: &RunArgs,
    stop: &CancellationToken,
) -> Option<RunOptions> {
    loop {
        stop.run_until_cancelled(hangups.recv()).await??;
        match again().and_then(|config| options(&config, args)) {
            Ok(options) => {
                service::reloading();
                return Some(options);
            }
            Err(error) => {
                let hint = error.hint_text().unwrap_or("");
                tracing::error!(error = %error.chain(), hint, "the configuration cannot be used: going on with the one there was");
            }
        }
    }
}

fn options(config: &Config, args: &RunArgs) -> Result<RunOptions> {
    Ok(RunOptions {
        source: config.source()?,
        agent: config.agent(args.adopt)?,
        ship: config.ship()?,
        semi_sync: config.semi_sync()?,
        spool: config.spool()?,
        store: config.store(true)?,
        recipients: config.recipients()?,
        once: args.once,
        base: Some(config.base(None)?),
        upkeep: UpkeepOptions {
            observe: config.observe()?,
            objectives: config.objectives(),
            prune: config.prune()?,
            purge: config.purge_guard()?,
            verify: config.verify()?,
            notify: config.notify()?,
        },
    })
}

fn position(report: &RunReport) -> String {
    report.durable.position.as_ref().map_or_else(|| "nowhere yet".to_owned(), ToString::to_string)
}
