//! `find`: which transactions did this? The archive's chunks are opened and looked through, in parallel, in order.
//!
//! Owns: the question ([`Query`]), which chunks can hold an answer, the answer ([`Found`]), and the target of a restore
//! to just before it.
//! Does not own: reading and opening chunks (`archive`), splitting and reading events (`mysql`), how answers look (`cli`).
//!
//! Invariants: answers come in the order of the stream, whatever was read first; a transaction that spans chunks is one;
//! only chunks that may hold an answer are opened; memory is bounded by the segments at work and the limit, not by the
//! archive or a transaction; what could not be searched is told.

mod choose;
mod kind;
mod narrow;
mod pattern;
mod scan;
mod summary;

use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use serde::Serialize;
use tokio_util::task::AbortOnDropHandle;

use self::choose::{FileChoice, Segment};
use crate::archive::{Archive, ReadOptions};
use crate::error::{self, Error, Result};
use crate::position::{BinlogFile, CommitTime, Gtid, GtidSet, Incarnation, ServerUuid};

pub use kind::{Kind, Kinds};
pub use pattern::TablePattern;

/// What counts as large where no size is given, in bytes of binlog.
pub const LARGE_BYTES: u64 = 16 << 20;
/// Most transactions that one call may be asked for.
pub const LIMIT_MAX: usize = 100_000;
/// Segments scanned at a time: a few more than most machines that search have cores to spare.
const SEGMENTS_AT_A_TIME: usize = 4;
/// Chunks of each being fetched and opened.
const CHUNKS_AT_A_TIME: usize = 2;
/// Files whose chunks are listed ahead.
const FILES_AHEAD: usize = 4;

/// What to look for. All that is given must hold.
#[derive(Debug, Clone)]
pub struct Query {
    /// Only this server's binlog.
    pub server: Option<ServerUuid>,
    /// Only these files; empty: all.
    pub files: Vec<BinlogFile>,
    /// Only transactions committed at this time or later.
    pub from: Option<CommitTime>,
    /// Only transactions committed at this time or before.
    pub to: Option<CommitTime>,
    /// Only these.
    pub gtids: Option<GtidSet>,
    /// Only those that name one of these tables; empty: all.
    pub tables: Vec<TablePattern>,
    /// Only those of one of these kinds; empty: all.
    pub kinds: Kinds,
    /// Only those of at least so many bytes; also what [`Kind::Large`] means, [`LARGE_BYTES`] if not given.
    pub large: Option<u64>,
    /// No more than so many, 1 to [`LIMIT_MAX`].
    pub limit: usize,
    /// The newest first, instead of the oldest.
    pub newest_first: bool,
}

impl Default for Query {
    fn default() -> Self {
        Self {
            server: None,
            files: Vec::new(),
            from: None,
            to: None,
            gtids: None,
            tables: Vec::new(),
            kinds: Kinds::default(),
            large: None,
            limit: 1000,
            newest_first: false,
        }
    }
}

/// A transaction that was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// The server whose binlog it stands in.
    pub server: ServerUuid,
    /// The file.
    pub file: Incarnation,
    /// Offset of its first event.
    pub start: u64,
    /// One past its last byte.
    pub end: u64,
    /// Its GTID; `None` if it is anonymous.
    pub gtid: Option<Gtid>,
    /// When that server committed it.
    pub commit: CommitTime,
    /// Whether its end is archived.
    pub complete: bool,
    /// What it is.
    pub kinds: Kinds,
    /// The tables and databases it names, in the order they came; not all, if they are very many.
    pub tables: Vec<TableRows>,
    /// Further tables, at least.
    pub more_tables: u64,
    /// Rows inserted, in row format.
    pub inserted: u64,
    /// Rows updated.
    pub updated: u64,
    /// Rows deleted.
    pub deleted: u64,
    /// Whether the counts of rows are exact; else there may be more.
    pub rows_exact: bool,
    /// Statements, without BEGIN, COMMIT and their like.
    pub statements: u64,
    /// The first of them, or what the client gave for its rows if the server writes that down.
    pub statement: Option<String>,
    /// Whether that is only its beginning.
    pub statement_cut: bool,
    /// Whether the server compressed it.
    pub compressed: bool,
    /// Events in it that this program cannot read.
    pub unread_events: u64,
}

/// What happened to one table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TableRows {
    /// Its database.
    pub schema: String,
    /// Its name; `None` means the whole database.
    pub table: Option<String>,
    /// Rows inserted.
    pub inserted: u64,
    /// Rows updated.
    pub updated: u64,
    /// Rows deleted.
    pub deleted: u64,
}

