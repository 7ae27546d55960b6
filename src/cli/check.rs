//! `check`: the preflight's findings, area by area, each with what mends it.
//!
//! stdout has the findings and, last, `fit` or `not fit: …`; with `--json` the report as `crate::check` documents it.
//! The exit code is that of the first error.

use std::io::{IsTerminal, Write};

use clap::Args;

use super::archive::KeyArgs;
use super::output;
use crate::check::{Area, CheckOptions, Finding, Level, Report, check};
use crate::config::Config;
use crate::error::{Error, Result};

/// `binvault check`
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    keys: KeyArgs,
}

pub(super) async fn run(config: &Config, args: &CheckArgs) -> Result<()> {
    let given = !args.keys.identity.is_empty() || !config.identities().is_empty();
    let identities = given.then(|| args.keys.read(config));
    let report = Box::pin(check(CheckOptions::new(config, identities))).await;
    if args.json {
        output::json(&report)?;
    } else {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        output::line(text(&report, colour));
    }
    let _ = std::io::stdout().flush();
    match report.findings.iter().find(|finding| finding.level == Level::Error) {
        None => Ok(()),
        Some(first) => Err(Error::new(first.kind(), format!("not fit: {}", first.title))),
    }
}

/// The report for people.
fn text(report: &Report, colour: bool) -> String {
    let mut text = String::new();
    let mut area: Option<Area> = None;
    for finding in &report.findings {
        if area != Some(finding.area) {
            area = Some(finding.area);
            text.push_str(&format!("{}\n", painted(finding.area.as_str(), "1", colour)));
        }
        text.push_str(&shown(finding, colour));
    }
    text.push_str(&verdict(report, colour));
    text
}

fn shown(finding: &Finding, colour: bool) -> String {
    let (sign, paint) = match finding.level {
        Level::Ok => ("✓", "32"),
        Level::Note => ("·", "36"),
        Level::Warning => ("!", "33;1"),
        Level::Error => ("✗", "31;1"),
    };
    let mut text = format!("  {} {}\n", painted(sign, paint, colour), finding.title);
    if !finding.detail.is_empty() {
        text.push_str(&format!("      {}\n", finding.detail));
    }
    // At the margin of its own column, so that it can be pasted as a block.
    for line in finding.fix.iter().flat_map(|fix| fix.lines()) {
        text.push_str(&format!("        {}\n", painted(line, "1", colour)));
    }
    text
}

fn verdict(report: &Report, colour: bool) -> String {
    let count = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let warnings = count(report.count(Level::Warning), "warning");
    if report.is_fit() {
        return format!("{}, {warnings}", painted("fit", "32;1", colour));
    }
    format!("{}: {}, {warnings}", painted("not fit", "31;1", colour), count(report.count(Level::Error), "error"))
}

fn painted(text: &str, paint: &str, colour: bool) -> String {
    if colour { format!("\x1b[{paint}m{text}\x1b[0m") } else { text.to_owned() }
}
