//! Where a transaction begins and ends in the stream.
//!
//! From MySQL 8.0.2 the GTID event tells the transaction's length in bytes, and nothing else need be looked at. Before
//! that its end is recognised: XID, XA PREPARE, COMMIT, ROLLBACK, or the one statement that stands without a BEGIN.

use crate::chunk::OpenTransaction;
use crate::mysql::event::{GtidEvent, QueryRole, query_role, types};
use crate::position::{CommitTime, Gtid};

/// The transaction at the position, if one is open.
#[derive(Debug, Default)]
pub(super) struct Transaction(Option<Open>);

#[derive(Debug)]
struct Open {
    gtid: Option<Gtid>,
    commit_us: CommitTime,
    start: u64,
    /// Offset of its end, where the server tells.
    end: Option<u64>,
    /// A BEGIN went by.
    begun: bool,
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
        // Where it began no longer matters: its chunk was cut, so it may be cut again. Without a length, a BEGIN is
        // taken to have gone by: a lone statement is one event, and would have to be larger than a chunk.
        Self(Some(Open { gtid, commit_us, start: 0, end, begun: true }))
    }

    pub(super) fn begin(&mut self, start: u64, event: GtidEvent) {
        let GtidEvent { gtid, commit, transaction_bytes } = event;
        let end = transaction_bytes.and_then(|bytes| start.checked_add(bytes));
        self.0 = Some(Open { gtid, commit_us: commit, start, end, begun: false });
    }

    pub(super) fn is_open(&self) -> bool {
        self.0.is_some()
    }

    /// Whether a chunk of `limit` bytes may end inside it: it is larger than one, or nobody knows.
    pub(super) fn may_be_cut(&self, limit: u64) -> bool {
        self.0.as_ref().is_some_and(|open| open.end.is_none_or(|end| end.saturating_sub(open.start) > limit))
    }

    pub(super) fn as_open(&self) -> Option<OpenTransaction> {
        let Open { gtid, commit_us, end, .. } = self.0.as_ref()?;
        Some(OpenTransaction { gtid: gtid.clone(), commit_us: *commit_us, end: *end })
    }

    /// Takes it as ended, if it is open.
    pub(super) fn end_now(&mut self) -> Option<Ended> {
        self.0.take().map(|Open { gtid, commit_us, .. }| Ended { gtid, commit_us })
    }

    /// An event has ended at `position`; `body` is what was seen of it behind the header.
    pub(super) fn event_ended(&mut self, kind: u8, body: &[u8], position: u64) -> Option<Ended> {
        let open = self.0.as_mut()?;
        let over = match open.end {
            Some(end) => position >= end,
            None => match kind {
                types::XID | types::XA_PREPARE => true,
                types::QUERY => match query_role(body, open.begun) {
                    Some(QueryRole::Begin) => {
                        open.begun = true;
                        false
                    }
                    Some(QueryRole::End) => true,
                    // A statement too large to be seen whole does not end a transaction that has begun.
                    Some(QueryRole::Inside) => false,
                    None => !open.begun,
                },
                _ => false,
            },
        };
        if over { self.end_now() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Vec<u8> {
        [&[0; 13][..], b"\0", text.as_bytes()].concat()
    }

    fn begin(transaction_bytes: Option<u64>) -> Transaction {
        let mut transaction = Transaction::default();
        transaction.begin(100, GtidEvent { gtid: None, commit: CommitTime::from_micros(9), transaction_bytes });
        transaction
    }

    #[test]
    fn the_length_decides_where_it_is_told() {
        let mut transaction = begin(Some(50));
        assert!(transaction.event_ended(types::QUERY, &query("COMMIT"), 149).is_none());
        assert_eq!(transaction.event_ended(30, &[], 150).unwrap().commit_us.micros(), 9);
        assert!(!transaction.is_open());
    }

    #[test]
    fn without_a_length_the_end_is_recognised() {
        let mut ddl = begin(None);
        assert!(ddl.event_ended(types::QUERY, &query("CREATE TABLE t (a INT)"), 200).is_some());
        let mut rows = begin(None);
        for (kind, text) in [(types::QUERY, "BEGIN"), (19, ""), (30, ""), (types::QUERY, "SAVEPOINT `a`")] {
            assert!(rows.event_ended(kind, &query(text), 200).is_none(), "{text}");
        }
        assert!(rows.event_ended(types::XID, &[], 300).is_some());
        let mut statement = begin(None);
        assert!(statement.event_ended(types::QUERY, &query("BEGIN"), 200).is_none());
        assert!(statement.event_ended(types::QUERY, &query("INSERT INTO t VALUES (1)"), 210).is_none());
        assert!(statement.event_ended(types::QUERY, &query("COMMIT"), 220).is_some());
    }
}
