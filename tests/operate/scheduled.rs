//! What the agent does by schedule beside archiving: verifying and pruning.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::http::{get, metric};
use crate::support::lab::Mysqld;
use crate::support::wait_until;
use crate::{LONG, watched};

/// A file somewhere below.
fn first_chunk(folder: &Path) -> PathBuf {
    let path = fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    if path.is_dir() { first_chunk(&path) } else { path }
}

#[test]
fn the_archive_is_verified_and_damage_is_told_everywhere() {
    let server = Mysqld::start("verified", &[]);
    server.sql("CREATE DATABASE t; CREATE TABLE t.t (id INT PRIMARY KEY); INSERT INTO t.t VALUES (1)");
    let (config, port) = watched(&server, "[verify]\nschedule = \"* * * * * *\"\n");
    config.edit("[agent]", "[agent]\nbeacon_interval = \"1s\"");
    let mut agent = config.spawn();
    agent.wait_caught_up(&server);
    wait_until("it was verified", LONG, || metric(port, "binvault_verify_ok") == Some(1.0));
    let beacon = || config.status().unwrap()["agents"][0]["verified"].clone();
    wait_until("the beacon says so", LONG, || beacon()["at_us"].as_u64() > Some(0) && beacon()["problem"].is_null());

    let chunk = first_chunk(&config.archive().join("chunks"));
    let mut bytes = fs::read(&chunk).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&chunk, bytes).unwrap();
    wait_until("the damage is found", LONG, || metric(port, "binvault_verify_ok") == Some(0.0));
    wait_until("the beacon says so", LONG, || beacon()["problem"].as_str().is_some_and(|why| why.contains("digest")));
    let told: serde_json::Value = serde_json::from_str(&get(port, "/status").1).unwrap();
    let found = told["actions"].as_array().unwrap().iter().any(|action| action["id"] == "verify");
    assert!(found, "{told}");
    let words = config.ok(&["status"]);
    assert!(words.contains("NOT WHOLE"), "{words}");
    // The next start goes on from what the beacon says.
    agent.terminate();
    config.edit("* * * * * *", "@yearly");
    let agent = config.spawn();
    wait_until("it is known at once", LONG, || metric(port, "binvault_verify_ok") == Some(0.0));
    agent.terminate();
}

#[test]
fn what_nobody_needs_goes_by_schedule() {
    let server = Mysqld::start("pruned", &[]);
    server.sql("CREATE DATABASE t; CREATE TABLE t.t (id INT PRIMARY KEY)");
    let tool = crate::support::lab::bin().join("mysqldump");
    let settings = format!(
        "[base]\nengine = \"mysqldump\"\nmysqldump = \"{}\"\n[retention]\nbases = 1\ngrace = \"0s\"\n",
        tool.display()
    );
    let (config, port) = watched(&server, &settings);
    server.grant_base("binvault");
    for id in 1..=2 {
        server.sql(&format!("INSERT INTO t.t VALUES ({id}); FLUSH BINARY LOGS"));
        config.archive_now();
        config.ok(&["base"]);
    }
    let bases = || config.status().unwrap()["protection"]["bases"].as_u64();
    assert_eq!(bases(), Some(2));
    config.edit("grace = \"0s\"", "grace = \"0s\"\nschedule = \"* * * * * *\"");
    let mut agent = config.spawn();
    agent.wait_caught_up(&server);
    wait_until("the older base backup goes", LONG, || bases() == Some(1));
    wait_until("that is told", LONG, || {
        metric(port, "binvault_prune_timestamp_seconds") > Some(1e9) && metric(port, "binvault_bases") == Some(1.0)
    });
    server.sql("INSERT INTO t.t VALUES (3)");
    agent.wait_caught_up(&server);
    agent.terminate();
    config.verify_deep();
    // A schedule that would remove everything there is to remove says so at the start.
    config.edit("bases = 1\n", "");
    let words = config.fails(&["run", "--once"], 2);
    assert!(words.contains("nothing says what is to be kept") && words.contains("HINT"), "{words}");
}
