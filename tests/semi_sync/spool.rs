//! A spool: commits return at the speed of its disk, the store gets everything later, and an outage is ridden out.

use crate::check::{self, Overlaps};
use crate::s3;
use crate::scene::{Clients, LONG, counter, on_s3, source, wait_protected, word};
use crate::support::agent::{AgentConfig, said};
use crate::support::lab::Mysqld;
use crate::support::wait_until;
use binvault::clock;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// An agent with a spool; `semi_sync` is the content of that section.
pub(crate) fn with_spool(server: &Mysqld, store: &s3::Server, semi_sync: &str, agent: &str) -> AgentConfig {
    let config = on_s3(server, store, semi_sync, agent);
    let spool = format!("[spool]\ndir = \"{}\"\nmax_size = \"1GiB\"\n[log]", spool(&config).display());
    config.edit("[log]", &spool);
    config
}

pub(crate) fn spool(config: &AgentConfig) -> PathBuf {
    config.dir().join("spool")
}

/// Objects in the spool, and their bytes.
fn held(config: &AgentConfig) -> (u64, u64) {
    let out = config.ok(&["drain", "--dry-run", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&out).unwrap();
    (document["objects"].as_u64().unwrap(), document["bytes"].as_u64().unwrap())
}

/// A row of so many thousand bytes that no compression helps against.
fn noise(server: &Mysqld, n: u32, thousands: u32) {
    server.sql(&format!(
        "SET SESSION group_concat_max_len = 100000000;
         INSERT INTO t.t WITH RECURSIVE i (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < {thousands})
           SELECT 1, {n}, GROUP_CONCAT(RANDOM_BYTES(1000) SEPARATOR '') FROM i"
    ));
}

fn wait_empty(config: &AgentConfig) {
    wait_until("the spool is drained", LONG, || held(config).0 == 0);
}

#[test]
fn a_commit_returns_when_the_spool_has_it_and_few_objects_reach_the_store() {
    let server = source("spool", &[]);
    let store = s3::Server::start();
    let config = with_spool(&server, &store, "mode = \"spool\"\nwait_limit = \"30s\"", "");
    let mut agent = config.spawn();
    wait_protected(&config, &mut agent);
    // No commit could wait for this.
    store.switches.delay_ms.store(3_000, Ordering::SeqCst);
    let (puts, before) = (store.switches.puts.load(Ordering::SeqCst), counter(&server, "no_tx"));
    let begun = clock::monotonic();
    let clients = Clients::start(&server, 4, Duration::ZERO);
    clients.wait_for(300);
    let took = begun.elapsed();
    let returned = clients.stop();
    assert!(took < Duration::from_secs(60), "300 commits took {took:?}: they waited for the store");
    assert_eq!(counter(&server, "no_tx"), before, "commits that nobody acknowledged");
    assert!(held(&config).0 > 0, "nothing is in the spool");
    store.switches.delay_ms.store(0, Ordering::SeqCst);
    agent.wait_caught_up(&server);
    wait_empty(&config);
    let objects = store.switches.puts.load(Ordering::SeqCst) - puts;
    println!("{} commits in {took:?}, {objects} objects", returned.len());
    assert!(objects * 4 < returned.len() as u64, "{objects} objects for {} commits", returned.len());
    let said = word(&config);
    assert_eq!((&said["mode"], &said["uncovered"]), (&"spool".into(), &0.into()), "{said}");
    agent.terminate();
    check::whole(&config, &server, Overlaps::Allowed);
}

/// Copies the server's closed files, so that they can be compared when it has them no more.
fn keep(server: &Mysqld, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for binlog in server.binlogs() {
        std::fs::copy(&binlog, to.join(binlog.file_name().unwrap())).unwrap();
    }
}

#[test]
fn an_outage_is_ridden_out_though_the_source_purges_and_the_agent_dies() {
    let server = source("outage", &[]);
    let store = s3::Server::start();
    let config = with_spool(&server, &store, "mode = \"off\"", "flush_interval = \"100ms\"");
    let mut agent = config.spawn();
    agent.wait_caught_up(&server);
    wait_empty(&config);
    store.switches.down.store(true, Ordering::SeqCst);
    for n in 0..10 {
        noise(&server, n, 300);
        server.sql("FLUSH BINARY LOGS");
    }
    server.sql("INSERT INTO t.t VALUES (2, 1, 'the last')");
    wait_until("ten files are in the spool", LONG, || held(&config).1 > 3_000_000);
    wait_until("the trouble is told", LONG, || {
        agent.log().contains("what comes is kept in the spool") || agent.log().contains("put chunks/")
    });
    // Every closed file is durable here: the source may forget them.
    let kept = config.dir().join("kept");
    keep(&server, &kept);
    std::thread::sleep(Duration::from_millis(500));
    let (current, _) = server.position();
    server.sql(&format!("PURGE BINARY LOGS TO '{current}'"));
    agent.kill();
    let out = config.command(&["drain"]).env("BINVAULT_ARCHIVE__GIVE_UP_AFTER", "1s").output().unwrap();
    assert_eq!(out.status.code(), Some(9), "the store is down: {}", said(&out));
    store.switches.down.store(false, Ordering::SeqCst);
    let mut agent = config.spawn();
    wait_until("what was left goes to the store", LONG, || agent.log().contains("an earlier run has left"));
    agent.wait_caught_up(&server);
    wait_empty(&config);
    agent.terminate();
    let exported = config.export();
    for file in std::fs::read_dir(&kept).unwrap() {
        let file = file.unwrap().path();
        let name = file.file_name().unwrap();
        if name.to_str() != Some(current.as_str()) {
            assert!(
                std::fs::read(&file).unwrap() == std::fs::read(exported.join(name)).unwrap(),
                "{} differs",
                file.display()
            );
        }
    }
    config.verify_deep();
}

#[test]
fn a_full_spool_takes_no_more_than_it_may_and_nothing_is_lost() {
    const MAX: u64 = 16 << 20;
    let server = source("full", &[]);
    let store = s3::Server::start();
    let config = with_spool(&server, &store, "mode = \"off\"", "chunk_size = \"64KiB\"\nflush_interval = \"100ms\"");
    config.edit("max_size = \"1GiB\"", &format!("max_size = \"{}MiB\"", MAX >> 20));
    let mut agent = config.spawn();
    agent.wait_caught_up(&server);
    store.switches.down.store(true, Ordering::SeqCst);
    for n in 0..30 {
        noise(&server, n, 1000);
    }
    wait_until("it is full, and that is told", LONG, || agent.log().contains("the spool is full"));
    std::thread::sleep(Duration::from_secs(1));
    let (_, bytes) = held(&config);
    assert!(bytes > MAX / 2 && bytes <= MAX, "{bytes} bytes are in the spool, {MAX} may be");
    store.switches.down.store(false, Ordering::SeqCst);
    agent.wait_caught_up(&server);
    wait_empty(&config);
    agent.terminate();
    check::whole(&config, &server, Overlaps::None);
}

#[test]
fn what_is_left_is_sent_without_an_agent_and_without_a_server() {
    let mut server = source("left", &[]);
    let store = s3::Server::start();
    let config = with_spool(&server, &store, "mode = \"spool\"\nwait_limit = \"30s\"", "");
    let folder = spool(&config);
    let nothing = config.fails(&["drain"], 2);
    assert!(nothing.contains("is no spool"), "{nothing}");
    let mut agent = config.spawn();
    wait_protected(&config, &mut agent);
    let busy = config.fails(&["drain"], 2);
    assert!(busy.contains("in use by another process"), "{busy}");
    store.switches.down.store(true, Ordering::SeqCst);
    server.sql("INSERT INTO t.t VALUES (1, 1, 'only in the spool')");
    let written = server.position();
    agent.kill();
    server.kill();
    store.switches.down.store(false, Ordering::SeqCst);
    assert_ne!(config.durable(), Some(written.clone()), "the store has it without the spool");
    let (objects, _) = held(&config);
    assert!(objects > 0);
    // The folder may have been moved to where the archive can be reached from.
    let moved = config.dir().join("moved");
    std::fs::rename(&folder, &moved).unwrap();
    let text = config.ok(&["drain", "--dir", moved.to_str().unwrap()]);
    assert!(text.contains(&format!("{objects} objects")) && text.contains("sent"), "{text}");
    assert_eq!(config.durable(), Some(written));
    let text = config.ok(&["drain", "--dir", moved.to_str().unwrap()]);
    assert!(text.contains("0 objects"), "{text}");
    // It never goes into another archive.
    server.start_again(&[]);
    let another = AgentConfig::with_extra(&server, "");
    another.archive_now();
    let refused = another.fails(&["drain", "--dir", moved.to_str().unwrap()], 2);
    assert!(refused.contains("is of archive"), "{refused}");
}

/// The first file below a folder.
fn first_file(folder: &Path) -> Option<PathBuf> {
    let mut entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.find_map(|path| if path.is_dir() { first_file(&path) } else { Some(path) })
}

#[test]
fn bytes_that_changed_in_the_spool_stop_the_agent_and_are_fetched_again() {
    let server = source("changed", &[]);
    let store = s3::Server::start();
    let config = with_spool(&server, &store, "mode = \"off\"", "flush_interval = \"100ms\"");
    let mut agent = config.spawn();
    agent.wait_caught_up(&server);
    wait_empty(&config);
    store.switches.down.store(true, Ordering::SeqCst);
    server.sql("INSERT INTO t.t VALUES (1, 1, 'x')");
    wait_until("it is in the spool", LONG, || held(&config).0 == 1);
    agent.kill();
    let file = first_file(&spool(&config).join("chunks")).unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    store.switches.down.store(false, Ordering::SeqCst);
    let text = config.fails(&["run"], 10);
    assert!(text.contains("have changed since it was written") && text.contains("HINT"), "{text}");
    std::fs::remove_file(&file).unwrap();
    let mut agent = config.spawn();
    agent.wait_caught_up(&server);
    wait_empty(&config);
    agent.terminate();
    check::whole(&config, &server, Overlaps::None);
}

#[test]
fn check_and_status_tell_of_the_spool() {
    let server = source("told", &[]);
    let store = s3::Server::start();
    let config = with_spool(&server, &store, "mode = \"spool\"", "beacon_interval = \"1s\"");
    let finding = |id: &str| {
        let out = config.output(&["check", "--json"]);
        let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        let all = report["findings"].as_array().unwrap().clone();
        all.into_iter().find(|finding| finding["id"] == id).unwrap_or_else(|| panic!("no {id}: {report}"))
    };
    assert_eq!(finding("spool")["level"], "ok");
    assert_eq!(finding("spool-place")["level"], "warning", "the server is on this host");
    let mut agent = config.spawn();
    wait_protected(&config, &mut agent);
    assert!(finding("spool")["title"].as_str().unwrap().contains("holds"));
    // Each object takes so long that some are always on their way, and the beacon gets through.
    store.switches.delay_ms.store(1_500, Ordering::SeqCst);
    let clients = Clients::start(&server, 2, Duration::from_millis(20));
    wait_until("status tells what is in the spool", LONG, || {
        config.ok(&["status", "--offline"]).contains("not in the store yet")
    });
    drop(clients.stop());
    store.switches.delay_ms.store(0, Ordering::SeqCst);
    agent.wait_caught_up(&server);
    wait_empty(&config);
    agent.terminate();
    let spool = &config.status().unwrap()["agents"][0]["spool"];
    assert_eq!((&spool["objects"], &spool["bytes"]), (&0.into(), &0.into()), "{spool}");
    std::fs::write(config.dir().join("spool/spool.json"), "{\"format\": 1, \"archive\": \"another\"}").unwrap();
    assert_eq!(finding("spool")["level"], "error");
}
