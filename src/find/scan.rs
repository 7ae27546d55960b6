//! Scanning one segment: its bytes become transactions, those become answers or nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use super::choose::Segment;
use super::kind::{Kind, Kinds};
use super::summary::Summary;
use super::{Found, LARGE_BYTES, NotSearched, Query};
use crate::archive::{Archive, FileChunks, ReadOptions};
use crate::error::{self, Context, Error, Result};
use crate::mysql::rows::ContentReader;
use crate::mysql::walk::{Step, Transaction, TransactionWalk};
use crate::position::{ByteRange, ChecksumAlgorithm, CommitTime, Incarnation, ServerUuid};

/// What came of a segment.
#[derive(Debug)]
pub(super) struct Scanned {
    /// Raw bytes looked through.
    pub(super) bytes: u64,
    /// In the order asked for; at most one more than the limit.
    pub(super) found: VecDeque<Found>,
    /// What could not be searched.
    pub(super) not_searched: Vec<NotSearched>,
    /// Why: the first error.
    pub(super) error: Option<Error>,
}

/// Scans a segment to its end. What is damaged is left out: it goes on with the next chunk that begins a transaction.
pub(super) async fn scan(archive: Archive, segment: Segment, query: Arc<Query>, options: ReadOptions) -> Scanned {
    let Segment { chunks, range, inside } = segment;
    let (server, file) = (chunks.server, chunks.incarnation.file.clone());
    let mut search = Search::new(query, server, chunks.incarnation.clone());
    let mut scanned = Scanned { bytes: 0, found: VecDeque::new(), not_searched: Vec::new(), error: None };
    let mut walk = match inside {
        Some(checksum) => TransactionWalk::inside(range.start(), checksum),
        None => TransactionWalk::at_file_start(),
    };
    let mut next = Some(range);
    while let Some(range) = next {
        let Stretch { upto, open, result } = stretch(&archive, &chunks, range, walk, &mut search, &options).await;
        scanned.bytes = scanned.bytes.saturating_add(upto.saturating_sub(range.start()));
        let Err(error) = result else {
            // Still open where the archive ends, and an answer all the same.
            open.iter().for_each(|open| search.end(open));
            break;
        };
        let again = match error.kind() {
            error::Kind::Corrupt => next_beginning(&archive, &chunks, upto, range.end()).await,
            _ => None,
        };
        let to = again.map_or(range.end(), |(offset, _)| offset);
        scanned.not_searched.push(NotSearched { server, file: file.clone(), from: upto, to, why: error.chain() });
        scanned.error.get_or_insert(error);
        let Some((offset, checksum)) = again else { break };
        next = ByteRange::new(offset, range.end());
        walk = TransactionWalk::inside(offset, checksum);
        search.forget();
    }
    scanned.found = search.into_found();
    scanned
}

/// How far a scan came without anything in its way.
struct Stretch {
    /// One past the last byte that was looked through.
    upto: u64,
    /// The transaction that is open there.
    open: Option<Transaction>,
    result: Result<()>,
}

async fn stretch(
    archive: &Archive,
    chunks: &Arc<FileChunks>,
    range: ByteRange,
    mut walk: TransactionWalk,
    search: &mut Search,
    options: &ReadOptions,
) -> Stretch {
    let mut reader = archive.read_range(Arc::clone(chunks), range, options);
    let mut upto = range.start();
    let result = loop {
        let block = match reader.next().await {
            Ok(Some(block)) => block,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        let fed = walk.feed(&block.bytes, &mut |step| {
            search.take(&step);
            Ok(())
        });
        if let Err(error) = fed.context(|| format!("search {} of {}", chunks.incarnation, chunks.server)) {
            break Err(error);
        }
        upto = block.offset.saturating_add(block.bytes.len() as u64);
    };
    Stretch { upto, open: walk.finish(), result }
}

/// The first chunk behind `damaged` that begins with a transaction, by what its header says.
async fn next_beginning(
    archive: &Archive,
    chunks: &FileChunks,
    damaged: u64,
    end: u64,
) -> Option<(u64, ChecksumAlgorithm)> {
    for piece in
        chunks.cover.contiguous().iter().filter(|piece| (damaged.saturating_add(1)..end).contains(&piece.take.start()))
    {
        let Ok(meta) = archive.meta(chunks.chunks.get(piece.index)?).await else { continue };
        if meta.start == piece.take.start() && !meta.starts_inside {
            return Some((meta.start, meta.checksum));
        }
    }
    None
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

impl Search {
    fn new(query: Arc<Query>, server: ServerUuid, file: Incarnation) -> Self {
        let large = query.large.unwrap_or(LARGE_BYTES);
        let (contents, found) = (ContentReader::new(), VecDeque::new());
        Self { query, large, server, file, contents, open: None, found }
    }

    /// The bytes that come next do not follow those before.
    fn forget(&mut self) {
        (self.contents, self.open) = (ContentReader::new(), None);
    }

    /// The answers, in the order asked for.
    fn into_found(mut self) -> VecDeque<Found> {
        if self.query.newest_first {
            self.found.make_contiguous().reverse();
        }
        self.found
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
