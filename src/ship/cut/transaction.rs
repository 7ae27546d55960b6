//! The transaction at the cutter's position.

use crate::chunk::OpenTransaction;
use crate::mysql::event::{GtidEvent, TransactionEnd};
use crate::position::{CommitTime, Gtid};

/// The transaction at the position, if one is open.
#[derive(Debug, Default)]
pub(super) struct Transaction(Option<Open>);

#[derive(Debug)]
struct Open {
    gtid: Option<Gtid>,
    commit_us: CommitTime,
    start: u64,
    end: TransactionEnd,
}

/// A transaction that is over.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) gtid: Option<Gtid>,
    pub(super) commit_us: CommitTime,
}

impl Transaction {
    /// One that a former chunk ended inside of.
    pub(super) fn resumed(open: &OpenTransaction) -> Self {
        let OpenTransaction { gtid, commit_us, end } = open.clone();
        // Where it began no longer matters: its chunk was cut, so it may be cut again.
        Self(Some(Open { gtid, commit_us, start: 0, end: TransactionEnd::resumed(end) }))
    }

    pub(super) fn begin(&mut self, start: u64, event: GtidEvent) {
        let GtidEvent { gtid, commit, transaction_bytes } = event;
        self.0 = Some(Open { gtid, commit_us: commit, start, end: TransactionEnd::new(start, transaction_bytes) });
    }

    pub(super) fn is_open(&self) -> bool {
        self.0.is_some()
    }

    /// Whether a chunk of `limit` bytes may end inside it: it is larger than one, or nobody knows.
    pub(super) fn may_be_cut(&self, limit: u64) -> bool {
        self.0.as_ref().is_some_and(|open| open.end.told().is_none_or(|end| end.saturating_sub(open.start) > limit))
    }

    pub(super) fn as_open(&self) -> Option<OpenTransaction> {
        let Open { gtid, commit_us, end, .. } = self.0.as_ref()?;
        Some(OpenTransaction { gtid: gtid.clone(), commit_us: *commit_us, end: end.told() })
    }

    /// Takes it as ended, if it is open.
    pub(super) fn end_now(&mut self) -> Option<Ended> {
        self.0.take().map(|Open { gtid, commit_us, .. }| Ended { gtid, commit_us })
    }

    /// An event has ended at `position`; `body` is what was seen of it behind the header.
    pub(super) fn event_ended(&mut self, kind: u8, body: &[u8], position: u64) -> Option<Ended> {
        if self.0.as_mut()?.end.is_at(kind, body, position) { self.end_now() } else { None }
    }
}
