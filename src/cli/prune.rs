//! `prune`: removes what nobody needs any more. stdout says what goes and what stays; with `--json` the document of
//! `docs/JSON.md`.

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};

use super::archive::open;
use super::output;
use crate::config::Config;
use crate::error::Result;
use crate::retention::{Amount, Prune, Report};

/// `binvault prune`
#[derive(Debug, Args)]
pub(super) struct PruneArgs {
    /// Say what would go and what would stay, and stop
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Files named one by one.
const FILES_SHOWN: usize = 10;

pub(super) async fn run(config: &Config, args: &PruneArgs) -> Result<()> {
    let policy = config.retention()?;
    policy.check()?;
    let archive = open(config).await?;
    let prune = Prune::plan(&archive, &policy).await?;
    let report = if args.dry_run {
        prune.report().clone()
    } else {
        let bar = output::count_bar("removing", prune.report().removed.objects);
        let gone = bar.clone();
        let removed = prune.remove(&archive, &move |objects| gone.inc(objects)).await;
        bar.finish_and_clear();
        removed?
    };
    if args.json {
        return output::json(&report);
    }
    show(&report);
    Ok(())
}

fn show(report: &Report) {
    output::line(format!("kept since {}, and what that needs:", report.since));
    for head in &report.heads {
        let from = match &head.base {
            Some(base) => format!("from base backup {base}"),
            None => "all of it: no base backup before then leads to its end".to_owned(),
        };
        output::line(format!("  {}  {from}", head.head.name));
    }
    let going = if report.dry_run { "would go" } else { "gone" };
    if report.removed.objects == 0 {
        output::line("nothing is older than that");
    } else {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header([going, "objects", "size"]);
        for base in &report.bases {
            let what = if base.left_over { "never finished" } else { "base backup" };
            table.add_row([format!("{what} {}", base.id), base.objects.to_string(), output::bytes(base.stored_bytes)]);
        }
        for file in report.files.iter().take(FILES_SHOWN) {
            table.add_row([
                format!("binlog {} {}", file.server, file.file),
                file.objects.to_string(),
                output::bytes(file.stored_bytes),
            ]);
        }
        if let Some(more) = report.files.len().checked_sub(FILES_SHOWN).filter(|more| *more > 0) {
            table.add_row([format!("and {more} binlog files more"), String::new(), String::new()]);
        }
        for column in [1, 2] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        output::line(table.to_string());
    }
    output::line(format!("{going:<9} {}", amount(&report.removed)));
    output::line(format!("{:<9} {}", if report.dry_run { "stays" } else { "left" }, amount(&report.kept)));
}

fn amount(amount: &Amount) -> String {
    format!(
        "{} base backups, {} binlog files: {} objects, {}",
        amount.bases,
        amount.files,
        amount.objects,
        output::bytes(amount.stored_bytes)
    )
}
