//! Servers whose history is not what it was: reset, thrown back by a crash or an old copy, renamed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use crate::cut::{self, Dump};
use crate::late::all_is_told;
use crate::place::Restored;
use crate::scene::{orders, shop_with};
use crate::support::agent::{Agent, AgentConfig};
use crate::support::compare::{Extent, assert_same};
use crate::support::lab::Mysqld;
use crate::support::{files_below, wait_until};
use crate::{LONG, ORDERS, QUICK, executed, gaps, next_second, remove_behind, wait_base_behind, wait_gaps, with_bases};

/// Where a file's first event has its flags.
const IN_USE_AT: usize = 4 + 17;

/// Every file that the server has now is in the archive, byte for byte.
fn identical(config: &AgentConfig, server: &Mysqld) {
    let exported = config.export();
    let mut found = 0;
    // The last one is in use, and says so in a flag.
    let closed = server.binlogs();
    for file in closed.split_last().unwrap().1 {
        let name = file.file_name().unwrap().to_str().unwrap();
        // A name that came twice is exported with the time of each.
        let all: Vec<PathBuf> = files_below(&exported)
            .into_iter()
            .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(name))
            .collect();
        // A file that a crash cut off is the beginning of the archived one, but for its flag of being in use.
        let mut server_has = std::fs::read(file).unwrap();
        let same = all.iter().any(|path| {
            let archived = std::fs::read(path).unwrap();
            if archived.len() > server_has.len() {
                server_has[IN_USE_AT] &= !1;
            }
            archived.starts_with(&server_has)
        });
        assert!(same, "{} is not in {all:?}", file.display());
        found += 1;
    }
    assert!(found > 0);
    config.verify_deep();
}

/// The agent reaches the server through a proxy.
fn through(config: &AgentConfig, server: &Mysqld, port: u16) {
    config.edit(&format!(":{}", server.port()), &format!(":{port}"));
    config.source("tls = \"disabled\"");
}

/// One break is recorded, everything is archived, and the agent leaves.
fn in_the_end(config: &AgentConfig, server: &Mysqld, mut agent: Agent<'_>) {
    server.sql("FLUSH BINARY LOGS");
    agent.wait_caught_up(server);
    agent.terminate();
    assert_eq!(gaps(config).len(), 1);
    identical(config, server);
}

/// A copy of the data directory as a crash at this moment would leave it.
fn snapshot(server: &Mysqld) -> PathBuf {
    let copy = server.scratch().join("snapshot");
    server.freeze();
    let copied = Command::new("cp").args(["-a", "--sparse=always"]).arg(server.datadir()).arg(&copy).status();
    server.thaw();
    assert!(copied.unwrap().success());
    copy
}

/// The server dies, and comes up with what it had at the snapshot.
fn back_to(server: &mut Mysqld, snapshot: &Path) {
    server.kill();
    std::fs::remove_dir_all(server.datadir()).unwrap();
    std::fs::rename(snapshot, server.datadir()).unwrap();
    next_second();
    server.start_again(&[]);
}

/// Reset while the agent runs, or while it does not; with little or much written behind it.
fn reset(hint: &str, options: &[&str], running: bool, outgrow: bool) {
    let (server, config) = shop_with(hint, options, &with_bases());
    orders(&server, &["four"]);
    config.archive_now();
    let before = executed(&server);
    let mut agent = running.then(|| config.spawn());
    if let Some(agent) = &mut agent {
        wait_until("the agent streams", LONG, || agent.log().contains("archiving goes on"));
    }
    next_second();
    server.sql("RESET BINARY LOGS AND GTIDS");
    if outgrow {
        server.sql("INSERT INTO shop.orders (what) SELECT REPEAT('x', 40) FROM information_schema.columns LIMIT 2000");
    }
    orders(&server, &["behind the reset"]);
    let mut agent = agent.unwrap_or_else(|| config.spawn());
    let gap = wait_gaps(&config, &mut agent, 1).remove(0);
    assert_eq!(gap["kind"], "reset", "{gap}");
    if !before.is_empty() && !outgrow {
        let lost = before.minus(&executed(&server));
        assert_eq!(gap["lost"], lost.to_string().as_str(), "{gap}");
    }
    agent.wait_caught_up(&server);
    wait_base_behind(&config, &agent);
    orders(&server, &["the last"]);
    in_the_end(&config, &server, agent);
    let latest = Restored::to(&config, "latest", &[]);
    assert_eq!(latest.sql("CHECKSUM TABLE shop.orders"), server.sql("CHECKSUM TABLE shop.orders"));
    assert_eq!(latest.sql("SELECT what FROM shop.orders ORDER BY id DESC LIMIT 2"), "the last\nbehind the reset\n");
}

#[test]
fn a_reset_under_a_running_agent_begins_another_history() {
    reset("reset-live", &[], true, false);
}

