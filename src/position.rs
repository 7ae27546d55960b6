//! Where we are in a server's history: newtypes for files, offsets, times and transactions. Pure.
//!
//! Owns: [`ServerUuid`], [`BinlogFile`], [`Incarnation`], [`Position`], [`ByteRange`], [`CommitTime`], [`Gtid`] and
//! [`GtidSet`], their text forms, and their order.
//! Does not own: how they are learned (`mysql`) or stored (`chunk`, `archive`).
//!
//! Invariants: every value that exists is valid (a file name cannot leave a folder, a range is never inverted);
//! text forms parse back to the same value; arithmetic is checked.

mod file;
mod gtid;
mod gtid_decode;
mod gtid_set;
mod time;

pub use file::{BinlogFile, ByteRange, ChecksumAlgorithm, Incarnation, Position, ServerUuid};
pub use gtid::{GNO_MAX, Gtid, Sid, Tag};
pub use gtid_decode::decode_set;
pub use gtid_set::{GtidSet, Interval};
pub use time::{CommitTime, created_text, parse_created};

/// A text that is no value of the wanted type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {wanted}")]
pub struct ParseError {
    /// What was wanted.
    pub wanted: &'static str,
    /// What was given, cut to a readable length.
    pub text: String,
}

impl ParseError {
    fn new(wanted: &'static str, text: &str) -> Self {
        Self { wanted, text: text.chars().take(120).collect() }
    }
}
