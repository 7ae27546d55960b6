//! Servers, binlog files, their incarnations, and offsets in them.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{ParseError, created_text, parse_created};

/// A MySQL server's `server_uuid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServerUuid(pub Uuid);

impl fmt::Display for ServerUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl FromStr for ServerUuid {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parsed = Uuid::parse_str(text).ok().map(Self);
        // One server has one folder: no other spelling is taken.
        parsed.filter(|server| server.to_string() == text).ok_or_else(|| ParseError::new("server uuid", text))
    }
}

/// The name of a binlog file, as in the server's index: `base.number`, without any folder.
///
/// Ordered by base name, then by number (999999 is followed by 1000000).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BinlogFile {
    name: String,
    number: u64,
}

/// Longest file name taken, in bytes: a chunk's object name has to fit around it.
const FILE_NAME_BYTES_MAX: usize = 255;

impl BinlogFile {
    /// Takes a bare file name.
    ///
    /// # Errors
    /// If it has a path separator or control character, or does not end in `.` and digits.
    pub fn new(name: &str) -> Result<Self, ParseError> {
        let wrong = || ParseError::new("binlog file name", name);
        let (base, digits) = name.rsplit_once('.').ok_or_else(wrong)?;
        let clean = !base.is_empty()
            && name.len() <= FILE_NAME_BYTES_MAX
            && !name.starts_with('.')
            && !name.chars().any(|c| c == '/' || c == '\\' || c.is_control());
        if !clean || digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        let number = digits.parse().map_err(|_| wrong())?;
        Ok(Self { name: name.to_owned(), number })
    }

    /// The name, `binlog.000042`.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The part before the number's dot, `binlog`.
    pub fn base(&self) -> &str {
        self.name.rsplit_once('.').map_or("", |(base, _)| base)
    }

    /// The number, 42.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether this file comes directly behind `earlier` by name and number.
    pub fn follows(&self, earlier: &BinlogFile) -> bool {
        self.base() == earlier.base() && earlier.number.checked_add(1) == Some(self.number)
    }
}

impl PartialOrd for BinlogFile {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for BinlogFile {
    fn cmp(&self, other: &Self) -> Ordering {
        self.base().cmp(other.base()).then(self.number.cmp(&other.number)).then_with(|| self.name.cmp(&other.name))
    }
}

impl fmt::Display for BinlogFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl FromStr for BinlogFile {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::new(text)
    }
}

impl TryFrom<String> for BinlogFile {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        Self::new(&text)
    }
}

impl From<BinlogFile> for String {
    fn from(file: BinlogFile) -> String {
        file.name
    }
}

/// One life of a file name on one server: the name and when its format description event says it was begun.
///
/// After RESET BINARY LOGS AND GTIDS the same name comes back with another time: another incarnation.
/// Ordered by the time, then by the file: the order in which a server wrote them, unless it was reset or its clock set back.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Incarnation {
    /// The file.
    pub file: BinlogFile,
    /// Header timestamp of its format description event: seconds since 1970, UTC.
    pub created_s: u32,
}

impl PartialOrd for Incarnation {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Incarnation {
    fn cmp(&self, other: &Self) -> Ordering {
        self.created_s.cmp(&other.created_s).then_with(|| self.file.cmp(&other.file))
    }
}

/// `binlog.000042.20261122T101530Z`
impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.file, created_text(self.created_s))
    }
}

impl FromStr for Incarnation {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = || ParseError::new("incarnation of a binlog file", text);
        let (file, created) = text.rsplit_once('.').ok_or_else(wrong)?;
        let created_s = parse_created(created).ok_or_else(wrong)?;
        Ok(Self { file: BinlogFile::new(file)?, created_s })
    }
}

/// A byte position in a server's binlog: the file and the offset of the next byte. Never wraps, unlike the 32 bits
/// in an event's header.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The file.
    pub file: BinlogFile,
    /// Offset in bytes from the file's start, magic included.
    pub offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.offset)
    }
}

impl FromStr for Position {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = || ParseError::new("position (file:offset)", text);
        let (file, offset) = text.rsplit_once(':').ok_or_else(wrong)?;
        Ok(Self { file: BinlogFile::new(file)?, offset: offset.parse().map_err(|_| wrong())? })
    }
}

/// How the events of a file are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChecksumAlgorithm {
    /// No checksum at the end of events.
    None,
    /// CRC32 over all bytes before it.
    #[default]
    Crc32,
}

/// Bytes `start..end` of a file; never inverted, may be empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ByteRange {
    start: u64,
    end: u64,
}

impl ByteRange {
    /// `start..end`, or `None` if it were inverted.
    pub fn new(start: u64, end: u64) -> Option<Self> {
        (start <= end).then_some(Self { start, end })
    }

    /// First byte.
    pub fn start(self) -> u64 {
        self.start
    }

    /// One past the last byte.
    pub fn end(self) -> u64 {
        self.end
    }

    /// Number of bytes.
    pub fn len(self) -> u64 {
        self.end - self.start
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_ordered_by_number() {
        let file = |name| BinlogFile::new(name).unwrap();
        assert!(file("binlog.999999") < file("binlog.1000000"));
        assert!(file("binlog.1000000").follows(&file("binlog.999999")));
        assert!(!file("other.1000000").follows(&file("binlog.999999")));
    }

    #[test]
    fn names_that_are_no_binlog_are_refused() {
        for bad in
            ["", "binlog", ".000001", "a/b.000001", "binlog.", "binlog.1x", "../x.1", "b\n.1", "..1", "x.\u{663}"]
        {
            assert!(BinlogFile::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_incarnation_parses_back() {
        let text = "my.db-bin.000042.20261122T101530Z";
        let parsed: Incarnation = text.parse().unwrap();
        assert_eq!(parsed.file.as_str(), "my.db-bin.000042");
        assert_eq!(parsed.to_string(), text);
        assert!("binlog.000001.20261322T101530Z".parse::<Incarnation>().is_err());
    }

    #[test]
    fn a_position_parses_back() {
        let position: Position = "binlog.000001:4294967300".parse().unwrap();
        assert_eq!(position.offset, 4_294_967_300);
        assert_eq!(position.to_string(), "binlog.000001:4294967300");
        assert!("binlog.000001".parse::<Position>().is_err());
    }
}
