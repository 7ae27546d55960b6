//! `restore`: from an archive and a moment to a server, proven.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{ArgGroup, Args};
use serde::Serialize;

use super::archive::{KeyArgs, open};
use super::{output, signals};
use crate::archive::ReadOptions;
use crate::clock;
use crate::config::{Config, RestoreInto, server_options};
use crate::error::{Error, Result};
use crate::mysql::Address;
use crate::position::{GtidSet, Position};
use crate::restore::{
    DatadirOptions, Examine, Into, LoadOptions, OnStep, RestoreOptions, Restored, ServerOptions, Step, needs, restore,
};
use crate::timeline::{Edge, Plan, PlanOptions, Target, plan};

/// What is to be restored; `drill` takes the same.
#[derive(Debug, Args)]
pub(super) struct TargetArgs {
    /// Leave the target's own transaction out
    #[arg(long, conflicts_with = "after")]
    before: bool,
    /// Take the target's own transaction in (what a GTID and a time mean anyway)
    #[arg(long)]
    after: bool,
    /// History to follow, where the archive has several: a server's uuid, or the beginning of it
    #[arg(long, value_name = "HEAD")]
    head: Option<String>,
    /// Base backup to begin with (see `binvault list`); the best one if left out
    #[arg(long, value_name = "BASE")]
    base: Option<String>,
    /// Transactions to leave out, as a GTID or a set; what builds on them may fail. May be given several times
    #[arg(long, value_name = "GTID", value_parser = parse_set)]
    skip: Vec<GtidSet>,
}

/// `binvault restore`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("place").args(["datadir", "server", "dry_run"]).multiple(true).required(true), after_help = EXAMPLES)]
pub(super) struct RestoreArgs {
    /// Where to end: latest | a time | gtid:UUID:N | FILE:POSITION
    #[arg(long, value_name = "TARGET")]
    to: String,
    #[command(flatten)]
    target: TargetArgs,
    /// New data directory; absent, empty, or of an interrupted restore, which goes on
    #[arg(long, value_name = "DIR")]
    datadir: Option<PathBuf>,
    /// Running, empty server: mysql://user@host:port, or the path of its socket
    #[arg(long, value_name = "URL", conflicts_with = "datadir")]
    server: Option<String>,
    /// File with the password for --server
    #[arg(long, value_name = "FILE", requires = "server")]
    server_password_file: Option<PathBuf>,
    /// Address by which --server reaches this host
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    listen: String,
    /// The server's program, for --datadir
    #[arg(long, value_name = "PATH")]
    mysqld: Option<PathBuf>,
    /// The client's program, which loads a dump
    #[arg(long, value_name = "PATH")]
    mysql: Option<PathBuf>,
    /// Further option for the private mysqld, such as --innodb-buffer-pool-size=8G; may be given several times
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    mysqld_option: Vec<String>,
    /// New file for the keyring, if the base backup is a clone with encrypted tablespaces [default: DIR.keyring]
    #[arg(long, value_name = "FILE", requires = "datadir")]
    keyring: Option<PathBuf>,
    /// Appliers
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// Leave the private server running on its socket
    #[arg(long, requires = "datadir")]
    keep_running: bool,
    /// Run CHECK TABLE on every table when it is restored
    #[arg(long)]
    check_tables: bool,
    /// Go on although there may be too little room
    #[arg(long)]
    no_space_check: bool,
    /// Print the plan, and stop
    #[arg(long)]
    dry_run: bool,
    /// Print the plan or the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    keys: KeyArgs,
}

const EXAMPLES: &str = "\
Targets:
  latest                            the last transaction that is durable
  2026-11-22T14:03:11.482913Z       everything committed up to that moment
  \"2026-11-22 14:03:11\"             the same in local time; also 14:03, \"2 hours ago\"
  gtid:UUID:N --before              just before that transaction (`binvault find` finds it)
  binlog.000042:1234                everything before that position
Example:
  binvault restore --to \"20 minutes ago\" --datadir /var/lib/mysql-new --identity binvault.key";

/// What happens at a signal.
pub(super) const STOP: (&str, &str) = (
    "the private server is shut down, and the next run goes on",
    "a private server may be left running; the next run finds it",
);

fn parse_set(text: &str) -> Result<GtidSet, String> {
    text.parse().map_err(|error: crate::position::ParseError| error.to_string())
}

impl TargetArgs {
    /// The plan's options.
    ///
    /// # Errors
    /// If the target cannot be understood.
    pub(super) fn options(&self, to: &str, read: ReadOptions) -> Result<PlanOptions> {
        let mut skip = GtidSet::new();
        self.skip.iter().for_each(|set| skip.union_with(set));
        let edge = match (self.before, self.after) {
            (true, _) => Some(Edge::Before),
            (_, true) => Some(Edge::After),
            _ => None,
        };
        let target = Target::parse(to, &clock::zoned_now())?;
        Ok(PlanOptions {
            target,
            edge,
            head: self.head.clone(),
            base: self.base.clone(),
            into_server: false,
            skip,
            read,
        })
    }
}

