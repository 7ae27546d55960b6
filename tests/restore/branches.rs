//! Branches: after "restore to before the DROP, then go on", the DROP does not come back.

use std::time::Duration;

use crate::place::Restored;
use crate::scene::{last_gtid, orders, shop};
use crate::support::agent::AgentConfig;
use crate::support::lab::Mysqld;
use crate::support::wait_until;

#[test]
fn the_drop_does_not_come_back() {
    let (source, config) = shop("rbranch", &[]);
    orders(&source, &["four", "five"]);
    source.sql("DROP TABLE shop.orders");
    let drop = last_gtid(&source);
    source.sql("CREATE TABLE shop.ruins (id INT PRIMARY KEY)");
    config.archive_now();

    let restored = Restored::to(&config, &format!("gtid:{drop}"), &["--before"]);
    assert_eq!(restored.sql("SELECT GROUP_CONCAT(what ORDER BY id) FROM shop.orders"), "one,two,three,four,five\n");
    let before_drop = restored.sql("SELECT @@GLOBAL.gtid_executed").replace('\n', "");

    // The business goes on with a restored server: here a fresh one, restored by --server.
    let next = Mysqld::start("rnext", &["--server-id=2"]);
    let key = config.identity();
    let socket = next.socket();
    let client = crate::support::lab::bin().join("mysql");
    config.ok(&[
        "restore",
        "--to",
        &format!("gtid:{drop}"),
        "--before",
        "--server",
        socket.to_str().unwrap(),
        "--identity",
        key.to_str().unwrap(),
        "--mysql",
        client.to_str().unwrap(),
    ]);
    assert_eq!(next.value("SELECT @@GLOBAL.gtid_executed").replace('\n', ""), before_drop);
    assert_eq!(next.value("SELECT COUNT(*) FROM shop.orders"), "5");
    assert_eq!(next.sql("SHOW REPLICA STATUS"), "");

    // It is archived into the same archive, as a new branch.
    let branch = AgentConfig::with(&next, &format!("file://{}", config.archive().display()), "");
    let keys = [config.identity().display().to_string()];
    branch.edit(branch.recipient(), config.recipient());
    branch.ok(&["run", "--once", "--adopt"]);
    // Before it has committed anything, `latest` is its history already.
    let plan = plan(&config, "latest", &[]);
    assert_eq!(plan["head"]["server"], next.uuid().as_str(), "{plan}");
    assert_eq!(plan["executed"], before_drop.as_str());

    orders(&next, &["six on the branch"]);
    // Files tell when they begin in whole seconds: what is written within one of a branch's beginning is not seen as going on.
    let seconds = |server: &Mysqld| server.value("SELECT UNIX_TIMESTAMP()").parse::<u64>().unwrap();
    let begun = seconds(&next);
    wait_until("the branch is some seconds old", Duration::from_secs(60), || seconds(&source) >= begun + 2);
    source.sql("INSERT INTO shop.ruins VALUES (1)");
    branch.ok(&["run", "--once"]);
    let latest = Restored::to(&config, "latest", &[]);
    assert_eq!(
        latest.sql("SELECT GROUP_CONCAT(what ORDER BY id) FROM shop.orders"),
        "one,two,three,four,five,six on the branch\n"
    );
    assert_eq!(latest.sql("SHOW TABLES IN shop"), "orders\n");
    assert!(latest.report["position"]["file"].is_string());

    // The old head is there still, and can be chosen.
    let old = Restored::to(&config, "latest", &["--head", &source.uuid()]);
    assert_eq!(old.sql("SHOW TABLES IN shop"), "ruins\n");

    // Both write on: then nobody can tell, and the heads are listed.
    config.archive_now();
    orders(&next, &["seven"]);
    branch.ok(&["run", "--once"]);
    let said = config.fails(&["restore", "--to", "latest", "--dry-run", "--identity", &keys[0]], 2);
    assert!(said.contains(&format!("--head {}", source.uuid())) && said.contains(&next.uuid()), "{said}");
}

/// The plan as JSON.
fn plan(config: &AgentConfig, to: &str, more: &[&str]) -> serde_json::Value {
    let key = config.identity().display().to_string();
    let mut arguments = vec!["restore", "--to", to, "--dry-run", "--json", "--identity", &key];
    arguments.extend(more);
    serde_json::from_str(&config.ok(&arguments)).unwrap()
}
