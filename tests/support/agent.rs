//! The built `binvault` program, driven as an operator drives it.
//!
//! Owns: configurations with fresh identities, the running agent's process and its log.
//! Does not own: the server (see [`super::lab`]) and the object store.
//!
//! Invariants: an agent never outlives its [`Agent`]; a failing wait shows the end of its log.

use super::lab::Mysqld;
use super::{tail, wait_until};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The password of the account that [`AgentConfig::new`] makes.
pub const PASSWORD: &str = "a-Secret_of-the-lab-1";

/// How long the agent may take to flush, upload and leave after SIGTERM.
pub const GRACE: Duration = Duration::from_secs(20);

/// The built program.
pub fn binvault() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_binvault"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("BINVAULT_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// A configuration on disk, with its own identity and scratch folder.
pub struct AgentConfig {
    dir: tempfile::TempDir,
    recipient: String,
    extra_env: Vec<(String, String)>,
    logs: AtomicU32,
}

impl AgentConfig {
    /// An agent for `server` over TCP, archiving into a folder of its own. Makes the account `binvault`, if absent.
    pub fn new(server: &Mysqld) -> Self {
        let dir = tempfile::Builder::new().prefix("binvault-agent").tempdir().expect("make a folder");
        let url = format!("file://{}", dir.path().join("archive").display());
        Self::build(dir, server, &url, "")
    }

    /// As [`AgentConfig::new`] with another archive, and more TOML: `extra` begins inside `[archive]`, and may open further
    /// tables.
    pub fn with(server: &Mysqld, archive_url: &str, extra: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("binvault-agent").tempdir().expect("make a folder");
        Self::build(dir, server, archive_url, extra)
    }

    /// As [`AgentConfig::new`] with more TOML, see [`AgentConfig::with`].
    pub fn with_extra(server: &Mysqld, extra: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("binvault-agent").tempdir().expect("make a folder");
        let url = format!("file://{}", dir.path().join("archive").display());
        Self::build(dir, server, &url, extra)
    }

    fn build(dir: tempfile::TempDir, server: &Mysqld, url: &str, extra: &str) -> Self {
        if server.value("SELECT COUNT(*) FROM mysql.user WHERE user = 'binvault'") == "0" {
            server.create_agent_user("binvault", PASSWORD);
        }
        fs::write(dir.path().join("password"), PASSWORD).unwrap();
        let key = dir.path().join("key");
        let made = binvault().arg("keygen").arg("-o").arg(&key).output().expect("run binvault keygen");
        assert!(made.status.success(), "binvault keygen: {}", said(&made));
        let recipient = said(&made)
            .split_whitespace()
            .find(|word| word.starts_with("age1"))
            .expect("binvault keygen prints the recipient")
            .to_owned();
        let config = Self { dir, recipient, extra_env: Vec::new(), logs: AtomicU32::new(0) };
        config.rewrite(&config.toml(&format!("mysql://binvault@127.0.0.1:{}", server.port()), url, extra));
        config
    }

    /// The text of a configuration for this folder: its password file, its recipient.
    pub fn toml(&self, source_url: &str, archive_url: &str, extra: &str) -> String {
        format!(
            "[source]\nurl = \"{source_url}\"\npassword_file = \"{}\"\n\n[archive]\nurl = \"{archive_url}\"\n\
             recipients = [\"{}\"]\n{extra}\n",
            self.dir.path().join("password").display(),
            self.recipient
        )
    }

    /// Replaces the configuration file.
    pub fn rewrite(&self, toml: &str) {
        fs::write(self.path(), toml).unwrap();
    }

