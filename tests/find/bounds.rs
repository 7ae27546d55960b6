//! Large transactions within bounded memory, and archives that are not whole.

use crate::support::agent::{AgentConfig, peak_rss};
use crate::support::files_below;
use crate::support::lab::Mysqld;
use crate::support::workload::named;
use crate::{Archived, transactions};

/// What `find` may have resident, whatever the transaction's size.
const RESIDENT_BYTES_MAX: u64 = 160 << 20;

#[test]
fn a_transaction_of_300_mb_in_many_chunks_is_one_and_takes_little_memory() {
    let server = Mysqld::start("find_big", &["--max-binlog-size=1G"]);
    named("transaction_300m").run(&server);
    let config = AgentConfig::new(&server);
    config.archive_now();
    let archived = Archived { server, config };
    let command = archived.arguments(&["--kind", "large"], &["--json"]);
    let mut child = archived.config.command(&command).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        peak = peak.max(peak_rss(child.id()).unwrap_or(0));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let document = serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap();
    let found = transactions(&document);
    assert_eq!(found.len(), 1);
    assert!(found[0]["bytes"].as_u64().unwrap() > 290_000_000, "{}", found[0]);
    assert_eq!((&found[0]["inserted"], &found[0]["rows_exact"]), (&39_000.into(), &true.into()));
    assert!(peak > 0 && peak < RESIDENT_BYTES_MAX, "{peak} bytes resident");
}

#[test]
fn what_is_damaged_or_missing_is_told_and_the_rest_is_found() {
    let server = Mysqld::start("find_torn", &[]);
    server.sql("CREATE DATABASE d; CREATE TABLE d.t (id INT PRIMARY KEY AUTO_INCREMENT, v VARBINARY(40000))");
    for _ in 0..12 {
        server.sql("INSERT INTO d.t (v) VALUES (RANDOM_BYTES(1000)); INSERT INTO d.t (v) SELECT REPEAT(RANDOM_BYTES(1000), 40)");
    }
    server.sql("FLUSH BINARY LOGS; DROP TABLE d.t");
    let archived = crate::archive(server);
    let whole = archived.find(&["--limit", "10000"]);
    let mut all = files_below(&archived.config.archive().join("chunks"));
    all.sort();
    assert!(all.len() > 6, "{all:?}");
    // A hole in the middle.
    let kept = std::fs::read(&all[2]).unwrap();
    std::fs::remove_file(&all[2]).unwrap();
    let holed = archived.find(&["--limit", "10000"]);
    let (had, has) = (transactions(&whole), transactions(&holed));
    assert!(has.len() < had.len() && has.len() > had.len() / 2, "{} of {}", has.len(), had.len());
    assert_eq!(has.last(), had.last());
    assert!(has.iter().all(|found| had.contains(found)));
    let missing = holed["not_searched"].as_array().unwrap();
    assert_eq!(missing.len(), 1, "{missing:?}");
    assert!(missing[0]["why"].as_str().unwrap().contains("not in the archive"), "{missing:?}");
    // The same chunk, damaged: the rest is searched, but the search has failed.
    let mut damaged = kept;
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    std::fs::write(&all[2], damaged).unwrap();
    let key = archived.config.identity();
    let out = archived.config.output(&["find", "--json", "--limit", "10000", "--identity", key.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(10));
    let torn: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert!(has.iter().all(|found| transactions(&torn).contains(found)), "less than with the chunk gone");
    assert_eq!(torn["not_searched"].as_array().unwrap().len(), 1, "{}", torn["not_searched"]);
    let said = archived.config.fails(&["find", "--kind", "drop", "--identity", key.to_str().unwrap()], 10);
    assert!(said.contains("DROP TABLE") && said.contains("NOT SEARCHED") && said.contains("HINT:"), "{said}");
    // Another key opens nothing.
    let other = archived.config.dir().join("other");
    assert!(crate::support::agent::binvault().arg("keygen").arg("-o").arg(&other).status().unwrap().success());
    archived.config.fails(&["find", "--identity", other.to_str().unwrap()], 11);
}
