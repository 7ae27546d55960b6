//! Lines, heads and lineages. Pure but for reading the histories.
//!
//! A *line* is a run of one server's files without a break. A *head* is a line that no other line goes on from: its end
//! is a state the database was in last. A *lineage* is how a head came to be: lines, each with the part of it that
//! belongs to the head's history. After a restore to just before an accident the restored server begins a new line, and
//! the line with the accident stays a head of its own: nothing of it gets into the new head's lineage.

use std::collections::HashMap;

use crate::archive::{Archive, BaseManifest, FileState, History, Seam};
use crate::error::{Error, Kind, Result};
use crate::position::{CommitTime, GtidSet, Incarnation, Position, ServerUuid};

/// A run of one server's files without a break.
#[derive(Debug, Clone)]
pub struct Line {
    /// The server.
    pub server: ServerUuid,
    /// Its files; never empty.
    pub files: Vec<FileState>,
    /// What was executed before its first byte.
    pub before: GtidSet,
    /// What was executed at its end.
    pub executed: GtidSet,
    /// The highest commit time in it.
    pub last_commit: CommitTime,
    /// The last moment at which it is known to have been written: its last commit, or its beginning; never before what its
    /// server wrote earlier, for a clock may have been set back.
    pub written_until: CommitTime,
    /// Why it begins: after a gap, or with the archive itself.
    pub after_gap: bool,
}

impl Line {
    fn new(server: ServerUuid, files: Vec<FileState>) -> Option<Self> {
        let (first, last) = (files.first()?, files.last()?);
        if first.contiguous_end() == 0 {
            return None;
        }
        let last_commit = files.iter().map(|file| file.chunks.high_commit()).max().unwrap_or_default();
        Some(Self {
            server,
            before: first.executed_before().unwrap_or_default(),
            executed: last.executed_at_end().unwrap_or_default(),
            last_commit,
            written_until: last_commit.max(CommitTime::from_seconds(first.incarnation().created_s)),
            after_gap: !matches!(first.seam, Seam::Begins | Seam::Pruned { .. }),
            files,
        })
    }

    /// One past its last byte.
    pub fn end(&self) -> Option<Position> {
        let file = self.files.last()?;
        Some(Position { file: file.incarnation().file.clone(), offset: file.contiguous_end() })
    }

    /// When its first file was begun, seconds since 1970.
    pub fn begun_s(&self) -> u32 {
        self.files.first().map_or(0, |file| file.incarnation().created_s)
    }

    /// Its first file's name and time: with the server it names the line.
    pub fn name(&self) -> String {
        self.files.first().map(|file| file.incarnation().to_string()).unwrap_or_default()
    }
}

/// A head, as it is told and chosen.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Head {
    /// What `--head` takes: the server's uuid, with the first file where one server has several heads.
    pub name: String,
    /// Its server.
    pub server: ServerUuid,
    /// Where it ends.
    pub end: Option<Position>,
    /// Its last commit, RFC 3339.
    pub last_commit: Option<String>,
    /// What was executed at its end.
    pub executed: GtidSet,
}

/// A line's part in a lineage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Index of the line.
    pub line: usize,
    /// The transactions of it that belong to the head's history; `None`: all.
    pub only: Option<GtidSet>,
    /// Transactions of the head's history between this line and the next segment's that nothing in the archive has.
    pub missing_after: GtidSet,
}

impl Segment {
    /// The part of a set that belongs to the head's history.
    pub(super) fn ours(&self, set: &GtidSet) -> GtidSet {
        match &self.only {
            Some(only) => set.common_with(only),
            None => set.clone(),
        }
    }
}

/// Where playing begins in a lineage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Beginning {
    /// Index of the segment.
    pub(super) segment: usize,
    /// Index of the file in its line.
    pub(super) file: usize,
    /// Whether all that was executed before the file is known to be there already: then some of the file may be, too.
    pub(super) footed: bool,
}

/// What a lineage lacks for who has executed something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lacking {
    /// The line before which it is missing.
    pub(super) before: usize,
    /// The transactions.
    pub(super) gtids: GtidSet,
}

/// All lines of an archive.
#[derive(Debug, Clone)]
pub struct Lines {
    /// The lines: server by server, in the order the server wrote them.
    pub lines: Vec<Line>,
}

