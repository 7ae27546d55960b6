//! `export`: the server's own files back.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::archive::{KeyArgs, open, parse_server};
use super::output;
use crate::config::Config;
use crate::error::Result;
use crate::export::{Exported, Planned, Selection, export_all, plan};
use crate::position::{BinlogFile, ServerUuid, created_text};

/// `binvault export`
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Folder for the files; made if needed, nothing in it is overwritten
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Files to export, by name; all if none is named
    #[arg(value_name = "BINLOG", value_parser = parse_file)]
    files: Vec<BinlogFile>,
    /// From this file on
    #[arg(long, value_name = "BINLOG", value_parser = parse_file)]
    from: Option<BinlogFile>,
    /// Up to and with this file
    #[arg(long, value_name = "BINLOG", value_parser = parse_file)]
    until: Option<BinlogFile>,
    /// Only this server's files
    #[arg(long, value_name = "UUID", value_parser = parse_server)]
    server: Option<ServerUuid>,
    /// Where a file has a hole, write what stands before it
    #[arg(long)]
    partial: bool,
    /// Print what would be written, and stop
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    keys: KeyArgs,
}

fn parse_file(text: &str) -> Result<BinlogFile, String> {
    BinlogFile::new(text).map_err(|error| error.to_string())
}

/// The JSON of a plan or a result.
#[derive(Serialize)]
struct Document<T> {
    schema: u32,
    dry_run: bool,
    files: Vec<T>,
}

#[derive(Serialize)]
struct PlannedFile {
    server: ServerUuid,
    file: BinlogFile,
    created: String,
    path: PathBuf,
    bytes: u64,
    chunks: usize,
}

pub(super) async fn run(config: &Config, args: &ExportArgs) -> Result<()> {
    let keys = if args.dry_run { None } else { Some(args.keys.read(config)?) };
    let archive = open(config).await?;
    let selection = Selection {
        server: args.server,
        files: args.files.clone(),
        from: args.from.clone(),
        until: args.until.clone(),
    };
    let planned = plan(&archive, &selection, &args.to, args.partial).await?;
    let Some(keys) = keys else { return show_plan(&planned, args.json) };
    let total = planned.iter().map(|file| file.bytes).fold(0, u64::saturating_add);
    let bar = output::bar("exporting", total);
    let ticker = bar.clone();
    let exported = export_all(&archive, &planned, &keys, Arc::new(move |bytes| ticker.inc(bytes))).await;
    bar.finish_and_clear();
    show_result(exported?, args.json, total)
}

fn show_plan(planned: &[Planned], json: bool) -> Result<()> {
    let files: Vec<PlannedFile> = planned
        .iter()
        .map(|file| PlannedFile {
            server: file.chunks.server,
            file: file.chunks.incarnation.file.clone(),
            created: created_text(file.chunks.incarnation.created_s),
            path: file.path.clone(),
            bytes: file.bytes,
            chunks: file.chunks.cover.contiguous().len(),
        })
        .collect();
    if json {
        return output::json(&Document { schema: 1, dry_run: true, files });
    }
    for file in &files {
        output::line(format!(
            "would write {} ({}, {} chunks)",
            file.path.display(),
            output::bytes(file.bytes),
            file.chunks
        ));
    }
    Ok(())
}

fn show_result(files: Vec<Exported>, json: bool, total: u64) -> Result<()> {
    if json {
        return output::json(&Document { schema: 1, dry_run: false, files });
    }
    for file in &files {
        output::line(format!("{}  {} bytes", file.path.display(), file.bytes));
    }
    output::line(format!("{} files, {}", files.len(), output::bytes(total)));
    Ok(())
}
