//! What a restore may be asked to reach, as people write it. Pure.

use std::fmt;

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned};

use crate::error::{Error, Result};
use crate::position::{CommitTime, Gtid, Position};

/// Where a restore is to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The last transaction that is durable.
    Latest,
    /// The state at a moment: everything committed up to and with it.
    Time(CommitTime),
    /// A transaction.
    Gtid(Gtid),
    /// A byte position in the head's own binlog.
    At(Position),
}

/// On which side of the target the restore ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Edge {
    /// The target's transaction is left out; of a time: what was committed at that very microsecond, too.
    Before,
    /// It is in.
    After,
}

const FORMS: &str = "latest, a time (2026-11-22T14:03:11.482913Z, \"2026-11-22 14:03:11\" in local time, \"2 hours ago\"), \
    gtid:UUID:N, or a position like binlog.000042:1234";

impl Target {
    /// Reads a target; `now` is the present moment in the zone that times without one are meant in.
    ///
    /// # Errors
    /// [`crate::error::Kind::Config`] if it is none of the forms.
    pub fn parse(text: &str, now: &Zoned) -> Result<Self> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("latest") {
            return Ok(Self::Latest);
        }
        let prefix = text.get(..5).filter(|prefix| prefix.eq_ignore_ascii_case("gtid:"));
        if prefix.is_some() {
            let gtid = text.get(5..).unwrap_or("");
            return gtid.parse().map(Self::Gtid).map_err(|why| {
                Error::config(format!("{gtid:?} is no GTID: {why}")).hint("a GTID is UUID:N, or UUID:TAG:N")
            });
        }
        if let Ok(position) = text.parse::<Position>() {
            return Ok(Self::At(position));
        }
        if let Ok(gtid) = text.parse::<Gtid>() {
            return Ok(Self::Gtid(gtid));
        }
        let moment = parse_moment(text, now)?;
        if moment.timestamp() > now.timestamp() {
            let hint = "a time alone is one of today: give the day with it; --to latest restores all there is";
            return Err(Error::config(format!("{text:?} lies in the future")).hint(hint));
        }
        Ok(Self::Time(moment))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Time(time) => f.write_str(&time.rfc3339()),
            Self::Gtid(gtid) => write!(f, "gtid:{gtid}"),
            Self::At(position) => position.fmt(f),
        }
    }
}

/// Reads a moment: with a zone or offset, in local time, or as a span before now.
///
/// # Errors
/// [`crate::error::Kind::Config`] if it is no moment, or one that the local clock showed twice or never.
pub fn parse_moment(text: &str, now: &Zoned) -> Result<CommitTime> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("now") {
        return commit_time(now.timestamp(), text);
    }
    if let Ok(zoned) = text.parse::<Zoned>() {
        return commit_time(zoned.timestamp(), text);
    }
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return commit_time(timestamp, text);
    }
    if let Some(civil) = civil(text, now) {
        return local(civil, now.time_zone(), text);
    }
    if let Ok(span) = text.parse::<Span>() {
        let moment = now.checked_add(span).map_err(|error| wrong(text).source(error))?;
        if moment > *now {
            return Err(Error::config(format!("{text:?} lies in the future")).hint("say \"2 hours ago\""));
        }
        return commit_time(moment.timestamp(), text);
    }
    Err(wrong(text))
}

/// A date with a time, a date alone (its midnight), or a time alone (of today).
fn civil(text: &str, now: &Zoned) -> Option<DateTime> {
    // The date first: a `Time` would be read from `2026-11-20 14:03` as well, and the day forgotten.
    if let Ok(civil) = text.parse::<DateTime>() {
        return Some(civil);
    }
    let is_time = text.find(':') == Some("14".len());
    let time = text.parse::<Time>().ok().filter(|_| is_time)?;
    Some(now.date().to_datetime(time))
}

fn local(civil: DateTime, zone: &TimeZone, text: &str) -> Result<CommitTime> {
    let zoned = zone.to_ambiguous_zoned(civil).unambiguous().map_err(|error| {
        Error::config(format!("{text:?} is not one moment in local time"))
            .source(error)
            .hint("clocks were changed then: give the time with its offset, such as 2026-10-25T02:30:00+01:00")
    })?;
    commit_time(zoned.timestamp(), text)
}

fn commit_time(timestamp: Timestamp, text: &str) -> Result<CommitTime> {
    let micros = u64::try_from(timestamp.as_microsecond()).map_err(|_| wrong(text))?;
    Ok(CommitTime::from_micros(micros))
}

fn wrong(text: &str) -> Error {
    Error::config(format!("{text:?} is no target")).hint(format!("targets are {FORMS}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn now() -> Zoned {
        "2026-11-22T14:30:00+01:00[Europe/Vienna]".parse().unwrap()
    }

    fn time(text: &str) -> String {
        match Target::parse(text, &now()).unwrap() {
            Target::Time(time) => time.rfc3339(),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn times_are_read_with_and_without_a_zone() {
        assert_eq!(time("2026-11-22T13:03:11.482913Z"), "2026-11-22T13:03:11.482913Z");
        assert_eq!(time("2026-11-22T14:03:11+01:00"), "2026-11-22T13:03:11.000000Z");
        assert_eq!(time("2026-11-22 14:03:11"), "2026-11-22T13:03:11.000000Z");
        assert_eq!(time("2026-11-22 14:03"), "2026-11-22T13:03:00.000000Z");
        assert_eq!(time("2026-11-20 14:03"), "2026-11-20T13:03:00.000000Z");
        assert_eq!(time("2026-11-20T14:03:11"), "2026-11-20T13:03:11.000000Z");
        assert_eq!(time("2026-11-22"), "2026-11-21T23:00:00.000000Z");
        assert_eq!(time("14:03:11.5"), "2026-11-22T13:03:11.500000Z");
        assert_eq!(time("14:03"), "2026-11-22T13:03:00.000000Z");
        assert_eq!(time("2 hours ago"), "2026-11-22T11:30:00.000000Z");
        assert_eq!(time("1d 30m ago"), "2026-11-21T13:00:00.000000Z");
    }

    #[test]
    fn the_other_forms_are_read() {
        let read = |text: &str| Target::parse(text, &now()).unwrap();
        assert_eq!(read("latest"), Target::Latest);
        assert_eq!(read("binlog.000042:1234").to_string(), "binlog.000042:1234");
        let gtid = "3e11fa47-71ca-11e1-9e33-c80aa9429562:23";
        assert_eq!(read(&format!("gtid:{gtid}")), read(gtid));
        assert_eq!(read(gtid).to_string(), format!("gtid:{gtid}"));
    }

    #[test]
    fn what_is_no_target_is_refused_with_the_forms() {
        for bad in
            ["", "soon", "gtid:1", "2026-13-01", "2 hours", "binlog:12", "2026-10-25 02:30:00", "1999", "2026-11-23"]
        {
            let error = Target::parse(bad, &now()).unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::Config, "{bad}: {error:?}");
            assert!(error.hint_text().is_some(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in "\\PC{0,40}") {
            let _ = Target::parse(&text, &now());
        }
    }
}
