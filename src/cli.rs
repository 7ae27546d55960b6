//! The command line: one arm a command; text, tables, JSON, progress bars. Nothing below knows clap.
//!
//! Owns: arguments, what goes to stdout (results) and stderr (log, progress, errors), exit codes, signals.
//! Does not own: what the commands do.
//!
//! Invariants: with `--json` stdout holds one JSON document and nothing else; colours and bars on a terminal only; an
//! error is printed once, with its causes and `HINT:`.

mod archive;
mod base;
mod check;
mod drain;
mod drill;
mod export;
mod find;
mod keygen;
mod output;
mod prune;
mod restore;
mod run;
mod serve;
mod show;
mod signals;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::config::{self, Config, LogFormat};
use crate::error::{Error, Kind, Result};

/// Archives a live MySQL, encrypted, into an object store, and brings it back to any moment, proven.
#[derive(Debug, Parser)]
#[command(name = "binvault", version, max_term_width = 110, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Begin with `binvault keygen`, `binvault init` and `binvault check`, then run.
Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 server unreachable,
4 account refused, 5 server unfit, 6 binlogs purged, 7 history diverged,
8 identity in use, 9 store, 10 damaged bytes, 11 wrong key, 12 gap,
13 newer format.";

/// What every command takes.
#[derive(Debug, Args)]
struct Global {
    /// Configuration file; settings also come from BINVAULT_SECTION__NAME
    #[arg(short, long, global = true, env = "BINVAULT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Archive URL (s3://bucket/prefix or file:///folder), instead of the configured one
    #[arg(long, global = true, value_name = "URL")]
    archive: Option<String>,
    /// More in the log: -v debug, -vv trace
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key pair: writes the private key, prints the recipient (age1…)
    Keygen(keygen::KeygenArgs),
    /// Write a commented configuration
    Init(keygen::InitArgs),
    /// Look whether server, account, archive and keys are fit, and say how to mend what is not
    Check(check::CheckArgs),
    /// Archive the server's binlog until told to stop
    Run(run::RunArgs),
    /// Show what can be restored, how far the archive is behind, and what is missing
    Status(show::StatusArgs),
    /// Take a base backup now
    Base(base::BaseArgs),
    /// List base backups and archived binlog files
    List(show::ListArgs),
    /// Find transactions by time, GTID, table, kind or size, and how to restore to just before one
    Find(find::FindArgs),
    /// Bring a server back to a moment, and prove it
    Restore(restore::RestoreArgs),
    /// Send what an agent has left in its spool to the store
    Drain(drain::DrainArgs),
    /// Restore into a throw-away server, prove it, look into it, and write that down
    Drill(drill::DrillArgs),
    /// Write the server's own binlog files from the archive
    Export(export::ExportArgs),
    /// Remove what nobody needs any more, as the configured retention says
    Prune(prune::PruneArgs),
    /// Prove that the archive is whole; with --deep that every chunk opens and every event is right
    Verify(verify::VerifyArgs),
    /// Be a replication source: replicas follow the archive instead of the server
    Serve(serve::ServeArgs),
    /// Print a completion script
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
    /// Print the manual page (roff), or write one page a command with --to
    Man {
        /// Folder for one page a command
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
    },
}

/// Parses the arguments, runs the command, prints the error if there is one, and gives the exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { Kind::Config.exit_code() } else { 0 });
        }
    };
    keep_memory_private();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(Box::pin(dispatch(cli)));
            // A thread that hangs in a dead store must not keep the process.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(Error::failed("start the runtime").source(error)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::print_error(&error);
            ExitCode::from(error.kind().exit_code())
        }
    }
}

/// Passwords and private keys are in memory: a crash leaves no core file, and other processes of the same account cannot
/// read it. (Not by a limit on core files: the servers and tools that are started would inherit it.)
fn keep_memory_private() {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};

    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        output::note(format!("warning: the system does not let core dumps be switched off: {error}"));
    }
}

async fn dispatch(cli: Cli) -> Result<()> {
    let Cli { global, command } = cli;
    match command {
        Command::Keygen(args) => keygen::keygen(&args),
        Command::Init(args) => keygen::init(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "binvault", &mut script);
            output::line(String::from_utf8_lossy(&script).trim_end());
            Ok(())
        }
        Command::Man { to } => keygen::man(Cli::command(), to.as_deref()),
        Command::Check(args) => check::run(&load(&global, "warn")?, &args).await,
        Command::Run(args) => Box::pin(run::run(load(&global, "")?, &|| read(&global), &args)).await,
        Command::Status(args) => show::status(&load(&global, "warn")?, &args).await,
        Command::Base(args) => base::run(&load(&global, "warn")?, &args).await,
        Command::List(args) => show::list(&load(&global, "warn")?, &args).await,
        Command::Find(args) => {
            let given = find::Given { config: global.config.clone(), archive: global.archive.clone() };
            find::run(&load(&global, "warn")?, &args, &given).await
        }
        Command::Restore(args) => restore::run(&load(&global, "warn")?, &args).await,
        Command::Drain(args) => drain::run(&load(&global, "warn")?, &args).await,
        Command::Drill(args) => drill::run(&load(&global, "warn")?, &args).await,
        Command::Export(args) => export::run(&load(&global, "warn")?, &args).await,
        Command::Serve(args) => serve::run(&load(&global, "")?, &args).await,
        Command::Prune(args) => prune::run(&load(&global, "warn")?, &args).await,
        Command::Verify(args) => verify::run(&load(&global, "warn")?, &args).await,
    }
}

/// Reads the configuration.
fn read(global: &Global) -> Result<Config> {
    let mut raw = config::load(global.config.as_deref(), std::env::vars())?;
    if let Some(url) = &global.archive {
        raw.archive.url = Some(url.clone());
    }
    Config::new(raw)
}

/// Reads the configuration and starts the log at the configured level, or at `quiet` for commands that print results.
fn load(global: &Global, quiet: &str) -> Result<Config> {
    let config = read(global)?;
    let (format, level) = config.log();
    let level = match (global.verbose, quiet) {
        (0, "") => level,
        (0, quiet) => quiet,
        (1, _) => "info,binvault=debug",
        _ => "debug,binvault=trace",
    };
    start_log(format, level)?;
    Ok(config)
}

fn start_log(format: LogFormat, level: &str) -> Result<()> {
    use std::io::IsTerminal;

    let filter =
        EnvFilter::try_new(level).map_err(|error| Error::config(format!("log.level {level:?}")).source(error))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let started = match format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    started.map_err(|error| Error::failed("start the log").source(error))
}
