//! `binvault check` against a real server and real stores: a good installation is fit, each flaw has its finding, and
//! the printed fix, executed as printed, makes the finding go away.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test that is how things fail")]

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/s3.rs"]
mod s3;

mod archives;
mod protection;
mod servers;

use serde_json::Value;

use support::agent::{AgentConfig, said};

/// What an operator would have: the options of [`support::lab::Mysqld`] that trade safety for speed, undone.
const GOOD: &[&str] = &[
    "--sync-binlog=1",
    "--innodb-flush-log-at-trx-commit=1",
    "--max-allowed-packet=64M",
    "--binlog-row-metadata=FULL",
    "--skip-name-resolve",
];

/// `check --json` with more arguments: the report and the exit code.
fn check_with(config: &AgentConfig, arguments: &[&str]) -> (Value, i32) {
    let out = config.output(&[&["check", "--json"], arguments].concat());
    let report: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|why| panic!("{why}: {}", said(&out)));
    let code = out.status.code().expect("no signal");
    assert_eq!(report["exit_code"], code, "report and process agree: {report:#}");
    assert_eq!(report["fit"], code == 0, "{report:#}");
    (report, code)
}

fn check(config: &AgentConfig) -> (Value, i32) {
    check_with(config, &[])
}

/// The finding of this name; it must be there.
fn finding<'a>(report: &'a Value, id: &str) -> &'a Value {
    find(report, id).unwrap_or_else(|| panic!("no finding {id} in {report:#}"))
}

fn find<'a>(report: &'a Value, id: &str) -> Option<&'a Value> {
    report["findings"].as_array().unwrap().iter().find(|finding| finding["id"] == id)
}

/// The level of a finding; "absent" without one.
fn level<'a>(report: &'a Value, id: &str) -> &'a str {
    find(report, id).map_or("absent", |finding| finding["level"].as_str().unwrap())
}

/// The findings that are more than information.
fn troubles(report: &Value) -> Vec<&str> {
    let findings = report["findings"].as_array().unwrap().iter();
    findings
        .filter(|finding| finding["level"] == "error" || finding["level"] == "warning")
        .map(|finding| finding["id"].as_str().unwrap())
        .collect()
}

/// Adds a second recipient, so that nothing is left to warn of.
fn second_recipient(config: &AgentConfig) {
    let made = config.ok(&["keygen", "-o", config.dir().join("second").to_str().unwrap()]);
    let public = made.split_whitespace().find(|word| word.starts_with("age1")).expect("keygen prints the recipient");
    config.edit("recipients = [", &format!("recipients = [\"{public}\", "));
}
