//! A server with an account that may take base backups, its configuration, and fake tools.

use crate::s3;
use crate::support::agent::{AgentConfig, PASSWORD, said};
use crate::support::lab::{Mysqld, bin};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// What `docs/base-backups.md` tells to grant for mysqldump.
pub(crate) const GRANTS: &str = "SELECT, RELOAD, PROCESS, SHOW VIEW, TRIGGER, EVENT, REPLICATION CLIENT, REPLICATION SLAVE, \
    SHOW_ROUTINE, XA_RECOVER_ADMIN, BACKUP_ADMIN";

/// A server whose account `binvault` may take base backups.
pub(crate) fn server(hint: &str, options: &[&str]) -> Mysqld {
    let server = Mysqld::start(hint, options);
    server.create_agent_user("binvault", PASSWORD);
    server.sql(&format!("SET SESSION sql_log_bin = 0; GRANT {GRANTS} ON *.* TO binvault@'%'"));
    server
}

/// The lab's mysqldump.
pub(crate) fn mysqldump() -> PathBuf {
    bin().join("mysqldump")
}

/// A configuration that archives into a folder; `base` stands in `[base]`. A failure is final at once.
pub(crate) fn config(server: &Mysqld, base: &str) -> AgentConfig {
    AgentConfig::with_extra(server, &section(base))
}

fn section(base: &str) -> String {
    let program = if base.contains("mysqldump =") { String::new() } else { tool_line(&mysqldump()) };
    let patience = if base.contains("give_up_after") { "" } else { "give_up_after = \"1s\"\n" };
    format!("[base]\n{program}{patience}{base}\n")
}

/// `mysqldump = "…"`
pub(crate) fn tool_line(program: &Path) -> String {
    format!("mysqldump = \"{}\"\n", program.display())
}

/// As [`config`], into a store of its own.
pub(crate) fn s3_config(server: &Mysqld, store: &s3::Server, base: &str) -> AgentConfig {
    let settings = format!(
        "{}give_up_after = \"1s\"
{}",
        store.settings(),
        section(base)
    );
    AgentConfig::with(server, &format!("s3://{}/x", s3::BUCKET), &settings)
}

/// Writes a script that stands in for the tool; `$REAL` is the real one, and `--version` always goes to it.
pub(crate) fn fake(folder: &Path, script: &str) -> PathBuf {
    let path = folder.join("fake-mysqldump");
    let text = format!(
        "#!/bin/bash\nREAL={}\ncase \"$*\" in *--version*) exec $REAL \"$@\" ;; esac\n{script}\n",
        mysqldump().display()
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// A folder for a fake tool that is older than the configuration.
pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("binvault-base").tempdir().unwrap()
}

/// A table `d.t` with some 400 KB in it, all of it random.
pub(crate) fn some_data(server: &Mysqld) {
    server.sql(
        "CREATE DATABASE d; CREATE TABLE d.t (id INT PRIMARY KEY AUTO_INCREMENT, v VARBINARY(2000));
         INSERT INTO d.t (v) WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 200)
           SELECT CONCAT(RANDOM_BYTES(1000), RANDOM_BYTES(1000)) FROM n;",
    );
}

/// Takes a base backup that must succeed: the document of `base --json`.
pub(crate) fn take(config: &AgentConfig) -> Value {
    serde_json::from_str(&config.ok(&["base", "--json"])).unwrap()
}

/// The document of `list --json`.
pub(crate) fn list(config: &AgentConfig) -> Value {
    serde_json::from_str(&config.ok(&["list", "--json"])).unwrap()
}

/// How many base backups are finished, and how many are not.
pub(crate) fn counts(config: &AgentConfig) -> (usize, usize) {
    let out = config.output(&["list", "--json"]);
    // Before the first chunk or base there may be no archive yet.
    let Ok(list) = serde_json::from_slice::<Value>(&out.stdout) else {
        assert!(["no archive", "no folder"].iter().any(|word| said(&out).contains(word)), "{}", said(&out));
        return (0, 0);
    };
    (list["bases"].as_array().unwrap().len(), list["unfinished_bases"].as_array().unwrap().len())
}
