//! Where to go on, found in the archive alone.
//!
//! Uploads run in parallel, so after a crash a chunk may be there while an earlier one is not. The point to resume at
//! is the last byte that has no hole before it, which need not be in the newest file: each file's first chunk names the
//! file it follows and where that one ended, so a missing tail shows. A hole that the server can fill no more must not
//! keep the newest binlog from being archived: then the place behind it serves.

use super::{Archive, FileState, Seam};
use crate::chunk::{Close, Link, OpenTransaction};
use crate::error::Result;
use crate::position::{BinlogFile, CommitTime, GtidSet, Incarnation, ServerUuid};

/// How many files back a missing tail is looked for. More chunks than this are never in flight at a time, and each
/// file has at least one.
const LOOK_BACK_FILES: usize = 64;

/// The state of a file up to the last archived byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumeInFile {
    /// The file.
    pub incarnation: Incarnation,
    /// One past the last archived byte.
    pub end: u64,
    /// The last event boundary at or before `end`: where a dump can start.
    pub resume: u64,
    /// The transaction that is open at `end`.
    pub open: Option<OpenTransaction>,
    /// What was executed before the file.
    pub previous: GtidSet,
    /// What the file added to it up to `end`.
    pub since_start: GtidSet,
    /// How the file ends, if `end` is its end.
    pub closes: Option<Close>,
    /// Whether something of the file stands behind a hole at `end`.
    pub torn: bool,
}

impl ResumeInFile {
    /// As a link from the file that comes next.
    pub fn link(&self) -> Link {
        Link { file: self.incarnation.file.clone(), created_s: self.incarnation.created_s, end: self.end }
    }

    /// Where the server has what comes next, judged by its oldest binlog and by whether it lists this file.
    pub fn continued(&self, listed: bool, oldest: &BinlogFile) -> Continued {
        let file = &self.incarnation.file;
        let next_is_oldest = match &self.closes {
            Some(Close::Rotate(next)) => next == oldest,
            Some(Close::Stop) => oldest.follows(file),
            None => false,
        };
        if listed {
            Continued::Here
        } else if next_is_oldest {
            Continued::InOldest
        } else if oldest.base() == file.base() && oldest > file {
            Continued::Purged
        } else {
            Continued::Nowhere
        }
    }

    /// The set executed at `end`.
    pub fn executed(&self) -> GtidSet {
        let mut executed = self.previous.clone();
        executed.union_with(&self.since_start);
        executed
    }
}

/// Where a server has what comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continued {
    /// In the same file, which it still has.
    Here,
    /// In its oldest file: the archived one is gone, but archived to its end.
    InOldest,
    /// Nowhere any more: files between were purged.
    Purged,
    /// Nowhere: it has other files, or went back.
    Nowhere,
}

/// Where to go on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResumePoint {
    /// Inside or at the end of this file; `None` to begin with the first byte of a file.
    pub inside: Option<ResumeInFile>,
    /// What the next new file follows, if `inside` is `None`.
    pub follows: Option<Link>,
    /// The highest commit time archived of this server.
    pub high_commit: CommitTime,
    /// The newest file of which anything is archived, be it behind a hole.
    pub newest: Option<Incarnation>,
    /// The files without a hole that lead to this place.
    pub run: Option<Run>,
}

/// Files that follow one another without a hole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The first of them.
    pub first: Incarnation,
    /// What was executed before it.
    pub before: GtidSet,
}

/// What is archived of a server, by its places to go on: not what stands in the holes between them.
pub fn archived_at(places: &[ResumePoint]) -> GtidSet {
    let mut all = GtidSet::new();
    let ends =
        places.iter().filter_map(|place| Some((place.inside.as_ref().filter(|inside| inside.end > 0)?, &place.run)));
    for (number, (inside, run)) in ends.enumerate() {
        match run.as_ref().filter(|_| number > 0) {
            Some(run) => all.union_with(&inside.executed().minus(&run.before)),
            None => all.union_with(&inside.executed()),
        }
    }
    all
}

