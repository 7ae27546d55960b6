//! Transactions on top of the events of a file.

use super::{EventSplitter, WalkedPart};
use crate::error::{Error, Result};
use crate::mysql::event::{GtidEvent, TransactionEnd, types};
use crate::position::{ChecksumAlgorithm, CommitTime, Gtid};

/// A transaction in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Offset of its first event.
    pub start: u64,
    /// One past its last byte. While it is open: what its GTID event tells, else `start`.
    pub end: u64,
    /// Its GTID; `None` for an anonymous one.
    pub gtid: Option<Gtid>,
    /// When it was committed on the server whose file this is.
    pub commit: CommitTime,
    /// Whether its last event is there. A crash can leave the beginning of a transaction in a file.
    pub complete: bool,
}

impl Transaction {
    /// Its bytes in the file, so far as its end is known.
    pub fn bytes(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// What a walk comes by.
#[derive(Debug)]
pub enum Step<'a> {
    /// A transaction begins; its first event comes next.
    Begin(&'a Transaction),
    /// A piece of an event, and the transaction that it belongs to. Control events between transactions belong to none.
    Part(WalkedPart<'a>, Option<&'a Transaction>),
    /// The transaction is over.
    End(&'a Transaction),
}

/// A walk through the transactions of a file. After an error it is of no more use.
///
/// A transaction begins at a GTID event (33, 34, 42) or, in files of servers that write none (before MySQL 5.7), at a
/// statement; where it ends, [`TransactionEnd`] knows. It never reaches over a rotate, a stop or the next GTID event.
#[derive(Debug)]
pub struct TransactionWalk {
    splitter: EventSplitter,
    open: Open,
}

#[derive(Debug, Default)]
struct Open {
    transaction: Option<(Transaction, TransactionEnd)>,
    /// Whether the open event's first bytes end a transaction, were it to end: judged at its first part.
    ends: bool,
}

impl TransactionWalk {
    /// A walk from a file's first byte.
    pub fn at_file_start() -> Self {
        Self { splitter: EventSplitter::at_file_start(), open: Open::default() }
    }

    /// A walk from an event's beginning at `position`, which should lie between two transactions: what comes before the
    /// next GTID event belongs to none.
    pub fn inside(position: u64, checksum: ChecksumAlgorithm) -> Self {
        Self { splitter: EventSplitter::inside(position, checksum), open: Open::default() }
    }

    /// The events below: position, checksum algorithm.
    pub fn splitter(&self) -> &EventSplitter {
        &self.splitter
    }

    /// The transaction that is open.
    pub fn open(&self) -> Option<&Transaction> {
        self.open.transaction.as_ref().map(|(transaction, _)| transaction)
    }

    /// Takes the file's next bytes.
    ///
    /// # Errors
    /// [`crate::error::Kind::Corrupt`], naming the offset, at the first thing that is wrong; whatever `sink` fails with.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut impl FnMut(Step<'_>) -> Result<()>) -> Result<()> {
        let Self { splitter, open } = self;
        splitter.feed(bytes, &mut |part| open.take(part, sink))
    }

    /// Ends the walk: the transaction that is still open, which is then incomplete.
    pub fn finish(self) -> Option<Transaction> {
        let position = self.splitter.position();
        self.open.transaction.map(|(transaction, _)| Transaction { end: position, complete: false, ..transaction })
    }
}

impl Open {
    fn take(&mut self, part: WalkedPart<'_>, sink: &mut impl FnMut(Step<'_>) -> Result<()>) -> Result<()> {
        if part.first {
            self.begin_event(&part, sink)?;
        }
        sink(Step::Part(part, self.transaction.as_ref().map(|(transaction, _)| transaction)))?;
        if part.last && self.ends { self.end(part.end(), true, sink) } else { Ok(()) }
    }

    fn begin_event(&mut self, part: &WalkedPart<'_>, sink: &mut impl FnMut(Step<'_>) -> Result<()>) -> Result<()> {
        match part.header.kind {
            types::GTID | types::ANONYMOUS_GTID | types::TAGGED_GTID => {
                self.end(part.start, false, sink)?;
                let event = GtidEvent::parse(&part.header, part.body())
                    .map_err(|error| Error::corrupt(format!("at offset {}", part.start)).source(error))?;
                self.begin(part.start, event, sink)?;
            }
            types::ROTATE | types::STOP | types::FORMAT_DESCRIPTION => self.end(part.start, false, sink)?,
            types::QUERY if self.transaction.is_none() => {
                let commit = CommitTime::from_seconds(part.header.timestamp_s);
                self.begin(part.start, GtidEvent { gtid: None, commit, transaction_bytes: None }, sink)?;
            }
            _ => {}
        }
        // The first part has all that the rule looks at.
        self.ends = match self.transaction.as_mut() {
            Some((_, end)) => end.is_at(part.header.kind, part.body(), part.end()),
            None => false,
        };
        Ok(())
    }

    fn begin(&mut self, start: u64, event: GtidEvent, sink: &mut impl FnMut(Step<'_>) -> Result<()>) -> Result<()> {
        let GtidEvent { gtid, commit, transaction_bytes } = event;
        let rule = TransactionEnd::new(start, transaction_bytes);
        let transaction = Transaction { start, end: rule.told().unwrap_or(start), gtid, commit, complete: false };
        let (transaction, _) = self.transaction.insert((transaction, rule));
        sink(Step::Begin(transaction))
    }

    fn end(&mut self, at: u64, complete: bool, sink: &mut impl FnMut(Step<'_>) -> Result<()>) -> Result<()> {
        self.ends = false;
        match self.transaction.take() {
            Some((transaction, _)) => sink(Step::End(&Transaction { end: at, complete, ..transaction })),
            None => Ok(()),
        }
    }
}
