//! `status` and `list`.

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};

use super::archive::open;
use super::output;
use crate::config::Config;
use crate::error::Result;
use crate::status::{self, DrillSummary, Lag, Protection, ServerStatus, StatusReport};

/// `binvault status`
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Do not ask the server where it is; the agents' last word is shown
    #[arg(long)]
    offline: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// `binvault list`
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Print the list as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn status(config: &Config, args: &StatusArgs) -> Result<()> {
    let source = if config.has_source() && !args.offline { config.source().map(Some) } else { Ok(None) };
    // On a host that has the archive but not the server's password, the archive's part is wanted all the more.
    let source = source.unwrap_or_else(|error| {
        tracing::warn!(error = %error.chain(), "the server is not asked where it is");
        None
    });
    let archive = open(config).await?;
    let report = status::status(&archive, source.as_ref(), &config.objectives()).await?;
    if args.json {
        return output::json(&report);
    }
    show_status(&report);
    Ok(())
}

fn show_status(report: &StatusReport) {
    output::line(format!("archive  {}  ({}, made {})", report.url, report.archive, report.created));
    if report.servers.is_empty() {
        output::line("nothing is archived yet");
    }
    for server in &report.servers {
        show_server(server);
    }
    show_protection(&report.protection);
    for agent in &report.agents {
        let durable = agent.durable.as_ref().map_or_else(|| "nothing yet".to_owned(), ToString::to_string);
        let word = if agent.stopped { "stopped at" } else { "was at" };
        let time = crate::position::CommitTime::from_micros(agent.as_of_us).rfc3339();
        output::line(format!("agent    {} {word} {durable} as of {time} (binvault {})", agent.agent, agent.version));
    }
}

fn show_server(server: &ServerStatus) {
    output::line(format!("server   {}", server.server));
    if let Some(durable) = &server.durable {
        output::line(format!("durable  {durable}   {}", lag_text(&server.lag)));
    }
    for range in &server.ranges {
        let from = range.first_commit.as_deref().unwrap_or("-");
        let to = range.last_commit.as_deref().unwrap_or("-");
        output::line(format!("range    {from} .. {to}   ({} .. {})", range.from, range.to));
    }
    for gap in &server.gaps {
        output::line(format!("GAP      {}: {}", gap.file, gap.problem));
    }
    let ratio = server.raw_bytes.saturating_mul(10).checked_div(server.stored_bytes).unwrap_or(0);
    output::line(format!(
        "holds    {} files, {} chunks, {} raw as {} stored ({}.{}:1)",
        server.files,
        server.chunks,
        output::bytes(server.raw_bytes),
        output::bytes(server.stored_bytes),
        ratio / 10,
        ratio % 10
    ));
}

fn show_protection(protection: &Protection) {
    match &protection.newest_base {
        Some(base) => output::line(format!(
            "base     {}  {} at {}, {} in all",
            base.id,
            output::bytes(base.bytes),
            base.position,
            protection.bases
        )),
        None => output::line("base     none: nothing can be restored from; `binvault base` takes one"),
    }
    let drill = |word: &str, drill: &DrillSummary| {
        let reached = drill.reached.as_deref().unwrap_or("-");
        let problem = drill.problem.as_deref().map_or_else(String::new, |problem| format!(": {problem}"));
        let took = output::seconds(drill.seconds);
        output::line(format!("{word:<9}restored to {reached} by the drill of {}, in {took}{problem}", drill.started));
    };
    match &protection.verified {
        Some(held) => drill("verified", held),
        None => output::line("verified never: `binvault drill` restores into a throw-away server and proves it"),
    }
    if let Some(failed) = protection.last_drill.as_ref().filter(|drill| !drill.ok) {
        drill("FAILED", failed);
    }
    for objective in &protection.objectives {
        let verdict = match objective.met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "unknown",
        };
        let measured = objective.measured_seconds.map_or_else(|| "-".to_owned(), output::seconds);
        let wanted = output::seconds(objective.wanted_seconds);
        output::line(format!(
            "{:<9}{verdict}: {measured} measured, {wanted} wanted, by {}",
            objective.name, objective.by
        ));
    }
}

fn lag_text(lag: &Lag) -> String {
    let from = match lag.from {
        "server" => "",
        "beacon" => " by the agent's last word",
        _ => return "lag unknown: the server was not asked".to_owned(),
    };
    match (lag.bytes, lag.seconds) {
        (Some(0), _) => format!("lag 0{from}"),
        (Some(bytes), Some(seconds)) => format!("lag {} / {}{from}", output::bytes(bytes), output::seconds(seconds)),
        (Some(bytes), None) => format!("lag {}{from}", output::bytes(bytes)),
        (None, seconds) => {
            let behind = seconds.map(output::seconds).map_or_else(String::new, |text| format!(" / {text}"));
            let at = lag.server_position.as_ref().map_or_else(String::new, ToString::to_string);
            format!("lag more than a file{behind}: the server is at {at}{from}")
        }
    }
}

pub(super) async fn list(config: &Config, args: &ListArgs) -> Result<()> {
    let archive = open(config).await?;
    let report = status::list(&archive).await?;
    if args.json {
        return output::json(&report);
    }
    if report.files.is_empty() {
        output::line("nothing is archived yet");
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["FILE", "BEGUN", "BYTES", "STORED", "CHUNKS", "LAST COMMIT", "STATE"]);
    let servers: std::collections::BTreeSet<_> = report.files.iter().map(|file| file.server).collect();
    for file in &report.files {
        let name = if servers.len() > 1 { format!("{}/{}", file.server, file.file) } else { file.file.to_string() };
        let state = match (file.holes.is_empty(), file.complete) {
            (false, _) => format!("HOLES {}", file.holes.join(" ")),
            (true, true) => "complete".to_owned(),
            (true, false) => "growing".to_owned(),
        };
        let last = file.last_commit.clone().unwrap_or_else(|| "-".into());
        let (bytes, stored, chunks) =
            (file.bytes.to_string(), output::bytes(file.stored_bytes), file.chunks.to_string());
        table.add_row([name, file.created.clone(), bytes, stored, chunks, last, state]);
    }
    for column in 2..5 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    output::line(table.trim_fmt());
    Ok(())
}
