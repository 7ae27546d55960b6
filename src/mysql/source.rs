//! The server's side of the protocol: what a replica or `mysqlbinlog` hears when we are the source.
//!
//! Owns: greeting and login ([`Conversation`]), the few questions that a replica asks, its commands ([`Ask`]), the events
//! that are made up for a connection, and the packets around events ([`EventPackets`]).
//! Does not own: which events are sent, and from where they come: that is decided above.
//!
//! Invariants: nothing but replication is answered, and nothing can be changed by a client; the password never goes over
//! the wire, in either direction; every word of the peer is bounded in bytes and, until the dump begins, in time.
//!
//! What replicas ask was taken from captures of MySQL 8.0 and 9.7 servers and of `mysqlbinlog`.

mod command;
mod conversation;
mod event;
mod login;
mod packets;
mod question;
mod tls;

use std::fmt;

use secrecy::SecretString;
use uuid::Uuid;

pub use command::Ask;
pub use conversation::{Conversation, DumpStream, Security};
pub use event::{format_description, heartbeat, rotate};
pub use packets::EventPackets;
pub use question::Replica;
pub use tls::acceptor;

/// Reads a packet as each of those that a client may send: the door of `fuzzing`.
pub(crate) fn read_word(payload: &[u8], face: &Face, replica: &mut Replica) {
    login::Response::parse(payload);
    if let command::Command::Query(text) = command::Command::parse(payload) {
        question::answer(text, face, replica, 0);
    }
}

/// What we show of ourselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Face {
    /// The version of the server whose events are sent: replicas choose by it what they expect.
    pub server_version: String,
    /// Must differ from every replica's.
    pub server_id: u32,
    /// Must differ from every replica's.
    pub server_uuid: Uuid,
    /// Whether GTID_MODE is ON, else OFF.
    pub gtid_mode: bool,
}

/// The one account that is let in.
#[derive(Debug, Clone)]
pub struct Account {
    /// Its name.
    pub user: String,
    /// Its password, never empty.
    pub password: SecretString,
}

/// An error as it is told to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// MySQL's number for it.
    pub code: u16,
    /// SQLSTATE.
    pub state: [u8; 5],
    /// The text; cut to what clients take.
    pub text: String,
}

/// The dump cannot begin or go on: a replica's IO thread stops at it and shows the text as `Last_IO_Error`.
const FATAL_ERROR_READING_BINLOG: u16 = 1236;
/// Longest text of an error that clients take, in bytes, with room to spare.
const TEXT_BYTES_MAX: usize = 480;

impl Refusal {
    /// An error of the dump (1236).
    pub fn of_dump(text: impl Into<String>) -> Self {
        Self { code: FATAL_ERROR_READING_BINLOG, state: *b"HY000", text: text.into() }
    }

    fn new(code: u16, state: &[u8; 5], text: impl Into<String>) -> Self {
        Self { code, state: *state, text: text.into() }
    }

    /// As a packet's payload.
    pub fn payload(&self) -> Vec<u8> {
        let end = (0..=TEXT_BYTES_MAX.min(self.text.len())).rev().find(|end| self.text.is_char_boundary(*end));
        let text = self.text.get(..end.unwrap_or(0)).unwrap_or_default();
        [&[0xff], &self.code.to_le_bytes()[..], b"#", &self.state, text.as_bytes()].concat()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text, self.code)
    }
}
