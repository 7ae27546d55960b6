//! One global transaction identifier.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ParseError;

/// The largest transaction number MySQL assigns: 2^63 - 2 (an interval's exclusive end may be one more).
pub const GNO_MAX: u64 = i64::MAX as u64 - 1;

/// The longest tag, in bytes.
const TAG_BYTES_MAX: usize = 32;

/// A GTID's tag (MySQL 8.3 and later): up to 32 of `a-z0-9_`, not beginning with a digit; empty for "no tag".
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tag(String);

impl Tag {
    /// No tag.
    pub const NONE: Tag = Tag(String::new());

    /// Takes a tag's text, in lower case as MySQL normalises it.
    ///
    /// # Errors
    /// If it is too long or has a character that no tag has.
    pub fn new(text: &str) -> Result<Self, ParseError> {
        let lower = text.to_ascii_lowercase();
        let fine = lower.len() <= TAG_BYTES_MAX
            && !lower.as_bytes().first().is_some_and(u8::is_ascii_digit)
            && lower.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if fine { Ok(Self(lower)) } else { Err(ParseError::new("GTID tag", text)) }
    }

    /// The text; empty for no tag.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether there is no tag.
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }
}

/// The source of a transaction: the uuid it originates from, with a tag or without.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sid {
    /// The originating server's uuid.
    pub uuid: Uuid,
    /// The tag, if any.
    pub tag: Tag,
}

/// `uuid` or `uuid:tag`
impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uuid.as_hyphenated().fmt(f)?;
        if self.tag.is_none() { Ok(()) } else { write!(f, ":{}", self.tag.as_str()) }
    }
}

/// One transaction: `uuid[:tag]:number`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gtid {
    /// Where it originates.
    pub sid: Sid,
    /// Its number, from 1 to [`GNO_MAX`].
    pub gno: u64,
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.sid, self.gno)
    }
}

impl FromStr for Gtid {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = || ParseError::new("GTID (uuid:number or uuid:tag:number)", text);
        let mut parts = text.trim().split(':').map(str::trim);
        let uuid = parts.next().filter(|u| u.len() == 36).and_then(|u| Uuid::parse_str(u).ok()).ok_or_else(wrong)?;
        let second = parts.next().ok_or_else(wrong)?;
        let (tag, number) = match parts.next() {
            Some(number) => (Tag::new(second)?, number),
            None => (Tag::NONE, second),
        };
        let gno = number.parse().ok().filter(|gno| (1..=GNO_MAX).contains(gno)).ok_or_else(wrong)?;
        if parts.next().is_some() {
            return Err(wrong());
        }
        Ok(Self { sid: Sid { uuid, tag }, gno })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    #[test]
    fn gtids_parse_back() {
        for text in [format!("{UUID}:23"), format!("{UUID}:nightly_2:9223372036854775806")] {
            assert_eq!(text.parse::<Gtid>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_gtid_is_refused() {
        let tails = ["", ":", ":0", ":x:0", ":1:2:3", ":9223372036854775807", ":a b:1", ":-1"];
        for bad in tails.map(|tail| format!("{UUID}{tail}")) {
            assert!(bad.parse::<Gtid>().is_err(), "{bad}");
        }
        assert!("3e11:1".parse::<Gtid>().is_err());
    }
}
