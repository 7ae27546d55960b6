//! One file's bytes on their way into packets: which events go through, and where the stream has to wait. Pure.
//!
//! Invariants: an event goes through whole and unchanged, or not at all (of the format description, the flag and the
//! fields that every source clears); a transaction goes through from its first event or not at all; nothing is begun
//! that ends behind the limit, or that is not due yet.

use std::sync::Arc;

use crate::error::{Error, Kind, Result};
use crate::mysql::event::{FIRST_EVENT, FormatDescription, Header, Rotate, types};
use crate::mysql::source::{self, EventPackets};
use crate::mysql::walk::{Step, Transaction, TransactionWalk, WalkedPart};
use crate::position::{ChecksumAlgorithm, CommitTime, GtidSet};

/// Which transactions go through, and to whom.
#[derive(Debug, Clone, Default)]
pub(super) struct Choice {
    /// The replica positions itself by GTID, and has these.
    pub(super) have: Option<Arc<GtidSet>>,
    /// Only these, and none without a GTID.
    pub(super) only: Option<Arc<GtidSet>>,
    /// Not these.
    pub(super) skip: Arc<GtidSet>,
    /// The replica's server id, 0 if it has none: it would silently throw away events that carry it.
    pub(super) replica_id: u32,
    /// Our own server id, in events that are made up.
    pub(super) server_id: u32,
    /// The client takes heartbeats of the second form.
    pub(super) heartbeat_v2: bool,
}

/// Up to where the stream may go now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit {
    /// Offset in the file.
    pub(super) until: u64,
    /// No transaction committed after this.
    pub(super) committed_by: Option<CommitTime>,
}

/// Where a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place<'a> {
    /// The file's name.
    pub(super) file: &'a str,
    /// The position in it.
    pub(super) position: u64,
    /// Whether made-up events have a CRC32 here.
    pub(super) checksum: bool,
}

/// Why the stream waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Halt {
    /// What begins here ends behind the limit.
    Limit { start: u64 },
    /// The transaction that begins here is due later.
    Due { start: u64, commit: CommitTime },
}

impl Halt {
    /// Where to go on.
    pub(super) fn start(self) -> u64 {
        match self {
            Self::Limit { start } | Self::Due { start, .. } => start,
        }
    }
}

/// A file being sent.
#[derive(Debug)]
pub(super) struct Passage {
    walk: TransactionWalk,
    gate: Gate,
}

#[derive(Debug)]
struct Gate {
    choice: Choice,
    limit: Limit,
    halt: Option<Halt>,
    /// The file's first events, held until it is known whether the client has seen the file before.
    held: Vec<Vec<u8>>,
    /// Whether the transaction at hand goes through.
    sending: bool,
    /// The walk was begun anew inside a transaction: what follows belongs to it, until the next GTID event.
    inside: bool,
    /// Something was left out since the last event that went through.
    skipped: bool,
    file: String,
    checksum: bool,
    /// One past the last event that went through or was left out.
    at: u64,
    /// What the file's ROTATE event names.
    rotated: Option<(String, u64)>,
    transactions: u64,
    commit: CommitTime,
}

impl Passage {
    /// A file from its first byte.
    /// Until its format description is sent, made-up events have a checksum as before: `checksum`.
    pub(super) fn from_start(file: &str, choice: Choice, checksum: bool) -> Self {
        Self { walk: TransactionWalk::at_file_start(), gate: Gate::new(file, choice, FIRST_EVENT, checksum) }
    }

    /// A file from an event in its middle. Packets with its format description must have gone out already.
    pub(super) fn from_inside(file: &str, choice: Choice, position: u64, checksum: ChecksumAlgorithm) -> Self {
        let crc = checksum == ChecksumAlgorithm::Crc32;
        Self { walk: TransactionWalk::inside(position, checksum), gate: Gate::new(file, choice, position, crc) }
    }

    /// Sets how far it may go.
    pub(super) fn set_limit(&mut self, limit: Limit) {
        self.gate.limit = limit;
    }

    /// How far it may go.
    pub(super) fn limit(&self) -> Limit {
        self.gate.limit
    }

    /// Offset of the next byte to be fed.
    pub(super) fn position(&self) -> u64 {
        self.walk.splitter().position()
    }

    /// Takes the file's next bytes. If it halts, the bytes from there on were not used: they are fed again later.
    pub(super) fn feed(&mut self, bytes: &[u8], packets: &mut EventPackets) -> Result<Option<Halt>> {
        let Self { walk, gate } = self;
        walk.feed(bytes, &mut |step| match step {
            Step::Part(part, transaction) => gate.take(part, transaction, packets),
            Step::End(transaction) => {
                gate.done(transaction);
                Ok(())
            }
            Step::Begin(_) => Ok(()),
        })?;
        let halt = gate.halt.take();
        if let Some(halt) = halt {
            *walk = TransactionWalk::inside(halt.start(), walk.splitter().checksum());
        }
        Ok(halt)
    }

    /// Sends what is held: nothing that would settle it comes soon.
    pub(super) fn release(&mut self, packets: &mut EventPackets) {
        self.gate.release(false, packets);
    }

    /// Where the stream stands, as a heartbeat has to say it: behind a ROTATE, that is in the next file.
    pub(super) fn place(&self) -> Place<'_> {
        let (file, position) = match &self.gate.rotated {
            Some((file, position)) => (file, *position),
            None => (&self.gate.file, self.gate.at),
        };
        Place { file, position, checksum: self.gate.checksum }
    }

    /// One past the last event of the file that is done with.
    pub(super) fn at(&self) -> u64 {
        self.gate.at
    }

    /// What the replica has now, if all that went through reaches it: the same transactions in a file of another
    /// server's need not be sent.
    pub(super) fn take_have(self) -> Option<Arc<GtidSet>> {
        self.gate.choice.have
    }

    /// Transactions that went through since the last call, and the commit time of the newest one so far.
    pub(super) fn take_counts(&mut self) -> (u64, CommitTime) {
        (std::mem::take(&mut self.gate.transactions), self.gate.commit)
    }
}

