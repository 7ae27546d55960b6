//! A playlist, played for one server.

use std::time::Duration;

use crate::replica::{REPLICA, assert_same_tables, column, wait_applied, wait_executed, wait_io_error};
use crate::stage::{Stage, follow};
use crate::support::agent::AgentConfig;
use crate::support::lab::Mysqld;
use crate::support::{wait_until, workload};

/// Everything that a server with GTIDs writes, over many files, a restart among them.
#[test]
fn a_replica_gets_everything_by_gtid() {
    let mut source = Mysqld::start("played", &[]);
    for kind in workload::SMALL.iter().filter(|kind| kind.name != "anonymous") {
        kind.run(&source);
    }
    source.stop();
    source.start_again(&[]);
    workload::named("row_17m").run(&source);
    source.sql("FLUSH BINARY LOGS; CREATE DATABASE last; CREATE TABLE last.t (id INT PRIMARY KEY); INSERT INTO last.t VALUES (1)");
    let config = AgentConfig::with_extra(&source, "[agent]\nchunk_size = \"256KiB\"\n");
    config.archive_now();
    let stage = Stage::open(&config);
    assert!(stage.files.len() > 8, "{} files", stage.files.len());
    let playback = stage.play(stage.everything(), true, "");
    let replica = Mysqld::start("playing", REPLICA);
    follow(&replica, &playback, "SOURCE_AUTO_POSITION = 1, SOURCE_HEARTBEAT_PERIOD = 0.3");
    // A new connection, now and then, goes on where the replica is.
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(400));
        replica.sql("STOP REPLICA IO_THREAD; START REPLICA IO_THREAD");
    }
    let executed = source.value("SELECT @@gtid_executed");
    wait_executed(&replica, &executed);
    assert_eq!(replica.value("SELECT @@gtid_executed"), executed);
    assert_same_tables(&source, &replica);
    // It stays connected, by heartbeats that it finds right.
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(
        (column(&replica, "Replica_IO_Running"), column(&replica, "Last_IO_Error")),
        ("Yes".into(), String::new())
    );
    let (file, position) = source.position();
    assert_eq!(
        (column(&replica, "Source_Log_File"), column(&replica, "Read_Source_Log_Pos")),
        (file, position.to_string())
    );
    let progress = playback.progress();
    assert_eq!(progress.bytes_sent, progress.bytes_total);
    assert!(playback.failure().is_none());
    replica.sql("STOP REPLICA");
    stage.runtime.block_on(playback.stop());
}

#[test]
fn a_replica_without_gtids_gets_everything_by_position() {
    let source = Mysqld::start("played", &["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"]);
    for name in ["row", "statement", "ddl", "xa", "compressed", "rotation", "load_data", "savepoints", "temporary"] {
        workload::named(name).run(&source);
    }
    source.sql("FLUSH BINARY LOGS");
    let config = AgentConfig::with_extra(&source, "[agent]\nchunk_size = \"64KiB\"\n");
    config.archive_now();
    let stage = Stage::open(&config);
    let places = stage.transactions();
    let playback = stage.play(stage.everything(), false, "");
    let options = [REPLICA, &["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"]].concat();
    let replica = Mysqld::start("playing", &options);
    let first = stage.files[0].incarnation().file.as_str();
    follow(&replica, &playback, &format!("SOURCE_AUTO_POSITION = 0, SOURCE_LOG_FILE = '{first}', SOURCE_LOG_POS = 4"));
    std::thread::sleep(Duration::from_millis(300));
    replica.sql("STOP REPLICA; START REPLICA");
    let (file, position) = source.position();
    let waited = replica.value(&format!("SELECT SOURCE_POS_WAIT('{file}', {position}, 100)"));
    assert_ne!(waited, "NULL", "{}", column(&replica, "Last_Error"));
    assert_same_tables(&source, &replica);
    stage.runtime.block_on(playback.stop());

    // From the middle of a file: the last transaction once more is a duplicate, so only what follows is asked for.
    let last = places.last().unwrap();
    let mut playlist = stage.everything();
    playlist.files = vec![playlist.files.remove(last.file)];
    playlist.files[0].from = last.end;
    let playback = stage.play(playlist, false, "");
    replica.sql("STOP REPLICA");
    let name = stage.files[last.file].incarnation().file.as_str();
    follow(
        &replica,
        &playback,
        &format!("SOURCE_AUTO_POSITION = 0, SOURCE_LOG_FILE = '{name}', SOURCE_LOG_POS = {}", last.end),
    );
    let next = stage.files[last.file + 1].incarnation().file.to_string();
    wait_until("it is told the next file", Duration::from_secs(20), || column(&replica, "Source_Log_File") == next);
    // Nothing of that file is there; who begins with it waits for it.
    replica.sql("STOP REPLICA; CHANGE REPLICATION SOURCE TO SOURCE_HEARTBEAT_PERIOD = 0.2; START REPLICA");
    wait_until("it is connected", Duration::from_secs(20), || column(&replica, "Replica_IO_Running") == "Yes");
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(
        (column(&replica, "Replica_IO_Running"), column(&replica, "Last_IO_Error")),
        ("Yes".into(), String::new())
    );
    // A position that is not served is refused.
    replica.sql("STOP REPLICA");
    follow(&replica, &playback, &format!("SOURCE_AUTO_POSITION = 0, SOURCE_LOG_FILE = '{name}', SOURCE_LOG_POS = 4"));
    let error = wait_io_error(&replica);
    assert!(error.contains(&format!("from position {} on", last.end)), "{error}");
    assert!(playback.failure().unwrap().to_string().contains("begin a dump"));
}

