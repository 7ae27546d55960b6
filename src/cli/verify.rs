//! `verify`: proof, or what is wrong.

use std::io::Write;

use clap::Args;

use super::archive::{KeyArgs, open, parse_server};
use super::output;
use crate::config::Config;
use crate::error::Result;
use crate::position::ServerUuid;
use crate::verify::{Manner, Report, Scope, verify};

/// `binvault verify`
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Open every chunk and base backup and walk every event; needs a private key
    #[arg(long)]
    deep: bool,
    /// Only this server's part
    #[arg(long, value_name = "UUID", value_parser = parse_server)]
    server: Option<ServerUuid>,
    /// Leave the base backups out: only binlogs are read
    #[arg(long)]
    no_bases: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    keys: KeyArgs,
}

pub(super) async fn run(config: &Config, args: &VerifyArgs) -> Result<()> {
    let keys = if args.deep { Some(args.keys.read(config)?) } else { None };
    let archive = open(config).await?;
    let bar = output::bar("verifying", 0);
    let scope = Scope { server: args.server, bases: !args.no_bases, manner: Manner::Quick };
    let report = verify(&archive, scope, keys.as_ref(), &|bytes| {
        bar.inc_length(bytes);
        bar.inc(bytes);
    })
    .await;
    bar.finish_and_clear();
    let report = report?;
    if args.json {
        output::json(&report)?;
    } else {
        show(&report);
    }
    let _ = std::io::stdout().flush();
    report.into_result().map(|_| ())
}

fn show(report: &Report) {
    for finding in &report.findings {
        output::line(format!("{}: {}: {}", finding.kind, finding.what, finding.problem));
    }
    if report.findings_left_out > 0 {
        output::line(format!("and {} more", report.findings_left_out));
    }
    let mut looked = format!(
        "{} files, {} chunks, {} stored, {} raw",
        report.files,
        report.chunks,
        output::bytes(report.stored_bytes),
        output::bytes(report.raw_bytes)
    );
    if report.bases > 0 {
        let backups = if report.bases == 1 { "base backup" } else { "base backups" };
        looked += &format!(", {} {backups}, {} stored", report.bases, output::bytes(report.base_bytes));
    }
    let gaps = match report.breaks {
        0 => "no gap".to_owned(),
        breaks => format!("no gap but {breaks} known breaks (`binvault status` tells them)"),
    };
    let proof = match (report.findings.is_empty(), report.deep) {
        (false, _) => "NOT WHOLE".to_owned(),
        (true, false) => format!("whole: {gaps}, every digest right"),
        (true, true) => format!(
            "whole: {gaps}, every chunk opened, {} events and {} transactions right",
            report.events, report.transactions
        ),
    };
    output::line(format!("{looked}: {proof}"));
}
