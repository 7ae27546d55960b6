//! The lab proves itself: every workload leaves what it says in a real server's binlog, servers come back after a stop and
//! after SIGKILL, and none outlives its test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test that is how things fail")]
#![allow(clippy::print_stdout, reason = "figures and a pid for whoever runs this with --nocapture")]

#[path = "../support/mod.rs"]
mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use support::compare::{Extent, assert_exported, difference};
use support::lab::{Mysqld, tool};
use support::load::{Load, Pace};
use support::workload::{BIG, SMALL, Workload};
use support::{oltp, wait_until};

/// What the stock tool prints for some files, cut into lines; the rows decoded.
fn shows(files: &[std::path::PathBuf], word: &str) -> bool {
    let mut child = tool("mysqlbinlog")
        .args(["--verify-binlog-checksum", "-vv", "--base64-output=decode-rows"])
        .args(files)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::with_capacity(1 << 20, child.stdout.take().unwrap());
    let (mut line, mut found) = (Vec::new(), false);
    while output.read_until(b'\n', &mut line).unwrap() > 0 {
        found = found || String::from_utf8_lossy(&line[..line.len().min(4096)]).contains(word);
        line.clear();
    }
    assert!(child.wait().unwrap().success(), "mysqlbinlog cannot read {files:?}");
    found
}

/// Runs one; what is missing, in words.
fn run_and_look(server: &Mysqld, workload: &Workload) -> Option<String> {
    server.sql("FLUSH BINARY LOGS");
    let before = server.binlogs().len();
    workload.run(server);
    server.sql("FLUSH BINARY LOGS");
    let files = server.binlogs();
    let files = &files[before - 1..files.len() - 1];
    (!shows(files, workload.shows))
        .then(|| format!("{}: nothing in {files:?} shows {:?}", workload.name, workload.shows))
}

#[test]
fn small_workloads_are_what_they_say() {
    let server = Mysqld::start("small", &[]);
    let missing: Vec<String> = SMALL.iter().filter_map(|workload| run_and_look(&server, workload)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn big_workloads_are_what_they_say() {
    let server = Mysqld::start("big", &[]);
    let missing: Vec<String> = BIG.iter().filter_map(|workload| run_and_look(&server, workload)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
    let largest = server.binlogs().iter().map(|path| path.metadata().unwrap().len()).max().unwrap();
    assert!(largest > 300_000_000, "the largest file has {largest} bytes");
}

#[test]
fn a_prepared_transaction_survives_a_kill() {
    let mut server = Mysqld::start("xa", &[]);
    server.sql("CREATE DATABASE d; CREATE TABLE d.t (i INT PRIMARY KEY); XA START 'left'; INSERT INTO d.t VALUES (1); XA END 'left'; XA PREPARE 'left';");
    server.kill();
    assert!(!server.is_running());
    server.start_again(&[]);
    server.sql("XA COMMIT 'left'");
    assert_eq!(server.value("SELECT COUNT(*) FROM d.t"), "1");
}

#[test]
fn the_load_outlives_restarts() {
    let mut server = Mysqld::start("load", &[]);
    let (port, load) = (server.port(), Load::start(&server, 2, Pace::Full));
    load.wait_for(500);
    server.kill();
    server.start_again(&[]);
    load.wait_for(500);
    server.stop();
    server.start_again(&["--binlog-checksum=NONE"]);
    load.wait_for(500);
    assert_eq!(server.port(), port);
    assert_eq!(server.value("SELECT @@GLOBAL.binlog_checksum"), "NONE");
    assert!(load.stop() >= 1_500);
}

#[test]
fn a_steady_load_keeps_its_pace() {
    let server = Mysqld::start("pace", &[]);
    let load = Load::start(&server, 2, Pace::PerSecond(100));
    let start = binvault::clock::monotonic();
    load.wait_for(300);
    assert!(start.elapsed() > Duration::from_secs(2), "300 transactions at 100 a second took {:?}", start.elapsed());
}

#[test]
fn oltp_has_the_shape_of_sysbench() {
    let server = Mysqld::start("oltp", oltp::FAST);
    oltp::prepare(&server);
    let start = binvault::clock::monotonic();
    let wanted = std::env::var("BINVAULT_OLTP_MIB").ok().and_then(|mib| mib.parse().ok()).unwrap_or(8_u64) << 20;
    let files = oltp::generate(&server, wanted);
    let bytes: u64 = files.iter().map(|path| path.metadata().unwrap().len()).sum();
    println!("{bytes} bytes of OLTP binlog in {:?}", start.elapsed());
    assert!(bytes.abs_diff(wanted) < wanted / 10, "{bytes} bytes instead of {wanted}");
    let name = files[0].file_name().unwrap().to_str().unwrap();
    let events = server.sql(&format!("SHOW BINLOG EVENTS IN '{name}' LIMIT 11000")).lines().count() as u64;
    let end: u64 = server
        .sql(&format!("SHOW BINLOG EVENTS IN '{name}' LIMIT 10999, 1"))
        .split('\t')
        .nth(4)
        .and_then(|end| end.parse().ok())
        .unwrap();
    assert!((140..175).contains(&(end / events)), "{} bytes an event", end / events);
}

#[test]
fn differences_are_found_and_told() {
    let server = Mysqld::start("compare", &[]);
    SMALL[0].run(&server);
    server.sql("FLUSH BINARY LOGS");
    let copy = server.scratch().join("copy");
    std::fs::create_dir_all(&copy).unwrap();
    for file in server.binlogs() {
        std::fs::copy(&file, copy.join(file.file_name().unwrap())).unwrap();
    }
    let compared = assert_exported(&server, &copy);
    let file = &server.binlogs()[0];
    assert!(compared > file.metadata().unwrap().len());
    let mut bytes = std::fs::read(file).unwrap();
    let damaged = copy.join("damaged");
    let tell = |bytes: &[u8], extent| {
        std::fs::write(&damaged, bytes).unwrap();
        difference(file, &damaged, extent)
    };
    bytes[21] ^= 1;
    assert_eq!(tell(&bytes, Extent::Whole), None, "the in-use bit alone is forgiven");
    bytes[21] ^= 3;
    assert!(
        tell(&bytes, Extent::Whole).unwrap().contains("offset 21, byte 17 of the event of type 15 that starts at 4")
    );
    bytes[21] ^= 2;
    bytes.truncate(200);
    assert_eq!(tell(&bytes, Extent::Prefix), None);
    assert!(tell(&bytes, Extent::Whole).unwrap().contains("has 200"));
    bytes[199] ^= 0x80;
    assert!(tell(&bytes, Extent::Prefix).unwrap().contains("offset 199"));
}

#[test]
fn no_server_outlives_a_killed_test() {
    const HOLD: &str = "BINVAULT_LAB_HOLD";
    if std::env::var_os(HOLD).is_some() {
        // This is the process that gets killed.
        let server = Mysqld::start("held", &[]);
        println!("\nholding {}", server.pid());
        std::thread::sleep(Duration::from_secs(600));
        drop(server);
        return;
    }
    support::lab::bin();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "no_server_outlives_a_killed_test", "--nocapture"])
        .env(HOLD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let pid = output
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("holding ").map(str::to_owned))
        .expect("the child says its server's pid");
    let process = format!("/proc/{pid}/status");
    assert!(Path::new(&process).exists());
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("the orphan is gone", Duration::from_secs(20), || {
        std::fs::read_to_string(&process).map_or(true, |status| status.contains("State:\tZ"))
    });
}