/// Numbered transactions in a row: what arrived can be read off the table.
fn numbered() -> (Mysqld, AgentConfig, Stage) {
    let source = Mysqld::start("numbered", &[]);
    source.sql("CREATE DATABASE n; CREATE TABLE n.t (id INT PRIMARY KEY, v VARCHAR(200))");
    for id in 1..=60 {
        source.sql(&format!("INSERT INTO n.t VALUES ({id}, REPEAT(SHA2({id}, 256), 3))"));
        if id % 20 == 0 {
            source.sql("FLUSH BINARY LOGS");
        }
    }
    let config = AgentConfig::with_extra(&source, "[agent]\nchunk_size = \"64KiB\"\n");
    config.archive_now();
    let stage = Stage::open(&config);
    (source, config, stage)
}

/// What a fresh replica has of [`numbered`], once all of a set is executed.
fn ids(replica: &Mysqld) -> Vec<u32> {
    replica.sql("SELECT id FROM n.t ORDER BY id").lines().map(|id| id.parse().unwrap()).collect()
}

#[test]
fn the_stream_stops_exactly_and_leaves_out_what_it_shall() {
    let (source, _config, stage) = numbered();
    let uuid = source.uuid();
    // Transactions 1 and 2 make the table, number N + 2 inserts N.
    let places = stage.transactions();
    assert_eq!(places.len(), 62);
    let stop = places.iter().find(|place| place.gtid.as_deref() == Some(&format!("{uuid}:47"))).unwrap();
    let mut playlist = stage.everything();
    playlist.files.truncate(stop.file + 1);
    playlist.files[stop.file].until = stop.start;
    let playback = stage.play(playlist.clone(), true, &format!("{uuid}:10-12"));
    let replica = Mysqld::start("playing", REPLICA);
    follow(&replica, &playback, "SOURCE_AUTO_POSITION = 1, SOURCE_HEARTBEAT_PERIOD = 0.2");
    wait_executed(&replica, &format!("{uuid}:1-9:13-46"));
    wait_applied(&replica);
    assert_eq!(replica.value("SELECT @@gtid_executed"), format!("{uuid}:1-9:13-46"));
    assert_eq!(ids(&replica), (1..=7).chain(11..=44).collect::<Vec<_>>());
    assert_eq!(playback.progress().transactions, 43);
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(column(&replica, "Replica_IO_Running"), "Yes", "it is held by heartbeats");
    replica.sql("STOP REPLICA");
    stage.runtime.block_on(playback.stop());

    // The rest: from the middle of a file, only some of it.
    let mut rest = stage.everything();
    rest.files.drain(..stop.file);
    rest.files[0].from = stop.start;
    for file in &mut rest.files {
        file.only = Some(std::sync::Arc::new(format!("{uuid}:10-11:50-100").parse().unwrap()));
    }
    let playback = stage.play(rest, true, &format!("{uuid}:52"));
    follow(&replica, &playback, "SOURCE_AUTO_POSITION = 1");
    wait_executed(&replica, &format!("{uuid}:50-51:53-62"));
    wait_applied(&replica);
    assert_eq!(ids(&replica), (1..=7).chain(11..=44).chain(48..=49).chain(51..=60).collect::<Vec<_>>());
    replica.sql("STOP REPLICA");
}

#[test]
fn a_replica_with_the_id_of_an_archived_server_is_refused() {
    let (_source, _config, stage) = numbered();
    let playback = stage.play(stage.everything(), true, "");
    let options = [REPLICA, &["--server-id=1"]].concat();
    let replica = Mysqld::start("playing", &options);
    follow(&replica, &playback, "SOURCE_AUTO_POSITION = 1");
    let error = wait_io_error(&replica);
    assert!(error.contains("server_id 1, which is the replica's own"), "{error}");
    assert!(playback.failure().unwrap().hint_text().unwrap().contains("server_id"));
    assert_eq!(replica.value("SELECT @@gtid_executed"), "");
}
