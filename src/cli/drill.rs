//! `drill`: a restore into a throw-away server, proven, looked into and written down.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::archive::{KeyArgs, open};
use super::restore::{Bars, TargetArgs, load_options, took};
use super::{output, signals};
use crate::archive::{Drill, ReadOptions};
use crate::config::Config;
use crate::drill::{DrillOptions, drill};
use crate::error::Result;

/// `binvault drill`
#[derive(Debug, Args)]
pub(super) struct DrillArgs {
    /// Where to end, as `restore --to` takes it
    #[arg(long, value_name = "TARGET", default_value = "latest")]
    to: String,
    #[command(flatten)]
    target: TargetArgs,
    /// Folder in which the throw-away data directory is made
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// The server's program
    #[arg(long, value_name = "PATH")]
    mysqld: Option<PathBuf>,
    /// The client's program, which loads a dump
    #[arg(long, value_name = "PATH")]
    mysql: Option<PathBuf>,
    /// Leave the data directory where it is
    #[arg(long)]
    keep: bool,
    /// Print the record as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    keys: KeyArgs,
}

pub(super) async fn run(config: &Config, args: &DrillArgs) -> Result<()> {
    let read = ReadOptions::new(Arc::new(args.keys.read(config)?));
    let plan = args.target.options(&args.to, read)?;
    let archive = open(config).await?;
    let mut server = config.restore(args.folder.clone().unwrap_or_else(|| config.drill_folder()))?;
    server.mysqld = args.mysqld.clone().or(server.mysqld);
    server.mysql = args.mysql.clone().or(server.mysql);
    let bars = Bars::new();
    let options = DrillOptions {
        plan,
        load: load_options(config)?,
        examine: config.drill_examine(),
        server,
        keep: args.keep,
        on_step: bars.on_step(),
        stop: signals::stop_token(super::restore::STOP.0, super::restore::STOP.1)?,
    };
    let drilled = Box::pin(drill(&archive, &options)).await;
    bars.clear();
    let drilled = drilled?;
    if args.json {
        output::json(&drilled.record)?;
    } else {
        show(&drilled.record);
        if let Some(datadir) = &drilled.datadir {
            output::line(format!("kept     {}", datadir.display()));
        }
    }
    drilled.error.map_or(Ok(()), Err)
}

fn show(record: &Drill) {
    let line = |name: &str, text: String| output::line(format!("{name:<9}{text}"));
    let verdict = if record.ok { "HELD" } else { "FAILED" };
    line(verdict, record.problem.clone().unwrap_or_else(|| "restored, proven and looked into".to_owned()));
    if let Some(base) = &record.base {
        line("base", base.clone());
    }
    if let Some(reached) = record.reached_us {
        let reached = crate::position::CommitTime::from_micros(reached).rfc3339();
        let at = record.position.as_ref().map_or_else(String::new, ToString::to_string);
        line("state of", format!("{reached}, {at}, {} transactions replayed", record.transactions));
    }
    line("looked", format!("{} tables well, {} assertions held", record.tables, record.assertions));
    line("took", took(record.seconds, record.load_seconds, record.replay_seconds) + ": the measured RTO");
}
