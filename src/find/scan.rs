//! Scanning one segment: its bytes become transactions, those become answers or nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use super::choose::Segment;
use super::kind::{Kind, Kinds};
use super::summary::Summary;
use super::{Found, LARGE_BYTES, NotSearched, Query};
use crate::archive::{Archive, ReadOptions};
use crate::error::{Context, Error, Result};
use crate::mysql::rows::ContentReader;
use crate::mysql::walk::{Step, Transaction, TransactionWalk};
use crate::position::{CommitTime, Incarnation, ServerUuid};

/// What came of a segment.
#[derive(Debug)]
pub(super) struct Scanned {
    /// Raw bytes looked through.
    pub(super) bytes: u64,
    /// In the order asked for; at most one more than the limit.
    pub(super) found: VecDeque<Found>,
    /// What kept the rest from being searched.
    pub(super) failed: Option<(NotSearched, Error)>,
}

/// Scans a segment to its end, or to what stands in the way.
pub(super) async fn scan(archive: Archive, segment: Segment, query: Arc<Query>, options: ReadOptions) -> Scanned {
    let (server, file) = (segment.chunks.server, segment.chunks.incarnation.clone());
    let walk = match segment.inside {
        Some(checksum) => TransactionWalk::inside(segment.range.start(), checksum),
        None => TransactionWalk::at_file_start(),
    };
    let mut scanner = Scanner { walk, search: Search::new(query, server, file.clone()) };
    let mut reader = archive.read_range(Arc::clone(&segment.chunks), segment.range, &options);
    let mut at = segment.range.start();
    let result = loop {
        let block = match reader.next().await {
            Ok(Some(block)) => block,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        if let Err(error) = scanner.feed(&block.bytes).context(|| format!("search {file} of {server}")) {
            break Err(error);
        }
        at = block.offset.saturating_add(block.bytes.len() as u64);
    };
    let missing = |error: &Error| NotSearched {
        server,
        file: file.file.clone(),
        from: at,
        to: segment.range.end(),
        why: error.chain(),
    };
    let failed = result.err().map(|error| (missing(&error), error));
    let found = scanner.finish(failed.is_none());
    Scanned { bytes: at.saturating_sub(segment.range.start()), found, failed }
}

/// The walk and what it looks for.
struct Scanner {
    walk: TransactionWalk,
    search: Search,
}

struct Search {
    query: Arc<Query>,
    large: u64,
    server: ServerUuid,
    file: Incarnation,
    contents: ContentReader,
    /// The open transaction, if it may be an answer.
    open: Option<Summary>,
    found: VecDeque<Found>,
}

impl Scanner {
    fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        let Self { walk, search } = self;
        walk.feed(bytes, &mut |step| {
            search.take(&step);
            Ok(())
        })
    }

    /// The answers, in the order asked for. A transaction that is still open counts if the segment's end was reached.
    fn finish(self, reached: bool) -> VecDeque<Found> {
        let Self { walk, mut search } = self;
        if let Some(transaction) = walk.finish().filter(|_| reached) {
            search.end(&transaction);
        }
        if search.query.newest_first {
            search.found.make_contiguous().reverse();
        }
        search.found
    }
}

impl Search {
    fn new(query: Arc<Query>, server: ServerUuid, file: Incarnation) -> Self {
        let large = query.large.unwrap_or(LARGE_BYTES);
        let (contents, found) = (ContentReader::new(), VecDeque::new());
        Self { query, large, server, file, contents, open: None, found }
    }

    fn take(&mut self, step: &Step<'_>) {
        match step {
            Step::Begin(transaction) => self.open = self.may_be_wanted(transaction).then(Summary::default),
            Step::Part(part, _) => {
                let Self { contents, open, query, .. } = self;
                if let Some(summary) = open.as_mut() {
                    contents.take(part, &mut |content| summary.take(&content, &query.tables));
                }
            }
            Step::End(transaction) => self.end(transaction),
        }
    }

    /// What can be judged by the first event already.
    fn may_be_wanted(&self, transaction: &Transaction) -> bool {
        let query = &self.query;
        let full = !query.newest_first && self.found.len() > query.limit;
        let from = query.from.unwrap_or(CommitTime::NONE);
        let in_time = transaction.commit >= from && query.to.is_none_or(|to| transaction.commit <= to);
        let named = query.gtids.as_ref().is_none_or(|set| transaction.gtid.as_ref().is_some_and(|g| set.contains(g)));
        !full && in_time && named
    }

    fn end(&mut self, transaction: &Transaction) {
        let Some(summary) = self.open.take() else { return };
        let query = &self.query;
        let bytes = transaction.bytes();
        let kinds = summary.kinds(bytes, self.large);
        let wanted = (query.tables.is_empty() || summary.names_wanted)
            && (query.kinds.is_empty() || kinds.meets(query.kinds))
            && (query.large.is_none() || kinds.has(Kind::Large));
        if !wanted {
            return;
        }
        let mut found = place(self.server, &self.file, transaction, kinds);
        summary.into_found(&mut found);
        self.found.push_back(found);
        // One more than the limit is kept: it says that there are more.
        if query.newest_first && self.found.len() > query.limit.saturating_add(1) {
            self.found.pop_front();
        }
    }
}

/// A transaction of which only place, time and kinds are known.
fn place(server: ServerUuid, file: &Incarnation, transaction: &Transaction, kinds: Kinds) -> Found {
    Found {
        server,
        file: file.clone(),
        start: transaction.start,
        end: transaction.end,
        gtid: transaction.gtid.clone(),
        commit: transaction.commit,
        complete: transaction.complete,
        kinds,
        tables: Vec::new(),
        more_tables: 0,
        inserted: 0,
        updated: 0,
        deleted: 0,
        rows_exact: true,
        statements: 0,
        statement: None,
        statement_cut: false,
        compressed: false,
        unread_events: 0,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A transaction in no file of no server.
    pub(in crate::find) fn nothing() -> Found {
        let transaction = Transaction { start: 4, end: 10, gtid: None, commit: CommitTime::NONE, complete: true };
        let file = "binlog.000001.20261122T101530Z".parse().unwrap();
        place(ServerUuid(uuid::Uuid::nil()), &file, &transaction, Kinds::default())
    }
}
