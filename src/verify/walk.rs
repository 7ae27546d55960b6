//! What a deep verification learns of a file on the way through its events. Pure.

use crate::error::{Error, Result};
use crate::mysql::event::types;
use crate::mysql::walk::{Step, TransactionWalk};
use crate::position::{GtidSet, decode_set};

/// A walk through one file, with what it holds counted.
#[derive(Debug)]
pub(super) struct FileWalk {
    walk: TransactionWalk,
    seen: Seen,
}

/// Counted on the way.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Events that ended.
    pub(super) events: u64,
    /// Transactions that ended.
    pub(super) transactions: u64,
    /// What the PREVIOUS_GTIDS event says.
    pub(super) previous: GtidSet,
    since_start: GtidSet,
}

impl FileWalk {
    /// A walk from the file's first byte.
    pub(super) fn new() -> Self {
        Self { walk: TransactionWalk::at_file_start(), seen: Seen::default() }
    }

    /// Takes the file's next bytes.
    ///
    /// # Errors
    /// [`crate::error::Kind::Corrupt`], naming the offset, at the first thing that is wrong.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        let Self { walk, seen } = self;
        walk.feed(bytes, &mut |step| seen.take(&step))
    }

    /// Whether the walk stands between two events.
    pub(super) fn is_between_events(&self) -> bool {
        self.walk.splitter().is_between_events()
    }

    /// What was counted.
    pub(super) fn seen(&self) -> &Seen {
        &self.seen
    }
}

impl Seen {
    fn take(&mut self, step: &Step<'_>) -> Result<()> {
        match step {
            Step::Begin(_) => {}
            Step::Part(part, _) => {
                self.events = self.events.saturating_add(u64::from(part.last));
                if part.header.kind == types::PREVIOUS_GTIDS && part.first && part.last {
                    let set = decode_set(part.body());
                    self.previous =
                        set.map_err(|error| Error::corrupt(format!("at offset {}", part.start)).source(error))?;
                }
            }
            Step::End(transaction) => {
                self.transactions = self.transactions.saturating_add(1);
                if let Some(gtid) = &transaction.gtid {
                    self.since_start.add(gtid);
                }
            }
        }
        Ok(())
    }

    /// The set executed here.
    pub(super) fn executed(&self) -> GtidSet {
        let mut executed = self.previous.clone();
        executed.union_with(&self.since_start);
        executed
    }
}
