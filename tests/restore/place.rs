//! A restore under test: the command, and the server that it left running.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::support::agent::{AgentConfig, said};
use crate::support::lab::{self, tool};
use crate::support::{tail, wait_until};

/// The arguments every restore here has.
pub(crate) fn arguments(config: &AgentConfig, to: &str, datadir: &Path, more: &[&str]) -> Vec<String> {
    let mut all: Vec<String> = ["restore", "--to", to, "--datadir"].map(str::to_owned).to_vec();
    all.push(datadir.display().to_string());
    all.extend(["--identity".to_owned(), config.identity().display().to_string()]);
    all.extend(["--mysqld".to_owned(), lab::bin().join("mysqld").display().to_string()]);
    all.extend(["--mysqld-option".to_owned(), "--innodb-redo-log-capacity=64M".to_owned()]);
    all.extend(more.iter().map(|argument| (*argument).to_owned()));
    all
}

/// Runs a restore; the caller judges it.
pub(crate) fn try_restore(config: &AgentConfig, to: &str, datadir: &Path, more: &[&str]) -> Output {
    let all = arguments(config, to, datadir, more);
    config.output(&all.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Runs a script as root by the stock client.
fn sql_at(socket: &Path, script: &str) -> Result<String, String> {
    let mut client = tool("mysql");
    client.args(["-uroot", "--batch", "--raw", "--skip-column-names"]);
    client.arg(format!("--socket={}", socket.display())).arg("-e").arg(script);
    let out = client.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr)) }
}

/// Starts a server of the lab on a data directory that a restore left, as it is, and asks it something.
pub(crate) fn look_into(datadir: &Path, script: &str) -> String {
    look_into_with(tool("mysqld").get_program().to_str().unwrap(), datadir, &[], script)
}

/// As [`look_into`], with a program of the caller's, and further options.
pub(crate) fn look_into_with(program: &str, datadir: &Path, options: &[&str], script: &str) -> String {
    let sockets = tempfile::tempdir().unwrap();
    let socket = sockets.path().join("s");
    let mut command = Command::new(program);
    command.arg("--no-defaults").args(options);
    command.arg(format!("--datadir={}", datadir.display())).arg(format!("--socket={}", socket.display()));
    command.args([
        "--user=root",
        "--secure-file-priv=NULL",
        "--skip-networking",
        "--mysqlx=OFF",
        "--skip-replica-start",
        "--skip-log-bin",
    ]);
    command.args(["--gtid-mode=ON", "--enforce-gtid-consistency=ON", "--innodb-redo-log-capacity=64M"]);
    let log = sockets.path().join("log");
    command.arg(format!("--log-error={}", log.display()));
    let mut server = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the server starts", Duration::from_secs(120), || {
        assert!(server.try_wait().unwrap().is_none(), "the server ended: {}", tail(&log, 10));
        sql_at(&socket, "SELECT 1").is_ok()
    });
    let answer = sql_at(&socket, script);
    drop(sql_at(&socket, "SHUTDOWN"));
    server.wait().unwrap();
    answer.unwrap_or_else(|error| panic!("{script}: {error}"))
}

/// A restored server, running on its private socket.
pub(crate) struct Restored {
    pub(crate) report: serde_json::Value,
    socket: PathBuf,
    /// Goes with this value, when the server is gone.
    #[allow(dead_code, reason = "held for its end")]
    dir: Option<tempfile::TempDir>,
}

impl Restored {
    /// Restores to a target; it must succeed.
    pub(crate) fn to(config: &AgentConfig, to: &str, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let datadir = dir.path().join("data");
        let mut restored = Self::into(config, to, &datadir, more);
        restored.dir = Some(dir);
        restored
    }

    /// As [`Restored::to`], into a directory of the caller's.
    pub(crate) fn into(config: &AgentConfig, to: &str, datadir: &Path, more: &[&str]) -> Self {
        let more: Vec<&str> = more.iter().copied().chain(["--keep-running", "--json"]).collect();
        let out = try_restore(config, to, datadir, &more);
        assert!(out.status.success(), "restore to {to} {more:?} ended with {}:\n{}", out.status, said(&out));
        Self::of(&out)
    }

    /// What a restore with `--json --keep-running` left.
    pub(crate) fn of(out: &Output) -> Self {
        let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        let socket = PathBuf::from(report["socket"].as_str().unwrap());
        Self { report, socket, dir: None }
    }

    /// Runs a script as root by the stock client.
    pub(crate) fn sql(&self, script: &str) -> String {
        sql_at(&self.socket, script).unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// What was executed is exactly this set.
    pub(crate) fn assert_executed(&self, set: &str) {
        let row = self.sql(&format!(
            "SELECT GTID_SUBTRACT(@@GLOBAL.gtid_executed, '{set}'), GTID_SUBTRACT('{set}', @@GLOBAL.gtid_executed)"
        ));
        assert_eq!(row, "\t\n", "left: too much; right: missing");
    }

    /// It is left clean: no replication, no account of ours, durable settings.
    pub(crate) fn assert_clean(&self) {
        assert_eq!(self.sql("SHOW REPLICA STATUS"), "");
        assert_eq!(self.sql("SELECT COUNT(*) FROM mysql.user WHERE user LIKE 'binvault_restore%'"), "0\n");
        assert_eq!(self.sql("SELECT @@GLOBAL.innodb_flush_log_at_trx_commit"), "1\n");
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        let mut admin = tool("mysqladmin");
        admin.arg("-uroot").arg(format!("--socket={}", self.socket.display())).arg("shutdown");
        drop(admin.stdin(Stdio::null()).output());
        drop(self.socket.parent().map(std::fs::remove_dir_all));
    }
}

/// Takes a base backup; its id.
pub(crate) fn base(config: &AgentConfig) -> String {
    let tool_path = lab::bin().join("mysqldump");
    let dump = format!("BINVAULT_BASE__MYSQLDUMP={}", tool_path.display());
    let (name, value) = dump.split_once('=').unwrap();
    let out = config.command(&["base", "--engine", "mysqldump", "--json"]).env(name, value).output().unwrap();
    assert!(out.status.success(), "base ended with {}:\n{}", out.status, said(&out));
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    report["base"]["id"].as_str().unwrap_or_else(|| panic!("{report}")).to_owned()
}
