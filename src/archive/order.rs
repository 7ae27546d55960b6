//! In which order a server wrote its files, where their times deceive: behind a reset, or a clock that was set back. Pure.
//!
//! Does not own: reading what tells it (`files`).
//!
//! Invariants: no file is lost, none comes twice; a file stands behind the one that it follows; what was archived anew
//! behind a break stands behind what broke, if a record tells.

use std::collections::{HashMap, HashSet};

use super::GapRecord;
use crate::position::{Incarnation, ServerUuid};

/// Files with which archiving was begun anew, and those in which it had ended then, as records of breaks say.
pub(super) type Breaks = HashMap<Incarnation, Vec<Incarnation>>;

/// What records say of a server.
pub(super) fn breaks(server: &ServerUuid, records: &[GapRecord]) -> Breaks {
    let mut breaks = Breaks::new();
    for (file, ends) in records.iter().filter_map(|record| record.begun_behind(server)) {
        breaks.entry(file).or_default().extend(ends);
    }
    breaks
}

/// What the times of files, by which they are sorted, tell of the order in which they were written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Times {
    /// All: numbers go up with them, and no record of a break speaks against it.
    Tell,
    /// All, unless the first file says that it follows another one that is there: wherever numbers do not go up one by one, a
    /// record says that the server began anew there.
    TellIfFirst,
    /// The server was reset unseen, or its clock was set back: links tell, and records.
    Deceive,
}

impl Times {
    pub(super) fn of(files: &[Incarnation], breaks: &Breaks) -> Self {
        let ends = |file: &Incarnation| breaks.get(file).into_iter().flatten();
        let is_told = |earlier: &Incarnation, later: &Incarnation| {
            later.file.follows(&earlier.file) || ends(later).any(|end| end == earlier)
        };
        if !files.iter().all(|file| ends(file).all(|end| end <= file)) {
            Self::Deceive
        } else if files.is_sorted_by(|earlier, later| earlier.file < later.file) {
            Self::Tell
        } else if files.is_sorted_by(is_told) {
            Self::TellIfFirst
        } else {
            Self::Deceive
        }
    }
}

/// A file, and what tells where it belongs.
pub(super) struct Placed {
    pub(super) file: Incarnation,
    /// The file that it follows, as it says itself.
    pub(super) follows: Option<Incarnation>,
    /// The files in which archiving had ended when it was begun with this one, as records of breaks say.
    pub(super) broke_off: Vec<Incarnation>,
}

impl Placed {
    pub(super) fn new(file: Incarnation, follows: Option<Incarnation>, breaks: &Breaks) -> Self {
        let broke_off = breaks.get(&file).cloned().unwrap_or_default();
        Self { file, follows, broke_off }
    }
}

/// Each file behind the one that it follows; what begins behind a break, with all that follows it, behind what archiving had ended
/// in; else in the order given. None is lost.
pub(super) fn in_order(files: &[Placed]) -> Vec<Incarnation> {
    let runs = runs(files);
    let run_of: HashMap<&Incarnation, usize> =
        runs.iter().enumerate().flat_map(|(run, all)| all.iter().map(move |placed| (&placed.file, run))).collect();
    let mut left: Vec<usize> = (0..runs.len()).collect();
    let mut out = Vec::with_capacity(files.len());
    while !left.is_empty() {
        // Another agent may have archived more before it came to the same break: then a record leads round.
        let is_free = |run: &usize| {
            let mut before = runs.get(*run).and_then(|all| all.first()).into_iter().flat_map(|first| &first.broke_off);
            before.all(|file| run_of.get(file).is_none_or(|before| before == run || !left.contains(before)))
        };
        let run = left.remove(left.iter().position(is_free).unwrap_or_default());
        out.extend(runs.get(run).into_iter().flatten().map(|placed| placed.file.clone()));
    }
    out
}