impl Lines {
    /// Reads every server's history.
    ///
    /// # Errors
    /// If the archive cannot be read.
    pub async fn read(archive: &Archive) -> Result<Self> {
        Ok(Self::of(&archive.histories().await?))
    }

    /// The lines of histories that have been read, server by server.
    pub fn of(histories: &[History]) -> Self {
        let runs = histories.iter().flat_map(|history| history.runs().into_iter().map(move |run| (history, run)));
        let line = |(history, run): (&History, _)| {
            Line::new(history.server, history.files.get::<std::ops::Range<usize>>(run).unwrap_or(&[]).to_vec())
        };
        Self::new(runs.filter_map(line).collect())
    }

    /// Lines, each server's in the order in which it wrote them.
    pub(super) fn new(mut lines: Vec<Line>) -> Self {
        let mut until: HashMap<ServerUuid, CommitTime> = HashMap::new();
        for line in &mut lines {
            let until = until.entry(line.server).or_default();
            *until = line.written_until.max(*until);
            line.written_until = *until;
        }
        Self { lines }
    }

    /// A line.
    ///
    /// # Errors
    /// Never for an index of this archive's own.
    pub fn line(&self, index: usize) -> Result<&Line> {
        self.lines.get(index).ok_or_else(|| Error::failed("a line that is none"))
    }

    /// Indices of the heads, the one committed to last at the end.
    pub fn heads(&self) -> Vec<usize> {
        let all = || self.lines.iter().enumerate();
        let mut heads: Vec<usize> = all()
            .filter(|(index, line)| !all().any(|(other, later)| other != *index && goes_on(line, *index, later, other)))
            .map(|(index, _)| index)
            .collect();
        heads.sort_by_key(|index| self.lines.get(*index).map(|line| line.written_until));
        heads
    }

    /// Whether two lines are of one server.
    pub(super) fn same_server(&self, one: usize, other: usize) -> bool {
        self.lines.get(other).is_some_and(|other| self.is_of(one, other.server))
    }

    /// The lines that a moment may be in: the heads and, of servers without GTIDs, whose lineages do not reach behind a
    /// gap, every line; the one written last at the end.
    pub(super) fn candidates(&self) -> Vec<usize> {
        let heads = self.heads();
        let alone = |index: &usize, line: &Line| line.executed.is_empty() && !heads.contains(index);
        let mut all: Vec<usize> =
            self.lines.iter().enumerate().filter(|(index, line)| alone(index, line)).map(|(index, _)| index).collect();
        all.extend(&heads);
        all
    }

    /// How a head is told.
    pub fn head(&self, index: usize) -> Result<Head> {
        let line = self.line(index)?;
        let of_server = self.heads().iter().filter(|other| self.is_of(**other, line.server)).count();
        let name = if of_server > 1 { format!("{}/{}", line.server, line.name()) } else { line.server.to_string() };
        Ok(Head {
            name,
            server: line.server,
            end: line.end(),
            last_commit: (!line.last_commit.is_none()).then(|| line.last_commit.rfc3339()),
            executed: line.executed.clone(),
        })
    }

    fn is_of(&self, index: usize, server: ServerUuid) -> bool {
        self.lines.get(index).is_some_and(|line| line.server == server)
    }

    /// The head whose name begins with `wanted`.
    ///
    /// # Errors
    /// [`Kind::Config`] if none or several do.
    pub fn named(&self, wanted: &str) -> Result<usize> {
        let mut found = Vec::new();
        for index in self.heads() {
            if self.head(index)?.name.starts_with(wanted) {
                found.push(index);
            }
        }
        match *found {
            [one] => Ok(one),
            [] => Err(Error::config(format!("no head of the archive is named {wanted:?}")).hint(self.choices()?)),
            _ => Err(Error::config(format!("several heads are named {wanted:?}")).hint(self.choices()?)),
        }
    }

    /// The heads, ready to be pasted.
    pub fn choices(&self) -> Result<String> {
        let mut text = String::from("heads:");
        for index in self.heads() {
            let head = self.head(index)?;
            let at = head.end.map_or_else(String::new, |end| end.to_string());
            text.push_str(&format!("\n  --head {}  ends at {at}, {}", head.name, head.last_commit.unwrap_or_default()));
        }
        Ok(text)
    }

