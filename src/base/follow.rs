//! A backup's coordinates held against the binlog itself, which is read once more for it.
//!
//! Proves: that the position is the end of a transaction, in which incarnation of the file, and which set of GTIDs was
//! executed there. Watches, from there on, for what a dump does not notice: changes of definitions, and XA transactions
//! that were prepared before the position and end behind it (their rows are neither in the dump nor behind it).

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::statement::{Meaning, TableName, is_innodbs, judge, mapped_table, names_table, query_text};
use crate::clock;
use crate::error::{Context, Error, Kind, Result};
use crate::mysql::dump::{DumpItem, DumpReader, EventPart};
use crate::mysql::event::{
    CHECKSUM_BYTES, FIRST_EVENT, FormatDescription, GtidEvent, HEADER_BYTES, Rotate, artificial_body, types,
};
use crate::mysql::replica::{DumpRequest, start_dump};
use crate::mysql::stream::Stream;
use crate::mysql::{Connection, SourceOptions};
use crate::position::{BinlogFile, ChecksumAlgorithm, Gtid, GtidSet, Position, decode_set};

/// Event type: a whole transaction, compressed.
const TRANSACTION_PAYLOAD: u8 = 40;
/// Event type: the table that the rows behind it are of.
const TABLE_MAP: u8 = 19;
/// Silence after which the server counts as gone; it sends a heartbeat every few seconds.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// What is kept of a statement, in bytes.
const STATEMENT_BYTES: usize = 16 << 10;
/// Largest PREVIOUS_GTIDS event taken, in bytes.
const SET_BYTES: usize = 64 << 20;
/// XA transactions remembered at a time.
const XA_MAX: usize = 100_000;

/// What is known of a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Header timestamp of the file's format description event.
    pub(super) created_s: u32,
    /// What the file says was executed before the position.
    pub(super) executed: GtidSet,
    /// What of it is of this file and left no trace in InnoDB, see [`is_innodbs`]. The GTIDs of former files' transactions are in a
    /// table: the server writes them there when it begins another file.
    pub(super) unrecorded: GtidSet,
}

/// Reads a server's binlog from the start of a file.
pub(super) struct Follower {
    stream: Stream,
    reader: DumpReader,
    walk: Walk,
}

/// What has been seen. Pure.
struct Walk {
    file: BinlogFile,
    offset: u64,
    created_s: Option<u32>,
    checksum: ChecksumAlgorithm,
    executed: GtidSet,
    unrecorded: GtidSet,
    /// Where `undecided` begins, and the transactions that end behind it.
    since: Option<Position>,
    undecided: GtidSet,
    /// The transaction being read: its GTID, and where it ends, where the server tells.
    open: Option<(Option<Gtid>, Option<u64>)>,
    /// Whether InnoDB has committed or prepared it.
    is_innodbs: bool,
    /// The beginning of the event being read, if it is of interest.
    kept: Vec<u8>,
    /// Whether statements are judged: from the backup's position on.
    judging: bool,
    started: BTreeSet<String>,
    /// Tables that are not read as of the backup's position: writing them spoils it.
    fragile: BTreeSet<TableName>,
    spoiler: Option<String>,
}

impl Follower {
    /// Begins with a file's first event.
    ///
    /// # Errors
    /// Those of the connection; [`Kind::Purged`] if the server no longer has the file.
    pub(super) async fn open(source: &SourceOptions, file: &BinlogFile) -> Result<Self> {
        let connection = Connection::connect(source, "binvault-base").await?;
        let request = DumpRequest::unknown(file);
        let raw = start_dump(connection, &request).await.context(|| format!("read the server's {file}"))?;
        let reader = DumpReader::new(&raw.leftover)?;
        Ok(Self { stream: raw.stream, reader, walk: Walk::new(file.clone()) })
    }

    /// Reads up to a position in the first file and tells what is known of it. From `since` on, transactions are noted.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if no transaction ends there.
    pub(super) async fn place(&mut self, position: u64, since: Option<&Position>) -> Result<Place> {
        self.walk.since = since.cloned();
        let wanted = Position { file: self.walk.file.clone(), offset: position };
        loop {
            match self.reader.next().context(|| format!("read the server's {}", wanted.file))? {
                Some(DumpItem::Part(part)) => self.walk.take(&part)?,
                Some(DumpItem::End) => return Err(ended()),
                None => self.receive().await?,
            }
            if self.walk.position() >= wanted {
                return self.walk.place_at(&wanted);
            }
        }
    }

