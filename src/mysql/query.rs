//! Plain questions in the text protocol, their answers, and the other small commands.
//!
//! Owns: COM_QUERY, COM_PING, COM_QUIT, result sets with their bounds. Does not own: what to ask (`facts`, `replica`).
//!
//! The answer is put together by a pure state machine, which knows both ends of a result set: the EOF packet, and the
//! OK packet in its place that newer servers send (CLIENT_DEPRECATE_EOF).

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use mysql_common::constants::Command;

use crate::clock;
use crate::error::{Context, Error, Kind, Result};

use super::connect::Connection;
use super::fault::{ERR_HEADER, ServerError};
use super::packet::FRAME_BYTES_MAX;
use super::wire::Reader;

const COM_QUIT: u8 = Command::COM_QUIT as u8;
const COM_QUERY: u8 = Command::COM_QUERY as u8;
const COM_PING: u8 = Command::COM_PING as u8;

/// The most rows that an answer may have.
pub const ROWS_MAX: usize = 1_000_000;
/// The most bytes that the rows of an answer may have together.
pub const RESULT_BYTES_MAX: usize = 128 << 20;
/// The most columns; MySQL's own limit for a table.
const COLUMNS_MAX: u64 = 4096;

/// One row of a result, values as text.
#[derive(Debug, Clone)]
pub struct Row {
    columns: Arc<[String]>,
    data: Bytes,
    values: Vec<Option<Range<usize>>>,
}

impl Row {
    fn parse(columns: &Arc<[String]>, data: Bytes) -> Option<Self> {
        let mut reader = Reader(&data);
        let mut values = Vec::with_capacity(columns.len());
        for _ in 0..columns.len() {
            if let Some((0xfb, rest)) = reader.0.split_first() {
                reader = Reader(rest);
                values.push(None);
                continue;
            }
            let length = reader.lenenc_bytes()?.len();
            let end = data.len().checked_sub(reader.0.len())?;
            values.push(Some(end.checked_sub(length)?..end));
        }
        reader.is_empty().then(|| Self { columns: Arc::clone(columns), data, values })
    }

    /// The columns' names, in order.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The bytes of a column by its place; `None` if it is NULL or not there.
    pub fn bytes_at(&self, index: usize) -> Option<&[u8]> {
        self.data.get(self.values.get(index)?.clone()?)
    }

    /// A column by its place as text; `None` if it is NULL, not there, or not UTF-8.
    pub fn get_at(&self, index: usize) -> Option<&str> {
        std::str::from_utf8(self.bytes_at(index)?).ok()
    }

    /// The bytes of a column by its name, whatever the case of its letters; `None` if it is NULL or not there.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.bytes_at(self.columns.iter().position(|column| column.eq_ignore_ascii_case(name))?)
    }

    /// A column by its name as text; `None` if it is NULL, not there, or not UTF-8.
    pub fn get(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.bytes(name)?).ok()
    }
}

/// A whole answer.
#[derive(Debug, Default)]
struct Answer {
    rows: Vec<Row>,
    affected: u64,
}

/// Where in an answer we are.
#[derive(Debug)]
enum Stage {
    Head,
    Columns { missing: u64, names: Vec<String> },
    EofAfterColumns { names: Vec<String> },
    Rows { columns: Arc<[String]>, bytes: usize },
}

/// Why an answer cannot be taken. The first leaves the connection usable.
#[derive(Debug)]
enum Trouble {
    Server(ServerError),
    Malformed(&'static str),
    TooLarge,
}

/// Puts an answer together, packet by packet.
#[derive(Debug)]
struct Assembly {
    stage: Stage,
    deprecate_eof: bool,
    answer: Answer,
}

impl Assembly {
    fn new(deprecate_eof: bool) -> Self {
        Self { stage: Stage::Head, deprecate_eof, answer: Answer::default() }
    }

    /// Takes a packet; true when the answer is complete.
    fn push(&mut self, packet: Bytes) -> Result<bool, Trouble> {
        let first = *packet.first().ok_or(Trouble::Malformed("an empty packet in an answer"))?;
        if first == ERR_HEADER {
            return Err(Trouble::Server(ServerError::parse(&packet)));
        }
        match std::mem::replace(&mut self.stage, Stage::Head) {
            Stage::Head => self.head(first, &packet),
            Stage::Columns { missing, names } => self.column(missing, names, &packet),
            Stage::EofAfterColumns { names } => {
                if first != 0xfe || packet.len() >= 9 {
                    return Err(Trouble::Malformed("no end of the columns"));
                }
                self.stage = Stage::Rows { columns: names.into(), bytes: 0 };
                Ok(false)
            }
            Stage::Rows { columns, bytes } => self.row(columns, bytes, first, packet),
        }
    }

