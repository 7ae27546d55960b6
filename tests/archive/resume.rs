//! Resume: the archive alone says where to go on, to the byte.

use crate::check::{self, Overlaps};
use crate::object_store::s3_config;
use crate::s3;
use crate::support::agent::AgentConfig;
use crate::support::lab::Mysqld;
use crate::support::wait_until;
use crate::support::workload::named;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

const SMALL_CHUNKS: &str = "[agent]\nchunk_size = \"64KiB\"\nflush_interval = \"50ms\"";

/// A transaction of some 6 MB in events of ordinary size.
const LARGE_TRANSACTION: &str =
    "CREATE DATABASE l; CREATE TABLE l.t (id INT PRIMARY KEY AUTO_INCREMENT, v VARBINARY(8000));
    INSERT INTO l.t (v) WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 800)
      SELECT REPEAT(RANDOM_BYTES(500), 15) FROM n;";

/// Kills agents inside a huge event and a large transaction; the next one goes on there.
fn inside(hint: &str, options: &[&str]) {
    let server = Mysqld::start(hint, options);
    server.sql(LARGE_TRANSACTION);
    named("row_17m").run(&server);
    let store = s3::Server::start();
    let config = s3_config(&server, &store, hint, SMALL_CHUNKS);
    // So slow that there is time to kill it where it is to be killed.
    store.switches.delay_ms.store(30, Ordering::SeqCst);
    let (mut in_events, mut in_transactions) = (0, 0);
    for kill in 1..=5 {
        let before = store.switches.puts.load(Ordering::SeqCst);
        let agent = config.spawn();
        wait_until("the agent has stored 40 objects", Duration::from_secs(60), || {
            store.switches.puts.load(Ordering::SeqCst) >= before + 40
        });
        agent.kill();
        let history = check::history(&config);
        let last = history.files.last().and_then(|file| file.last.clone()).unwrap();
        println!(
            "kill {kill}: the archive ends at {}:{}, the last event before at {}",
            last.file, last.end, last.resume
        );
        // Ordinary events have some 8 KB.
        let inside_huge = last.end - last.resume > 1 << 20;
        in_events += u32::from(inside_huge);
        in_transactions += u32::from(last.open.is_some() && !inside_huge);
    }
    assert!(
        in_events > 0 && in_transactions > 0,
        "of the kills {in_events} hit inside the huge event, {in_transactions} inside the large transaction"
    );
    store.switches.delay_ms.store(0, Ordering::SeqCst);
    config.archive_now();
    check::whole(&config, &server, Overlaps::Allowed);
}

#[test]
fn inside_huge_events_and_transactions() {
    inside("inside", &["--binlog-row-event-max-size=8192"]);
}

#[test]
fn inside_huge_events_and_transactions_without_gtids() {
    inside("inside-plain", &["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"]);
}

/// The chunk files of an archive in a folder, in the order of files and ranges.
fn chunks(config: &AgentConfig) -> Vec<PathBuf> {
    let names = check::objects(config).into_iter().filter(|name| name.starts_with("chunks/"));
    names.map(|name| config.archive().join(name)).collect()
}

/// The file that a chunk is of.
fn binlog_of(chunk: &Path) -> String {
    let folder = chunk.parent().unwrap().file_name().unwrap().to_str().unwrap();
    folder.split('.').take(2).collect::<Vec<_>>().join(".")
}

#[test]
fn what_is_missing_is_filled_and_leftovers_go() {
    let server = Mysqld::start("tails", &[]);
    for name in ["row", "load_data", "rotation", "types", "load_data"] {
        named(name).run(&server);
    }
    let config = AgentConfig::with_extra(&server, SMALL_CHUNKS);
    config.archive_now();
    check::whole(&config, &server, Overlaps::None);
    let whole = chunks(&config).len();
    for missing in 1..=4 {
        let all = chunks(&config);
        for chunk in &all[all.len() - missing..] {
            std::fs::remove_file(chunk).unwrap();
        }
        config.archive_now();
        // No byte twice: exactly what was missing has come again.
        check::whole(&config, &server, Overlaps::None);
    }
    println!("{whole} chunks, and {} after the newest were lost", chunks(&config).len());

    // The last chunk of an older file, as if its upload had been on its way: the files behind it are there.
    let newest = server.position().0;
    let all = chunks(&config);
    let older = all.windows(2).rfind(|pair| binlog_of(&pair[0]) != binlog_of(&pair[1])).unwrap()[0].clone();
    assert_ne!(binlog_of(&older), newest);
    std::fs::remove_file(&older).unwrap();
    let said = config.fails(&["verify"], 12);
    assert!(said.contains(&newest), "verify does not name the file behind the missing tail:\n{said}");
    // What a dead writer left, long ago and just now.
    let leftover = |name: &str, age: u64| {
        let path = config.archive().join(".tmp").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = std::fs::File::create(&path).unwrap();
        let now = std::time::UNIX_EPOCH + Duration::from_micros(binvault::clock::now_us());
        file.set_modified(now - Duration::from_secs(age)).unwrap();
        path
    };
    let (old, fresh) = (leftover("old", 3600), leftover("fresh", 1));
    config.archive_now();
    assert!(!old.exists(), "an old leftover was not swept");
    assert!(fresh.exists(), "a leftover that may be another agent's work was swept");
    check::whole(&config, &server, Overlaps::Allowed);
}

#[test]
fn archiving_begins_with_the_current_file_if_asked_to() {
    let server = Mysqld::start("current", &[]);
    named("row").run(&server);
    server.sql("FLUSH BINARY LOGS");
    named("mixed").run(&server);
    let config = AgentConfig::new(&server);
    config.source("start = \"current\"");
    config.archive_now();
    let (file, end) = server.position();
    let history = check::history(&config);
    let have: Vec<(String, u64)> =
        history.files.iter().map(|file| (file.incarnation().file.to_string(), file.contiguous_end())).collect();
    assert_eq!(have, [(file.clone(), end)], "files in the archive");
    let exported = config.export();
    let live = server.binlogs().pop().unwrap();
    crate::support::compare::assert_same(&live, &exported.join(file), crate::support::compare::Extent::Whole);
    config.verify_deep();
}
