//! Retention in a bucket: that of a server of the test's own, and any that the environment names, which may keep versions
//! and lock objects.

use serde_json::Value;

use crate::oracle::fingerprint;
use crate::place::{Restored, base};
use crate::prune::POLICY;
use crate::s3::{self, Named};
use crate::scene::{orders, shop_at};
use crate::support::agent::AgentConfig;
use crate::support::lab::Mysqld;

/// Two binlog files before the newest base backup, and a base backup in each.
fn history(source: &Mysqld, config: &AgentConfig) {
    for name in ["a", "b"] {
        source.sql("FLUSH BINARY LOGS");
        orders(source, &[name]);
        config.archive_now();
        base(config);
    }
    orders(source, &["behind"]);
    config.archive_now();
}

/// Names of the binlog files, and how many base backups, `list` knows.
fn listed(config: &AgentConfig) -> (Vec<String>, usize) {
    let list: Value = serde_json::from_str(&config.ok(&["list", "--json"])).unwrap();
    let files = list["files"].as_array().unwrap().iter().map(|file| file["file"].as_str().unwrap().to_owned());
    (files.collect(), list["bases"].as_array().unwrap().len())
}

/// What is left is whole, restores, and stays pruned.
fn assert_pruned(source: &Mysqld, config: &AgentConfig) {
    let (files, bases) = listed(config);
    assert_eq!((files.len(), bases), (1, 1), "{files:?}");
    config.verify_deep();
    let restored = Restored::to(config, "latest", &[]);
    restored.assert_executed(&source.value("SELECT @@GLOBAL.gtid_executed").replace('\n', ""));
    assert_eq!(fingerprint(|sql| restored.sql(sql)), fingerprint(|sql| source.sql(sql)));
    // Nobody takes what was removed for a gap, nor fetches it again.
    orders(source, &["later"]);
    config.archive_now();
    assert_eq!(listed(config), (files, bases));
    let again: Value = serde_json::from_str(&config.ok(&["prune", "--json"])).unwrap();
    assert_eq!(again["removed"]["objects"], 0, "{again}");
    config.verify_deep();
}

#[test]
fn what_is_locked_stays_and_is_named_and_goes_when_the_lock_has_ended() {
    let server = s3::Server::start();
    let (source, config) = shop_at("prunelock", &format!("s3://{}/pruned", s3::BUCKET), &(server.settings() + POLICY));
    history(&source, &config);
    let (before, bases) = listed(&config);
    assert_eq!((before.len(), bases), (3, 3));
    // The chunks of the second file are younger, and still under a lock.
    let locked = format!("/{}.", before[1]);
    *server.switches.locked.lock().unwrap() = Some(locked.clone());
    let said = config.fails(&["prune"], 9);
    assert!(said.contains(&locked) && said.contains("under a lock") && said.contains("HINT:"), "{said}");
    // What had no lock is gone, what has one is as it was; a second try says the same.
    config.verify_deep();
    drop(Restored::to(&config, "latest", &[]));
    config.fails(&["prune"], 9);
    *server.switches.locked.lock().unwrap() = None;
    config.ok(&["prune"]);
    assert_pruned(&source, &config);
}

/// In a bucket that keeps versions, or locks objects for a time, what is pruned is hidden: nothing sees it again.
#[test]
fn the_bucket_that_the_environment_names_is_pruned() {
    let Some(named) = Named::by_environment("prune") else { return };
    let (source, config) = shop_at("prunenamed", &named.url, &(named.settings() + POLICY));
    history(&source, &config);
    config.ok(&["prune"]);
    assert_pruned(&source, &config);
}
