//! The least that the program needs, as `docs/security.md` gives it: run with exactly that.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{with_key, words};
use crate::s3;
use crate::support::agent::{AgentConfig, PASSWORD};
use crate::support::lab::Mysqld;
use crate::support::repo;

/// The page's code blocks of a language.
fn blocks(language: &str) -> Vec<String> {
    let page = std::fs::read_to_string(repo().join("docs/security.md")).unwrap();
    let marked = format!("```{language}\n");
    page.split(&marked).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// What may be done by a policy.
fn actions(policy: &str) -> BTreeSet<String> {
    let policy: Value = serde_json::from_str(policy).unwrap();
    let statements = policy["Statement"].as_array().unwrap().iter();
    statements.flat_map(|s| s["Action"].as_array().unwrap()).map(|action| action.as_str().unwrap().to_owned()).collect()
}

/// The actions that requests need, by Amazon's reference.
fn needed(operations: &BTreeSet<String>) -> BTreeSet<String> {
    let action = |operation: &String| match operation.as_str() {
        "GetObject" | "HeadObject" => "s3:GetObject",
        "PutObject" => "s3:PutObject",
        "ListObjectsV2" | "HeadBucket" => "s3:ListBucket",
        other => panic!("no policy has {other}"),
    };
    operations.iter().map(|operation| action(operation).to_owned()).collect()
}

#[test]
fn the_documented_grants_and_policies_are_enough_and_no_more() {
    let (server, store) = (Mysqld::start("least", &["--plugin-load-add=mysql_clone.so"]), s3::Server::start());
    // The page's account stands for any host here.
    for statements in blocks("sql") {
        server.sql(&format!("SET SESSION sql_log_bin = 0; {}", statements.replace('…', PASSWORD)));
    }
    server.sql("CREATE DATABASE d; CREATE TABLE d.t (id INT PRIMARY KEY); INSERT INTO d.t VALUES (1)");
    let extra = format!("{}[base]\nengine = \"clone\"\n", store.settings());
    let config = AgentConfig::with(&server, &format!("s3://{}/x", s3::BUCKET), &extra);
    config.ok(&["check"]);
    // It also tries what `prune` would need, and does without.
    store.switches.operations.lock().unwrap().clear();
    config.archive_now();
    config.ok(&["base"]);
    let policies = blocks("json");
    let asked = std::mem::take(&mut *store.switches.operations.lock().unwrap());
    assert_eq!(needed(&asked), actions(&policies[0]), "the agent's: {asked:?}");
    // Whoever restores reads, and no more.
    store.switches.read_only.store(true, std::sync::atomic::Ordering::SeqCst);
    config.ok(&["status"]);
    config.ok(&["list"]);
    config.ok(&words(&with_key(&config, &["verify", "--deep"])));
    config.ok(&words(&with_key(&config, &["restore", "--to", "latest", "--dry-run"])));
    let asked = std::mem::take(&mut *store.switches.operations.lock().unwrap());
    assert_eq!(needed(&asked), actions(&policies[1]), "a reader's: {asked:?}");
}