impl Archive {
    /// The places where archiving this server can go on, the earliest first; never empty. The first is behind the last
    /// byte that has no hole before it. The others, behind such holes, are for a server that can fill them no more. If
    /// archiving never began, there is one place with nothing set.
    pub async fn resume_points(&self, server: &ServerUuid) -> Result<Vec<ResumePoint>> {
        let incarnations = self.incarnations(server).await?;
        let from = incarnations.len().saturating_sub(LOOK_BACK_FILES);
        let files = self.file_states(server, incarnations.get(from..).unwrap_or(&[])).await?;
        let high_commit = files.iter().map(|file| file.chunks.high_commit()).max().unwrap_or_default();
        let run = |first: usize| {
            let first = files.get(first)?;
            Some(Run { first: first.incarnation().clone(), before: first.previous().cloned().unwrap_or_default() })
        };
        let places = resume_files(&files, from == 0).into_iter();
        Ok(places
            .map(|(place, first)| ResumePoint {
                inside: place.inside(),
                follows: None,
                high_commit,
                newest: incarnations.last().cloned(),
                run: first.and_then(run),
            })
            .collect())
    }
}

/// A place to go on from.
#[derive(Debug, Clone, Copy)]
enum Place<'a> {
    /// The server's oldest file, from its first byte.
    Oldest,
    /// Behind the last contiguous byte of a file.
    Behind(&'a FileState),
    /// The first byte of a file whose beginning is not there, but something of what comes behind it.
    Missing(&'a BinlogFile, u32),
}

impl Place<'_> {
    fn is_behind(self) -> bool {
        matches!(self, Self::Behind(_))
    }

    fn inside(self) -> Option<ResumeInFile> {
        match self {
            Self::Oldest => None,
            Self::Behind(file) => Some(inside(file)),
            Self::Missing(file, created_s) => Some(ResumeInFile {
                incarnation: Incarnation { file: file.clone(), created_s },
                end: 0,
                resume: 0,
                open: None,
                previous: GtidSet::new(),
                since_start: GtidSet::new(),
                closes: None,
                torn: false,
            }),
        }
    }
}

/// The places to go on from, the earliest first.
///
/// The newest file is one; every hole before it gives another: the file that has it, or the last one before it. That a
/// file is not there at all may mean that it was on its way, all of it, when the agent died: where the file before it
/// leads to it no more, its own first byte serves. Going back ends where a file begins a run of its own. `all` says that
/// nothing was archived before the first of `files`. Beside each place stands the first file of the run that leads to it.
fn resume_files(files: &[FileState], all: bool) -> Vec<(Place<'_>, Option<usize>)> {
    let mut places: Vec<(Place<'_>, Option<usize>)> = Vec::new();
    for (index, file) in files.iter().enumerate().rev() {
        if file.contiguous_end() > 0 && (places.is_empty() || !file.holes().is_empty()) {
            places.push((Place::Behind(file), None));
        }
        let before = index.checked_sub(1).and_then(|before| files.get(before));
        if file.seam != Seam::Joined || before.is_none() {
            for (_, first) in places.iter_mut().filter(|(place, first)| first.is_none() && place.is_behind()) {
                *first = Some(index);
            }
        }
        match (&file.seam, before) {
            (Seam::Begins | Seam::Branches { .. } | Seam::Pruned { .. } | Seam::Remains, _) => break,
            (Seam::Joined, _) => {}
            (Seam::Missing { wanted, have: 0 }, before) if all || before.is_some() => {
                places.push((Place::Missing(&wanted.file, wanted.created_s), None));
                match before {
                    Some(before) if before.contiguous_end() > 0 => places.push((Place::Behind(before), None)),
                    Some(_) => {}
                    // What comes before the missing file may have been on its way, too.
                    None => places.push((Place::Oldest, None)),
                }
            }
            (_, Some(before)) if before.contiguous_end() > 0 => places.push((Place::Behind(before), None)),
            // Without its first chunk: what comes before it is looked at next.
            (_, Some(_)) => {}
            // The very first chunk was on its way. If it never comes, what stands behind it tells that something is missing.
            (Seam::Unknown, None) if all => {
                let Incarnation { file, created_s } = file.incarnation();
                if places.is_empty() {
                    places.push((Place::Missing(file, *created_s), None));
                }
                places.push((Place::Oldest, None));
            }
            (_, None) => {}
        }
    }
    if places.is_empty() {
        places.push((Place::Oldest, None));
    }
    places.reverse();
    places
}

fn inside(file: &FileState) -> ResumeInFile {
    let previous = file.previous().cloned().unwrap_or_default();
    let executed = file.executed().unwrap_or_default();
    let last = file.last.as_ref();
    ResumeInFile {
        incarnation: file.incarnation().clone(),
        end: file.contiguous_end(),
        resume: last.map_or(0, |meta| meta.resume),
        open: last.and_then(|meta| meta.open.clone()),
        since_start: executed.minus(&previous),
        previous,
        closes: last.and_then(|meta| meta.closes.clone()),
        torn: !file.holes().is_empty(),
    }
}