pub(super) async fn run(config: &Config, args: &RestoreArgs) -> Result<()> {
    let read = ReadOptions::new(Arc::new(args.keys.read(config)?));
    let mut plan_options = args.target.options(&args.to, read.clone())?;
    plan_options.into_server = args.server.is_some();
    let archive = open(config).await?;
    let plan = plan(&archive, &plan_options).await?;
    if args.dry_run {
        if args.json {
            return output::json(&PlanDocument::of(&plan));
        }
        show_plan(&plan);
        return Ok(());
    }
    if !args.json {
        show_plan(&plan);
    }
    let stop = signals::stop_token(STOP.0, STOP.1)?;
    let bars = Bars::new();
    let options = RestoreOptions {
        archive,
        plan,
        read,
        load: load_options(config)?,
        into: into(config, args)?,
        examine: Examine { check_tables: args.check_tables, assertions: Vec::new() },
        on_step: bars.on_step(),
        stop,
    };
    let restored = Box::pin(restore(&options)).await;
    bars.clear();
    let restored = restored?;
    if args.json {
        output::json(&Document { schema: 1, dry_run: false, result: &restored })?;
    } else {
        show_result(&restored);
    }
    match restored.examined.trouble() {
        None => Ok(()),
        Some(trouble) => Err(Error::failed(format!("restored and proven, but {trouble}"))),
    }
}

fn into(config: &Config, args: &RestoreArgs) -> Result<Into> {
    let workers = args.workers.map(usize::from);
    if let Some(url) = &args.server {
        let server = server_options(url, args.server_password_file.as_deref())?;
        let local = matches!(&server.address, Address::Socket(_));
        let mysql = args.mysql.clone().or(config.restore(PathBuf::new())?.mysql);
        let listen_host = if local { "127.0.0.1".to_owned() } else { args.listen.clone() };
        let workers = workers.map_or_else(|| config.restore_workers(), Ok)?;
        return Ok(Into::Server(ServerOptions { server, mysql, listen_host, workers }));
    }
    let datadir = args.datadir.clone().ok_or_else(|| Error::config("neither --datadir nor --server is given"))?;
    let configured = config.restore(datadir)?;
    let mut settings = configured.settings.clone();
    settings.extend(args.mysqld_option.iter().cloned());
    Ok(Into::Datadir(DatadirOptions {
        mysqld: args.mysqld.clone().or(configured.mysqld),
        mysql: args.mysql.clone().or(configured.mysql),
        settings,
        workers: workers.unwrap_or(configured.workers),
        keyring: args.keyring.clone().or(configured.keyring),
        check_space: !args.no_space_check,
        keep_running: args.keep_running,
        datadir: configured.datadir,
    }))
}

/// The JSON of a result.
#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    dry_run: bool,
    #[serde(flatten)]
    result: &'a Restored,
}

/// The JSON of a plan.
#[derive(Serialize)]
struct PlanDocument<'a> {
    schema: u32,
    dry_run: bool,
    target: &'a str,
    head: &'a crate::timeline::Head,
    other_heads: &'a [crate::timeline::Head],
    base: &'a str,
    base_engine: &'a str,
    base_bytes: u64,
    base_position: Position,
    base_executed: &'a GtidSet,
    by_gtid: bool,
    files: Vec<PlanFile>,
    binlog_bytes: u64,
    fetched_bytes: u64,
    transactions: u64,
    first: Option<&'a crate::timeline::TransactionNote>,
    last: Option<&'a crate::timeline::TransactionNote>,
    left_out: Option<&'a crate::timeline::TransactionNote>,
    position: &'a Position,
    executed: &'a GtidSet,
    skipped: &'a GtidSet,
    estimate: crate::restore::Needs,
    warnings: &'a [String],
}

#[derive(Serialize)]
struct PlanFile {
    server: crate::position::ServerUuid,
    file: String,
    from: u64,
    until: u64,
}