    /// Replaces the first `from` in the configuration file.
    pub fn edit(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.path()).unwrap();
        assert!(text.contains(from), "no {from:?} in the configuration:\n{text}");
        self.rewrite(&text.replacen(from, to, 1));
    }

    /// Follows the server by its unix socket instead of TCP.
    pub fn use_socket(&self, server: &Mysqld) {
        let url = format!("url = \"mysql://binvault@127.0.0.1:{}\"", server.port());
        self.edit(&url, &format!("socket = \"{}\"\nuser = \"binvault\"", server.socket().display()));
    }

    /// Adds settings to `[source]`.
    pub fn source(&self, toml: &str) {
        self.edit("[source]\n", &format!("[source]\n{toml}\n"));
    }

    /// Sets an environment variable for every command of this configuration.
    pub fn env(&mut self, name: &str, value: &str) {
        self.extra_env.push((name.to_owned(), value.to_owned()));
    }

    /// Sets the environment that the service's unit sets: what its memory is promised for.
    pub fn as_a_service(&mut self) {
        let unit = include_str!("../../systemd/binvault@.service");
        let settings = unit.lines().filter_map(|line| line.strip_prefix("Environment=")?.split_once('='));
        for (name, value) in settings {
            self.env(name, value);
        }
        assert!(!self.extra_env.is_empty(), "the unit sets nothing");
    }

    /// The configuration file.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("binvault.toml")
    }

    /// The scratch folder; goes with this value.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The archive's folder, where the archive is the default one.
    pub fn archive(&self) -> PathBuf {
        self.dir.path().join("archive")
    }

    /// The identity file.
    pub fn identity(&self) -> PathBuf {
        self.dir.path().join("key")
    }

    /// The public key.
    pub fn recipient(&self) -> &str {
        &self.recipient
    }

    /// `binvault -c … ARGUMENTS`, ready to run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = binvault();
        command.arg("-c").arg(self.path()).args(arguments);
        command.envs(self.extra_env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command to its end.
    pub fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("run binvault")
    }

    /// Runs a command that must succeed; its standard output.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let out = self.output(arguments);
        assert!(out.status.success(), "binvault {arguments:?} ended with {}:\n{}", out.status, said(&out));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// Runs a command that must fail with this exit code; all that it said.
    pub fn fails(&self, arguments: &[&str], code: i32) -> String {
        let out = self.output(arguments);
        assert_eq!(out.status.code(), Some(code), "binvault {arguments:?} said:\n{}", said(&out));
        said(&out)
    }

    /// `run --once`.
    pub fn run_once(&self) -> Output {
        self.output(&["run", "--once"])
    }

    /// Archives all that the server has now and stops.
    pub fn archive_now(&self) {
        self.ok(&["run", "--once"]);
    }

    /// Exports everything into a fresh folder, and returns that.
    pub fn export(&self) -> PathBuf {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let to = self.dir.path().join(format!("export-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        let key = self.identity();
        self.ok(&["export", "--to", to.to_str().unwrap(), "--identity", key.to_str().unwrap()]);
        to
    }

    /// `verify --deep` must find nothing wrong.
    pub fn verify_deep(&self) -> String {
        let key = self.identity();
        self.ok(&["verify", "--deep", "--identity", key.to_str().unwrap()])
    }

    /// `status --json` from the archive alone, parsed; `None` where there is no archive yet.
    pub fn status(&self) -> Option<serde_json::Value> {
        let out = self.output(&["status", "--offline", "--json"]);
        serde_json::from_slice(&out.stdout).ok()
    }

    /// The durable file and position, as `status` tells it from the archive alone.
    pub fn durable(&self) -> Option<(String, u64)> {
        position_in(&self.status()?)
    }

    /// Starts `binvault run`.
    pub fn spawn(&self) -> Agent<'_> {
        self.spawn_with(&["run"])
    }

    /// Starts a command that stays.
    pub fn spawn_with(&self, arguments: &[&str]) -> Agent<'_> {
        let log = self.dir.path().join(format!("agent-{}.log", self.logs.fetch_add(1, Ordering::Relaxed)));
        let file = File::create(&log).unwrap();
        // The kernel kills it when the test that waits for it is gone, however that ended.
        let plain = self.command(arguments);
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(plain.get_program()).args(plain.get_args());
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdin(Stdio::null());
        let child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().expect("start binvault");
        Agent { config: self, child: Some(child), log }
    }
}

/// A running agent.
pub struct Agent<'a> {
    config: &'a AgentConfig,
    child: Option<Child>,
    log: PathBuf,
}