    fn head(&mut self, first: u8, packet: &Bytes) -> Result<bool, Trouble> {
        let mut reader = Reader(packet);
        match first {
            0x00 => {
                reader.u8();
                self.answer.affected = reader.lenenc().ok_or(Trouble::Malformed("a short OK packet"))?;
                Ok(true)
            }
            0xfb => Err(Trouble::Malformed("a request for a local file")),
            _ => {
                let missing = reader.lenenc().filter(|count| (1..=COLUMNS_MAX).contains(count));
                let missing = missing.ok_or(Trouble::Malformed("an impossible number of columns"))?;
                self.stage = Stage::Columns { missing, names: Vec::new() };
                Ok(false)
            }
        }
    }

    fn column(&mut self, missing: u64, mut names: Vec<String>, packet: &Bytes) -> Result<bool, Trouble> {
        let mut reader = Reader(packet);
        // Catalog, schema, table, original table; then the name.
        for _ in 0..4 {
            reader.lenenc_bytes();
        }
        let name = reader.lenenc_bytes().ok_or(Trouble::Malformed("a short column definition"))?;
        names.push(String::from_utf8_lossy(name).into_owned());
        self.stage = match missing.saturating_sub(1) {
            0 if self.deprecate_eof => Stage::Rows { columns: names.into(), bytes: 0 },
            0 => Stage::EofAfterColumns { names },
            missing => Stage::Columns { missing, names },
        };
        Ok(false)
    }

    fn row(&mut self, columns: Arc<[String]>, bytes: usize, first: u8, packet: Bytes) -> Result<bool, Trouble> {
        // A row may begin with 0xfe too, if its first value is 16 MiB or longer; then it is longer than any end.
        let end_below = if self.deprecate_eof { FRAME_BYTES_MAX } else { 9 };
        if first == 0xfe && packet.len() < end_below {
            return Ok(true);
        }
        let bytes = bytes.saturating_add(packet.len());
        if bytes > RESULT_BYTES_MAX || self.answer.rows.len() >= ROWS_MAX {
            return Err(Trouble::TooLarge);
        }
        self.answer
            .rows
            .push(Row::parse(&columns, packet).ok_or(Trouble::Malformed("a row that does not fit its columns"))?);
        self.stage = Stage::Rows { columns, bytes };
        Ok(false)
    }
}

/// Takes an answer's packets in turn, up to its end or to what is none: the door of `fuzzing`.
pub(crate) fn read_answer(packets: impl Iterator<Item = Bytes>, deprecate_eof: bool) {
    let mut assembly = Assembly::new(deprecate_eof);
    for packet in packets {
        if !matches!(assembly.push(packet), Ok(false)) {
            break;
        }
    }
}

impl Connection {
    /// Asks, and gives all rows of the answer. Statements without rows give none.
    ///
    /// # Errors
    /// [`Kind::Unreachable`] when the connection is lost or the time limit passes, [`Kind::Refused`] when a privilege
    /// lacks, otherwise [`Kind::Failed`]; the server's code is found with [`super::server_code`].
    pub async fn query(&mut self, sql: &str) -> Result<Vec<Row>> {
        Ok(self.ask(COM_QUERY, sql).await?.rows)
    }

    /// Runs a statement; gives the number of changed rows.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn execute(&mut self, sql: &str) -> Result<u64> {
        Ok(self.ask(COM_QUERY, sql).await?.affected)
    }

    /// Asks for a sign of life.
    ///
    /// # Errors
    /// [`Kind::Unreachable`] when there is none.
    pub async fn ping(&mut self) -> Result<()> {
        self.ask(COM_PING, "").await.map(drop)
    }

    /// Says good-bye; what goes wrong with that does not matter.
    pub async fn quit(mut self) {
        let _ = self.write_command(&[COM_QUIT]).await;
    }

    /// Sends any command whose answer is a plain OK (or a result) and waits for it.
    pub(super) async fn command(&mut self, payload: &[u8], what: &str) -> Result<()> {
        self.converse(payload, what).await.map(drop)
    }

    async fn ask(&mut self, command: u8, text: &str) -> Result<Answer> {
        let mut payload = Vec::with_capacity(text.len().saturating_add(1));
        payload.push(command);
        payload.extend_from_slice(text.as_bytes());
        let what = if command == COM_PING { "ping the server".to_owned() } else { format!("ask {:?}", shorten(text)) };
        self.converse(&payload, &what).await
    }

    async fn converse(&mut self, payload: &[u8], what: &str) -> Result<Answer> {
        self.start_command()?;
        let limit = self.options.query_timeout;
        let done = match clock::with_timeout(limit, self.exchange(payload)).await {
            Some(done) => done.context(|| what.to_owned())?,
            None => return Err(self.link.silent(limit).context(what)),
        };
        let address = &self.options.address;
        match done {
            Ok(answer) => {
                self.busy = false;
                Ok(answer)
            }
            Err(Trouble::Server(error)) => {
                self.busy = false;
                Err(error.into_error(format!("{what} ({address})")))
            }
            Err(Trouble::Malformed(why)) => {
                Err(Error::new(Kind::Unreachable, format!("{what}: {address} sends {why}")))
            }
            Err(Trouble::TooLarge) => Err(Error::failed(format!(
                "{what}: the answer of {address} exceeds {RESULT_BYTES_MAX} bytes or {ROWS_MAX} rows"
            ))
            .definite()
            .hint("this is not an answer that binvault expects; please report it")),
        }
    }

