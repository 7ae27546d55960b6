//! Commit times in microseconds, and the compact UTC forms used in object names.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::ParseError;

/// When a transaction was committed: microseconds since 1970, UTC. Zero means "no commit is known".
///
/// MySQL 8.0 and later stamp it in the GTID event (`immediate_commit_timestamp`); before that only whole seconds of
/// the event header are to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommitTime(u64);

/// 9999-12-30T22:00:00Z: what jiff can show, and more than MySQL's 55 bits of microseconds ever mean.
const MICROS_MAX: u64 = 253_402_207_200_000_000;

impl CommitTime {
    /// No commit is known.
    pub const NONE: CommitTime = CommitTime(0);

    /// From microseconds since 1970; values that are no date are held at the last one that is.
    pub fn from_micros(micros: u64) -> Self {
        Self(micros.min(MICROS_MAX))
    }

    /// From whole seconds since 1970.
    pub fn from_seconds(seconds: u32) -> Self {
        Self(u64::from(seconds) * 1_000_000)
    }

    /// Microseconds since 1970.
    pub fn micros(self) -> u64 {
        self.0
    }

    /// Whether no commit is known.
    pub fn is_none(self) -> bool {
        self.0 == 0
    }

    /// As a timestamp for people's formats.
    pub fn timestamp(self) -> Timestamp {
        i64::try_from(self.0).ok().and_then(|us| Timestamp::from_microsecond(us).ok()).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// RFC 3339 in UTC with microseconds: `2026-11-22T10:15:30.123456Z`.
    pub fn rfc3339(self) -> String {
        self.timestamp().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
    }
}

/// `20261122T101530.123456Z`, the form in object names.
impl fmt::Display for CommitTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.timestamp().strftime("%Y%m%dT%H%M%S.%6fZ").fmt(f)
    }
}

impl FromStr for CommitTime {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = || ParseError::new("commit time (YYYYMMDDTHHMMSS.ffffffZ)", text);
        if text.len() != 23 || !text.is_ascii() {
            return Err(wrong());
        }
        let (seconds, fraction) = text.split_once('.').ok_or_else(wrong)?;
        let fraction = fraction.strip_suffix('Z').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
        let fraction: u64 = fraction.and_then(|digits| digits.parse().ok()).ok_or_else(wrong)?;
        let seconds = parse_compact(seconds).ok_or_else(wrong)?;
        let micros = seconds.checked_mul(1_000_000).and_then(|us| us.checked_add(fraction)).ok_or_else(wrong)?;
        Ok(Self::from_micros(micros))
    }
}

/// `20261122T101530` as seconds since 1970.
fn parse_compact(text: &str) -> Option<u64> {
    let plain =
        text.len() == 15 && text.bytes().enumerate().all(|(i, b)| if i == 8 { b == b'T' } else { b.is_ascii_digit() });
    if !plain {
        return None;
    }
    let civil = DateTime::strptime("%Y%m%dT%H%M%S", text).ok()?;
    // A leap second would be read as the one before it, and one value has one text.
    if text.ends_with("60") {
        return None;
    }
    let seconds = TimeZone::UTC.to_timestamp(civil).ok()?.as_second();
    u64::try_from(seconds).ok()
}

/// The `created` part of an incarnation, `20261122T101530Z`.
pub fn created_text(created_s: u32) -> String {
    let timestamp = Timestamp::from_second(i64::from(created_s)).unwrap_or(Timestamp::UNIX_EPOCH);
    timestamp.strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// Reads [`created_text`] back.
pub fn parse_created(text: &str) -> Option<u32> {
    u32::try_from(parse_compact(text.strip_suffix('Z')?)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_forms_are_as_documented() {
        let time = CommitTime::from_micros(1_795_342_530_123_456);
        assert_eq!(time.to_string(), "20261122T101530.123456Z");
        assert_eq!(time.rfc3339(), "2026-11-22T10:15:30.123456Z");
        assert_eq!(created_text(1_795_342_530), "20261122T101530Z");
        assert_eq!(CommitTime::NONE.to_string(), "19700101T000000.000000Z");
    }

    proptest! {
        #[test]
        fn commit_times_parse_back(micros in 0..=MICROS_MAX) {
            let time = CommitTime::from_micros(micros);
            prop_assert_eq!(time.to_string().parse::<CommitTime>().unwrap(), time);
        }

        #[test]
        fn created_times_parse_back(seconds: u32) {
            prop_assert_eq!(parse_created(&created_text(seconds)), Some(seconds));
        }

        #[test]
        fn any_text_is_taken_or_refused(text in "\\PC{0,30}") {
            let _ = text.parse::<CommitTime>();
            let _ = parse_created(&text);
        }
    }
}
