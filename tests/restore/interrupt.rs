//! Restores that are killed: the same command goes on or begins anew, its proof holds, and nothing is left over.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::oracle::fingerprint;
use crate::place::{Restored, arguments, base};
use crate::scene::shop;
use crate::support::agent::{AgentConfig, said};
use crate::support::lab::{Mysqld, tool};
use crate::support::wait_until;

/// Transactions to replay, and how long the restoring server takes for each (its `server_id` is not the source's 1).
const SLOW: usize = 200;
const SLOW_SECONDS: &str = "0.05";
const LIMIT: Duration = Duration::from_secs(120);

/// The place of a restore that is interrupted.
struct Place<'a> {
    config: &'a AgentConfig,
    dir: tempfile::TempDir,
}

impl<'a> Place<'a> {
    fn new(config: &'a AgentConfig) -> Self {
        let dir = tempfile::Builder::new().prefix("bvi").tempdir().unwrap();
        std::fs::create_dir(dir.path().join("tmp")).unwrap();
        Self { config, dir }
    }

    fn datadir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn marker(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&std::fs::read(self.datadir().join(".binvault-restore.json")).ok()?).ok()
    }

    /// The restore, with a folder of its own for what is temporary.
    fn command(&self, more: &[&str]) -> Command {
        let more = [&["--workers", "1"], more].concat();
        let all = arguments(self.config, "latest", &self.datadir(), &more);
        let mut command = self.config.command(&all.iter().map(String::as_str).collect::<Vec<_>>());
        command.env("TMPDIR", self.dir.path().join("tmp"));
        command
    }

    fn start(&self) -> Running {
        let child = self.command(&[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Running(Some(child))
    }

    /// The rows that the restoring server has applied.
    fn applied(&self) -> Option<usize> {
        let marker = self.marker()?;
        let mut client = tool("mysql");
        client.args(["-ubinvault_restore", "--batch", "--skip-column-names", "-e", "SELECT COUNT(*) FROM shop.slow"]);
        client.arg(format!("--socket={}", marker["socket"].as_str()?)).env("MYSQL_PWD", marker["password"].as_str()?);
        let out = client.stdin(Stdio::null()).output().unwrap();
        String::from_utf8_lossy(&out.stdout).trim().parse().ok()
    }

    /// Waits until the replay has come so far.
    fn wait_applied(&self, running: &mut Running, count: usize) {
        wait_until(&format!("{count} rows are applied"), LIMIT, || {
            running.assert_alive();
            let loaded = self.marker().is_some_and(|marker| marker["stage"] == "loaded");
            loaded && self.applied().is_some_and(|rows| rows >= count)
        });
        let rows = self.applied().unwrap_or_default();
        assert!(rows < SLOW, "the replay was through before it could be interrupted");
    }

    /// The servers that run on the data directory.
    fn servers(&self) -> Vec<i32> {
        let wanted = format!("--datadir={}", self.datadir().canonicalize().unwrap().display());
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let is_it = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|argument| argument == wanted.as_bytes())
        };
        pids.filter(is_it).collect()
    }

    /// Nothing of ours runs, and no folder of ours is left.
    fn assert_quiet(&self) {
        assert_eq!(self.servers(), Vec::<i32>::new(), "a server is left over");
        let left: Vec<_> = std::fs::read_dir(self.dir.path().join("tmp")).unwrap().flatten().collect();
        assert!(left.is_empty(), "left over: {left:?}");
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.datadir().exists() {
            for pid in self.servers() {
                signal(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

/// A restore that runs.
struct Running(Option<Child>);

impl Running {
    fn assert_alive(&mut self) {
        if self.0.as_mut().unwrap().try_wait().unwrap().is_some() {
            panic!("it ended: {}", said(&self.0.take().unwrap().wait_with_output().unwrap()));
        }
    }

    fn signal(&self, sent: rustix::process::Signal) {
        signal(i32::try_from(self.0.as_ref().unwrap().id()).unwrap(), sent);
    }

    fn kill(mut self) {
        let mut child = self.0.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn end(mut self) -> Output {
        self.0.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn signal(pid: i32, sent: rustix::process::Signal) {
    let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), sent);
}

/// A base backup that takes a while to load, and transactions that take a while to replay.
fn slow_history(hint: &str, options: &[&str]) -> (Mysqld, AgentConfig) {
    let (source, config) = shop(hint, options);
    source.sql(
        "USE shop; CREATE TABLE shop.slow (id INT PRIMARY KEY AUTO_INCREMENT, v INT);
         CREATE TABLE shop.bulk (id INT PRIMARY KEY, a CHAR(64), b VARCHAR(1000), KEY (a), KEY (b(700)));
         SET SESSION cte_max_recursion_depth = 100000;
         INSERT INTO shop.bulk WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)
           SELECT i, SHA2(i, 256), REPEAT(SHA2(i * 7, 256), 12) FROM n",
    );
    base(&config);
    // Evaluated where it is executed: quick at the source, slow at any other server.
    let insert = format!("INSERT INTO shop.slow (v) VALUES (SLEEP(IF(@@GLOBAL.server_id = 1, 0, {SLOW_SECONDS})));\n");
    source.sql(&format!("SET SESSION binlog_format = STATEMENT;\n{}", insert.repeat(SLOW)));
    config.archive_now();
    (source, config)
}

/// Runs the restore to its end, and holds what comes out against the source.
fn finish(place: &Place<'_>, source: &Mysqld, by_gtid: bool) {
    let out = place.command(&["--json", "--keep-running"]).output().unwrap();
    assert!(out.status.success(), "{}", said(&out));
    let restored = Restored::of(&out);
    assert_eq!((&restored.report["continued"], &restored.report["by_gtid"]), (&true.into(), &by_gtid.into()));
    if by_gtid {
        restored.assert_executed(&source.value("SELECT @@GLOBAL.gtid_executed").replace('\n', ""));
    }
    assert_eq!(fingerprint(|sql| restored.sql(sql)), fingerprint(|sql| source.sql(sql)));
    restored.assert_clean();
    drop(restored);
    wait_until("the server ends", LIMIT, || place.servers().is_empty());
    place.assert_quiet();
    assert!(place.marker().is_none(), "the marker is left over");
}

/// Kills in every stage of one restore, each time going on with the same command.
fn killed_again_and_again(source: &Mysqld, config: &AgentConfig, by_gtid: bool) {
    let place = Place::new(config);
    // At the very beginning: the data directory is being made.
    let mut running = place.start();
    wait_until("the directory is there", LIMIT, || {
        running.assert_alive();
        place.datadir().join("ibdata1").exists()
    });
    running.kill();

    // In the middle of the base backup, which no second restore may disturb.
    let mut running = place.start();
    let bulk = place.datadir().join("shop/bulk.ibd");
    wait_until("the base backup is being loaded", LIMIT, || {
        running.assert_alive();
        std::fs::metadata(&bulk).is_ok_and(|file| file.len() > 4 << 20)
    });
    // Held still, so that it is at work however long the second one takes to be refused.
    running.signal(rustix::process::Signal::STOP);
    let out = place.command(&[]).output().unwrap();
    assert_eq!(out.status.code(), Some(2), "{}", said(&out));
    assert!(said(&out).contains("another restore works in") && said(&out).contains("HINT:"), "{}", said(&out));
    running.kill();
    assert_eq!(place.marker().unwrap()["stage"], "loading", "killed too late to be in the middle");

    // In the middle of the replay; its server lives on until the next run.
    let mut running = place.start();
    place.wait_applied(&mut running, SLOW / 6);
    running.kill();
    assert_eq!(place.servers().len(), 1);

    // The server is killed.
    let mut running = place.start();
    place.wait_applied(&mut running, SLOW / 3);
    for pid in place.servers() {
        signal(pid, rustix::process::Signal::KILL);
    }
    let out = running.end();
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    let text = said(&out);
    assert!(text.contains("server was lost") && text.contains("HINT:") && text.contains("same command"), "{text}");
    place.assert_quiet();

    // It is told to stop.
    let mut running = place.start();
    place.wait_applied(&mut running, SLOW / 2);
    running.signal(rustix::process::Signal::TERM);
    let out = running.end();
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    assert!(said(&out).contains("told to stop") && said(&out).contains("HINT: run the same command"), "{}", said(&out));
    place.assert_quiet();

    // With another base it is another restore, and is not gone on with.
    let first = config.ok(&["list", "--json"]);
    let first: serde_json::Value = serde_json::from_str(&first).unwrap();
    let out = place.command(&["--base", first["bases"][0]["id"].as_str().unwrap()]).output().unwrap();
    assert_eq!(out.status.code(), Some(2), "{}", said(&out));
    assert!(said(&out).contains("interrupted restore of something else"), "{}", said(&out));

    finish(&place, source, by_gtid);
}

#[test]
fn killed_again_and_again_by_gtid() {
    let (source, config) = slow_history("rkilled", &[]);
    killed_again_and_again(&source, &config, true);
}

#[test]
fn killed_again_and_again_by_position() {
    let (source, config) = slow_history("rkilledpos", &["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"]);
    killed_again_and_again(&source, &config, false);
}

#[test]
fn a_base_backup_whose_server_is_killed_begins_anew() {
    let (source, config) = slow_history("rkilledload", &[]);
    let place = Place::new(&config);
    let mut running = place.start();
    let bulk: PathBuf = Path::new(&place.datadir()).join("shop/bulk.ibd");
    wait_until("the base backup is being loaded", LIMIT, || {
        running.assert_alive();
        std::fs::metadata(&bulk).is_ok_and(|file| file.len() > 4 << 20)
    });
    for pid in place.servers() {
        signal(pid, rustix::process::Signal::KILL);
    }
    let out = running.end();
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    assert!(said(&out).contains("mysql ended with") && said(&out).contains("HINT:"), "{}", said(&out));
    place.assert_quiet();
    let out = place.command(&["--json", "--keep-running"]).output().unwrap();
    assert!(out.status.success(), "{}", said(&out));
    let restored = Restored::of(&out);
    assert_eq!(restored.report["continued"], false, "half a base backup is no base to go on from");
    assert_eq!(fingerprint(|sql| restored.sql(sql)), fingerprint(|sql| source.sql(sql)));
}

#[test]
fn a_running_server_without_gtids_begins_anew() {
    let (source, config) = slow_history("rkilledsrv", &["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"]);
    let target = Mysqld::start("rkilledto", &["--server-id=9", "--gtid-mode=OFF_PERMISSIVE"]);
    let (socket, key) = (target.socket().display().to_string(), config.identity().display().to_string());
    let client = tool("mysql").get_program().to_str().unwrap().to_owned();
    let command = || {
        let place = ["restore", "--to", "latest", "--server", &socket, "--mysql", &client];
        let mut command = config.command(&[&place[..], &["--identity", &key, "--workers", "1", "--json"]].concat());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let mut running = Running(Some(command().spawn().unwrap()));
    wait_until("some rows are applied", LIMIT, || {
        running.assert_alive();
        let rows = target.try_sql("SELECT COUNT(*) FROM shop.slow").ok();
        rows.and_then(|rows| rows.trim().parse::<usize>().ok()).is_some_and(|rows| rows >= SLOW / 6)
    });
    running.kill();
    let durable = "SELECT @@GLOBAL.sync_binlog, @@GLOBAL.innodb_flush_log_at_trx_commit";
    assert_eq!(target.value(durable), "0\t0");
    let out = command().output().unwrap();
    assert!(out.status.success(), "{}", said(&out));
    // The killed run knew how they were; without it they become safe, and that is said.
    assert_eq!(target.value(durable), "1\t1");
    assert!(String::from_utf8_lossy(&out.stdout).contains("innodb_flush_log_at_trx_commit"), "{}", said(&out));
    assert_eq!(target.value("SELECT COUNT(*) FROM shop.slow"), SLOW.to_string());
    assert_eq!(fingerprint(|sql| target.sql(sql)), fingerprint(|sql| source.sql(sql)));
    assert_eq!(target.sql("SHOW REPLICA STATUS"), "");
}