impl Agent<'_> {
    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("is running").id()
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().expect("ask after the agent"))
    }

    /// Waits for an end that comes by itself.
    pub fn wait(mut self, limit: Duration) -> ExitStatus {
        let mut status = None;
        let log = self.log.clone();
        wait_until(&format!("the agent ends; its log ends:\n{}", tail(&log, 20)), limit, || {
            status = self.exited();
            status.is_some()
        });
        self.child = None;
        status.unwrap()
    }

    /// SIGTERM: it must flush, upload and exit 0 within [`GRACE`]. Returns how long it took.
    pub fn terminate(mut self) -> Duration {
        let start = binvault::clock::monotonic();
        self.signal(rustix::process::Signal::TERM);
        let mut status = None;
        while status.is_none() {
            assert!(start.elapsed() < GRACE, "SIGTERM is not obeyed; the log ends:\n{}", self.log_tail());
            std::thread::sleep(Duration::from_millis(5));
            status = self.exited();
        }
        self.child = None;
        assert_eq!(
            status.and_then(|status| status.code()),
            Some(0),
            "after SIGTERM; the log ends:\n{}",
            self.log_tail()
        );
        start.elapsed()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        let mut child = self.child.take().expect("is running");
        child.kill().expect("kill the agent");
        child.wait().expect("wait for the agent");
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).expect("signal the agent");
    }

    /// The most memory it ever had resident (`VmHWM`).
    pub fn peak_rss_bytes(&self) -> u64 {
        peak_rss(self.pid()).expect("the process runs")
    }

    /// Processor time used so far, user and system.
    pub fn cpu_seconds(&self) -> f64 {
        cpu_seconds(self.pid())
    }

    /// All it has said.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The file of what it says; it stays when the agent has ended.
    pub fn log_path(&self) -> PathBuf {
        self.log.clone()
    }

    /// The end of what it has said.
    pub fn log_tail(&self) -> String {
        tail(&self.log, 30)
    }

    /// Waits until the archive holds all that the server has written at the time of the call.
    pub fn wait_caught_up(&mut self, server: &Mysqld) {
        self.wait_archived(&server.position(), Duration::from_secs(120));
    }

    /// Waits until the archive reaches this file and position.
    pub fn wait_archived(&mut self, target: &(String, u64), limit: Duration) {
        let start = binvault::clock::monotonic();
        loop {
            let durable = self.config.durable();
            if durable.as_ref().is_some_and(|durable| reached(durable, target)) {
                return;
            }
            let ended = self.exited();
            assert!(ended.is_none(), "the agent ended ({ended:?}); its log ends:\n{}", self.log_tail());
            assert!(
                start.elapsed() < limit,
                "the archive stands at {durable:?}, not {target:?}; the log ends:\n{}",
                self.log_tail()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
        if std::thread::panicking() {
            eprintln!("the agent's log ends:\n{}", self.log_tail());
        }
    }
}

/// All that a command said, errors last.
pub fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// What an agent may have resident at most, started as the service starts it, while it takes a base backup: the README's promise.
pub const BASE_RESIDENT_MAX: u64 = 112 << 20;

/// `VmHWM` of a process; `None` when it has ended.
pub fn peak_rss(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") * 1024)
}

/// User and system time of a process.
pub fn cpu_seconds(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let after = text.rsplit_once(')').expect("a command in brackets").1;
    let ticks: u32 = after.split_whitespace().skip(11).take(2).map(|field| field.parse::<u32>().expect("ticks")).sum();
    f64::from(ticks) / 100.0 // USER_HZ, which Linux keeps at 100 for programs
}

/// Whether a position is at or behind another, over numbered files.
fn reached(have: &(String, u64), want: &(String, u64)) -> bool {
    let number = |file: &str| file.rsplit_once('.').and_then(|(_, digits)| digits.parse::<u64>().ok()).unwrap_or(0);
    (number(&have.0), have.1) >= (number(&want.0), want.1)
}

/// The durable position in `status --json`: that of the server archived last.
fn position_in(status: &serde_json::Value) -> Option<(String, u64)> {
    let durable = status.get("servers")?.as_array()?.last()?.get("durable")?;
    Some((durable.get("file")?.as_str()?.to_owned(), durable.get("offset")?.as_u64()?))
}