#[test]
fn a_reset_that_is_outgrown_between_two_looks_is_noticed_by_the_silence() {
    reset("reset-outgrown", &[], true, true);
}

/// The same statements again: the same bytes but for times, the same GTIDs, the same size, all before the next look.
#[test]
fn a_reset_that_comes_to_the_same_size_is_noticed() {
    let slow_looks = QUICK.replace("poll_interval = \"300ms\"", "poll_interval = \"5s\"");
    let (server, config) = shop_with("reset-same", &[], &slow_looks);
    server.sql("RESET BINARY LOGS AND GTIDS");
    orders(&server, &["one", "two"]);
    let mut agent = config.spawn();
    agent.wait_caught_up(&server);
    let before = (server.position(), executed(&server));
    next_second();
    server.sql("RESET BINARY LOGS AND GTIDS");
    orders(&server, &["six", "ten"]);
    assert_eq!((server.position(), executed(&server)), before, "it is not the same size");
    let gap = wait_gaps(&config, &mut agent, 1).remove(0);
    assert_eq!(gap["kind"], "reset", "{gap}");
    agent.wait_caught_up(&server);
    in_the_end(&config, &server, agent);
}

#[test]
fn a_reset_while_the_agent_is_away_begins_another_history() {
    reset("reset-away", &[], false, true);
}

/// A look into the server's file that is cut short proves nothing: neither that it is the archived one, nor that it is not.
#[test]
fn a_reset_is_noticed_though_the_look_at_the_file_is_cut() {
    let (server, config) = shop_with("reset-unsaid", &[], QUICK);
    orders(&server, &["four"]);
    config.archive_now();
    next_second();
    server.sql("RESET BINARY LOGS AND GTIDS");
    // More transactions and more bytes than are archived, and another event's middle where the archive ends.
    for number in 0..40 {
        orders(&server, &[&"x".repeat(17 + number % 20)]);
    }
    let cut = Arc::new(AtomicU32::new(0));
    let looks = Arc::clone(&cut);
    let cut_two = move |dump| {
        let more = |looks: u32| (dump == Dump::Look && looks < 2).then_some(looks + 1);
        looks.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_err()
    };
    through(&config, &server, cut::before(server.port(), cut_two));
    let mut agent = config.spawn();
    let gap = wait_gaps(&config, &mut agent, 1).remove(0);
    assert_eq!(gap["kind"], "reset", "{gap}");
    assert_eq!(cut.load(Ordering::SeqCst), 2, "the looks were not cut: {}", agent.log());
    in_the_end(&config, &server, agent);
}

/// Found by `tests/sim`: the record told of a file of which nothing is archived, and none of the one that is.
#[test]
fn a_reset_between_the_record_of_another_and_the_first_byte_behind_it_is_recorded_too() {
    let (server, config) = shop_with("reset-twice", &[], QUICK);
    next_second();
    server.sql("RESET BINARY LOGS AND GTIDS");
    let (asks, asked) = channel();
    let (go, gone) = channel::<()>();
    let hold = Mutex::new(Some((asks, gone)));
    let hold_one = move |dump| {
        if dump == Dump::Stream
            && let Some((asks, gone)) = hold.lock().unwrap().take()
        {
            asks.send(()).unwrap();
            gone.recv().unwrap();
        }
        true
    };
    through(&config, &server, cut::before(server.port(), hold_one));
    let mut agent = config.spawn();
    asked.recv_timeout(LONG).expect("a dump is asked for");
    assert_eq!(gaps(&config).len(), 1, "a break is recorded before anything is archived behind it");
    next_second();
    server.sql("RESET BINARY LOGS AND GTIDS");
    go.send(()).unwrap();
    orders(&server, &["behind both"]);
    let told = wait_gaps(&config, &mut agent, 2);
    assert!(told.iter().all(|gap| gap["kind"] == "reset"), "{told:?}");
    wait_until("all is there", LONG, || config.durable() == Some(server.position()));
    agent.terminate();
    all_is_told(&config);
}

#[test]
fn the_same_without_gtids() {
    reset("reset-plain", &["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"], false, true);
}

