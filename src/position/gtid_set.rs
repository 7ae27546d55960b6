//! Sets of transactions, as MySQL writes them: `uuid:1-5:7,uuid:tag:1-3`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{GNO_MAX, Gtid, ParseError, Sid, Tag};

/// A run of transaction numbers, both ends included, never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// First number, from 1.
    pub first: u64,
    /// Last number, up to [`GNO_MAX`].
    pub last: u64,
}

/// A set of GTIDs: for each source, sorted intervals that neither overlap nor touch.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GtidSet {
    sids: BTreeMap<Sid, Vec<Interval>>,
}

impl GtidSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.sids.is_empty()
    }

    /// For a message: its first 400 characters.
    pub fn shown(&self) -> String {
        self.to_string().chars().take(400).collect()
    }

    /// How many transactions are in it; stays at the largest number if there were more.
    pub fn count(&self) -> u64 {
        let lengths = self.sids.values().flatten().map(|run| (run.last - run.first).saturating_add(1));
        lengths.fold(0, u64::saturating_add)
    }

    /// The intervals, source by source.
    pub fn intervals(&self) -> impl Iterator<Item = (&Sid, &[Interval])> {
        self.sids.iter().map(|(sid, runs)| (sid, runs.as_slice()))
    }

    /// Adds one transaction. Appending the next number of a source, the usual case, costs no allocation.
    pub fn add(&mut self, gtid: &Gtid) {
        if let Some(runs) = self.sids.get_mut(&gtid.sid) {
            if let Some(last) = runs.last_mut()
                && last.last.checked_add(1) == Some(gtid.gno)
            {
                last.last = gtid.gno;
                return;
            }
            insert(runs, Interval { first: gtid.gno, last: gtid.gno });
        } else {
            self.sids.insert(gtid.sid.clone(), vec![Interval { first: gtid.gno, last: gtid.gno }]);
        }
    }

    /// Adds the numbers `first..=last` of a source; ignores an empty or impossible run.
    pub fn add_interval(&mut self, sid: &Sid, first: u64, last: u64) {
        if first >= 1 && first <= last && last <= GNO_MAX {
            insert(self.sids.entry(sid.clone()).or_default(), Interval { first, last });
        }
    }

    /// Adds all of another set.
    pub fn union_with(&mut self, other: &GtidSet) {
        for (sid, runs) in &other.sids {
            for run in runs {
                self.add_interval(sid, run.first, run.last);
            }
        }
    }

    /// What is in this set and not in the other.
    #[must_use]
    pub fn minus(&self, other: &GtidSet) -> GtidSet {
        let mut out = GtidSet::new();
        for (sid, runs) in &self.sids {
            let taken = other.sids.get(sid).map_or(&[][..], Vec::as_slice);
            for run in runs {
                let mut from = run.first;
                let overlapping = taken.get(taken.partition_point(|gone| gone.last < run.first)..).unwrap_or(&[]);
                for gone in overlapping.iter().take_while(|gone| gone.first <= run.last) {
                    if gone.first > from {
                        out.add_interval(sid, from, gone.first - 1);
                    }
                    from = from.max(gone.last.saturating_add(1));
                }
                if from <= run.last {
                    out.add_interval(sid, from, run.last);
                }
            }
        }
        out
    }

    /// What is in both sets.
    #[must_use]
    pub fn common_with(&self, other: &GtidSet) -> GtidSet {
        self.minus(&self.minus(other))
    }

    /// Whether every transaction of this set is in the other.
    pub fn is_subset_of(&self, other: &GtidSet) -> bool {
        self.sids.iter().all(|(sid, runs)| {
            let there = other.sids.get(sid).map_or(&[][..], Vec::as_slice);
            runs.iter().all(|run| {
                let behind = there.partition_point(|big| big.last < run.first);
                there.get(behind).is_some_and(|big| big.first <= run.first && run.last <= big.last)
            })
        })
    }

    /// Whether a transaction is in the set.
    pub fn contains(&self, gtid: &Gtid) -> bool {
        self.sids.get(&gtid.sid).is_some_and(|runs| {
            let behind = runs.partition_point(|run| run.last < gtid.gno);
            runs.get(behind).is_some_and(|run| run.first <= gtid.gno)
        })
    }
}

/// Many runs at once, in any order: one by one, each that comes before the others would have to move them all. Empty and
/// impossible ones are ignored.
impl FromIterator<(Sid, Interval)> for GtidSet {
    fn from_iter<I: IntoIterator<Item = (Sid, Interval)>>(runs: I) -> Self {
        let mut sids: BTreeMap<Sid, Vec<Interval>> = BTreeMap::new();
        for (sid, run) in runs {
            sids.entry(sid).or_default().push(run);
        }
        let mut set = Self::new();
        for (sid, mut runs) in sids {
            runs.sort_unstable_by_key(|run| run.first);
            runs.into_iter().for_each(|run| set.add_interval(&sid, run.first, run.last));
        }
        set
    }
}

/// Puts a run into sorted runs, joining what overlaps or touches.
fn insert(runs: &mut Vec<Interval>, new: Interval) {
    let from = runs.partition_point(|run| run.last < new.first - 1);
    let to = runs.partition_point(|run| run.first <= new.last.saturating_add(1));
    let mut joined = new;
    for run in runs.get(from..to).unwrap_or(&[]) {
        joined.first = joined.first.min(run.first);
        joined.last = joined.last.max(run.last);
    }
    runs.splice(from..to.max(from), [joined]);
}

impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut former: Option<&Sid> = None;
        for (sid, runs) in &self.sids {
            match former {
                Some(before) if before.uuid == sid.uuid => write!(f, ":{}", sid.tag.as_str())?,
                Some(_) => write!(f, ",{sid}")?,
                None => write!(f, "{sid}")?,
            }
            for run in runs {
                if run.first == run.last {
                    write!(f, ":{}", run.first)?;
                } else {
                    write!(f, ":{}-{}", run.first, run.last)?;
                }
            }
            former = Some(sid);
        }
        Ok(())
    }
}

impl FromStr for GtidSet {
    type Err = ParseError;

    /// Reads MySQL's form; white space and line breaks anywhere between the parts are fine, as in its own output.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = || ParseError::new("GTID set", text);
        let mut runs = Vec::new();
        for group in text.split(',').map(str::trim).filter(|group| !group.is_empty()) {
            let mut parts = group.split(':').map(str::trim);
            let uuid = parts.next().filter(|u| u.len() == 36).and_then(|u| Uuid::parse_str(u).ok());
            let mut sid = Sid { uuid: uuid.ok_or_else(wrong)?, tag: Tag::NONE };
            let mut seen = false;
            for part in parts {
                if part.as_bytes().first().is_some_and(u8::is_ascii_digit) {
                    let (first, last) = part.split_once('-').unwrap_or((part, part));
                    let number = |s: &str| s.trim().parse().ok().filter(|gno| (1..=GNO_MAX).contains(gno));
                    let (first, last) = number(first).zip(number(last)).ok_or_else(wrong)?;
                    runs.push((sid.clone(), Interval { first, last }));
                    seen = true;
                } else {
                    sid.tag = Tag::new(part)?;
                    if sid.tag.is_none() {
                        return Err(wrong());
                    }
                }
            }
            if !seen {
                return Err(wrong());
            }
        }
        Ok(runs.into_iter().collect())
    }
}

impl TryFrom<String> for GtidSet {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl From<GtidSet> for String {
    fn from(set: GtidSet) -> String {
        set.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    const B: &str = "5e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn set(text: &str) -> GtidSet {
        text.parse().unwrap()
    }

    #[test]
    fn text_is_mysqls() {
        let text = format!("{A}:1-3:5:nightly:1-2,{B}:tag:7");
        assert_eq!(set(&text).to_string(), text);
        assert_eq!(set(&format!("{A}:1-3,\n{A}:4 : 9-10")).to_string(), format!("{A}:1-4:9-10"));
        assert_eq!(set("").to_string(), "");
        for bad in [A.to_owned(), format!("{A}:0"), format!("{A}:x"), format!("{A}::1"), "x:1".to_owned()] {
            assert!(bad.parse::<GtidSet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn subtraction_and_subsets() {
        let left = set(&format!("{A}:1-10:20,{B}:1"));
        let right = set(&format!("{A}:3-4:10-30"));
        assert_eq!(left.minus(&right).to_string(), format!("{A}:1-2:5-9,{B}:1"));
        assert!(!left.is_subset_of(&right));
        assert!(set(&format!("{A}:20")).is_subset_of(&right));
        assert_eq!(left.count(), 12);
    }

    fn model() -> impl Strategy<Value = BTreeSet<u64>> {
        prop::collection::btree_set(1_u64..40, 0..30)
    }

    fn from_model(numbers: &BTreeSet<u64>, rotate: usize) -> GtidSet {
        let sid = Sid { uuid: Uuid::nil(), tag: Tag::NONE };
        let mut order: Vec<u64> = numbers.iter().copied().collect();
        if !order.is_empty() {
            let by = rotate % order.len();
            order.rotate_left(by);
        }
        let mut out = GtidSet::new();
        for gno in order {
            out.add(&Gtid { sid: sid.clone(), gno });
        }
        out
    }

    proptest! {
        #[test]
        fn sets_behave_as_sets(a in model(), b in model(), rotate in 0_usize..40) {
            let (x, y) = (from_model(&a, rotate), from_model(&b, 0));
            prop_assert_eq!(x.count(), a.len() as u64);
            prop_assert_eq!(&x, &from_model(&a, 0));
            let mut union = x.clone();
            union.union_with(&y);
            prop_assert_eq!(&union, &from_model(&a.union(&b).copied().collect(), rotate));
            prop_assert_eq!(x.minus(&y), from_model(&a.difference(&b).copied().collect(), rotate));
            prop_assert_eq!(x.is_subset_of(&y), a.is_subset(&b));
            prop_assert_eq!(&x.to_string().parse::<GtidSet>().unwrap(), &x);
            for gno in 1..40 {
                let gtid = Gtid { sid: Sid { uuid: Uuid::nil(), tag: Tag::NONE }, gno };
                prop_assert_eq!(x.contains(&gtid), a.contains(&gno));
            }
        }

        #[test]
        fn any_text_is_taken_or_refused(text in "[0-9a-f:,\\- ]{0,80}") {
            let _ = text.parse::<GtidSet>();
        }
    }
}
