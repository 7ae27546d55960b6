//! The purge guard on a real server: what is safe goes, what is not stays.

use crate::support::http::metric;
use crate::support::lab::Mysqld;
use crate::support::wait_until;
use crate::{LONG, watched};

const GUARD: &str = "[purge_guard]\nenabled = true\nmin_age = \"1s\"\nkeep_files = 2\nstep = 10\n";

fn files(server: &Mysqld) -> usize {
    server.sql("SHOW BINARY LOGS").lines().count()
}

fn written(hint: &str) -> Mysqld {
    let server = Mysqld::start(hint, &["--binlog-expire-logs-auto-purge=OFF"]);
    server.sql("CREATE DATABASE t; CREATE TABLE t.t (id INT PRIMARY KEY)");
    for id in 1..=5 {
        server.sql(&format!("INSERT INTO t.t VALUES ({id}); FLUSH BINARY LOGS"));
    }
    server
}

#[test]
fn what_is_safe_is_purged_and_only_with_the_privilege() {
    let server = written("guarded");
    let (config, port) = watched(&server, GUARD);
    config.edit("[agent]", "[agent]\nbeacon_interval = \"1s\"");
    let before = files(&server);
    let copies: Vec<_> = server.binlogs().iter().map(|path| std::fs::read(path).unwrap()).collect();
    let mut agent = config.spawn();
    agent.wait_caught_up(&server);
    wait_until("the lack of a privilege is told", LONG, || agent.log().contains("BINLOG_ADMIN"));
    assert_eq!(files(&server), before, "nothing was purged without it");
    assert_eq!(metric(port, "binvault_guard_purged_files_total"), Some(0.0));
    server.sql("SET SESSION sql_log_bin = 0; GRANT BINLOG_ADMIN ON *.* TO binvault@'%'");
    agent.terminate();
    let mut agent = config.spawn();
    wait_until("all but two are gone", LONG, || files(&server) == 2);
    assert!(metric(port, "binvault_guard_purged_files_total") >= Some(4.0));
    server.sql("INSERT INTO t.t VALUES (6)");
    agent.wait_caught_up(&server);
    agent.terminate();
    // What is gone from the server is in the archive, byte for byte.
    let exported = config.export();
    for (number, copy) in copies.iter().enumerate().take(before - 2) {
        let name = format!("binlog.{:06}", number + 1);
        let found = walk(&exported).into_iter().find(|path| path.ends_with(&name)).unwrap();
        assert!(std::fs::read(found).unwrap() == *copy, "{name} differs");
    }
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(walk(&path)) } else { all.push(path) }
    }
    all
}

#[test]
fn what_was_there_before_archiving_began_stays() {
    let server = written("unguarded");
    let (config, _) = watched(&server, GUARD);
    config.edit("[agent]", "[agent]\nbeacon_interval = \"1s\"");
    config.source("start = \"current\"");
    server.sql("SET SESSION sql_log_bin = 0; GRANT BINLOG_ADMIN ON *.* TO binvault@'%'");
    let before = files(&server);
    let mut agent = config.spawn();
    agent.wait_caught_up(&server);
    for id in 10..=13 {
        server.sql(&format!("INSERT INTO t.t VALUES ({id}); FLUSH BINARY LOGS"));
    }
    agent.wait_caught_up(&server);
    std::thread::sleep(std::time::Duration::from_secs(5));
    assert_eq!(files(&server), before + 4, "{}", agent.log_tail());
    agent.terminate();
}

#[test]
fn check_tells_what_is_needed_for_it() {
    let server = Mysqld::start("checked", &[]);
    let (config, _) = watched(&server, &format!("{GUARD}[notify]\nurl = \"https://hooks.example.org/secret-hook\"\n"));
    let findings =
        || -> serde_json::Value { serde_json::from_slice(&config.output(&["check", "--json"]).stdout).unwrap() };
    let of = |id: &str| {
        let found = findings();
        found["findings"].as_array().unwrap().iter().find(|finding| finding["id"] == id).unwrap().clone()
    };
    let guard = of("purge-guard");
    assert_eq!(guard["level"], "warning");
    server.sql(&format!("SET SESSION sql_log_bin = 0; {}", guard["fix"].as_str().unwrap()));
    assert_eq!(of("purge-guard")["level"], "ok");
    let notify = of("notify");
    assert_eq!(
        (notify["level"].as_str(), notify["title"].as_str()),
        (Some("ok"), Some("notifications go to hooks.example.org"))
    );
    config.edit("https://hooks", "gopher://hooks");
    let notify = of("notify");
    assert!(notify["level"] == "error" && !notify.to_string().contains("secret-hook"), "{notify}");
}
