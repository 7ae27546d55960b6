//! Everything that a server may write into its binlog, replayed.

use crate::oracle::{History, fingerprint};
use crate::place::{Restored, base};
use crate::s3;
use crate::scene::orders;
use crate::support::agent::{AgentConfig, PASSWORD};
use crate::support::lab::Mysqld;
use crate::support::workload::{SMALL, named};

/// Restores the whole of a history, and holds it against the source itself and the oracle.
fn equal(source: &Mysqld, config: &AgentConfig) {
    config.archive_now();
    let history = History::of(source);
    let restored = Restored::to(config, "latest", &["--check-tables"]);
    restored.assert_executed(&history.set(source, 0..history.seen.len()));
    assert_eq!(fingerprint(|sql| restored.sql(sql)), fingerprint(|sql| source.sql(sql)));
    assert_eq!(restored.report["examined"]["bad_tables"].as_array().map(Vec::len), Some(0));
    restored.assert_clean();
}

/// From an archive on S3.
#[test]
fn every_small_kind() {
    let mut source = Mysqld::start("rkinds", &[]);
    source.create_agent_user("binvault", PASSWORD);
    source.grant_base("binvault");
    let store = s3::Server::start();
    let settings = store.settings() + "[agent]\nchunk_size = \"64KiB\"\n";
    let config = AgentConfig::with(&source, &format!("s3://{}/restored", s3::BUCKET), &settings);
    named("types").run(&source);
    config.archive_now();
    base(&config);
    // Anonymous transactions have a test of their own: the server's gtid_mode is switched for them.
    for kind in SMALL.iter().filter(|kind| kind.name != "anonymous") {
        kind.run(&source);
    }
    source.stop();
    source.start_again(&[]);
    source.sql("CREATE DATABASE after_restart");
    equal(&source, &config);
}

#[test]
fn a_large_transaction() {
    let source = Mysqld::start("rlarge", &[]);
    source.create_agent_user("binvault", PASSWORD);
    source.grant_base("binvault");
    let config = AgentConfig::new(&source);
    config.archive_now();
    base(&config);
    named("transaction_300m").run(&source);
    equal(&source, &config);
}

#[test]
fn without_gtids_by_position() {
    let options = &["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"];
    let mut source = Mysqld::start("ranon", options);
    source.create_agent_user("binvault", PASSWORD);
    source.grant_base("binvault");
    source.sql("CREATE DATABASE shop; CREATE TABLE shop.orders (id INT PRIMARY KEY AUTO_INCREMENT, what VARCHAR(40))");
    let config = AgentConfig::with_extra(&source, "[agent]\nchunk_size = \"64KiB\"\n");
    config.archive_now();
    orders(&source, &["one", "two"]);
    base(&config);
    orders(&source, &["three"]);
    for kind in ["ddl", "rotation", "statement", "compressed"] {
        named(kind).run(&source);
    }
    let middle = source.position();
    source.stop();
    source.start_again(options);
    orders(&source, &["behind the middle"]);
    config.archive_now();
    let history = History::of(&source);
    let reference = Mysqld::start("ranonref", &["--server-id=77", options[0], options[1]]);
    let upto = history.until(|seen| (seen.file.as_str(), seen.start) >= (middle.0.as_str(), middle.1));
    history.apply(&reference, 0..upto);
    let restored = Restored::to(&config, &format!("{}:{}", middle.0, middle.1), &[]);
    assert_eq!(fingerprint(|sql| restored.sql(sql)), fingerprint(|sql| reference.sql(sql)));
    assert_eq!(restored.report["by_gtid"], false);
    drop(restored);
    let restored = Restored::to(&config, "latest", &[]);
    assert_eq!(fingerprint(|sql| restored.sql(sql)), fingerprint(|sql| source.sql(sql)));
    restored.assert_clean();
}
