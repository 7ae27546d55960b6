//! A time as people give it: a timestamp with its zone, a time of the local clock, or how long ago. Pure.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned};

use super::{CommitTime, ParseError};

/// Reads a time: `2026-11-22T10:15:30.123456Z`, with any offset; without one, of the clock of `now`'s zone, also as a date
/// alone or a time of day alone; `2 hours ago`; `now`.
///
/// # Errors
/// If it is none of these, before 1970, or a local time that the clock showed twice or never (give the offset then).
pub fn parse_moment(text: &str, now: &Zoned) -> Result<CommitTime, ParseError> {
    let text = text.trim();
    let wrong = || ParseError::new("time (RFC 3339, a local time as 2026-11-22 10:15:30, or `2 hours ago`)", text);
    let timestamp = timestamp(text, now).ok_or_else(wrong)?;
    u64::try_from(timestamp.as_microsecond()).map(CommitTime::from_micros).map_err(|_| wrong())
}

fn timestamp(text: &str, now: &Zoned) -> Option<Timestamp> {
    if text.eq_ignore_ascii_case("now") {
        return Some(now.timestamp());
    }
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Some(timestamp);
    }
    if let Ok(zoned) = text.parse::<Zoned>() {
        return Some(zoned.timestamp());
    }
    // A bare time of day would also be read as a date without its dashes, so it has to have its colons.
    if text.contains(':')
        && let Ok(time) = text.parse::<Time>()
    {
        return local(now.date().to_datetime(time), now.time_zone());
    }
    if let Ok(datetime) = text.parse::<DateTime>() {
        return local(datetime, now.time_zone());
    }
    if let Ok(date) = text.parse::<Date>() {
        return local(date.to_datetime(Time::midnight()), now.time_zone());
    }
    // Only what lies behind: `2 hours` alone is no time.
    let span = text.parse::<Span>().ok().filter(|span| span.is_negative())?;
    now.checked_add(span).ok().map(|then| then.timestamp())
}

fn local(datetime: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    zone.to_ambiguous_zoned(datetime).unambiguous().ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn now() -> Zoned {
        "2026-07-26T12:00:00.5+02:00[Europe/Berlin]".parse().unwrap()
    }

    #[test]
    fn every_way_to_say_a_time() {
        for (text, expected) in [
            ("2026-11-22T10:15:30.123456Z", "2026-11-22T10:15:30.123456Z"),
            ("2026-11-22 10:15:30+01:00", "2026-11-22T09:15:30.000000Z"),
            ("2026-07-26T10:00[Europe/London]", "2026-07-26T09:00:00.000000Z"),
            ("2026-07-26 14:03:11.482913", "2026-07-26T12:03:11.482913Z"),
            ("2026-01-26 14:03", "2026-01-26T13:03:00.000000Z"),
            ("2026-07-26", "2026-07-25T22:00:00.000000Z"),
            ("09:30", "2026-07-26T07:30:00.000000Z"),
            (" 2 hours ago ", "2026-07-26T08:00:00.500000Z"),
            ("1 day 90 minutes ago", "2026-07-25T08:30:00.500000Z"),
            ("-PT30M", "2026-07-26T09:30:00.500000Z"),
            ("now", "2026-07-26T10:00:00.500000Z"),
        ] {
            assert_eq!(parse_moment(text, &now()).unwrap().rfc3339(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_one_time_is_refused() {
        // In the last two the clock was set: back, and forward.
        for text in
            ["", "yesterdayish", "2 hours", "12", "2026-13-01", "1969-01-01", "2026-10-25 02:30", "2026-03-29 02:30"]
        {
            assert!(parse_moment(text, &now()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in "\\PC{0,40}", like in "[-0-9: TZagohursdy.+]{0,30}") {
            let _ = parse_moment(&text, &now());
            let _ = parse_moment(&like, &now());
        }

        #[test]
        fn what_we_print_reads_back(micros in 0_u64..253_000_000_000_000_000) {
            let time = CommitTime::from_micros(micros);
            prop_assert_eq!(parse_moment(&time.rfc3339(), &now()).unwrap(), time);
        }
    }
}