impl Found {
    /// Its bytes in the binlog.
    pub fn bytes(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// How `restore --to` names it: `gtid:UUID:N`, or `FILE:POSITION` where there is no GTID.
    pub fn target(&self) -> String {
        match &self.gtid {
            Some(gtid) => format!("gtid:{gtid}"),
            None => format!("{}:{}", self.file.file, self.start),
        }
    }
}

/// Bytes that were not searched although an answer may be in them.
#[derive(Debug, Clone, Serialize)]
pub struct NotSearched {
    /// The server.
    pub server: ServerUuid,
    /// The file.
    pub file: BinlogFile,
    /// First byte.
    pub from: u64,
    /// One past the last byte.
    pub to: u64,
    /// Why.
    pub why: String,
}

/// How the search went.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Transactions found.
    pub found: usize,
    /// Servers that the archive has binlogs of, searched or not.
    pub servers: usize,
    /// There may be more: the limit was reached.
    pub limited: bool,
    /// Raw bytes looked through.
    pub scanned_bytes: u64,
    /// What stood in the way.
    pub not_searched: Vec<NotSearched>,
    /// The first error, if one kept something from being searched; holes in the archive are none.
    pub error: Option<Error>,
}

/// Told of the search as it goes.
pub trait Observer {
    /// So many more raw bytes will be looked through.
    fn planned(&mut self, bytes: u64);
    /// So many of them were.
    fn scanned(&mut self, bytes: u64);
    /// The next transaction.
    fn found(&mut self, found: Found);
}

/// Searches the archive.
///
/// # Errors
/// [`error::Kind::Config`] if a named file or server is not in the archive, [`error::Kind::Key`] if no key opens it,
/// whatever keeps the archive from being listed. A chunk that is damaged or lost ends nothing: see [`Outcome`].
pub async fn find(
    archive: &Archive,
    query: &Query,
    options: &ReadOptions,
    observer: &mut impl Observer,
) -> Result<Outcome> {
    let query = Arc::new(query.clone());
    let servers = archive.servers().await?;
    let files = choose::files(archive, &servers, &query).await?;
    let options = ReadOptions { chunks_at_a_time: CHUNKS_AT_A_TIME, ..options.clone() };
    let mut outcome = Outcome { servers: servers.len(), ..Outcome::default() };
    let plans = stream::iter(files).map(|file| choose::segments(archive, file, &query)).buffered(FILES_AHEAD);
    // Holes and errors of the plan travel in the same line, so that everything is told in its place.
    let items = plans.flat_map(|plan| stream::iter(items(plan)));
    let mut work = Box::pin(
        items
            .map(|item| {
                let (query, options) = (Arc::clone(&query), options.clone());
                async move {
                    match item {
                        Item::Segment(segment) => {
                            let scan = scan::scan(archive.clone(), segment, query, options);
                            let scan = AbortOnDropHandle::new(tokio::spawn(scan));
                            scan.await
                                .map(Done::Scanned)
                                .unwrap_or_else(|panic| Done::Failed(Error::failed("a scan broke down").source(panic)))
                        }
                        Item::Planned(bytes) => Done::Planned(bytes),
                        Item::NotSearched(missing) => Done::NotSearched(missing),
                        Item::Failed(error) => Done::Failed(error),
                    }
                }
            })
            .buffered(SEGMENTS_AT_A_TIME),
    );
    while let Some(done) = work.next().await {
        match done {
            Done::Planned(bytes) => observer.planned(bytes),
            Done::NotSearched(missing) => outcome.not_searched.push(missing),
            Done::Failed(error) => return Err(error),
            Done::Scanned(scanned) => {
                outcome.scanned_bytes = outcome.scanned_bytes.saturating_add(scanned.bytes);
                observer.scanned(scanned.bytes);
                outcome.not_searched.extend(scanned.not_searched);
                if let Some(error) = scanned.error {
                    // The next chunk would say the same.
                    if error.kind() == error::Kind::Key {
                        return Err(error);
                    }
                    outcome.error.get_or_insert(error);
                }
                for found in scanned.found {
                    if outcome.found == query.limit {
                        outcome.limited = true;
                        return Ok(outcome);
                    }
                    outcome.found = outcome.found.saturating_add(1);
                    observer.found(found);
                }
            }
        }
    }
    Ok(outcome)
}

/// What the line of work consists of.
enum Item {
    Planned(u64),
    Segment(Segment),
    NotSearched(NotSearched),
    Failed(Error),
}

/// What comes out of it.
enum Done {
    Planned(u64),
    Scanned(scan::Scanned),
    NotSearched(NotSearched),
    Failed(Error),
}

fn items(plan: Result<FileChoice>) -> Vec<Item> {
    match plan {
        Ok(plan) => {
            let planned = plan.segments.iter().fold(0, |sum: u64, segment| sum.saturating_add(segment.range.len()));
            let missing = plan.not_searched.into_iter().map(Item::NotSearched);
            let segments = plan.segments.into_iter().map(Item::Segment);
            std::iter::once(Item::Planned(planned)).chain(missing).chain(segments).collect()
        }
        Err(error) => vec![Item::Failed(error)],
    }
}