    /// Reads on to `until`, the end of a transaction, and gives the transactions that were noted.
    ///
    /// # Errors
    /// Those of the connection.
    pub(super) async fn undecided(mut self, until: &Position) -> Result<GtidSet> {
        while self.walk.position() < *until {
            self.step().await?;
        }
        self.walk.close();
        Ok(self.walk.undecided)
    }

    /// From here on, writing one of these tables spoils the backup.
    pub(super) fn guard(&mut self, fragile: BTreeSet<TableName>) {
        self.walk.fragile = fragile;
    }

    /// Reads on up to `until`, or to something that spoils the backup.
    ///
    /// # Errors
    /// Those of the connection.
    pub(super) async fn read_until(&mut self, until: &Position) -> Result<Option<&str>> {
        while self.walk.position() < *until && self.walk.spoiler.is_none() {
            self.step().await?;
        }
        Ok(self.walk.spoiler.as_deref())
    }

    /// Takes what has come, or waits for more. Safe to cancel.
    pub(super) async fn step(&mut self) -> Result<()> {
        match self.reader.next().context(|| "read the server's binlog".into())? {
            Some(DumpItem::Part(part)) => self.walk.take(&part),
            Some(DumpItem::End) => Err(ended()),
            None => self.receive().await,
        }
    }

    /// What has spoiled the backup, if something has.
    pub(super) fn spoiler(&self) -> Option<&str> {
        self.walk.spoiler.as_deref()
    }

    /// XA transactions that have begun behind the backup's position.
    pub(super) fn xa_started(&self) -> &BTreeSet<String> {
        &self.walk.started
    }

    async fn receive(&mut self) -> Result<()> {
        let lost = |why: &str| Error::new(Kind::Unreachable, format!("read the server's binlog: {why}"));
        match clock::with_timeout(SILENCE_MAX, self.stream.read(self.reader.space())).await {
            None => Err(lost("nothing comes, not even a heartbeat")),
            Some(Ok(0)) => Err(lost("the server closed the connection")),
            Some(Ok(bytes)) => {
                self.reader.filled(bytes);
                Ok(())
            }
            Some(Err(error)) => Err(lost("the connection broke").source(error)),
        }
    }
}

fn ended() -> Error {
    Error::new(Kind::Unreachable, "the server ended the stream (shutdown, or the thread was killed)")
}

impl Walk {
    fn new(file: BinlogFile) -> Self {
        Self {
            file,
            offset: FIRST_EVENT,
            created_s: None,
            checksum: ChecksumAlgorithm::None,
            executed: GtidSet::new(),
            unrecorded: GtidSet::new(),
            since: None,
            undecided: GtidSet::new(),
            open: None,
            is_innodbs: false,
            kept: Vec::new(),
            judging: false,
            started: BTreeSet::new(),
            fragile: BTreeSet::new(),
            spoiler: None,
        }
    }

    fn position(&self) -> Position {
        Position { file: self.file.clone(), offset: self.offset }
    }

    /// Ends the first part of the reading: from here on statements are judged.
    fn place_at(&mut self, wanted: &Position) -> Result<Place> {
        let wrong = |why: &str| {
            Err(Error::corrupt(format!("the backup is said to stand at {wanted}, but there {why}"))
                .hint("the tool told a wrong position, or the server's binlogs were reset meanwhile"))
        };
        if self.position() != *wanted {
            return wrong("no event ends in the server's file");
        }
        if self.open.as_ref().is_some_and(|(_, end)| end.is_some_and(|end| end > self.offset)) {
            return wrong("a transaction is open in the server's file");
        }
        let Some(created_s) = self.created_s else { return wrong("the file has not begun") };
        self.close();
        self.judging = true;
        Ok(Place { created_s, executed: self.executed.clone(), unrecorded: std::mem::take(&mut self.unrecorded) })
    }

    /// The transaction before here has ended.
    fn close(&mut self) {
        let is_innodbs = std::mem::take(&mut self.is_innodbs);
        if let Some((Some(gtid), _)) = self.open.take() {
            self.executed.add(&gtid);
            if !is_innodbs && !self.judging {
                self.unrecorded.add(&gtid);
            }
            if self.since.as_ref().is_some_and(|since| self.position() > *since) {
                self.undecided.add(&gtid);
            }
        }
    }