    /// The head that `latest` means: the only one, or the one that was begun when all others had been left.
    ///
    /// # Errors
    /// [`Kind::Gap`] if there is nothing, [`Kind::Config`] with the choices if nobody can tell.
    pub fn latest(&self) -> Result<usize> {
        let heads = self.heads();
        let Some(newest) = heads.last().copied() else {
            return Err(Error::new(Kind::Gap, "the archive holds no binlog yet")
                .hint("`binvault run` fills it; `binvault status` shows what it has"));
        };
        let line = self.line(newest)?;
        for other in heads.iter().copied().filter(|other| *other != newest) {
            let left = self.line(other)?;
            let began_later = left.written_until <= CommitTime::from_seconds(line.begun_s().saturating_add(1));
            // What stands behind a server's line against the times was proven to be later: its clock was set back.
            let proven = left.server == line.server && other < newest && line.begun_s() < left.begun_s();
            if !((began_later || proven) && line.before.is_subset_of(&left.executed)) {
                return Err(self.ambiguous("several histories of the archive are alive")?);
            }
        }
        Ok(newest)
    }

    /// The error that asks for `--head`.
    pub fn ambiguous(&self, why: &str) -> Result<Error> {
        Ok(Error::config(format!("{why}: say with --head which one to follow")).hint(self.choices()?))
    }

    /// How a head came to be, oldest first; the last segment is the head's own line.
    ///
    /// Without GTIDs nobody can tell which line a server went on from: then the lineage is the line itself.
    pub fn lineage(&self, head: usize) -> Result<Vec<Segment>> {
        let mut segments = vec![Segment { line: head, only: None, missing_after: GtidSet::new() }];
        let mut needed = self.line(head)?.before.clone();
        while let Some((index, parent)) = self.parent(&needed, &segments) {
            let covered = parent.executed.common_with(&needed);
            let only = (!parent.executed.is_subset_of(&needed)).then(|| needed.clone());
            segments.push(Segment { line: index, only, missing_after: needed.minus(&covered) });
            needed = parent.before.common_with(&needed);
        }
        segments.reverse();
        Ok(segments)
    }

    /// The file with which playing begins for who has executed `have`: the newest one, up to `last` (segment and file), before
    /// which nothing of the head's history is missing to them.
    pub(super) fn beginning(
        &self,
        lineage: &[Segment],
        last: (usize, usize),
        have: &GtidSet,
    ) -> std::result::Result<Beginning, Lacking> {
        for (index, segment) in lineage.iter().enumerate().take(last.0.saturating_add(1)).rev() {
            let Some(line) = self.lines.get(segment.line) else { continue };
            let upto = if index == last.0 { last.1 } else { line.files.len().saturating_sub(1) };
            let within = |file: &FileState| {
                file.executed_before().is_some_and(|before| segment.ours(&before).is_subset_of(have))
            };
            if let Some(file) = line.files.iter().take(upto.saturating_add(1)).rposition(within) {
                return Ok(Beginning { segment: index, file, footed: true });
            }
            let before = index.checked_sub(1).and_then(|before| lineage.get(before));
            let gtids = match before {
                Some(before) => before.missing_after.minus(have),
                None => segment.ours(&line.before).minus(have),
            };
            if !gtids.is_empty() {
                return Err(Lacking { before: segment.line, gtids });
            }
        }
        // Every file of the lineage is needed from its first byte: the base stands at the archive's beginning.
        Ok(Beginning { segment: 0, file: 0, footed: false })
    }

    /// The line that has most of what is needed, and some of it itself; of equals the one that was written last: the others
    /// may have come before it, and have transactions that it left behind, whose numbers came again.
    fn parent(&self, needed: &GtidSet, used: &[Segment]) -> Option<(usize, &Line)> {
        let unused = |index: usize| !used.iter().any(|segment| segment.line == index);
        // A server's later line is nobody's parent: after a reset it may have the same GTIDs.
        let child = used.last().map_or(0, |segment| segment.line);
        let earlier = |index: usize| index < child || !self.same_server(child, index);
        let candidates = self.lines.iter().enumerate().filter(|(index, _)| unused(*index) && earlier(*index));
        let scored = candidates.filter_map(|(index, line)| {
            let adds = line.executed.minus(&line.before).common_with(needed).count();
            (adds > 0).then(|| (line.executed.common_with(needed).count(), line.written_until, index, line))
        });
        scored.max_by_key(|(covers, commit, index, _)| (*covers, *commit, *index)).map(|best| (best.2, best.3))
    }
}

