//! Binlogs that are purged before they are archived.

use std::sync::atomic::Ordering;

use serde_json::Value;

use crate::place::Restored;
use crate::s3;
use crate::scene::{last_gtid, orders, shop_with};
use crate::support::agent::{AgentConfig, PASSWORD};
use crate::support::compare::{Extent, assert_same};
use crate::support::lab::Mysqld;
use crate::support::wait_until;
use crate::{LONG, ORDERS, QUICK, gaps, remove_behind, wait_base_behind, wait_gaps, with_bases};

#[test]
fn purged_binlogs_leave_a_recorded_gap_and_archiving_goes_on() {
    let (server, config) = shop_with("purged", &[], &with_bases());
    let first = config.durable().unwrap();
    orders(&server, &["never archived"]);
    let lost = last_gtid(&server);
    server.sql("FLUSH BINARY LOGS");
    orders(&server, &["four"]);
    let (newest, _) = server.position();
    server.sql(&format!("PURGE BINARY LOGS TO '{newest}'"));
    let mut agent = config.spawn();
    let gap = wait_gaps(&config, &mut agent, 1).remove(0);
    assert_eq!(
        (&gap["kind"], &gap["missing"], &gap["lost"]),
        (&"purged".into(), &lost.as_str().into(), &"".into()),
        "{gap}"
    );
    assert_eq!((&gap["ends"]["file"], &gap["goes_on_at"]["file"]), (&first.0.as_str().into(), &newest.as_str().into()));
    assert!(agent.log().contains("A GAP in the history"), "{}", agent.log());
    agent.wait_caught_up(&server);
    wait_base_behind(&config, &agent);
    orders(&server, &["five"]);
    agent.wait_caught_up(&server);
    agent.terminate();
    assert_eq!(gaps(&config).len(), 1, "a start behind it is no other break");

    // What the server still has is archived byte for byte, and restores on both sides of the gap.
    let exported = config.export();
    for file in server.binlogs() {
        assert_same(&file, &exported.join(file.file_name().unwrap()), Extent::Whole);
    }
    let latest = Restored::to(&config, "latest", &[]);
    assert_eq!(latest.sql(ORDERS), "one,two,three,never archived,four,five\n");
    let before = Restored::to(&config, &format!("{}:{}", first.0, first.1), &["--after"]);
    assert_eq!(before.sql(ORDERS), "one,two,three\n");
    let text = config.ok(&["status", "--offline"]);
    assert!(text.contains("BREAK") && text.contains(&lost) && !text.contains("NO BASE BACKUP"), "{text}");
}

/// An agent that dies while chunks are on their way leaves a hole; what stands behind it is in the archive, and must not make
/// anybody believe that the hole is.
#[test]
fn a_hole_that_the_server_can_fill_no_more_is_a_recorded_gap_too() {
    for all_purged in [false, true] {
        let (server, config) = shop_with("purged-hole", &[], &with_bases());
        let ends = config.durable().unwrap();
        orders(&server, &["on its way"]);
        let mut lost = last_gtid(&server);
        server.sql("FLUSH BINARY LOGS");
        orders(&server, &["behind it"]);
        config.archive_now();
        remove_behind(&config, &server, &ends.0, ends.1);
        if all_purged {
            // And more, of which nothing has come.
            orders(&server, &["never archived"]);
            lost = format!("{lost}:{}", last_gtid(&server).rsplit(':').next().unwrap());
            server.sql("FLUSH BINARY LOGS");
        }
        let (newest, _) = server.position();
        server.sql(&format!("PURGE BINARY LOGS TO '{newest}'"));
        let mut agent = config.spawn();
        let gap = wait_gaps(&config, &mut agent, 1).remove(0);
        assert_eq!((&gap["kind"], &gap["missing"]), (&"purged".into(), &lost.as_str().into()), "{gap}");
        assert_eq!(gap["ends"], serde_json::json!({"file": ends.0, "offset": ends.1}));
        assert_eq!(gap["goes_on_at"]["file"], newest.as_str());
        wait_base_behind(&config, &agent);
        orders(&server, &["the last"]);
        agent.wait_caught_up(&server);
        agent.terminate();
        config.archive_now();
        assert_eq!(gaps(&config).len(), 1, "a start behind it is no other break");
        config.verify_deep();
        let latest = Restored::to(&config, "latest", &[]);
        assert_eq!(latest.sql("CHECKSUM TABLE shop.orders"), server.sql("CHECKSUM TABLE shop.orders"));
    }
}

