//! What a policy wants, by days.

use super::*;
use crate::archive::{BaseContent, Coordinates};
use crate::position::{BinlogFile, GtidSet};

const DAY_US: u64 = 24 * 3600 * 1_000_000;
/// A Monday, 2026-11-30, at noon.
const NOW_US: u64 = 1_796_040_000 * 1_000_000;

fn base(days_ago: u64) -> BaseManifest {
    let finished_us = NOW_US - days_ago * DAY_US;
    BaseManifest {
        format: 1,
        archive: uuid::Uuid::nil(),
        id: BaseManifest::id_of(finished_us, "clone"),
        engine: "clone".into(),
        content: BaseContent::Clone,
        server: "aaaaaaaa-0000-0000-0000-000000000000".parse().unwrap(),
        server_version: "9.7.4".into(),
        started_us: finished_us,
        finished_us,
        coordinates: Coordinates {
            file: BinlogFile::new("b.000001").unwrap(),
            created_s: None,
            position: 4,
            executed: GtidSet::new(),
            gtid_mode: "ON".into(),
        },
        raw_bytes: 0,
        stored_bytes: 0,
        tool: String::new(),
        left_out: Vec::new(),
        settings: std::collections::BTreeMap::new(),
        clone: None,
        parts: Vec::new(),
    }
}

fn policy() -> Policy {
    Policy { keep: None, bases: 0, daily: 0, weekly: 0, monthly: 0, grace: Duration::ZERO }
}

fn days(count: u64) -> Duration {
    Duration::from_secs(count * 24 * 3600)
}

/// How many days ago the kept ones were taken, and from when on every moment is kept.
fn wanted(policy: Policy, bases: &[u64]) -> (Vec<u64>, u64) {
    let all: Vec<BaseManifest> = bases.iter().map(|ago| base(*ago)).collect();
    let wanted = policy.wanted(&all, NOW_US);
    let kept = bases.iter().copied().filter(|ago| wanted.spare.contains(&base(*ago).id)).collect();
    (kept, (NOW_US - wanted.since_us) / DAY_US)
}

#[test]
fn nothing_is_wanted_without_a_word() {
    assert!(policy().check().is_err());
    assert!(Policy { bases: 1, ..policy() }.check().is_ok());
}

#[test]
fn a_time_and_a_number_keep_what_either_keeps() {
    let bases: Vec<u64> = (0..40).collect();
    assert_eq!(wanted(Policy { keep: Some(days(30)), ..policy() }, &bases), (vec![0], 30));
    assert_eq!(wanted(Policy { bases: 3, ..policy() }, &bases), (vec![0, 1, 2], 2));
    assert_eq!(wanted(Policy { keep: Some(days(1)), bases: 3, ..policy() }, &bases).1, 2);
    // Fewer than so many: all of them.
    assert_eq!(wanted(Policy { bases: 9, ..policy() }, &[1, 5]), (vec![1, 5], 5));
    // None: everything.
    assert_eq!(Policy { keep: Some(days(1)), ..policy() }.wanted(&[], NOW_US).since_us, 0);
}

#[test]
fn the_newest_of_days_weeks_and_months_stay() {
    let bases: Vec<u64> = (0..100).collect();
    let policy = Policy { keep: Some(days(2)), daily: 3, weekly: 3, monthly: 3, ..policy() };
    // Sundays are 1, 8 … days ago; the months before ended 30 and 61 days ago.
    assert_eq!(wanted(policy, &bases).0, [0, 1, 2, 8, 30, 61]);
}

#[test]
fn what_was_wanted_lately_stays() {
    let bases: Vec<u64> = (0..40).collect();
    let policy = Policy { bases: 2, grace: days(3), ..policy() };
    assert_eq!(wanted(policy, &bases), (vec![0, 1, 3, 4], 4));
    assert_eq!(wanted(Policy { keep: Some(days(7)), ..policy }, &bases).1, 10);
}
