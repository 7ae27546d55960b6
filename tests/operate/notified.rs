//! Whoever is to be told is told: once when something goes wrong, and once when it is over.

use serde_json::Value;

use crate::support::agent::AgentConfig;
use crate::support::http::{Hook, metric};
use crate::support::lab::Mysqld;
use crate::support::wait_until;
use crate::{LONG, watched};

fn events(hook: &Hook) -> Vec<(String, String)> {
    let word = |told: &Value, name: &str| told[name].as_str().unwrap().to_owned();
    hook.told().iter().map(|told| (word(told, "event"), word(told, "id"))).collect()
}

fn has(hook: &Hook, event: &str, id: &str) -> bool {
    events(hook).contains(&(event.to_owned(), id.to_owned()))
}

/// A server with a row, a hook, and an agent that tells it, with its port.
fn told(name: &str, more: &str) -> (Mysqld, Hook, AgentConfig, u16) {
    let server = Mysqld::start(name, &[]);
    server.sql("CREATE DATABASE t; CREATE TABLE t.t (id INT PRIMARY KEY); INSERT INTO t.t VALUES (1)");
    let hook = Hook::start();
    let url = format!("http://127.0.0.1:{}/secret-hook", hook.port);
    let (config, port) = watched(&server, &format!("[notify]\nurl = \"{url}\"\nmin_interval = \"1s\"\n{more}"));
    (server, hook, config, port)
}

#[test]
fn what_goes_wrong_is_told_and_that_it_is_over() {
    let (server, hook, config, port) = told("notified", "");
    let mut agent = config.spawn();
    agent.wait_caught_up(&server);
    wait_until("that there is no base backup is told", LONG, || has(&hook, "raised", "base-missing"));
    let told = &hook.told()[0];
    assert_eq!((&told["schema"], &told["agent"]), (&Value::from(1), &Value::from("main")), "{told}");
    assert_eq!(told["hint"], "binvault base", "{told}");

    // A hook that refuses is no reason to stop, and is counted.
    hook.answer(500);
    server.sql("RESET BINARY LOGS AND GTIDS; INSERT INTO t.t VALUES (2)");
    wait_until("a refusal is counted", LONG, || {
        metric(port, "binvault_notifications_total{result=\"failed\"}") >= Some(1.0)
    });
    hook.answer(200);
    wait_until("the gap is told of", LONG, || has(&hook, "raised", "gap-without-base"));
    agent.wait_caught_up(&server);
    let text = hook.told().iter().map(ToString::to_string).collect::<String>();
    assert!(!text.contains("secret-hook") && !agent.log().contains("secret-hook"), "{text}");
    assert!(metric(port, "binvault_notifications_total{result=\"sent\"}") >= Some(2.0));

    server.grant_base("binvault");
    let tool = crate::support::lab::bin().join("mysqldump");
    config.edit("[notify]", &format!("[base]\nmysqldump = \"{}\"\n[notify]", tool.display()));
    config.ok(&["base", "--engine", "mysqldump"]);
    wait_until("it is well again", LONG, || has(&hook, "cleared", "gap-without-base"));
    agent.terminate();
}

#[test]
fn a_gap_is_told_in_the_words_of_slack() {
    let (server, hook, config, _) = told("slack", "template = \"slack\"\n");
    let mut agent = config.spawn();
    agent.wait_caught_up(&server);
    server.sql("RESET BINARY LOGS AND GTIDS; INSERT INTO t.t VALUES (2)");
    let texts = || hook.told().iter().map(|told| told["text"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    wait_until("the gap is told", LONG, || {
        texts().iter().any(|text| text.starts_with("*binvault main*: ALARM: a gap in the history"))
    });
    agent.terminate();
}
