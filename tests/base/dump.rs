//! A dump under load is exactly what its coordinates say.

use crate::scene::{config, list, server, take};
use crate::stock::{checksums, definitions, gtids_before, loaded, place, replay, unpack};
use crate::support::lab::Mysqld;
use crate::support::load::{Load, Pace};
use crate::support::workload::named;

const THINGS: &str = "
    CREATE DATABASE things; USE things;
    CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, b BLOB, n INT DEFAULT 5, g INT GENERATED ALWAYS AS (n % 7) VIRTUAL, j JSON);
    CREATE VIEW w AS SELECT id FROM t;
    CREATE PROCEDURE p() SELECT 'a procedure';
    CREATE FUNCTION f() RETURNS INT DETERMINISTIC RETURN 7;
    CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET NEW.j = '[1]';
    CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO SELECT 1;
    INSERT INTO t (b) VALUES (x'00ff0a0d27225c'), (NULL);
    CREATE USER 'app'@'%' IDENTIFIED BY 'it''s \"secret\"'; CREATE ROLE reader; GRANT SELECT ON things.* TO reader;
    GRANT reader TO 'app'@'%'; SET DEFAULT ROLE reader TO 'app'@'%'; GRANT BINLOG_ADMIN ON *.* TO 'app'@'%';
    CREATE USER 'locked'@'10.%' ACCOUNT LOCK;
";

/// The server as it was, made by stock tools alone from a backup taken under load and the binlog behind it.
fn exact(hint: &str, options: &[&str], by_gtid: bool) {
    let source = server(hint, options);
    source.sql(THINGS);
    named("types").run(&source);
    let load = Load::start(&source, 2, Pace::PerSecond(600));
    load.wait_for(200);
    let config = config(&source, "part_size = \"256KiB\"");
    let before = load.transactions();
    let taken: Vec<serde_json::Value> = (0..3).map(|_| take(&config)).collect();
    assert!(load.transactions() > before, "nothing was written while the dumps ran");
    load.wait_for(200);
    source.sql("FLUSH BINARY LOGS; INSERT INTO things.t (b) VALUES ('behind'); DROP USER 'locked'@'10.%'");
    load.stop();

    for document in &taken {
        let base = &document["base"];
        let (file, offset) = place(&base["position"]);
        let executed = base["executed"].as_str().unwrap_or("");
        if by_gtid {
            let count = gtids_before(&source, &file, offset);
            assert_eq!(executed, format!("{}:1-{count}", source.uuid()), "GTIDs before {file}:{offset}");
        } else {
            assert_eq!(executed, "");
        }
        println!("{} at {file}:{offset}", base["id"]);
    }
    let base = &taken[1]["base"];
    assert!(base["parts"].as_u64().unwrap() > 4, "{base}");
    let sql = config.dir().join("base.sql");
    unpack(&config, base["id"].as_str().unwrap(), &sql);
    assert_eq!(sql.metadata().unwrap().len(), base["raw_bytes"].as_u64().unwrap());
    let target = loaded(&format!("{hint}-to"), &sql, options);
    let executed = target.value("SELECT @@GLOBAL.gtid_executed").replace("\\n", "");
    assert_eq!(executed, base["executed"].as_str().unwrap_or(""), "loading executes nothing else");
    let (file, offset) = place(&base["position"]);
    replay(&source, &target, &file, offset);
    assert_eq!(checksums(&target), checksums(&source));
    target.sql("FLUSH LOCAL PRIVILEGES");
    assert_eq!(definitions(&target), definitions(&source));

    config.archive_now();
    let listed = list(&config);
    assert_eq!(listed["bases"].as_array().unwrap().len(), 3);
    for base in listed["bases"].as_array().unwrap() {
        assert_eq!((&base["covered"], &base["problem"]), (&true.into(), &serde_json::Value::Null), "{base}");
    }
    logs_in(&target);
}

/// The account's password came along.
fn logs_in(server: &Mysqld) {
    let mut client = crate::support::lab::tool("mysql");
    client.args(["-uapp", "--password=it's \"secret\"", "-e", "SELECT id FROM things.w"]);
    let out = client.arg(format!("--socket={}", server.socket().display())).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn a_dump_under_load_is_exact() {
    exact("dump", &["--max-binlog-size=2M"], true);
}

#[test]
fn a_dump_under_load_is_exact_without_gtids() {
    exact("dump-plain", &["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"], false);
}