#[test]
fn a_crash_that_takes_the_tail_leaves_it_in_the_archive_as_a_history_of_its_own() {
    let (mut server, config) = shop_with("tail", &["--sync-binlog=0"], &with_bases());
    let mut agent = config.spawn();
    agent.wait_caught_up(&server);
    let crashed = snapshot(&server);
    let kept = executed(&server);
    orders(&server, &["lost one", "lost two"]);
    agent.wait_caught_up(&server);
    let lost = executed(&server).minus(&kept);
    let (file, _) = server.position();
    back_to(&mut server, &crashed);
    assert_eq!(executed(&server), kept);
    // The same GTIDs come again with other content.
    orders(&server, &["again one", "again two", "again three"]);
    let gap = wait_gaps(&config, &mut agent, 1).remove(0);
    assert_eq!(gap["kind"], "lost_tail", "{gap}");
    let told: binvault::position::GtidSet = gap["lost"].as_str().unwrap().parse().unwrap();
    assert!(told.is_subset_of(&lost), "{gap}");
    assert_eq!(gap["ends"]["file"], file.as_str());
    agent.wait_caught_up(&server);
    agent.terminate();
    assert_eq!(gaps(&config).len(), 1);
    // The restored server has what the server has; the tail can be had by its own name.
    let latest = Restored::to(&config, "latest", &[]);
    assert_eq!(latest.sql(ORDERS), "one,two,three,again one,again two,again three\n");
    let status = config.status().unwrap();
    let ranges = status["servers"][0]["ranges"].as_array().unwrap().len();
    assert_eq!(ranges, 2, "{status}");
    config.verify_deep();
    drop(latest);
    let out = config.fails(
        &[
            "restore",
            "--to",
            "latest",
            "--head",
            "nobody",
            "--dry-run",
            "--identity",
            config.identity().to_str().unwrap(),
        ],
        2,
    );
    let tail = out.lines().find(|line| line.contains(&format!("ends at {file}:"))).unwrap_or_else(|| panic!("{out}"));
    let head = tail.split_whitespace().nth(1).unwrap();
    let tail = Restored::to(&config, "latest", &["--head", head]);
    assert_eq!(tail.sql(ORDERS), "one,two,three,lost one,lost two\n");
}

/// An agent that died while chunks were on their way, and then the server's crash: what the server still has is archived.
#[test]
fn a_hole_before_a_lost_tail_is_filled() {
    let (mut server, config) = shop_with("tail-hole", &["--sync-binlog=0"], QUICK);
    let (file, end) = config.durable().unwrap();
    orders(&server, &["on its way"]);
    server.sql("FLUSH BINARY LOGS");
    orders(&server, &["kept"]);
    let crashed = snapshot(&server);
    orders(&server, &["lost"]);
    config.archive_now();
    assert!(remove_behind(&config, &server, &file, end) > 0);
    back_to(&mut server, &crashed);
    orders(&server, &["again"]);
    let mut agent = config.spawn();
    let gap = wait_gaps(&config, &mut agent, 1).remove(0);
    assert_eq!(gap["kind"], "lost_tail", "{gap}");
    in_the_end(&config, &server, agent);
    let latest = Restored::to(&config, "latest", &[]);
    assert_eq!(latest.sql(ORDERS), "one,two,three,on its way,kept,again\n");
}

#[test]
fn a_server_that_comes_back_from_an_old_copy_under_its_old_uuid_begins_another_history() {
    let (mut server, config) = shop_with("old-copy", &[], &with_bases());
    let mut agent = config.spawn();
    agent.wait_caught_up(&server);
    let copy = snapshot(&server);
    for name in ["gone one", "gone two"] {
        orders(&server, &[name]);
        server.sql("FLUSH BINARY LOGS");
    }
    agent.wait_caught_up(&server);
    back_to(&mut server, &copy);
    orders(&server, &["another"]);
    let gap = wait_gaps(&config, &mut agent, 1).remove(0);
    assert_eq!(gap["kind"], "reset", "{gap}");
    agent.wait_caught_up(&server);
    wait_base_behind(&config, &agent);
    server.sql("FLUSH BINARY LOGS");
    agent.wait_caught_up(&server);
    agent.terminate();
    identical(&config, &server);
    let latest = Restored::to(&config, "latest", &[]);
    assert_eq!(latest.sql(ORDERS), "one,two,three,another\n");
}

#[test]
fn a_renamed_binlog_is_no_gap_where_gtids_prove_it() {
    let (mut server, config) = shop_with("renamed", &[], &with_bases());
    let mut agent = config.spawn();
    agent.wait_caught_up(&server);
    orders(&server, &["four"]);
    agent.wait_caught_up(&server);
    server.stop();
    server.start_again(&["--log-bin=other"]);
    orders(&server, &["five"]);
    agent.wait_caught_up(&server);
    wait_until("it goes on with the new name", LONG, || agent.log().contains("without a gap"));
    orders(&server, &["six"]);
    agent.wait_caught_up(&server);
    wait_until("all is there", LONG, || config.durable() == Some(server.position()));
    agent.terminate();
    assert_eq!(gaps(&config).len(), 0);
    let exported = config.export();
    let (current, _) = server.position();
    assert_same(&server.datadir().join(&current), &exported.join(&current), Extent::Whole);
    let latest = Restored::to(&config, "latest", &[]);
    assert_eq!(latest.sql(ORDERS), "one,two,three,four,five,six\n");
    config.verify_deep();
}
