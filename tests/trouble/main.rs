//! Everything that goes wrong in a life with databases and stores: one clear error each, the exit code that the
//! documentation promises, nothing lost, and a way on.
//!
//! `server`: what the server does; `identity`: whose history it is; `store`: what the store does; `damage`: what
//! happens to stored chunks; `settings`: configuration and secrets. All on real servers, through the program.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test that is how things fail")]
#![allow(clippy::print_stderr, reason = "shown with the test that fails")]

#[path = "../support/s3.rs"]
mod s3;
#[path = "../support/mod.rs"]
mod support;

mod damage;
mod identity;
mod server;
mod settings;
mod store;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use support::agent::{AgentConfig, PASSWORD};
use support::compare::assert_exported;
use support::lab::Mysqld;

/// Three files of some hundred KiB that hardly compress. Nobody writes to this server: it goes with the last of the
/// tests that read it.
fn quiet() -> Arc<Mysqld> {
    static SERVER: Mutex<Weak<Mysqld>> = Mutex::new(Weak::new());
    let mut server = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    server.upgrade().unwrap_or_else(|| {
        let started = Arc::new(Mysqld::start("quiet", &[]));
        started.create_agent_user("binvault", PASSWORD);
        for _ in 0..3 {
            write(&started, 40);
            started.sql("FLUSH BINARY LOGS");
        }
        write(&started, 20);
        *server = Arc::downgrade(&started);
        started
    })
}

/// Commits so many transactions of some 8 KiB each.
fn write(server: &Mysqld, transactions: u32) {
    let insert = "INSERT INTO trouble.t (v) SELECT GROUP_CONCAT(HEX(RANDOM_BYTES(1000)) SEPARATOR '') FROM \
                  (SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4) AS four;";
    let table = "CREATE DATABASE IF NOT EXISTS trouble; SET SESSION group_concat_max_len = 100000;\
                 CREATE TABLE IF NOT EXISTS trouble.t (id INT PRIMARY KEY AUTO_INCREMENT, v TEXT);";
    server.sql(&format!("{table}{}", insert.repeat(transactions as usize)));
}

/// Small chunks, so that little data make many.
const SMALL_CHUNKS: &str = "[agent]\nchunk_size = \"64KiB\"\n";

/// What every failing command must look like: one error, told once, and what to do. Returns the hint.
fn one_error(said: &str, words: &[&str]) -> String {
    let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "one error: {said}");
    for word in words {
        assert!(errors[0].contains(word), "no {word:?} in the error: {said}");
    }
    let hints: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("HINT: ")).collect();
    assert_eq!(hints.len(), 1, "one hint: {said}");
    assert!(!said.contains(PASSWORD), "the password is shown: {said}");
    assert!(!said.contains("panicked"), "{said}");
    hints[0].to_owned()
}

/// Whatever the trouble was: now everything can be archived, and everything is there.
fn mended(config: &AgentConfig, server: &Mysqld) {
    config.archive_now();
    complete(config, server);
}

/// The archive has all that the server has, and gives it back byte for byte.
fn complete(config: &AgentConfig, server: &Mysqld) {
    assert_eq!(config.durable(), Some(server.position()), "durable up to the server's end");
    config.ok(&["verify"]);
    config.verify_deep();
    assert_exported(server, &config.export());
}

/// The arguments of a command that opens chunks.
fn with_key<'a>(arguments: &[&'a str], key: &'a Path) -> Vec<&'a str> {
    [arguments, &["--identity", key.to_str().unwrap()]].concat()
}
