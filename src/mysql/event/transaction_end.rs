//! Where a transaction ends in the stream: the one rule, for whoever walks events.
//!
//! From MySQL 8.0.2 the GTID event tells the transaction's length in bytes, and nothing else need be looked at. Before
//! that its end is recognised: XID, XA PREPARE, COMMIT, ROLLBACK, or the one statement that stands without a BEGIN.

use super::{QueryRole, query_role, types};

/// Recognises the end of one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionEnd {
    /// Offset of its end, where the server tells.
    end: Option<u64>,
    /// A BEGIN went by.
    begun: bool,
}

impl TransactionEnd {
    /// For a transaction whose first event begins at `start` and tells (or does not tell) its length in bytes.
    pub fn new(start: u64, transaction_bytes: Option<u64>) -> Self {
        Self { end: transaction_bytes.and_then(|bytes| start.checked_add(bytes)), begun: false }
    }

    /// For a transaction whose beginning was seen elsewhere, with the offset of its end if that is known.
    ///
    /// Without one, a BEGIN is taken to have gone by: a lone statement is one event.
    pub fn resumed(end: Option<u64>) -> Self {
        Self { end, begun: true }
    }

    /// Offset of its end, where the server tells.
    pub fn told(&self) -> Option<u64> {
        self.end
    }

    /// Whether the transaction ends with the event that has just ended at `position`; `body` is what was seen of it
    /// behind the header.
    pub fn is_at(&mut self, kind: u8, body: &[u8], position: u64) -> bool {
        if let Some(end) = self.end {
            return position >= end;
        }
        match kind {
            types::XID | types::XA_PREPARE => true,
            types::QUERY => match query_role(body, self.begun) {
                Some(QueryRole::Begin) => {
                    self.begun = true;
                    false
                }
                Some(QueryRole::End) => true,
                // A statement too large to be seen whole does not end a transaction that has begun.
                Some(QueryRole::Inside) => false,
                None => !self.begun,
            },
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Vec<u8> {
        [&[0; 13][..], b"\0", text.as_bytes()].concat()
    }

    #[test]
    fn the_length_decides_where_it_is_told() {
        let mut end = TransactionEnd::new(100, Some(50));
        assert!(!end.is_at(types::QUERY, &query("COMMIT"), 149));
        assert!(end.is_at(30, &[], 150));
        assert_eq!(end.told(), Some(150));
    }

    #[test]
    fn without_a_length_the_end_is_recognised() {
        let mut ddl = TransactionEnd::new(100, None);
        assert!(ddl.is_at(types::QUERY, &query("CREATE TABLE t (a INT)"), 200));
        let mut rows = TransactionEnd::new(100, None);
        for (kind, text) in [(types::QUERY, "BEGIN"), (19, ""), (30, ""), (types::QUERY, "SAVEPOINT `a`")] {
            assert!(!rows.is_at(kind, &query(text), 200), "{text}");
        }
        assert!(rows.is_at(types::XID, &[], 300));
        let mut statement = TransactionEnd::new(100, None);
        assert!(!statement.is_at(types::QUERY, &query("BEGIN"), 200));
        assert!(!statement.is_at(types::QUERY, &query("INSERT INTO t VALUES (1)"), 210));
        assert!(statement.is_at(types::QUERY, &query("COMMIT"), 220));
    }

    #[test]
    fn resumed_in_the_middle_a_statement_ends_nothing() {
        let mut end = TransactionEnd::resumed(None);
        assert!(!end.is_at(types::QUERY, &query("INSERT INTO t VALUES (1)"), 210));
        assert!(end.is_at(types::QUERY, &query("COMMIT"), 220));
        assert!(TransactionEnd::resumed(Some(300)).is_at(30, &[], 300));
    }
}
