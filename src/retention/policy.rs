//! What is to be kept: moments, and base backups beyond them. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::archive::BaseManifest;
use crate::error::{Error, Result};
use crate::position::CommitTime;

/// What is to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// How far back every moment can be restored.
    pub keep: Option<Duration>,
    /// At least so many base backups, and every moment since the oldest of them; the newest one is always kept.
    pub bases: usize,
    /// The newest base backup of each of so many days that have one, by UTC.
    pub daily: usize,
    /// Of so many weeks (Monday to Sunday).
    pub weekly: usize,
    /// Of so many months.
    pub monthly: usize,
    /// Nothing is removed that was needed this long ago: so long a restore may take.
    pub grace: Duration,
}

/// What a policy means at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Every moment from here on, microseconds since 1970.
    pub(super) since_us: u64,
    /// Base backups beyond what these moments need, each with the binlog file that it stands in.
    pub(super) spare: BTreeSet<String>,
}

impl Policy {
    /// Whether it asks for anything.
    ///
    /// # Errors
    /// [`crate::error::Kind::Config`] if it does not: then nobody has said what may go.
    pub fn check(&self) -> Result<()> {
        if self.keep.is_some() || self.bases > 0 {
            return Ok(());
        }
        Err(Error::config("nothing says what is to be kept, so nothing is removed").hint(
            "set retention.keep = \"30d\" (every moment of the last 30 days), or retention.bases = 7 (every moment since the seventh \
             newest base backup)",
        ))
    }

    /// What is wanted now, and was wanted until lately: a restore that began then still finds it.
    pub(super) fn wanted(&self, bases: &[BaseManifest], now_us: u64) -> Wanted {
        let lately_us = now_us.saturating_sub(micros(self.grace));
        let (now, lately) = (self.wanted_at(bases, now_us), self.wanted_at(bases, lately_us));
        let spare = now.spare.union(&lately.spare).cloned().collect();
        Wanted { since_us: now.since_us.min(lately.since_us), spare }
    }

    /// What is wanted at a moment, of the base backups that there are then.
    fn wanted_at(&self, bases: &[BaseManifest], at_us: u64) -> Wanted {
        let mut there: Vec<&BaseManifest> = bases.iter().filter(|base| base.finished_us <= at_us).collect();
        there.sort_by_key(|base| std::cmp::Reverse((base.finished_us, base.id.clone())));
        let since_us = at_us.saturating_sub(self.keep.map_or(0, micros));
        let count = self.bases.max(1);
        // With fewer than so many, all of them are kept.
        let counted = match there.get(count.saturating_sub(1)).or(there.last()) {
            Some(oldest) => oldest.finished_us,
            None => 0,
        };
        let mut spare = BTreeSet::new();
        newest_of_each(&there, self.daily, |day| (i64::from(day.year()), i64::from(day.day_of_year())), &mut spare);
        newest_of_each(&there, self.weekly, week, &mut spare);
        newest_of_each(&there, self.monthly, |day| (i64::from(day.year()), i64::from(day.month())), &mut spare);
        spare.extend(there.iter().take(count).map(|base| base.id.clone()));
        Wanted { since_us: since_us.min(counted), spare }
    }
}

/// Adds the newest base backup of each of the newest `count` spans of days that have one; `bases` has the newest first.
fn newest_of_each(
    bases: &[&BaseManifest],
    count: usize,
    span: impl Fn(Date) -> (i64, i64),
    into: &mut BTreeSet<String>,
) {
    let mut seen = BTreeSet::new();
    for base in bases {
        if seen.len() >= count {
            return;
        }
        let day = CommitTime::from_micros(base.finished_us).timestamp().to_zoned(TimeZone::UTC).date();
        if seen.insert(span(day)) {
            into.insert(base.id.clone());
        }
    }
}

/// The week that a day is in, by ISO 8601.
fn week(day: Date) -> (i64, i64) {
    let week = day.iso_week_date();
    (i64::from(week.year()), i64::from(week.week()))
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
