//! What an agent says in its beacon about commits that wait until they are durable: since when, and which did not.
//!
//! It is information for people, like the rest of the beacon, and what the next run of the agent goes on from.

use serde::{Deserialize, Serialize};

use crate::position::GtidSet;

/// An agent's word on protection.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SemiSyncWord {
    /// When commits are acknowledged: `store` or `spool`.
    pub mode: String,
    /// Whether each commit waits until it is durable.
    pub protected: bool,
    /// Since when that is so, or is not, microseconds since 1970.
    pub since_us: u64,
    /// Why not.
    pub reason: Option<String>,
    /// When the server was last sent an acknowledgement, microseconds since 1970.
    pub last_ack_us: Option<u64>,
    /// Whether it ever was so: until then nothing is listed.
    pub ever: bool,
    /// All commits that were not covered since protection was first reached.
    pub uncovered: u64,
    /// The last times without protection, the oldest first.
    pub lapses: Vec<Lapse>,
}

/// A time in which commits were not protected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lapse {
    /// When it began, microseconds since 1970.
    pub from_us: u64,
    /// When it ended; `None` while it lasts.
    pub to_us: Option<u64>,
    /// Why.
    pub reason: String,
    /// Transactions that were made durable only behind their commits.
    pub commits: u64,
    /// Which ones; `None` if the set is too long to be listed.
    pub gtids: Option<GtidSet>,
}
