//! The private mysqld: found, asked for its version, initialised, started, stopped.
//!
//! Invariants: it listens on a socket in a folder that only we can enter, and on no network; no event scheduler, no
//! replication of its own, no binlog; it is our child in a process group of its own, so that a Ctrl-C reaches us alone.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};

use super::words::Words;
use crate::clock;
use crate::error::{Context, Error, Kind, Result};
use crate::mysql::Version;

/// How long a server may take to answer `--version`.
const VERSION_LIMIT: Duration = Duration::from_secs(30);
/// How long a server may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(600);
/// Bytes of its log that are shown.
const LOG_TAIL_BYTES: u64 = 16 << 10;

/// A mysqld that can be run.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    pub(super) version: Version,
    /// Operating system and machine that it is for, as it says them; `None` if it does not.
    pub(super) platform: Option<(String, String)>,
}

impl Program {
    /// Finds it: the given one, or `mysqld` on PATH and where packages put it.
    ///
    /// # Errors
    /// [`Kind::Unfit`] if there is none, or it does not say its version.
    pub(super) async fn find(given: Option<&Path>) -> Result<Self> {
        let path = match given {
            Some(path) => path.to_owned(),
            None => on_path("mysqld", &["/usr/sbin", "/usr/libexec", "/usr/local/mysql/bin"]).ok_or_else(|| {
                Error::new(Kind::Unfit, "no mysqld is installed here")
                    .hint("give the program with --mysqld PATH, or restore into a running server with --server URL")
            })?,
        };
        let mut command = Command::new(&path);
        command.args(["--no-defaults", "--version"]).stdin(Stdio::null()).kill_on_drop(true);
        let unfit = |why: String| {
            Error::new(Kind::Unfit, format!("{}: {why}", path.display()))
                .hint("give the path of a mysqld with --mysqld")
        };
        let said = match clock::with_timeout(VERSION_LIMIT, command.output()).await {
            Some(Ok(said)) => said,
            Some(Err(error)) => return Err(unfit("it cannot be run".into()).source(error)),
            None => return Err(unfit("it does not say its version".into())),
        };
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        let version = text.split_once("Ver ").map(|(_, rest)| Version::parse(rest.split(' ').next().unwrap_or("")));
        match version.filter(|version| said.status.success() && version.major > 0) {
            Some(version) => Ok(Self { path, version, platform: platform(&text) }),
            None => Err(unfit(format!("it is no mysqld: {}", text.lines().next().unwrap_or("it says nothing")))),
        }
    }

    /// The `mysql` client that belongs to it: the given one, the one beside it, or the one on PATH.
    ///
    /// # Errors
    /// [`Kind::Unfit`] if there is none.
    pub(super) fn client(&self, given: Option<&Path>) -> Result<PathBuf> {
        let beside = [self.path.with_file_name("mysql"), self.path.with_file_name("../bin/mysql")];
        match given {
            None => beside.into_iter().find(|path| path.is_file()).map_or_else(|| find_client(None), Ok),
            given => find_client(given),
        }
    }

    fn command(&self, datadir: &Path) -> Command {
        let mut command = Command::new(&self.path);
        command.arg("--no-defaults").arg(format!("--datadir={}", datadir.display()));
        // A server removes other servers' temporary files from its folder for them when it starts: so it has one of its own.
        let tmpdir = tmp_folder(datadir);
        if std::fs::create_dir_all(&tmpdir).is_ok() {
            command.arg(format!("--tmpdir={}", tmpdir.display()));
        }
        if rustix::process::geteuid().is_root() {
            command.arg("--user=root");
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
        command
    }

    /// Makes a fresh data directory, with a `root@localhost` that has no password.
    ///
    /// # Errors
    /// [`Kind::Failed`] with the server's own words.
    pub(super) async fn initialize(&self, datadir: &Path, settings: &[String]) -> Result<()> {
        let log = log_file(datadir);
        let mut command = self.command(datadir);
        command.arg("--initialize-insecure").args(settings).stderr(open_log(&log)?).kill_on_drop(true);
        let status = command.status().await.context(|| format!("run {}", self.path.display()))?;
        if status.success() {
            return Ok(());
        }
        Err(Error::failed(format!("mysqld could not initialise {} ({status}): {}", datadir.display(), tail(&log)))
            .hint("run it by hand to see more; are the folder's owner and the free space right?"))
    }

    /// Starts the server. It answers some time later.
    ///
    /// # Errors
    /// If it cannot be run.
    pub(super) fn start(&self, datadir: &Path, sockets: &Path, start: &StartOptions<'_>) -> Result<Running> {
        let (socket, log) = (sockets.join("s"), log_file(datadir));
        let words = Words::of(&self.version);
        let replica = |name: &str, value: String| format!("--{}={value}", words.variable(name).replace('_', "-"));
        let mut command = self.command(datadir);
        command
            .arg(format!("--socket={}", socket.display()))
            .arg(format!("--pid-file={}", sockets.join("pid").display()))
            .arg(format!("--init-file={}", start.init_file.display()))
            .arg(format!("--server-id={}", start.server_id))
            .arg(replica("skip_replica_start", "ON".into()))
            .arg(replica("replica_parallel_workers", start.workers.to_string()))
            .arg(replica("replica_preserve_commit_order", "ON".into()))
            .arg(replica("replica_pending_jobs_size_max", "1G".into()))
            .arg(format!("--relay-log-space-limit={}", super::fit::RELAY_BYTES))
            .args(PRIVATE)
            .arg(if start.by_gtid { "--gtid-mode=ON" } else { "--gtid-mode=OFF_PERMISSIVE" })
            .arg(format!("--enforce-gtid-consistency={}", if start.by_gtid { "ON" } else { "OFF" }))
            .args(start.settings)
            .stderr(open_log(&log)?);
        if self.version.major >= 8 {
            command.arg("--mysqlx=OFF");
        }
        let child = command.spawn().context(|| format!("run {}", self.path.display()))?;
        Ok(Running { child, socket, log })
    }
}

/// The platform in `mysqld  Ver 9.7.4 for Linux on x86_64 (…)`.
fn platform(text: &str) -> Option<(String, String)> {
    let (os, rest) = text.split_once(" for ")?.1.split_once(" on ")?;
    Some((os.to_owned(), rest.split_whitespace().next()?.to_owned()))
}

/// How to start a private server.
#[derive(Debug, Clone, Copy)]
pub(super) struct StartOptions<'a> {
    pub(super) init_file: &'a Path,
    pub(super) server_id: u32,
    pub(super) workers: usize,
    pub(super) by_gtid: bool,
    /// Further options, which win.
    pub(super) settings: &'a [String],
}