    async fn exchange(&mut self, payload: &[u8]) -> Result<Result<Answer, Trouble>> {
        self.link.send(payload).await?;
        let mut assembly = Assembly::new(self.deprecate_eof);
        loop {
            match assembly.push(self.link.receive().await?) {
                Ok(false) => {}
                Ok(true) => return Ok(Ok(assembly.answer)),
                Err(trouble) => return Ok(Err(trouble)),
            }
        }
    }
}

/// The start of a statement, for messages.
fn shorten(sql: &str) -> String {
    const SHOWN: usize = 100;
    let mut text: String = sql.chars().take(SHOWN).collect();
    if text.len() < sql.len() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_asks_for_a_file_of_ours_gets_none() {
        let asked = Assembly::new(true).push(Bytes::from_static(b"\xfb/etc/passwd"));
        assert!(matches!(asked, Err(Trouble::Malformed("a request for a local file"))), "{asked:?}");
    }
    use proptest::prelude::*;

    fn column(name: &str) -> Bytes {
        let mut bytes = b"\x03def\0\0\0".to_vec();
        bytes.push(u8::try_from(name.len()).unwrap());
        bytes.extend(name.as_bytes());
        bytes.extend([0, 0x0c, 45, 0, 0, 0, 0, 0, 0xfd, 0, 0, 0, 0, 0]);
        bytes.into()
    }

    fn assemble(deprecate_eof: bool, packets: &[Bytes]) -> Result<Answer, Trouble> {
        let mut assembly = Assembly::new(deprecate_eof);
        for (index, packet) in packets.iter().enumerate() {
            if assembly.push(packet.clone())? {
                assert_eq!(index + 1, packets.len(), "the answer ended early");
                return Ok(assembly.answer);
            }
        }
        panic!("the answer did not end");
    }

    #[test]
    fn a_result_ends_in_both_ways() {
        let eof = Bytes::from_static(b"\xfe\0\0\x02\0");
        let row = Bytes::from_static(b"\x01a\xfb");
        let old = [Bytes::from_static(&[2]), column("x"), column("Y"), eof.clone(), row.clone(), eof.clone()];
        let ok = Bytes::from_static(b"\xfe\0\0\x02\0\0\0\x0asome words");
        let new = [Bytes::from_static(&[2]), column("x"), column("Y"), row, ok];
        for answer in [assemble(false, &old).unwrap(), assemble(true, &new).unwrap()] {
            let [row] = &answer.rows[..] else { panic!("{answer:?}") };
            assert_eq!((row.get("X"), row.get("y"), row.get("z")), (Some("a"), None, None));
            assert_eq!((row.get_at(0), row.get_at(1), row.bytes_at(9)), (Some("a"), None, None));
        }
    }

    #[test]
    fn a_row_that_begins_like_an_end_is_a_row() {
        let length = FRAME_BYTES_MAX + 1;
        let mut row = vec![0xfe];
        row.extend((length as u64).to_le_bytes());
        row.resize(row.len() + length, b'v');
        for deprecate_eof in [false, true] {
            let mut packets = vec![Bytes::from_static(&[1]), column("v")];
            let eof = Bytes::from_static(b"\xfe\0\0\x02\0\0\0");
            if !deprecate_eof {
                packets.push(eof.clone());
            }
            packets.extend([row.clone().into(), eof]);
            assert_eq!(assemble(deprecate_eof, &packets).unwrap().rows[0].bytes_at(0).unwrap().len(), length);
        }
    }

    #[test]
    fn an_error_may_come_at_the_head_or_among_the_rows() {
        let error = Bytes::from_static(b"\xff\x28\x04#42000bad");
        let late = [Bytes::from_static(&[1]), column("x"), Bytes::from_static(b"\x01a"), error.clone()];
        for packets in [&[error][..], &late] {
            assert!(matches!(assemble(true, packets), Err(Trouble::Server(ServerError { code: 1064, .. }))));
        }
    }

    #[test]
    fn rows_are_counted_against_the_limit() {
        let mut assembly = Assembly::new(true);
        assembly.push(Bytes::from_static(&[1])).unwrap();
        assembly.push(column("x")).unwrap();
        for _ in 0..ROWS_MAX {
            assembly.push(Bytes::from_static(b"\x01a")).unwrap();
        }
        assert!(matches!(assembly.push(Bytes::from_static(b"\x01a")), Err(Trouble::TooLarge)));
    }

    proptest! {
        #[test]
        fn noise_never_panics(
            packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20),
            deprecate_eof: bool,
        ) {
            let mut assembly = Assembly::new(deprecate_eof);
            for packet in packets {
                if assembly.push(packet.into()).is_err() {
                    break;
                }
            }
        }
    }
}
