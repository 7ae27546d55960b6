//! Chunks that are damaged or lost while a replica reads: everything before them is applied, and they are named.

use std::path::PathBuf;

use crate::replica::{REPLICA, wait_applied, wait_io_error};
use crate::stage::{Stage, follow};
use crate::support::agent::AgentConfig;
use crate::support::lab::Mysqld;

/// A transaction of 20 MB in one event among small ones, in chunks of 1 MiB.
fn archived() -> (Mysqld, AgentConfig) {
    let source = Mysqld::start("damaged", &[]);
    source.sql(
        "CREATE DATABASE d; CREATE TABLE d.t (id INT PRIMARY KEY, v LONGBLOB); INSERT INTO d.t VALUES (1, 'before');
         SET SESSION block_encryption_mode = 'aes-128-cbc';
         INSERT INTO d.t VALUES (2, AES_ENCRYPT(REPEAT('a', 20000000), 'a key of 16 byte', '0123456789abcdef'));
         INSERT INTO d.t VALUES (3, 'behind');",
    );
    let config = AgentConfig::with_extra(&source, "[agent]\nchunk_size = \"1MiB\"\n");
    config.archive_now();
    (source, config)
}

/// The object that holds a byte of the only file.
fn object_at(stage: &Stage, config: &AgentConfig, offset: u64) -> PathBuf {
    let chunks = &stage.files[0].chunks;
    let piece = chunks.cover.contiguous().iter().find(|piece| offset < piece.take.end()).unwrap();
    config.archive().join(chunks.chunks[piece.index].object.key.as_str())
}

#[test]
fn everything_before_a_damaged_chunk_is_applied_and_the_chunk_is_named() {
    let (_source, config) = archived();
    let stage = Stage::open(&config);
    // Inside the large event: its beginning is on the wire when the damage shows.
    let object = object_at(&stage, &config, 10_000_000);
    let whole = std::fs::read(&object).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    std::fs::remove_file(&object).unwrap();
    std::fs::write(&object, &damaged).unwrap();

    let playback = stage.play(stage.everything(), true, "");
    let replica = Mysqld::start("playing", REPLICA);
    follow(&replica, &playback, "SOURCE_AUTO_POSITION = 1");
    let name = object.file_name().unwrap().to_str().unwrap();
    let error = wait_io_error(&replica);
    assert!(error.contains(name), "{error}");
    wait_applied(&replica);
    assert_eq!(replica.value("SELECT GROUP_CONCAT(id) FROM d.t"), "1");
    let failure = playback.failure().unwrap();
    assert_eq!(failure.kind(), binvault::error::Kind::Corrupt);
    assert!(failure.to_string().contains(name) && failure.hint_text().is_some(), "{failure:?}");

    // Mended, it goes on.
    std::fs::remove_file(&object).unwrap();
    std::fs::write(&object, &whole).unwrap();
    replica.sql("START REPLICA IO_THREAD");
    let all = stage.files[0].executed().unwrap().to_string();
    crate::replica::wait_executed(&replica, &all);
    assert_eq!(replica.value("SELECT GROUP_CONCAT(id ORDER BY id) FROM d.t"), "1,2,3");
    assert!(playback.failure().is_none());
}

#[test]
fn a_lost_chunk_between_transactions_is_named_at_once() {
    let (_source, config) = archived();
    let stage = Stage::open(&config);
    let last = stage.files[0].contiguous_end() - 1;
    let object = object_at(&stage, &config, last);
    std::fs::remove_file(&object).unwrap();
    let playback = stage.play(stage.everything(), true, "");
    let replica = Mysqld::start("playing", REPLICA);
    follow(&replica, &playback, "SOURCE_AUTO_POSITION = 1");
    let error = wait_io_error(&replica);
    assert!(error.contains(object.file_name().unwrap().to_str().unwrap()), "{error}");
    wait_applied(&replica);
    assert!(!replica.value("SELECT @@gtid_executed").is_empty());
}
