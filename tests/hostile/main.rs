//! What `docs/security.md` promises against people who mean harm, where no other test shows it: objects that somebody
//! who may write to the store has made, what the program lets others see of its secrets, and what it is allowed to do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test that is how things fail")]
#![allow(clippy::print_stdout, reason = "figures for whoever runs this with --nocapture")]

#[path = "../support/s3.rs"]
mod s3;
#[path = "../support/mod.rs"]
mod support;

mod least;
mod modes;
mod objects;
mod secrets;

use support::agent::{AgentConfig, PASSWORD};
use support::lab::Mysqld;

/// A server with a table, and an account that may archive it and take clones and dumps of it.
fn server(hint: &str) -> Mysqld {
    let server = Mysqld::start(hint, &["--plugin-load-add=mysql_clone.so"]);
    server.create_agent_user("binvault", PASSWORD);
    server.grant_base("binvault");
    server.sql(
        "CREATE DATABASE d; CREATE TABLE d.t (id INT PRIMARY KEY AUTO_INCREMENT, v TEXT);
         INSERT INTO d.t (v) VALUES ('one'), ('two'); FLUSH BINARY LOGS; INSERT INTO d.t (v) VALUES ('three')",
    );
    server
}

/// `-i KEY` behind a command.
fn with_key(config: &AgentConfig, arguments: &[&str]) -> Vec<String> {
    let identity = config.identity().to_str().unwrap().to_owned();
    arguments.iter().map(|&word| word.to_owned()).chain(["-i".to_owned(), identity]).collect()
}

/// Words as a command takes them.
fn words(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}