    fn take(&mut self, part: &EventPart<'_>) -> Result<()> {
        let header = &part.header;
        if header.is_heartbeat() {
            return Ok(());
        }
        if header.is_artificial_rotate() {
            let rotate = Rotate::parse(artificial_body(part.bytes))?;
            if rotate.file != self.file {
                self.close();
                (self.file, self.offset) = (rotate.file, FIRST_EVENT);
            }
            return Ok(());
        }
        if part.first {
            self.kept.clear();
        }
        let keep = match header.kind {
            types::FORMAT_DESCRIPTION | types::PREVIOUS_GTIDS => SET_BYTES,
            types::GTID | types::TAGGED_GTID | types::ANONYMOUS_GTID => STATEMENT_BYTES,
            types::QUERY => STATEMENT_BYTES,
            TABLE_MAP if self.judging && !self.fragile.is_empty() => STATEMENT_BYTES,
            _ => 0,
        };
        let room = keep.saturating_sub(self.kept.len()).min(part.bytes.len());
        self.kept.extend_from_slice(part.bytes.get(..room).unwrap_or(&[]));
        if part.last {
            let event = std::mem::take(&mut self.kept);
            self.look(header.kind, &event, part)?;
            self.kept = event;
            self.offset = self.offset.saturating_add(u64::from(header.length));
        }
        Ok(())
    }

    /// Looks into a whole event (or the beginning of a long statement).
    fn look(&mut self, kind: u8, event: &[u8], part: &EventPart<'_>) -> Result<()> {
        let whole = u32::try_from(event.len()).ok() == Some(part.header.length);
        let tail = if whole && self.checksum == ChecksumAlgorithm::Crc32 { CHECKSUM_BYTES } else { 0 };
        let body = event.get(HEADER_BYTES..event.len().saturating_sub(tail)).unwrap_or(&[]);
        match kind {
            types::FORMAT_DESCRIPTION => {
                let format = FormatDescription::parse(event)?;
                self.checksum = format.checksum;
                self.created_s.get_or_insert(format.timestamp_s);
            }
            types::PREVIOUS_GTIDS if !self.judging && whole => {
                let previous =
                    decode_set(body).map_err(|error| Error::corrupt("PREVIOUS_GTIDS event").source(error))?;
                self.executed.union_with(&previous);
            }
            types::GTID | types::TAGGED_GTID | types::ANONYMOUS_GTID => {
                self.close();
                let event = GtidEvent::parse(&part.header, body)?;
                let end = event.transaction_bytes.and_then(|bytes| self.offset.checked_add(bytes));
                self.open = Some((event.gtid, end));
            }
            types::QUERY if !self.judging => self.is_innodbs |= is_innodbs(body),
            // What is compressed ends with InnoDB's commit, if it is not of another engine.
            types::XID | types::XA_PREPARE | TRANSACTION_PAYLOAD => self.is_innodbs = true,
            types::QUERY => {
                if let Some(text) = query_text(body) {
                    self.judge(text);
                    let named = self.fragile.iter().find(|(_, table)| names_table(text, table)).cloned();
                    self.written(named);
                }
            }
            TABLE_MAP if self.judging => {
                let named = mapped_table(body).filter(|table| self.fragile.contains(table));
                self.written(named);
            }
            _ => {}
        }
        Ok(())
    }

    fn written(&mut self, table: Option<TableName>) {
        if let Some((schema, table)) = table {
            let at = self.position();
            self.spoiler.get_or_insert_with(|| {
                format!("{schema}.{table}, whose engine knows no snapshots, was written at {at} while the dump ran")
            });
        }
    }

    fn judge(&mut self, text: &[u8]) {
        match judge(text) {
            Meaning::Harmless => {}
            Meaning::Spoils(words) => {
                let at = self.position();
                self.spoiler
                    .get_or_insert_with(|| format!("a definition was changed while the dump ran: {words} at {at}"));
            }
            Meaning::XaStart(xid) if self.started.len() < XA_MAX => drop(self.started.insert(xid)),
            Meaning::XaStart(_) => {}
            Meaning::XaEnd(xid) => {
                if !self.started.remove(&xid) && self.started.len() < XA_MAX {
                    self.spoiler.get_or_insert_with(|| open_xa(&xid));
                }
            }
        }
    }
}

/// What is wrong when an XA transaction was prepared at the backup's position.
pub(super) fn open_xa(xid: &str) -> String {
    format!("the XA transaction {xid} was prepared, but not committed, when the dump began")
}