/// Where in `line` a later one begins, if it does in its middle: index of the file, and offset.
fn branch_point(line: &Line, later: &Line) -> Option<(usize, u64)> {
    let Some(Seam::Branches { from }) = later.files.first().map(|file| &file.seam) else { return None };
    let linked = from.incarnation();
    let at =
        line.files.iter().position(|file| *file.incarnation() == linked).filter(|_| line.server == later.server)?;
    Some((at, from.end))
}

/// Whether `later` begins in the middle of `line`: then what `line` has behind that is not in it, whatever the numbers say.
fn branches_off(line: &Line, later: &Line) -> bool {
    branch_point(line, later).is_some_and(|(at, end)| {
        at.saturating_add(1) < line.files.len() || line.files.get(at).is_some_and(|file| file.contiguous_end() > end)
    })
}

impl Lines {
    /// Whether a base backup was taken in one of these segments' histories, as far as its place tells. GTIDs alone do not:
    /// after a reset, or the loss of a tail, other transactions have them.
    pub(super) fn belongs(&self, base: &BaseManifest, segments: &[Segment]) -> bool {
        let Some(place) = base.coordinates.incarnation() else { return true };
        let of_server = |line: &&Line| line.server == base.server;
        let at = |line: &Line| line.files.iter().position(|file| *file.incarnation() == place);
        let has = |line: &&Line| at(line).is_some();
        // A file that ended before the place: what stood there was lost in a crash, and with it what the backup has of it.
        let lost = |line: &Line| {
            at(line).is_some_and(|index| {
                let ended = line.files.len() > index.saturating_add(1);
                let short = line.files.get(index).is_some_and(|file| file.contiguous_end() < base.coordinates.position);
                let place = (index, base.coordinates.position);
                let later = segments.iter().filter_map(|segment| self.lines.get(segment.line));
                (ended && short) || later.filter_map(|later| branch_point(line, later)).any(|point| place > point)
            })
        };
        // What a line has beyond its part in the history is not in it, whatever the numbers say.
        let beyond =
            |segment: &Segment| segment.only.as_ref().is_some_and(|only| !base.coordinates.executed.is_subset_of(only));
        let known = self.lines.iter().filter(of_server).any(|line| has(&line));
        if known {
            let of = |segment: &Segment| self.lines.get(segment.line).filter(of_server);
            let holds = |segment: &Segment| of(segment).is_some_and(|line| has(&line) && !lost(line));
            if segments.iter().any(|segment| of(segment).is_some()) {
                return segments.iter().any(|segment| holds(segment) && !beyond(segment));
            }
            // Of a server that has no part in it, a replica, say: it serves if the head went on from that one's line.
            let head = segments.last().and_then(|segment| Some((self.lines.get(segment.line)?, segment.line)));
            let mut having = self.lines.iter().enumerate().filter(|(_, line)| of_server(line) && has(line));
            return having.any(|(index, line)| head.is_some_and(|(head, at)| goes_on(line, index, head, at)));
        }
        let mut own = segments.iter().filter_map(|segment| self.lines.get(segment.line)).filter(of_server);
        // Taken before archiving began, or not archived yet.
        own.all(|line| {
            let (first, last) = (line.files.first(), line.files.last());
            let before = first.is_some_and(|first| in_order(&place, first.incarnation()));
            before || last.is_some_and(|last| in_order(last.incarnation(), &place))
        })
    }
}

/// Whether a server may have written one file before the other, without a reset between them.
fn in_order(earlier: &Incarnation, later: &Incarnation) -> bool {
    earlier.file < later.file && earlier.created_s <= later.created_s
}

/// Whether `later` holds everything of `line` and more, or the same and was written later.
fn goes_on(line: &Line, index: usize, later: &Line, other: usize) -> bool {
    // A server that begins anew without what it had executed has lost it, whatever numbers come again.
    let anew = line.server == later.server && index < other && !line.executed.is_subset_of(&later.before);
    if anew || branches_off(line, later) {
        return false;
    }
    let related = !line.executed.is_empty() || line.server == later.server;
    let holds = related && line.executed.is_subset_of(&later.executed);
    // A server restored to an earlier state begins a line that the older one holds, until it commits; and after a reset
    // the same GTIDs come again. So what had ended before the line began does not go on from it.
    let was_alive = later.written_until >= CommitTime::from_seconds(line.begun_s());
    holds && was_alive && (later.written_until, other) > (line.written_until, index)
}

#[cfg(test)]
mod tests;