/// What makes it private, and quick: until the proof holds nothing of it counts, so durability can wait for the shutdown.
const PRIVATE: &[&str] = &[
    "--skip-networking",
    "--event-scheduler=OFF",
    "--skip-log-bin",
    "--secure-file-priv=NULL",
    "--relay-log=binvault-relay",
    "--relay-log-recovery=ON",
    "--sync-binlog=0",
    "--sync-relay-log=0",
    "--innodb-flush-log-at-trx-commit=0",
    "--max-allowed-packet=1G",
    "--log-error-verbosity=2",
];

/// A private server that was started.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    pub(super) socket: PathBuf,
    log: PathBuf,
}

impl Running {
    pub(super) fn pid(&self) -> Option<i32> {
        self.child.id().and_then(|pid| i32::try_from(pid).ok())
    }

    /// Whether it has ended, and how.
    pub(super) fn ended(&mut self) -> Option<String> {
        match self.child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(status.to_string()),
            Err(error) => Some(error.to_string()),
        }
    }

    /// The end of its log.
    pub(super) fn log_tail(&self) -> String {
        tail(&self.log)
    }

    /// Asks it to shut down, and waits.
    ///
    /// # Errors
    /// If it does not end in time.
    pub(super) async fn stop(&mut self) -> Result<()> {
        if let Some(pid) = self.pid().and_then(Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
        match clock::with_timeout(STOP_LIMIT, self.child.wait()).await {
            Some(Ok(_)) => Ok(()),
            _ => Err(Error::failed(format!("mysqld did not stop within {} s", STOP_LIMIT.as_secs()))),
        }
    }

    /// Lets it run on when we are gone.
    pub(super) fn release(self) {
        drop(self.child);
    }
}

/// Ends what an interrupted restore left running on a data directory: its server, or the one that made the directory.
///
/// # Errors
/// If it does not end in time.
pub(super) async fn end_orphans(datadir: &Path) -> Result<()> {
    let wanted = format!("--datadir={}", datadir.display());
    let since = clock::monotonic();
    let mut told = Vec::new();
    loop {
        let orphans = running_with(&wanted);
        let Some(&first) = orphans.first() else { return Ok(()) };
        for pid in orphans {
            if !told.contains(&pid) {
                tracing::info!(pid = pid.as_raw_pid(), "a mysqld that an interrupted restore left behind is stopped");
                let _ = rustix::process::kill_process(pid, Signal::TERM);
                told.push(pid);
            }
        }
        if clock::monotonic().duration_since(since) > STOP_LIMIT {
            let pid = first.as_raw_pid();
            return Err(Error::failed(format!("a mysqld (pid {pid}) of an interrupted restore does not end"))
                .hint(format!("end it by hand: kill {pid}")));
        }
        clock::sleep(super::POLL).await;
    }
}

/// The processes that were started with an argument.
fn running_with(argument: &str) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw));
    let has_it = |pid: &Pid| {
        let line = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_pid())).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|one| one == argument.as_bytes())
    };
    pids.filter(has_it).collect()
}

/// The `mysql` client: the given one, which must be there, or the one on PATH.
///
/// # Errors
/// [`Kind::Unfit`] if there is none.
pub(super) fn find_client(given: Option<&Path>) -> Result<PathBuf> {
    let (found, place) = match given {
        Some(path) if path.components().count() > 1 => {
            (path.is_file().then(|| path.to_owned()), path.display().to_string())
        }
        Some(name) => (on_path(&name.to_string_lossy(), &[]), name.display().to_string()),
        None => (on_path("mysql", &[]), "PATH".to_owned()),
    };
    found.ok_or_else(|| {
        Error::new(Kind::Unfit, format!("there is no mysql client at {place}"))
            .hint("loading a dump takes the stock client: install it, or give its path with --mysql")
    })
}

fn on_path(name: &str, more: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(more.iter().map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Where the private server's temporary files go: beside the data, where there is room.
pub(super) fn tmp_folder(datadir: &Path) -> PathBuf {
    datadir.join(".binvault-restore.tmp")
}

/// Where the private server's log goes, beside the marker.
pub(super) fn log_file(datadir: &Path) -> PathBuf {
    datadir.join(".binvault-restore.log")
}

fn open_log(path: &Path) -> Result<Stdio> {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    file.map(Stdio::from).context(|| format!("write {}", path.display()))
}

/// The last lines of a log that say what was wrong, on one line.
fn tail(path: &Path) -> String {
    use std::io::{Read, Seek, SeekFrom};

    let read = || -> std::io::Result<String> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let errors: Vec<&str> = text.lines().filter(|line| line.contains("[ERROR]")).collect();
    let chosen = if errors.is_empty() { text.lines().rev().take(2).collect() } else { errors };
    let skip = chosen.len().saturating_sub(3);
    chosen.get(skip..).unwrap_or(&[]).join(" | ")
}