/// Files that follow each other, first the one that follows none that is there.
fn runs(files: &[Placed]) -> Vec<Vec<&Placed>> {
    let all: HashSet<&Incarnation> = files.iter().map(|placed| &placed.file).collect();
    let before = |placed: &Placed| placed.follows.as_ref().and_then(|wanted| all.get(wanted).copied());
    let mut following = HashMap::<_, Vec<&Placed>>::new();
    for placed in files.iter().rev() {
        following.entry(before(placed)).or_default().push(placed);
    }
    let roots = following.remove(&None).unwrap_or_default().into_iter().rev();
    let mut taken = HashSet::new();
    let mut runs = Vec::new();
    // Links that lead round leave no root, and are taken in the end as they come.
    for root in roots.chain(files) {
        // The next to be taken is the last.
        let (mut run, mut next) = (Vec::new(), vec![root]);
        while let Some(placed) = next.pop() {
            if taken.insert(&placed.file) {
                run.push(placed);
                next.extend(following.get(&Some(&placed.file)).into_iter().flatten());
            }
        }
        if !run.is_empty() {
            runs.push(run);
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::BinlogFile;

    fn file(number: u64, created_s: u32) -> Incarnation {
        Incarnation { file: BinlogFile::new(&format!("b.{number:06}")).unwrap(), created_s }
    }

    /// A file's number and time.
    type Short = (u64, u32);

    fn linked(files: &[(u64, u32, Option<Short>)]) -> Vec<Short> {
        let all: Vec<_> =
            files.iter().map(|(number, created_s, follows)| (*number, *created_s, *follows, None)).collect();
        placed(&all)
    }

    /// The last of each is where archiving had ended before it.
    fn placed(files: &[(u64, u32, Option<Short>, Option<Short>)]) -> Vec<Short> {
        let of = |(number, created_s): Short| file(number, created_s);
        let one = |(number, created_s, follows, broke_off): &(u64, u32, Option<Short>, Option<Short>)| Placed {
            file: file(*number, *created_s),
            follows: follows.map(of),
            broke_off: broke_off.map(of).into_iter().collect(),
        };
        let mut all: Vec<_> = files.iter().map(one).collect();
        all.sort_by(|one, other| one.file.cmp(&other.file));
        in_order(&all).iter().map(|file| (file.file.number(), file.created_s)).collect()
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_change_the_order_of_files() {
        let back = [(1, 100, None), (2, 200, Some((1, 100))), (3, 50, Some((2, 200))), (4, 60, Some((3, 50)))];
        assert_eq!(linked(&back), [(1, 100), (2, 200), (3, 50), (4, 60)]);
        let reset = [(5, 10, None), (6, 20, Some((5, 10))), (1, 30, None), (2, 40, Some((1, 30)))];
        assert_eq!(linked(&reset), [(5, 10), (6, 20), (1, 30), (2, 40)]);
    }

    #[test]
    fn a_name_that_came_back_between_two_files_does_not_part_them() {
        let files = [file(1, 100), file(1, 101), file(2, 102)];
        assert_eq!(Times::of(&files, &Breaks::new()), Times::Deceive);
        assert_eq!(Times::of(&files[1..], &Breaks::new()), Times::Tell);
        let reset = [(1, 100, None), (1, 101, None), (2, 102, Some((1, 100)))];
        assert_eq!(linked(&reset), [(1, 100), (2, 102), (1, 101)]);
    }

    #[test]
    fn where_a_record_tells_why_numbers_go_down_times_tell_the_order() {
        let files = [file(5, 10), file(6, 20), file(1, 30), file(2, 40)];
        let tell = |ends: &[Incarnation]| Times::of(&files, &[(file(1, 30), ends.to_vec())].into());
        assert_eq!(tell(&[file(6, 20)]), Times::TellIfFirst);
        assert_eq!(tell(&[file(5, 10), file(6, 20)]), Times::TellIfFirst, "archived up to a hole, and behind it");
        assert_eq!(tell(&[file(5, 10)]), Times::Deceive, "nobody knows where the other belongs");
        assert_eq!(tell(&[file(6, 20), file(7, 50)]), Times::Deceive, "a clock was set back");
        // Found by `tests/sim`: the third file follows the second, which a clock that was ahead began.
        let ahead = [file(3, 10), file(1, 20), file(2, 3600)];
        assert_eq!(Times::of(&ahead, &[(file(1, 20), vec![file(3, 10)])].into()), Times::TellIfFirst);
    }

    /// Found by `tests/sim`: the first file was begun by a clock that was an hour ahead.
    #[test]
    fn behind_a_break_the_record_tells_the_order_where_the_clock_was_set_back() {
        let broken = [(1, 3600, None, None), (2, 50, None, Some((1, 3600))), (3, 60, Some((2, 50)), None)];
        assert_eq!(placed(&broken), [(1, 3600), (2, 50), (3, 60)]);
        // Another agent had archived the beginning of what is behind the break already, and the record is of that.
        let itself = [(1, 100, None, None), (1, 200, None, Some((2, 300))), (2, 300, Some((1, 200)), Some((2, 300)))];
        assert_eq!(placed(&itself), [(1, 100), (1, 200), (2, 300)]);
        // One agent knew less of what was archived than the next.
        let deeper = [
            (1, 100, None, None),
            (2, 200, Some((1, 100)), None),
            (1, 300, None, Some((1, 100))),
            (1, 400, None, Some((2, 200))),
        ];
        assert_eq!(placed(&deeper), [(1, 100), (2, 200), (1, 300), (1, 400)]);
        // What goes on from there by itself is not parted.
        let two = [(1, 100, None, None), (2, 300, Some((1, 100)), None), (1, 200, None, Some((1, 100)))];
        assert_eq!(placed(&two), [(1, 100), (2, 300), (1, 200)]);
    }

    #[test]
    fn no_file_is_lost_whatever_links_say() {
        let round = [(1, 10, Some((2, 20))), (2, 20, Some((1, 10))), (3, 30, Some((9, 9)))];
        assert_eq!(linked(&round), [(3, 30), (1, 10), (2, 20)]);
        let two_followers = [(1, 10, None), (3, 30, Some((1, 10))), (2, 20, Some((1, 10)))];
        assert_eq!(linked(&two_followers), [(1, 10), (2, 20), (3, 30)]);
    }
}
