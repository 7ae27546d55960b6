//! When something is due: a cron expression in a time zone, with jitter. Pure.

use std::str::FromStr;
use std::time::Duration;

use croner::Cron;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use crate::error::{Error, Result};

/// A cron expression and all that belongs to it.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
    jitter: Duration,
    /// Tells agents apart, so that their jitter differs.
    seed: u64,
}

impl Schedule {
    /// Reads a cron expression (five fields; a sixth in front for seconds; `@daily` and the like), the value of `setting`, and
    /// a time zone's name (`None`: the system's).
    ///
    /// # Errors
    /// [`crate::error::Kind::Config`] naming the setting.
    pub fn new(setting: &str, expression: &str, zone: Option<&str>, jitter: Duration, agent: &str) -> Result<Self> {
        let cron = Cron::from_str(expression).map_err(|why| {
            Error::config(format!("{setting} {expression:?} is no cron expression"))
                .source(why)
                .hint("minute, hour, day of month, month, day of week: \"0 3 * * *\" is every night at three")
        })?;
        let zone = match zone {
            None => TimeZone::system(),
            Some(name) => TimeZone::get(name).map_err(|why| {
                Error::config(format!("base.time_zone {name:?} is unknown"))
                    .source(why)
                    .hint("use a name of the IANA database, \"Europe/Berlin\" or \"UTC\"; the host needs its tzdata")
            })?,
        };
        let seed = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, agent.as_bytes()).as_u64_pair().0;
        Ok(Self { cron, zone, jitter, seed })
    }

    /// The first due time behind a moment; both are microseconds since 1970. `None` if there will be none.
    pub fn next_after(&self, us: u64) -> Option<u64> {
        let after = Timestamp::from_microsecond(i64::try_from(us).ok()?).ok()?;
        let next = self.cron.find_next_occurrence(&Zoned::new(after, self.zone.clone()), false).ok()?;
        u64::try_from(next.timestamp().as_microsecond()).ok()
    }

    /// When this agent begins what is due at a moment: later by its jitter.
    pub fn begins(&self, due: u64) -> u64 {
        due.saturating_add(u64::try_from(self.jitter_at(due).as_micros()).unwrap_or(0))
    }

    /// How much later than `due` this agent begins: less than the jitter, the same at every call.
    pub fn jitter_at(&self, due: u64) -> Duration {
        let limit = u64::try_from(self.jitter.as_millis()).unwrap_or(u64::MAX);
        // Mixed (the finaliser of splitmix64), so that neighbouring days and agents are far apart.
        let mut mixed = self.seed.wrapping_add(due).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Duration::from_millis((mixed ^ (mixed >> 31)).checked_rem(limit).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn us(text: &str) -> u64 {
        u64::try_from(text.parse::<Timestamp>().unwrap().as_microsecond()).unwrap()
    }

    fn schedule(expression: &str, zone: &str, jitter_s: u64) -> Schedule {
        Schedule::new("base.schedule", expression, Some(zone), Duration::from_secs(jitter_s), "main").unwrap()
    }

    #[test]
    fn every_night_at_three_by_the_wall_clock() {
        let berlin = schedule("0 3 * * *", "Europe/Berlin", 0);
        assert_eq!(berlin.next_after(us("2026-11-22T10:00:00Z")), Some(us("2026-11-23T02:00:00Z")));
        assert_eq!(berlin.next_after(us("2026-07-01T01:00:00Z")), Some(us("2026-07-02T01:00:00Z")), "strictly behind");
        // The hour from two to three does not exist on this day, and from two to three exists twice on that one.
        let early = schedule("30 2 * * *", "Europe/Berlin", 0);
        let spring = early.next_after(us("2026-03-28T12:00:00Z")).unwrap();
        assert!(spring <= us("2026-03-30T00:30:00Z") && spring >= us("2026-03-29T00:59:00Z"), "{spring}");
        let autumn = early.next_after(us("2026-10-24T12:00:00Z")).unwrap();
        let after = early.next_after(autumn).unwrap();
        assert!(after - autumn > 20 * 3_600_000_000, "once a night, also when clocks go back");
    }

    #[test]
    fn jitter_is_bounded_steady_and_differs_by_agent() {
        let one = schedule("@hourly", "UTC", 600);
        let two = Schedule::new("base.schedule", "@hourly", Some("UTC"), Duration::from_secs(600), "other").unwrap();
        let mut differ = 0;
        for hour in 0..50 {
            let due = us("2026-11-22T00:00:00Z") + hour * 3_600_000_000;
            assert_eq!(one.jitter_at(due), one.jitter_at(due));
            assert!(one.jitter_at(due) < Duration::from_secs(600));
            differ += u32::from(one.jitter_at(due).abs_diff(two.jitter_at(due)) > Duration::from_secs(10));
        }
        assert!(differ > 35, "{differ} of 50");
        assert_eq!(schedule("@daily", "UTC", 0).jitter_at(77), Duration::ZERO);
    }

    #[test]
    fn what_is_no_schedule_is_named() {
        for (expression, zone, wanted) in [
            ("every night", "UTC", "base.schedule"),
            ("0 25 * * *", "UTC", "base.schedule"),
            ("@daily", "Mars/Base", "Mars"),
        ] {
            let error = Schedule::new("base.schedule", expression, Some(zone), Duration::ZERO, "main").unwrap_err();
            assert_eq!(error.kind(), Kind::Config);
            assert!(error.to_string().contains(wanted), "{error}");
        }
        assert_eq!(schedule("0 0 30 2 *", "UTC", 0).next_after(0), None, "the thirtieth of February");
    }
}
