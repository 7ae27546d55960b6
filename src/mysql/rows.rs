//! What a transaction does: its statements, its tables, how many rows it changes. Pure.
//!
//! Owns: reading the bodies of statement, table and row events, as far as one must to say who did what to which table,
//! also inside compressed payloads.
//! Does not own: splitting the file ([`super::walk`]), values of rows.
//!
//! Invariants: nothing panics on any input; what cannot be read is counted, never fatal (the bytes were checked by their
//! CRC32, they may simply be newer than this program); at most [`HELD_BYTES_MAX`] of one event and
//! [`TABLES_MAX`] tables are held, however large the transaction is.

mod image;
mod payload;
mod query;
mod statement;
mod table_map;
#[cfg(test)]
mod tests;
mod tokens;

use std::collections::HashMap;

use self::image::RowsEvent;
use self::payload::Payload;
use super::event::types;
use super::walk::{EventSplitter, WalkedPart};

pub use image::RowAction;
pub use query::{Query, text};
pub use statement::{Action, Named, Statement};
pub use table_map::TableMap;

/// Largest event of a statement, table or rows that is looked into whole, in bytes.
pub const HELD_BYTES_MAX: usize = 16 << 20;
/// Most tables remembered between statements.
pub const TABLES_MAX: usize = 4096;
/// Bytes of TABLE_MAP events kept with them; one more may come on top.
const KNOWN_BYTES_MAX: usize = 16 << 20;
/// Capacity that is kept from one held event to the next, in bytes.
const KEPT_BYTES: usize = 1 << 20;

const TABLE_MAP: u8 = 19;
const EXECUTE_LOAD_QUERY: u8 = 18;
const ROWS_QUERY: u8 = 29;
const TRANSACTION_PAYLOAD: u8 = 40;

