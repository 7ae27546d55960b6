//! `find`: transactions, a line each, and the restore command for just before one.

mod show;

use std::path::PathBuf;

use clap::Args;
use indicatif::ProgressBar;

use self::show::{Document, Lines, Restore};
use super::archive::{KeyArgs, open, parse_server};
use super::output;
use crate::archive::ReadOptions;
use crate::clock;
use crate::config::{self, Config};
use crate::error::{Error, Result};
use crate::find::{Found, Kind, Kinds, LIMIT_MAX, Observer, Outcome, Query, TablePattern, find};
use crate::position::{BinlogFile, CommitTime, GtidSet, ServerUuid};
use crate::timeline::parse_moment;

/// `binvault find`
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct FindArgs {
    /// Committed at this time or later: RFC 3339, a local time, or "2 hours ago"
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    from: Option<CommitTime>,
    /// Committed at this time or before
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    to: Option<CommitTime>,
    /// Only this GTID, or those of this set
    #[arg(long, value_name = "GTID", value_parser = parse_gtids)]
    gtid: Option<GtidSet>,
    /// Only what names this table: DATABASE.TABLE, with * and ? as wildcards; may be given several times
    #[arg(long, value_name = "TABLE", value_parser = parse_table)]
    table: Vec<TablePattern>,
    /// Only transactions of this kind; may be given several times
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = kind_names(), hide_possible_values = true)]
    kind: Vec<String>,
    /// Only transactions of at least this size in the binlog (16MiB, say)
    #[arg(long, value_name = "SIZE", value_parser = config::parse_size)]
    large: Option<u64>,
    /// Only in this binlog file; may be given several times
    #[arg(long, value_name = "BINLOG", value_parser = parse_file)]
    file: Vec<BinlogFile>,
    /// Only this server's part
    #[arg(long, value_name = "UUID", value_parser = parse_server)]
    server: Option<ServerUuid>,
    /// Stop after so many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1000, value_parser = parse_limit)]
    limit: usize,
    /// The newest first
    #[arg(long, visible_alias = "reverse")]
    newest_first: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    keys: KeyArgs,
}

const AFTER_HELP: &str = "\
All that is given must hold; of several tables or kinds, one.
Kinds: ddl (create, alter, drop, truncate, rename), account, admin, rows (insert,
update, delete), statement, xa, large (16MiB, or --large), other. drop and
truncate also find ALTER TABLE that drops a column or empties a partition.

  binvault find --kind drop,truncate --table 'shop.*' --from '3 hours ago'";

/// What was given before the command's name, to be repeated in the command that is suggested.
#[derive(Debug)]
pub(super) struct Given {
    /// `--config`
    pub(super) config: Option<PathBuf>,
    /// `--archive`
    pub(super) archive: Option<String>,
}

fn parse_time(text: &str) -> Result<CommitTime, String> {
    parse_moment(text, &clock::zoned_now()).map_err(|error| {
        let why = error.chain().replace("is no target", "is no time");
        format!(
            "{why}; write 2026-11-22T14:03:11.482913Z, \"2026-11-22 14:03:11\" (local time), 14:03 or \"2 hours ago\""
        )
    })
}

fn parse_gtids(text: &str) -> Result<GtidSet, String> {
    let text = text.strip_prefix("gtid:").unwrap_or(text);
    let set: GtidSet = text.parse().map_err(|error: crate::position::ParseError| error.to_string())?;
    if set.is_empty() { Err("an empty set".to_owned()) } else { Ok(set) }
}

fn parse_table(text: &str) -> Result<TablePattern, String> {
    TablePattern::parse(text).map_err(|error| match error.hint_text() {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    })
}

fn parse_file(text: &str) -> Result<BinlogFile, String> {
    BinlogFile::new(text).map_err(|error| error.to_string())
}

fn parse_limit(text: &str) -> Result<usize, String> {
    let limit = text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
    limit.ok_or_else(|| format!("{text:?} is no number from 1 to {LIMIT_MAX}"))
}

fn kind_names() -> clap::builder::PossibleValuesParser {
    Kind::ALL.map(Kind::name).into()
}

impl FindArgs {
    fn query(&self) -> Result<Query> {
        if let (Some(from), Some(to)) = (self.from, self.to)
            && from > to
        {
            return Err(Error::config(format!("--from {} is behind --to {}", from.rfc3339(), to.rfc3339())));
        }
        let mut kinds = Kinds::default();
        Kind::ALL
            .into_iter()
            .filter(|kind| self.kind.iter().any(|name| name == kind.name()))
            .for_each(|k| kinds.add(k));
        Ok(Query {
            server: self.server,
            files: self.file.clone(),
            from: self.from,
            to: self.to,
            gtids: self.gtid.clone(),
            tables: self.table.clone(),
            kinds,
            large: self.large,
            limit: self.limit,
            newest_first: self.newest_first,
        })
    }
}

pub(super) async fn run(config: &Config, args: &FindArgs, given: &Given) -> Result<()> {
    let query = args.query()?;
    let options = ReadOptions::new(std::sync::Arc::new(args.keys.read(config)?));
    let archive = open(config).await?;
    let mut answers = Answers { bar: output::bar("searching", 0), lines: None, all: Vec::new(), last: None, query };
    answers.lines = (!args.json).then(|| Lines::new(output::columns()));
    let query = answers.query.clone();
    let outcome = find(&archive, &query, &options, &mut answers).await;
    answers.bar.finish_and_clear();
    let outcome = outcome?;
    let restore = answers.last.as_ref().map(|last| Restore::before(last, given, args, outcome.servers));
    if args.json {
        output::json(&Document::new(&answers.all, restore.as_ref(), &outcome))?;
    } else {
        conclude(&outcome, restore.as_ref(), args);
    }
    match outcome.error {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Prints what is found, or keeps it.
struct Answers {
    bar: ProgressBar,
    lines: Option<Lines>,
    all: Vec<Found>,
    /// The newest that is whole.
    last: Option<Found>,
    query: Query,
}

impl Observer for Answers {
    fn planned(&mut self, bytes: u64) {
        self.bar.inc_length(bytes);
    }

    fn scanned(&mut self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn found(&mut self, found: Found) {
        let newer = self.last.is_none() || !self.query.newest_first;
        if found.complete && newer {
            self.last = Some(found.clone());
        }
        match self.lines.as_mut() {
            Some(lines) => {
                let text = lines.line(&found);
                self.bar.suspend(|| output::line(text));
            }
            None => self.all.push(found),
        }
    }
}

/// What stands below the lines.
fn conclude(outcome: &Outcome, restore: Option<&Restore>, args: &FindArgs) {
    for missing in &outcome.not_searched {
        let show::NotSearchedText(text) = missing.into();
        output::note(text);
    }
    if outcome.limited {
        let end = if args.newest_first { "older" } else { "newer" };
        output::note(format!(
            "stopped at {}: there are more, {end} ones. Narrow the search, or raise --limit",
            outcome.found
        ));
    }
    let Some(restore) = restore else {
        let searched = output::bytes(outcome.scanned_bytes);
        return output::note(format!("no transaction found; {searched} of binlog looked through"));
    };
    let which = match (outcome.found, args.newest_first) {
        (1, _) => "this".to_owned(),
        (count, true) => format!("the first of these {count} (the newest)"),
        (count, false) => format!("the last of these {count}"),
    };
    output::line(format!("\nTo restore to just before {which}:\n  {}", restore.command));
}