impl<'a> PlanDocument<'a> {
    fn of(plan: &'a Plan) -> Self {
        let file = |play: &crate::playback::PlayFile| PlanFile {
            server: play.chunks.server,
            file: play.chunks.incarnation.file.to_string(),
            from: play.from,
            until: play.until,
        };
        Self {
            schema: 1,
            dry_run: true,
            target: &plan.target,
            head: &plan.head,
            other_heads: &plan.others,
            base: &plan.base.id,
            base_engine: &plan.base.engine,
            base_bytes: plan.base.raw_bytes,
            base_position: plan.base.coordinates.position(),
            base_executed: &plan.base.coordinates.executed,
            by_gtid: plan.by_gtid,
            files: plan.playlist.files.iter().map(file).collect(),
            binlog_bytes: plan.raw_bytes,
            fetched_bytes: plan.base.stored_bytes.saturating_add(plan.stored_bytes),
            transactions: plan.transactions,
            first: plan.first.as_ref(),
            last: plan.place.last_in.as_ref(),
            left_out: plan.place.first_out.as_ref(),
            position: &plan.place.position,
            executed: &plan.expected,
            skipped: &plan.skip,
            estimate: needs(plan),
            warnings: &plan.warnings,
        }
    }
}

fn show_plan(plan: &Plan) {
    let line = |name: &str, text: String| output::line(format!("{name:<9}{text}"));
    let needs = needs(plan);
    let base = &plan.base;
    line("target", format!("{} in the history of {}", plan.target, plan.head.name));
    line(
        "base",
        format!(
            "{}  {} of {}, at {}",
            base.id,
            output::bytes(base.raw_bytes),
            base.engine,
            base.coordinates.position()
        ),
    );
    let files = &plan.playlist.files;
    let span = match (files.first(), files.last()) {
        (Some(first), Some(last)) => format!(", {} .. {}", first.chunks.incarnation.file, last.chunks.incarnation.file),
        _ => String::new(),
    };
    line("binlog", format!("{} files, {}{span}", files.len(), output::bytes(plan.raw_bytes)));
    line("replay", format!("{} transactions", plan.transactions));
    for (name, note) in [("first", &plan.first), ("last", &plan.place.last_in), ("not in", &plan.place.first_out)] {
        if let Some(note) = note {
            let gtid = note.gtid.as_ref().map_or_else(|| "anonymous".to_owned(), ToString::to_string);
            line(name, format!("{}  {gtid}  at {}", note.commit.rfc3339(), note.position));
        }
    }
    line("ends at", plan.place.position.to_string());
    if plan.by_gtid {
        line("executed", plan.expected.to_string());
    }
    line("needs", format!("about {} of disk and {}", output::bytes(needs.disk_bytes), output::seconds(needs.seconds)));
    for warning in &plan.warnings {
        line("NOTE", warning.clone());
    }
}

fn show_result(restored: &Restored) {
    let line = |name: &str, text: String| output::line(format!("{name:<9}{text}"));
    let proof =
        if restored.by_gtid { "the executed set is exactly the plan's" } else { "the position is exactly the plan's" };
    line("PROVEN", format!("{proof}; {} transactions replayed", restored.transactions));
    if let Some(reached) = &restored.reached {
        line("state of", format!("{reached}, {}", restored.position));
    }
    line("took", took(restored.seconds, restored.load_seconds, restored.replay_seconds));
    for next in &restored.next {
        line("next", next.clone());
    }
}

/// The whole time, and what of it went where; all in seconds.
pub(super) fn took(whole: f64, load: f64, replay: f64) -> String {
    let [whole, load, replay] = [whole, load, replay].map(output::seconds);
    format!("{whole} (base {load}, replay {replay})")
}

/// A bar for the base and one for the replay.
pub(super) struct Bars {
    load: indicatif::ProgressBar,
    replay: indicatif::ProgressBar,
}

impl Bars {
    pub(super) fn new() -> Self {
        Self { load: output::bar("base  ", 0), replay: output::bar("replay", 0) }
    }

    pub(super) fn on_step(&self) -> OnStep {
        let (load, replay) = (self.load.clone(), self.replay.clone());
        Arc::new(move |step| match step {
            Step::Prepare(what) => tracing::info!("starting {what}"),
            Step::Load { bytes, total } => {
                load.set_length(*total);
                load.set_position(*bytes);
            }
            Step::Replay { bytes, total, transactions, position, reached } => {
                load.finish_and_clear();
                replay.set_length(*total);
                replay.set_position(*bytes);
                let at = position.as_ref().map_or_else(String::new, ToString::to_string);
                let done = transactions.map_or_else(String::new, |count| format!("{count} transactions, "));
                replay.set_message(format!("replay {done}{at} {}", reached.rfc3339()));
            }
            Step::Prove => replay.finish_and_clear(),
        })
    }

    pub(super) fn clear(&self) {
        self.load.finish_and_clear();
        self.replay.finish_and_clear();
    }
}

/// How to put back a base backup that a command wrote.
pub(super) fn load_options(config: &Config) -> Result<LoadOptions> {
    let command = config.base_restore()?;
    let into_datadir = command.as_ref().is_some_and(|command| command.into == RestoreInto::DataDir);
    Ok(LoadOptions { command: command.map(|command| command.command), into_datadir })
}