/// One thing that a transaction does.
#[derive(Debug)]
pub enum Content<'a> {
    /// A statement: DDL, BEGIN, COMMIT, and everything in statement format.
    Query(Query<'a>),
    /// LOAD DATA in statement format.
    Load(Query<'a>),
    /// The statement that the client gave for the row events behind it.
    Original(&'a [u8]),
    /// Row events for a table come.
    Table(&'a TableMap),
    /// Some rows of a table, which is unknown if its map was not seen.
    Rows {
        /// The table.
        table: Option<&'a TableMap>,
        /// What was done.
        action: RowAction,
        /// To how many rows.
        rows: u64,
        /// Whether `rows` is exact; else there may be more (an event too large, or a type unknown).
        exact: bool,
    },
    /// The transaction is compressed; what is inside follows.
    Payload,
    /// The end of an XA transaction's first phase.
    XaPrepare,
    /// An event of a type that this program does not know, or that it cannot read.
    Unread(u8),
}

/// Reads the parts of a file's events. One for a whole scan: tables are remembered.
#[derive(Debug, Default)]
pub struct ContentReader {
    events: Events,
    payload: Option<(Payload, EventSplitter)>,
}

/// Events, outside or inside of a payload.
#[derive(Debug, Default)]
struct Events {
    tables: HashMap<u64, Known>,
    /// Bytes of the events kept with them.
    known_bytes: usize,
    /// An event being put together.
    held: Vec<u8>,
    /// Whether the open event is put together.
    holding: bool,
}

/// A table and the event that told of it: repeated for each statement, parsed once.
#[derive(Debug)]
struct Known {
    body: Vec<u8>,
    table: TableMap,
}

impl ContentReader {
    /// A reader that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next part of a file's events.
    pub fn take(&mut self, part: &WalkedPart<'_>, sink: &mut impl FnMut(Content<'_>)) {
        if part.header.kind != TRANSACTION_PAYLOAD {
            return self.events.take(part, sink);
        }
        let mut bytes = part.body();
        if part.first {
            self.payload = None;
            match Payload::begin(bytes) {
                Some((payload, rest)) => {
                    sink(Content::Payload);
                    self.payload = Some((payload, EventSplitter::in_payload()));
                    bytes = rest;
                }
                None => sink(Content::Unread(TRANSACTION_PAYLOAD)),
            }
        }
        let Some((payload, splitter)) = self.payload.as_mut() else { return };
        let events = &mut self.events;
        let fed = payload.feed(bytes, &mut |unpacked| {
            let inner = splitter.feed(unpacked, &mut |part| {
                events.take(&part, sink);
                Ok(())
            });
            inner.ok()
        });
        let broken = fed.is_none() || (part.last && !(payload.is_whole() && splitter.is_between_events()));
        if broken {
            sink(Content::Unread(TRANSACTION_PAYLOAD));
        }
        if broken || part.last {
            self.payload = None;
        }
    }
}

impl Events {
    fn take(&mut self, part: &WalkedPart<'_>, sink: &mut impl FnMut(Content<'_>)) {
        let kind = part.header.kind;
        if part.first && part.last {
            return self.read(kind, part.body(), true, sink);
        }
        if !is_read(kind) {
            if part.first {
                self.read(kind, &[], false, sink);
            }
            return;
        }
        let length = usize::try_from(part.header.length).unwrap_or(usize::MAX);
        if part.first {
            self.held.clear();
            self.holding = length <= HELD_BYTES_MAX;
            if !self.holding {
                // The beginning has the names; the rest is one large value or very many rows.
                return self.read(kind, part.body(), false, sink);
            }
        }
        if self.holding {
            self.held.extend_from_slice(part.body());
            if part.last {
                let held = std::mem::take(&mut self.held);
                let body = held.get(..held.len().saturating_sub(part.checksum_bytes)).unwrap_or(&[]);
                self.read(kind, body, true, sink);
                self.held = held;
                self.held.clear();
                self.held.shrink_to(KEPT_BYTES);
            }
        }
    }

    /// Reads an event's body, or (not `whole`) its beginning.
    fn read(&mut self, kind: u8, body: &[u8], whole: bool, sink: &mut impl FnMut(Content<'_>)) {
        match kind {
            types::QUERY | EXECUTE_LOAD_QUERY => {
                let load = kind == EXECUTE_LOAD_QUERY;
                match Query::parse(body, load, !whole) {
                    Some(query) if load => sink(Content::Load(query)),
                    Some(query) => sink(Content::Query(query)),
                    None => sink(Content::Unread(kind)),
                }
            }
            TABLE_MAP => self.table(body, sink),
            // A byte that once was the length, and is of no use.
            ROWS_QUERY => sink(Content::Original(body.get(1..).unwrap_or(&[]))),
            types::XA_PREPARE => sink(Content::XaPrepare),
            _ if image::action(kind).is_some() => self.rows(kind, body, whole, sink),
            _ if is_inert(kind) => {}
            _ => sink(Content::Unread(kind)),
        }
    }

    fn table(&mut self, body: &[u8], sink: &mut impl FnMut(Content<'_>)) {
        let id = super::wire::Reader(body).u48().unwrap_or(u64::MAX);
        if self.tables.get(&id).is_none_or(|known| known.body != body) {
            let Some(table) = TableMap::parse(body) else { return sink(Content::Unread(TABLE_MAP)) };
            if self.tables.len() >= TABLES_MAX || self.known_bytes >= KNOWN_BYTES_MAX {
                // Only ever needed by the statement they stand before, and that one has named too many.
                self.forget();
            }
            self.known_bytes = self.known_bytes.saturating_add(body.len());
            self.tables.insert(id, Known { body: body.to_vec(), table });
        }
        if let Some(known) = self.tables.get(&id) {
            sink(Content::Table(&known.table));
        }
    }

    fn rows(&mut self, kind: u8, body: &[u8], whole: bool, sink: &mut impl FnMut(Content<'_>)) {
        let (Some(action), Some(event)) = (image::action(kind), RowsEvent::parse(kind, body)) else {
            return sink(Content::Unread(kind));
        };
        let table = self.tables.get(&event.table_id).map(|known| &known.table);
        let counted = if whole { table.and_then(|table| event.count(table)) } else { None };
        // Without a table it may be the empty event that only ends a statement.
        let rows = counted.unwrap_or(u64::from(table.is_some()));
        sink(Content::Rows { table, action, rows, exact: counted.is_some() || table.is_none() && event.is_empty() });
        if event.ends_statement && (self.tables.len() >= TABLES_MAX / 2 || self.known_bytes >= KNOWN_BYTES_MAX / 2) {
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.tables.clear();
        self.known_bytes = 0;
    }
}

/// Events whose bodies are looked into.
fn is_read(kind: u8) -> bool {
    matches!(kind, types::QUERY | EXECUTE_LOAD_QUERY | TABLE_MAP | ROWS_QUERY) || image::action(kind).is_some()
}

/// Events that say nothing about what was changed: the control events, commits, the variables of statements (INTVAR 5,
/// RAND 13, USER_VAR 14), the blocks of LOAD DATA (9, 11, 17), IGNORABLE (28), group replication's own (36, 37).
fn is_inert(kind: u8) -> bool {
    use types::{ANONYMOUS_GTID, FORMAT_DESCRIPTION, GTID, PREVIOUS_GTIDS, ROTATE, STOP, TAGGED_GTID, XID};
    matches!(kind, FORMAT_DESCRIPTION | ROTATE | STOP | PREVIOUS_GTIDS | GTID | ANONYMOUS_GTID | TAGGED_GTID | XID)
        || matches!(kind, 5 | 9 | 11 | 13 | 14 | 17 | 28 | 36 | 37)
        || matches!(kind, types::HEARTBEAT | types::HEARTBEAT_V2)
}