impl Gate {
    fn new(file: &str, choice: Choice, at: u64, checksum: bool) -> Self {
        Self {
            choice,
            limit: Limit { until: at, committed_by: None },
            halt: None,
            held: Vec::new(),
            sending: true,
            inside: false,
            skipped: false,
            file: file.to_owned(),
            checksum,
            at,
            rotated: None,
            transactions: 0,
            commit: CommitTime::NONE,
        }
    }

    fn take(
        &mut self,
        part: WalkedPart<'_>,
        transaction: Option<&Transaction>,
        packets: &mut EventPackets,
    ) -> Result<()> {
        if self.halt.is_some() {
            return Ok(());
        }
        if part.first {
            self.first(&part, transaction, packets);
            if self.halt.is_some() {
                return Ok(());
            }
        }
        match part.header.kind {
            types::FORMAT_DESCRIPTION => {
                self.checksum = FormatDescription::parse(part.bytes)?.checksum == ChecksumAlgorithm::Crc32;
                self.held.push(part.bytes.to_vec());
            }
            types::PREVIOUS_GTIDS if part.first && part.last => self.held.push(part.bytes.to_vec()),
            types::ROTATE => {
                let rotate = Rotate::parse(part.body())?;
                self.rotated = Some((rotate.file.to_string(), rotate.position));
                self.emit(&part, packets);
            }
            types::STOP | types::PREVIOUS_GTIDS => self.emit(&part, packets),
            _ if self.sending => {
                self.refuse_own(&part)?;
                self.emit(&part, packets);
            }
            _ => self.skipped = true,
        }
        if part.last {
            self.at = part.end();
        }
        Ok(())
    }

    /// Judges an event by its first part: a transaction's first event for all of it.
    fn first(&mut self, part: &WalkedPart<'_>, transaction: Option<&Transaction>, packets: &mut EventPackets) {
        let opens = matches!(part.header.kind, types::GTID | types::ANONYMOUS_GTID | types::TAGGED_GTID);
        if opens {
            self.inside = false;
        }
        let begun = transaction.filter(|transaction| transaction.start == part.start && !self.inside);
        let end = begun.map_or(0, |transaction| transaction.end).max(part.end());
        if end > self.limit.until {
            self.inside = self.inside || (transaction.is_some() && begun.is_none());
            self.halt = Some(Halt::Limit { start: part.start });
            return;
        }
        let Some(transaction) = begun else { return };
        let has = |set: &Option<Arc<GtidSet>>| match (set, &transaction.gtid) {
            (Some(set), Some(gtid)) => Some(set.contains(gtid)),
            (Some(_), None) => Some(false),
            (None, _) => None,
        };
        let has_it = has(&self.choice.have) == Some(true);
        let skipped = transaction.gtid.as_ref().is_some_and(|gtid| self.choice.skip.contains(gtid));
        let wanted = !has_it && !skipped && has(&self.choice.only) != Some(false);
        let late = self.limit.committed_by.is_some_and(|by| transaction.commit > by);
        if wanted && late {
            self.halt = Some(Halt::Due { start: part.start, commit: transaction.commit });
            return;
        }
        self.release(has_it, packets);
        self.sending = wanted;
        if wanted {
            self.transactions = self.transactions.saturating_add(1);
            self.commit = transaction.commit;
        }
    }

    /// A transaction is over.
    fn done(&mut self, transaction: &Transaction) {
        if self.halt.is_none()
            && self.sending
            && transaction.complete
            && let (Some(have), Some(gtid)) = (&mut self.choice.have, &transaction.gtid)
        {
            Arc::make_mut(have).add(gtid);
        }
    }

    /// Puts a part into packets, after whatever has to go before it.
    fn emit(&mut self, part: &WalkedPart<'_>, packets: &mut EventPackets) {
        if part.first {
            self.release(false, packets);
            // So that the replica knows where it stands, as MySQL does it.
            if std::mem::take(&mut self.skipped) && self.choice.have.is_some() {
                let Choice { heartbeat_v2, server_id, .. } = self.choice;
                packets.event(&source::heartbeat(heartbeat_v2, server_id, &self.file, self.at, self.checksum));
            }
            packets.begin(part.header.length);
        }
        packets.put(part.bytes);
    }

    fn release(&mut self, resumed: bool, packets: &mut EventPackets) {
        for event in std::mem::take(&mut self.held) {
            if Header::parse(&event).is_some_and(|header| header.kind == types::FORMAT_DESCRIPTION) {
                packets.event(&source::format_description(&event, resumed, false));
            } else {
                packets.event(&event);
            }
        }
    }

    /// An event that the replica would take for its own is an error now, not a loss that nobody notices.
    fn refuse_own(&self, part: &WalkedPart<'_>) -> Result<()> {
        let id = part.header.server_id;
        if !part.first || id == 0 || id != self.choice.replica_id {
            return Ok(());
        }
        Err(Error::new(
            Kind::Config,
            format!(
                "the event at {}:{} carries server_id {id}, which is the replica's own: it would discard it silently",
                self.file, part.start
            ),
        )
        .hint("give the replica a server_id that no server had whose transactions are archived"))
    }
}

#[cfg(test)]
mod tests;
