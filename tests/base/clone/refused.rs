//! What a donor refuses is said with the statement that mends it, and the statement, run as it is printed, does.

use std::time::Duration;

use super::{account, archived_redo, clones, config, donor, manifest, stream};
use crate::scene::{counts, take};
use crate::support::agent::{AgentConfig, PASSWORD};
use crate::support::lab::Mysqld;
use serde_json::Value;

/// The statement behind `HINT: `.
fn hint(said: &str) -> String {
    said.split("HINT: ").nth(1).unwrap_or_else(|| panic!("no hint in {said}")).lines().next().unwrap().to_owned()
}

/// A finding of `check --json`.
fn finding(config: &AgentConfig, id: &str) -> Option<Value> {
    let report: Value = serde_json::from_slice(&config.output(&["check", "--json"]).stdout).unwrap();
    report["findings"].as_array().unwrap().iter().find(|finding| finding["id"] == id).cloned()
}

#[test]
fn each_refusal_is_mended_by_the_statement_that_comes_with_it() {
    let server = Mysqld::start("clone-refused", &[]);
    server.create_agent_user("binvault", PASSWORD);
    server.sql("CREATE DATABASE d; CREATE TABLE d.t (id INT PRIMARY KEY)");
    let config = config(&server, "engine = \"clone\"\ngive_up_after = \"1s\"");
    config.archive_now();
    for (trouble, code, id, words) in [
        ("SELECT 1", 4, "clone-privilege", "GRANT BACKUP_ADMIN ON *.* TO 'binvault'@'%';"),
        ("SELECT 1", 5, "clone-plugin", "INSTALL PLUGIN clone SONAME 'mysql_clone.so';"),
        ("SET GLOBAL max_allowed_packet = 1048576", 5, "clone-packet", "SET GLOBAL max_allowed_packet"),
        ("ALTER INSTANCE DISABLE INNODB REDO_LOG", 5, "clone-redo", "ALTER INSTANCE ENABLE INNODB REDO_LOG;"),
    ] {
        server.sql(trouble);
        let said = config.fails(&["base"], code);
        let statement = hint(&said);
        assert!(statement.contains(words), "{said}");
        assert_eq!(counts(&config), (0, 0));
        let found = finding(&config, id).unwrap_or_else(|| panic!("no finding {id}"));
        assert_eq!((&found["level"], found["fix"].as_str()), (&"error".into(), Some(&statement[..])), "{found}");
        // Whoever has no engine configured gets what there is, and the reason.
        config.edit("engine = \"clone\"\n", "");
        config.edit("[base]\n", "[base]\nmysqldump = \"/no/such\"\n");
        let said = config.fails(&["base"], 2);
        assert!(said.contains(words) && said.contains("is the program installed"), "both ways are told: {said}");
        config.edit("mysqldump = \"/no/such\"\n", "");
        config.edit("[base]\n", &format!("[base]\n{}", crate::scene::tool_line(&crate::scene::mysqldump())));
        let plan = config.ok(&["base", "--dry-run"]);
        assert!(plan.contains("engine   mysqldump") && plan.contains(words), "{plan}");
        assert_eq!(finding(&config, id).unwrap()["level"], "note");
        assert_eq!(finding(&config, "base-engine").unwrap()["level"], "note");
        config.edit("[base]\n", "[base]\nengine = \"clone\"\n");
        config.edit(&crate::scene::tool_line(&crate::scene::mysqldump()), "");
        server.sql(&format!("SET SESSION sql_log_bin = 0; {statement}"));
        assert_eq!(finding(&config, id), None);
    }
    assert_eq!(finding(&config, "base-engine").unwrap()["level"], "ok");
    take(&config);
    assert_eq!(counts(&config), (1, 0));
}

#[test]
fn another_clone_is_waited_for_and_one_that_is_told_to_stop_frees_the_donor() {
    let server = donor("clone-busy", &[]);
    server.sql("CREATE DATABASE d; CREATE TABLE d.t (id INT PRIMARY KEY)");
    let slow = config(&server, "engine = \"clone\"\nmax_rate = \"64KiB\"");
    let mut first = slow.spawn_with(&["base"]);
    crate::support::wait_until("the first clone is on its way", Duration::from_secs(60), || {
        assert_eq!(first.exited(), None, "{}", first.log());
        clones(&server) >= 2
    });
    let second = config(&server, "engine = \"clone\"\ngive_up_after = \"1s\"");
    let said = second.fails(&["base"], 1);
    assert!(said.contains("another clone is running") && said.contains("3634"), "{said}");
    // Told to stop, it has the donor give up: the next one need not wait.
    first.signal(rustix::process::Signal::TERM);
    let ended = first.wait(Duration::from_secs(40));
    assert!(!ended.success(), "{ended}");
    take(&second);
    assert_eq!((counts(&slow).0, counts(&second).0), (0, 1));
    assert_eq!(archived_redo(&server), 0);
}

#[test]
fn an_encrypted_donor_is_cloned_over_tls_only() {
    let options = ["--innodb-redo-log-encrypt=ON", "--innodb-undo-log-encrypt=ON", super::PLUGIN];
    let server = Mysqld::start_with_keyring("clone-encrypted", &options);
    account(&server);
    server.sql(
        "ALTER TABLESPACE mysql ENCRYPTION = 'Y'; CREATE DATABASE d;
         CREATE TABLE d.secret (id INT PRIMARY KEY, v VARCHAR(40)) ENCRYPTION = 'Y'; INSERT INTO d.secret VALUES (1, 'x')",
    );
    let config = config(&server, "engine = \"clone\"\ngive_up_after = \"1s\"");
    config.source("tls = \"disabled\"");
    let said = config.fails(&["base"], 4);
    assert!(said.contains("3872") && hint(&said).contains("tls = \"required\""), "{said}");
    config.edit("tls = \"disabled\"", "tls = \"required\"");
    let load = crate::support::load::Load::start(&server, 2, crate::support::load::Pace::PerSecond(400));
    load.wait_for(100);
    let taken: Vec<Value> = (0..2).map(|_| take(&config)).collect();
    load.stop();
    for document in &taken {
        let base = &document["base"];
        let (file, offset) = crate::stock::place(&base["position"]);
        let count = crate::stock::gtids_before(&server, &file, offset);
        assert_eq!(base["executed"].as_str().unwrap(), format!("{}:1-{count}", server.uuid()));
        let id = base["id"].as_str().unwrap();
        assert_eq!(manifest(&config, id)["clone"]["encrypted"], true);
        stream(&config, id).is_whole();
    }
}