/// Behind a file that a crash has ended, on a server that has executed nothing, a reset would look just the same.
#[test]
fn a_purge_where_nothing_was_ever_executed_is_a_loss_for_all_that_anybody_knows() {
    let mut server = Mysqld::start("purged-nothing", &[]);
    server.create_agent_user("binvault", PASSWORD);
    server.sql("RESET BINARY LOGS AND GTIDS");
    let config = AgentConfig::with_extra(&server, QUICK);
    config.archive_now();
    server.kill();
    server.start_again(&[]);
    let (newest, _) = server.position();
    server.sql(&format!("PURGE BINARY LOGS TO '{newest}'"));
    let mut agent = config.spawn();
    let gap = wait_gaps(&config, &mut agent, 1).remove(0);
    agent.terminate();
    assert_eq!(
        (&gap["kind"], &gap["missing"], &gap["is_loss"]),
        (&"purged".into(), &Value::Null, &true.into()),
        "{gap}"
    );
    let text = config.ok(&["status", "--offline"]);
    assert!(text.contains("BREAK") && text.contains("NO BASE BACKUP BEHIND IT"), "{text}");
}

#[test]
fn once_says_by_its_exit_code_that_there_is_a_gap_and_the_risk_is_told_before() {
    let (server, config) = shop_with("purged-once", &[], crate::QUICK);
    let mut agent = config.spawn();
    agent.wait_caught_up(&server);
    // What comes next waits in the oldest file that the server has, and it has more than one.
    agent.signal(rustix::process::Signal::STOP);
    orders(&server, &["four"]);
    server.sql("FLUSH BINARY LOGS");
    agent.signal(rustix::process::Signal::CONT);
    agent.wait_caught_up(&server);
    agent.terminate();
    orders(&server, &["five"]);
    server.sql("FLUSH BINARY LOGS");
    orders(&server, &["six"]);
    let (newest, _) = server.position();
    server.sql(&format!("PURGE BINARY LOGS TO '{newest}'"));
    let said = config.fails(&["check"], 6);
    assert!(said.contains(&newest), "{said}");
    let said = config.fails(&["run", "--once"], 12);
    assert!(said.contains("there is a gap") && said.contains("binvault base"), "{said}");
    assert_eq!(config.durable(), Some(server.position()));
    assert_eq!(gaps(&config).len(), 1);
    config.archive_now();
    let text = config.ok(&["status", "--offline"]);
    assert!(text.contains("NO BASE BACKUP BEHIND IT"), "{text}");
    config.verify_deep();
}

#[test]
fn the_horizon_is_warned_of_while_the_archive_is_in_the_oldest_file() {
    let server = Mysqld::start("horizon", &[]);
    server.sql("CREATE DATABASE shop; CREATE TABLE shop.orders (id INT PRIMARY KEY AUTO_INCREMENT, what VARCHAR(40))");
    let store = s3::Server::start();
    let config = AgentConfig::with(&server, &format!("s3://{}/h", s3::BUCKET), &format!("{}{QUICK}", store.settings()));
    let mut agent = config.spawn();
    agent.wait_caught_up(&server);
    store.switches.down.store(true, Ordering::SeqCst);
    for n in 0..3 {
        orders(&server, &[&format!("row {n}")]);
        assert!(!agent.log().contains("may not be archived yet"));
    }
    server.sql("FLUSH BINARY LOGS");
    wait_until("the risk is told", LONG, || agent.log().contains("may not be archived yet"));
    store.switches.down.store(false, Ordering::SeqCst);
    agent.wait_caught_up(&server);
    agent.terminate();
    assert_eq!(gaps(&config).len(), 0);
}
