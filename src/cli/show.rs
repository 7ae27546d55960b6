//! `status` and `list`.

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};

use super::archive::open;
use super::output;
use crate::archive::{Beacon, SemiSyncWord, VerifyWord};
use crate::clock;
use crate::config::Config;
use crate::error::Result;
use crate::position::CommitTime;
use crate::status::{
    self, DrillSummary, Lag, ListedBase, ListedFile, Protection, RecordedGap, ServerStatus, StatusReport,
};

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
    let report = status::survey(&archive, source.as_ref(), &config.objectives()).await?.report;
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
    report.recorded_gaps.iter().for_each(show_recorded);
    show_protection(&report.protection);
    for agent in &report.agents {
        let durable = agent.durable.as_ref().map_or_else(|| "nothing yet".to_owned(), ToString::to_string);
        let word = if agent.stopped { "stopped at" } else { "was at" };
        let time = CommitTime::from_micros(agent.as_of_us).rfc3339();
        output::line(format!("agent    {} {word} {durable} as of {time} (binvault {})", agent.agent, agent.version));
        if let Some(spool) = agent.spool.as_ref().filter(|spool| spool.state.objects > 0) {
            let (state, dir) = (spool.state, spool.dir.display());
            let oldest = state.oldest_us.map_or_else(|| "-".to_owned(), |us| CommitTime::from_micros(us).rfc3339());
            let what = format!("{} objects, {}", state.objects, output::bytes(state.bytes));
            output::line(format!(
                "spool    {what} were not in the store yet, the oldest of {oldest} ({dir}, at the agent)"
            ));
        }
        if let Some(VerifyWord { at_us, problem }) = &agent.verified {
            let time = CommitTime::from_micros(*at_us).rfc3339();
            match problem {
                None => output::line(format!("verify   every object was whole at {time}")),
                Some(problem) => output::line(format!("verify   NOT WHOLE at {time}: {problem}")),
            }
        }
        if let Some(word) = &agent.semi_sync {
            show_semi_sync(word, agent);
        }
    }
}

fn show_recorded(gap: &RecordedGap) {
    output::line(format!("BREAK    {} ({}): {}", gap.at, gap.kind.as_str(), gap.problem));
    output::line(format!(
        "         {} ends at {}, {} goes on at {}",
        gap.server, gap.ends, gap.goes_on_with, gap.goes_on_at
    ));
    for (word, set) in [("missing", &gap.missing), ("lost", &gap.lost)] {
        if let Some(set) = set.as_ref().filter(|set| !set.is_empty()) {
            output::line(format!("         {word}: {set}"));
        }
    }
    if gap.is_loss && !gap.base_behind {
        output::line("         NO BASE BACKUP BEHIND IT: `binvault base` takes one");
    }
}

/// Whether commits wait until they are durable, by the agent's last word.
fn show_semi_sync(word: &SemiSyncWord, agent: &Beacon) {
    // An agent that runs speaks every minute, or as often as it is set to.
    const SILENT_US: u64 = 180_000_000;
    let time = |us: u64| CommitTime::from_micros(us).rfc3339();
    let since = time(word.since_us);
    if word.protected && clock::now_us().saturating_sub(agent.as_of_us) > SILENT_US {
        output::line(format!("commits  UNKNOWN: protected ({}) since {since}, but the agent is silent", word.mode));
    } else if word.protected && !agent.stopped {
        let ack = word.last_ack_us.map_or_else(|| "none yet".to_owned(), time);
        output::line(format!("commits  protected ({}) since {since}, last acknowledged {ack}", word.mode));
    } else {
        let reason = word.reason.as_deref().unwrap_or("the agent has not joined yet");
        output::line(format!("commits  NOT PROTECTED since {since}: {reason}"));
    }
    if word.uncovered > 0 {
        output::line(format!(
            "         {} commits were not covered since protection was first reached",
            word.uncovered
        ));
    }
    for lapse in &word.lapses {
        let to = lapse.to_us.map_or_else(|| "now".to_owned(), time);
        let which = match &lapse.gtids {
            Some(gtids) if gtids.is_empty() => "none".to_owned(),
            Some(gtids) => gtids.to_string(),
            None => "too many to be listed".to_owned(),
        };
        let (from, reason) = (time(lapse.from_us), &lapse.reason);
        output::line(format!("lapse    {from} .. {to}: {} commits not covered ({reason}): {which}", lapse.commits));
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
    if let Some(from) = &server.restorable_from {
        output::line(format!("restore  any moment from {from} on"));
    }
    for gap in &server.gaps {
        let recorded = if gap.recorded { " (recorded, see BREAK)" } else { "" };
        output::line(format!("GAP      {}: {}{recorded}", gap.file, gap.problem));
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
    if report.files.is_empty() && report.bases.is_empty() {
        output::line("nothing is archived yet");
    }
    if !report.bases.is_empty() {
        output::line(base_table(&report.bases));
    }
    for id in &report.unfinished_bases {
        output::line(format!("UNFINISHED  {id}: it has no manifest (on its way, or given up)"));
    }
    for base in &report.unreadable_bases {
        output::line(format!("UNREADABLE  {}: {}", base.id, base.problem));
    }
    if !report.files.is_empty() {
        if !report.bases.is_empty() || !report.unfinished_bases.is_empty() {
            output::line("");
        }
        output::line(file_table(&report.files));
    }
    Ok(())
}

/// A table without lines; the columns of these indices are numbers.
fn table(header: &[&str], numbers: &[usize], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for column in numbers {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

fn base_table(bases: &[ListedBase]) -> String {
    let header = ["BASE", "TOOK", "BYTES", "STORED", "AT", "SERVER", "VERIFIED", "STATE"];
    let rows = bases.iter().map(|base| {
        let state =
            base.problem.as_ref().map_or_else(|| "covered".to_owned(), |problem| format!("NOT COVERED: {problem}"));
        vec![
            base.id.clone(),
            output::seconds(base.seconds),
            output::bytes(base.raw_bytes),
            output::bytes(base.stored_bytes),
            base.position.to_string(),
            base.server_version.clone(),
            base.last_verified.clone().unwrap_or_else(|| "never".into()),
            state,
        ]
    });
    table(&header, &[1, 2, 3], rows)
}

fn file_table(files: &[ListedFile]) -> String {
    let servers: std::collections::BTreeSet<_> = files.iter().map(|file| file.server).collect();
    let rows = files.iter().map(|file| {
        let name = if servers.len() > 1 { format!("{}/{}", file.server, file.file) } else { file.file.to_string() };
        let state = match (file.holes.is_empty(), file.complete) {
            (false, _) => format!("HOLES {}", file.holes.join(" ")),
            (true, true) => "complete".to_owned(),
            (true, false) => "growing".to_owned(),
        };
        vec![
            name,
            file.created.clone(),
            file.bytes.to_string(),
            output::bytes(file.stored_bytes),
            file.chunks.to_string(),
            file.last_commit.clone().unwrap_or_else(|| "-".into()),
            state,
        ]
    });
    table(&["FILE", "BEGUN", "BYTES", "STORED", "CHUNKS", "LAST COMMIT", "STATE"], &[2, 3, 4], rows)
}
