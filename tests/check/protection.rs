//! What the archive is good for: its base backups, and the objectives.

use crate::support::agent::{AgentConfig, PASSWORD};
use crate::support::lab::{Mysqld, bin};
use crate::{GOOD, check, finding, level};

#[test]
fn base_backups_and_objectives() {
    let server = Mysqld::start("check-protection", GOOD);
    server.create_agent_user("binvault", PASSWORD);
    server.sql(
        "SET SESSION sql_log_bin = 0;
         GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, LOCK TABLES, RELOAD, PROCESS, SHOW_ROUTINE, FLUSH_TABLES,
           BACKUP_ADMIN ON *.* TO 'binvault'@'%'",
    );
    let tools = format!(
        "[base]\nmysqldump = \"{}\"\n[restore]\nmysqld = \"{}\"\nmysqld_options = [\"--innodb-redo-log-capacity=64M\"]\n",
        bin().join("mysqldump").display(),
        bin().join("mysqld").display()
    );
    let config = AgentConfig::with_extra(&server, &format!("{tools}[objectives]\nrpo = \"1h\"\nrto = \"2h\""));
    let levels = || {
        let (report, code) = check(&config);
        assert_eq!(code, 0, "what is missing here keeps no agent from running: {report:#}");
        ["base-backup", "objective-rpo", "objective-rto"].map(|id| level(&report, id).to_owned())
    };
    assert_eq!(levels(), ["absent", "absent", "absent"], "there is no archive to judge yet");

    server.sql("CREATE DATABASE d; CREATE TABLE d.t (id INT PRIMARY KEY)");
    config.archive_now();
    assert_eq!(levels(), ["warning", "ok", "note"]);
    // What is printed as the fix mends it.
    let (report, _) = check(&config);
    assert_eq!(finding(&report, "base-backup")["fix"], "binvault base");
    config.ok(&["base"]);
    server.sql("INSERT INTO d.t VALUES (1)");
    config.archive_now();
    assert_eq!(levels(), ["ok", "ok", "note"]);
    let key = config.identity().display().to_string();
    assert!(finding(&check(&config).0, "objective-rto")["fix"].as_str().unwrap().starts_with("binvault drill "));
    config.ok(&["drill", "--folder", config.dir().to_str().unwrap(), "--identity", &key]);
    assert_eq!(levels(), ["ok", "ok", "ok"]);

    // Missed: the drill took longer, and the server has gone on without its agent.
    server.sql("INSERT INTO d.t VALUES (2)");
    config.edit("rpo = \"1h\"", "rpo = \"1ms\"");
    config.edit("rto = \"2h\"", "rto = \"10ms\"");
    assert_eq!(levels(), ["ok", "warning", "warning"]);
    // The binlog of the archive no longer goes on from the base backup.
    server.sql("FLUSH BINARY LOGS");
    config.archive_now();
    server.sql("FLUSH BINARY LOGS");
    config.archive_now();
    let of_server = config.archive().join("chunks").join(server.uuid());
    let mut files: Vec<_> = std::fs::read_dir(of_server).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    std::fs::remove_dir_all(&files[files.len() - 2]).unwrap();
    let (report, _) = check(&config);
    assert_eq!(level(&report, "base-backup"), "warning", "{report:#}");
    assert!(finding(&report, "base-backup")["detail"].as_str().unwrap().contains("gap"), "{report:#}");
}
