//! What the server does: refuses, is not there, is unfit, purges.

use super::support::mariadb::MariaDb;
use super::*;

#[test]
fn a_wrong_password_ends_at_once() {
    let server = quiet();
    let config = AgentConfig::new(&server);
    std::fs::write(config.dir().join("password"), "not-the-Password").unwrap();
    for arguments in [&["run"][..], &["run", "--once"]] {
        let said = config.fails(arguments, 4);
        assert!(one_error(&said, &["1045", "binvault"]).contains("password"));
        assert!(!said.contains("not-the-Password"), "{said}");
    }
    std::fs::write(config.dir().join("password"), PASSWORD).unwrap();
    mended(&config, &server);
}

#[test]
fn an_unknown_host_and_a_refused_port_are_unreachable() {
    let server = quiet();
    let config = AgentConfig::new(&server);
    let here = format!("127.0.0.1:{}", server.port());
    for there in ["no-such-host.invalid:3306", "127.0.0.1:1"] {
        config.edit(&here, there);
        let said = config.fails(&["run", "--once"], 3);
        let host = there.split(':').next().unwrap();
        one_error(&said, &[host]);
        // A passing error was tried again, and said so.
        assert!(said.contains("archiving was interrupted"), "{said}");
        config.edit(there, &here);
    }
    mended(&config, &server);
}

#[test]
fn the_hint_for_an_account_without_privileges_mends_it() {
    let server = Mysqld::start("poor", &[]);
    write(&server, 3);
    let config = AgentConfig::new(&server);
    server.sql("REVOKE ALL ON *.* FROM 'binvault'@'%'");
    let mut hints = Vec::new();
    loop {
        let out = config.run_once();
        if out.status.success() {
            break;
        }
        let said = support::agent::said(&out);
        assert_eq!(out.status.code(), Some(4), "{said}");
        let hint = one_error(&said, &[]);
        let grant = hint.split(';').find_map(|part| part.find("GRANT").map(|at| part[at..].to_owned()));
        let grant = grant.unwrap_or_else(|| panic!("no statement in {hint:?}"));
        assert!(hints.len() < 4, "the hints do not help: {hints:?}");
        server.sql(&grant);
        hints.push(grant);
    }
    assert!(!hints.is_empty());
    complete(&config, &server);
    // Enough to ask, not enough to follow: the server says it only when the dump is asked for.
    write(&server, 3);
    server.sql("REVOKE REPLICATION SLAVE ON *.* FROM 'binvault'@'%'");
    let hint = one_error(&config.fails(&["run"], 4), &[]);
    assert!(hint.contains("REPLICATION SLAVE"), "{hint}");
    server.sql("GRANT REPLICATION SLAVE ON *.* TO 'binvault'@'%'");
    mended(&config, &server);
}

#[test]
fn a_server_without_binlog_is_unfit() {
    let server = Mysqld::start("nolog", &["--disable-log-bin"]);
    let config = AgentConfig::new(&server);
    let hint = one_error(&config.fails(&["run"], 5), &["log_bin"]);
    assert!(hint.contains("--log-bin"), "{hint}");
}

#[test]
fn a_mariadb_is_unfit() {
    let mariadb = MariaDb::start();
    mariadb.sql(&format!(
        "CREATE USER binvault@'%' IDENTIFIED BY '{PASSWORD}'; \
         GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO binvault@'%'"
    ));
    let server = quiet();
    let config = AgentConfig::new(&server);
    config.edit(&format!("127.0.0.1:{}", server.port()), &format!("127.0.0.1:{}", mariadb.port()));
    one_error(&config.fails(&["run"], 5), &["MariaDB"]);
}

#[test]
fn purging_what_is_archived_is_no_trouble() {
    let server = Mysqld::start("tidy", &[]);
    let config = AgentConfig::new(&server);
    for _ in 0..3 {
        write(&server, 5);
        server.sql("FLUSH BINARY LOGS");
        config.archive_now();
        let (newest, _) = server.position();
        server.sql(&format!("PURGE BINARY LOGS TO '{newest}'"));
    }
    write(&server, 5);
    mended(&config, &server);
}
