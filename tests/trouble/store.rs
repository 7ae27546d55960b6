//! What the store does: refuses, is not there, is full, is slow, answers by halves.

use std::process::Command;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use super::support::agent::said;
use super::support::load::{Load, Pace};
use super::*;

/// An agent that archives `server` into `s3`, and does not wait long for a failing store.
fn in_bucket(server: &Mysqld, s3: &s3::Server, bucket: &str, extra: &str) -> AgentConfig {
    let settings = s3.settings() + extra;
    AgentConfig::with(server, &format!("s3://{bucket}/trouble"), &settings)
}

const IMPATIENT: &str = "timeout = \"5s\"\ngive_up_after = \"1s\"\n";

#[test]
fn a_read_only_bucket_ends_it() {
    let (server, s3) = (Mysqld::start("readonly", &[]), s3::Server::start());
    write(&server, 10);
    let config = in_bucket(&server, &s3, s3::BUCKET, IMPATIENT);
    s3.switches.read_only.store(true, SeqCst);
    let hint = one_error(&config.fails(&["run"], 9), &["s3://archive/trouble"]);
    assert!(hint.contains("s3:PutObject"), "{hint}");
    s3.switches.read_only.store(false, SeqCst);
    mended(&config, &server);
    // And when it becomes so only later.
    s3.switches.read_only.store(true, SeqCst);
    write(&server, 10);
    let hint = one_error(&config.fails(&["run"], 9), &["chunks/"]);
    assert!(hint.contains("s3:PutObject"), "{hint}");
    s3.switches.read_only.store(false, SeqCst);
    mended(&config, &server);
}

#[test]
fn a_missing_bucket_ends_it() {
    let (server, s3) = (quiet(), s3::Server::start());
    let config = in_bucket(&server, &s3, "no-such-bucket", IMPATIENT);
    for arguments in [&["run"][..], &["status"], &["verify"]] {
        let hint = one_error(&config.fails(arguments, 9), &["no-such-bucket"]);
        assert!(hint.contains("archive.url"), "{hint}");
    }
    config.edit("no-such-bucket", s3::BUCKET);
    mended(&config, &server);
}

#[test]
fn a_missing_parent_folder_ends_it() {
    let server = quiet();
    let config = AgentConfig::new(&server);
    config.edit("/archive\"", "/not/mounted/archive\"");
    let hint = one_error(&config.fails(&["run"], 9), &["/not/mounted/archive"]);
    assert!(hint.contains("archive.url"), "{hint}");
    std::fs::create_dir_all(config.dir().join("not/mounted")).unwrap();
    mended(&config, &server);
}

#[test]
fn a_full_bucket_is_waited_for_or_told() {
    let (server, s3) = (Mysqld::start("full", &[]), s3::Server::start());
    write(&server, 10);
    let config = in_bucket(&server, &s3, s3::BUCKET, IMPATIENT);
    config.archive_now();
    s3.switches.full.store(true, SeqCst);
    write(&server, 10);
    let hint = one_error(&config.fails(&["run", "--once"], 9), &["chunks/"]);
    assert!(hint.contains("make room"), "{hint}");
    // An agent that is to stay does so, and goes on when there is room.
    let mut agent = config.spawn();
    support::wait_until("the agent says that the store is full", Duration::from_secs(60), || {
        agent.log().contains("make room")
    });
    assert_eq!(agent.exited(), None);
    s3.switches.full.store(false, SeqCst);
    agent.wait_caught_up(&server);
    agent.terminate();
    complete(&config, &server);
}

#[test]
fn a_full_disk_is_told_and_nothing_is_lost() {
    let server = Mysqld::start("fulldisk", &[]);
    write(&server, 20);
    let config = AgentConfig::new(&server);
    // Files may have 16 KiB at most: a write beyond that fails in the middle, as on a full disk.
    let limited = |arguments: &[&str]| {
        let agent = config.command(arguments);
        let mut command = Command::new("bash");
        command.args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$@\"", "limited"]).arg(agent.get_program());
        command.args(agent.get_args()).output().unwrap()
    };
    config.edit("\nrecipients", "\ngive_up_after = \"1s\"\nrecipients");
    let out = limited(&["run", "--once"]);
    assert_eq!(out.status.code(), Some(9), "{}", said(&out));
    let hint = one_error(&said(&out), &["chunks/"]);
    assert!(hint.contains("make room"), "{hint}");
    // What could not be written whole is not there at all.
    config.ok(&["verify"]);
    mended(&config, &server);
}

#[test]
fn a_failing_store_under_load_loses_nothing() {
    let (server, s3) = (Mysqld::start("failing", &[]), s3::Server::start());
    let config = in_bucket(&server, &s3, s3::BUCKET, SMALL_CHUNKS);
    let load = Load::start(&server, 2, Pace::PerSecond(800));
    config.archive_now();
    // Bodies that break off: the agent cannot even read where it was.
    s3.switches.cut_bodies.store(true, SeqCst);
    let mut agent = config.spawn();
    load.wait_for(200);
    s3.switches.cut_bodies.store(false, SeqCst);
    for round in 0_u64..3 {
        s3.switches.internal_error.store(6, SeqCst);
        load.wait_for(200);
        s3.switches.slow_down.store(6, SeqCst);
        load.wait_for(200);
        s3.switches.conflict.store(6, SeqCst);
        s3.switches.delay_ms.store(100 * round, SeqCst);
        load.wait_for(200);
    }
    s3.switches.delay_ms.store(0, SeqCst);
    load.stop();
    agent.wait_caught_up(&server);
    for left in [&s3.switches.internal_error, &s3.switches.slow_down, &s3.switches.conflict] {
        assert_eq!(left.load(SeqCst), 0, "every planned failure was met");
    }
    agent.terminate();
    complete(&config, &server);
    // Half answers on the way back are noticed and asked for again.
    s3.switches.internal_error.store(3, SeqCst);
    complete(&config, &server);
    s3.switches.slow_down.store(3, SeqCst);
    complete(&config, &server);
}

#[test]
fn stores_that_ignore_or_refuse_conditions_do_no_harm() {
    let (server, s3) = (Mysqld::start("oldstore", &[]), s3::Server::start());
    write(&server, 10);
    let config = in_bucket(&server, &s3, s3::BUCKET, IMPATIENT);
    s3.switches.ignore_conditions.store(true, SeqCst);
    mended(&config, &server);
    s3.switches.ignore_conditions.store(false, SeqCst);
    s3.switches.refuse_conditions.store(true, SeqCst);
    write(&server, 10);
    mended(&config, &server);
}
