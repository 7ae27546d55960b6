//! Logging in to real servers by every way there is, and what a refusal says.
//!
//! `login`: methods and channels; `trust`: TLS modes and certificates; `refusal`: what goes wrong before that;
//! `answers`: queries, facts and the replica's words; `mariadb`: the native method and the switch to it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test that is how things fail")]
#![allow(clippy::print_stderr, reason = "shown with the test that fails")]

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod login;
mod mariadb;
mod refusal;
mod trust;

use std::sync::{Arc, Mutex, PoisonError, Weak};

use binvault::error::{Error, Kind};
use binvault::mysql::{Address, Connection, SourceOptions, TlsMode, TlsOptions, server_code};
use secrecy::SecretString;
use support::lab::Mysqld;

/// One server for the tests that do not change it for others; it goes with the last of them.
fn shared() -> Arc<Mysqld> {
    static SERVER: Mutex<Weak<Mysqld>> = Mutex::new(Weak::new());
    let mut server = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    server.upgrade().unwrap_or_else(|| {
        let started = Arc::new(Mysqld::start("login", &["--performance-schema=ON"]));
        *server = Arc::downgrade(&started);
        started
    })
}

fn secret(password: &str) -> Option<SecretString> {
    (!password.is_empty()).then(|| SecretString::from(password.to_owned()))
}

fn tls(mode: TlsMode) -> TlsOptions {
    TlsOptions { mode, ..TlsOptions::default() }
}

/// Over TCP to the loopback address.
fn tcp(port: u16, user: &str, password: &str, tls: TlsOptions) -> SourceOptions {
    let address = Address::Tcp { host: "127.0.0.1".to_owned(), port };
    SourceOptions { tls, ..SourceOptions::new(address, user, secret(password)) }
}

fn clear(server: &Mysqld, user: &str, password: &str) -> SourceOptions {
    tcp(server.port(), user, password, tls(TlsMode::Disabled))
}

fn socket(server: &Mysqld, user: &str, password: &str) -> SourceOptions {
    SourceOptions::new(Address::Socket(server.socket()), user, secret(password))
}

async fn connect(options: &SourceOptions) -> Connection {
    Connection::connect(options, "binvault test").await.unwrap_or_else(|error| panic!("{options:?}: {error:?}"))
}

async fn refused(options: &SourceOptions) -> Error {
    match Connection::connect(options, "binvault test").await {
        Ok(connection) => panic!("{connection:?} was let in"),
        Err(error) => error,
    }
}

/// Checks what an error says to a script and to a person, and gives its hint.
fn assert_says(error: &Error, kind: Kind, retryable: bool, code: Option<u16>) -> String {
    assert_eq!((error.kind(), error.is_retryable(), server_code(error)), (kind, retryable, code), "{error:?}");
    error.hint_text().unwrap_or_default().to_owned()
}

async fn value(connection: &mut Connection, sql: &str) -> String {
    let rows = connection.query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    rows[0].get_at(0).unwrap_or("NULL").to_owned()
}
