//! The plan of a restore: head, place, base backup, files.

use std::sync::Arc;

use super::line::{Head, Line, Lines, Segment};
use super::resolve::{Place, Resolver, TransactionNote};
use super::scan::Scan;
use super::target::{Edge, Target};
use crate::archive::{Archive, BaseContent, BaseManifest, Beacon, FileState, ReadOptions};
use crate::error::{Error, Kind, Result};
use crate::mysql::event::FIRST_EVENT;
use crate::playback::{PlayFile, Playlist};
use crate::position::{ByteRange, CommitTime, GtidSet, Position};

/// What to plan.
#[derive(Debug, Clone)]
pub struct PlanOptions {
    /// Where to end.
    pub target: Target,
    /// On which side of it.
    pub edge: Option<Edge>,
    /// Which history to follow, as [`Lines::named`] takes it.
    pub head: Option<String>,
    /// Which base backup to begin with (its id, or the beginning of it); `None`: the best one.
    pub base: Option<String>,
    /// Whether it goes into a server that runs: a base backup that is files does not serve then.
    pub into_server: bool,
    /// Transactions to leave out.
    pub skip: GtidSet,
    /// How to read chunks.
    pub read: ReadOptions,
}

/// What a restore will do and must reach.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The history it follows.
    pub head: Head,
    /// The other histories of the archive.
    pub others: Vec<Head>,
    /// The target, as it was understood.
    pub target: String,
    /// The base backup.
    pub base: BaseManifest,
    /// Whether transactions are told apart by GTID; else by file and position.
    pub by_gtid: bool,
    /// What is played on top of the base.
    pub playlist: Playlist,
    /// Where it ends.
    pub place: Place,
    /// What must be executed in the end; with `by_gtid` nothing more and nothing less.
    pub expected: GtidSet,
    /// Transactions left out on purpose.
    pub skip: GtidSet,
    /// Transactions to be played; without GTIDs counted by the chunks they are in, so perhaps a few too many.
    pub transactions: u64,
    /// The first of them.
    pub first: Option<TransactionNote>,
    /// Raw bytes of binlog to be read.
    pub raw_bytes: u64,
    /// Bytes of their objects.
    pub stored_bytes: u64,
    /// What whoever asked should know.
    pub warnings: Vec<String>,
}

/// Plans a restore; writes nothing.
///
/// # Errors
/// [`Kind::Gap`] if the target cannot be reached with what the archive holds; [`Kind::Config`] if head or base are not
/// clear; [`Kind::Key`] and [`Kind::Corrupt`] of the chunks that had to be looked into.
pub async fn plan(archive: &Archive, options: &PlanOptions) -> Result<Plan> {
    let lines = Lines::read(archive).await?;
    let (head, lineage, place) = choose_head(archive, &lines, options).await?;
    let planner = Planner { archive, lines: &lines, lineage: &lineage, place: &place, options };
    let (base, playlist, by_gtid) = planner.choose_base().await?;
    let others = lines.heads().into_iter().filter(|other| *other != head);
    let others = others.map(|other| lines.head(other)).collect::<Result<Vec<Head>>>()?;
    let first = planner.first(&playlist, &base, by_gtid).await?;
    let (raw_bytes, stored_bytes) = playlist.sizes();
    let start = &base.coordinates.executed;
    let skip = options.skip.common_with(&place.executed).minus(start);
    let expected = place.executed.minus(&skip);
    let transactions = match by_gtid {
        true => expected.minus(start).count(),
        false => planner.count(&playlist).await?,
    };
    let mut warnings = place.warnings.clone();
    warnings.extend(planner.remarks(&base, &skip, &others)?);
    Ok(Plan {
        head: lines.head(head)?,
        others,
        target: options.target.to_string(),
        by_gtid,
        expected,
        skip,
        transactions,
        first,
        raw_bytes,
        stored_bytes,
        warnings,
        base,
        playlist,
        place,
    })
}

/// The head to follow: the one that is named, the one that `latest` means, or the only one that has the target; heads
/// that agree on the state at the target are as good as one.
pub(super) async fn choose_head(
    archive: &Archive,
    lines: &Lines,
    options: &PlanOptions,
) -> Result<(usize, Vec<Segment>, Place)> {
    let candidates = match (&options.head, &options.target) {
        (Some(name), _) => vec![lines.named(name)?],
        (None, Target::Latest) => vec![lines.latest()?],
        (None, _) => lines.candidates(),
    };
    let mut found: Vec<(usize, Vec<Segment>, Place)> = Vec::new();
    let mut refused = None;
    let beacons = archive.beacons().await?;
    for head in candidates.into_iter().rev() {
        let lineage = lines.lineage(head)?;
        let known_until_us = known_until(&beacons, lines.line(head)?);
        let resolver = Resolver { archive, read: &options.read, lines, lineage: &lineage, known_until_us };
        match resolver.place(&options.target, options.edge).await {
            Ok(place) => {
                let same = |other: &(usize, Vec<Segment>, Place)| {
                    let gtids = !place.executed.is_empty() && other.2.executed == place.executed;
                    gtids || (other.2.position == place.position && lines.same_server(other.0, head))
                };
                if !found.iter().any(same) {
                    found.push((head, lineage, place));
                }
            }
            Err(error) if error.kind() == Kind::Gap => refused = refused.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    if found.len() > 1 {
        return Err(lines.ambiguous(&format!("{} is in several histories of the archive", options.target))?);
    }
    match found.pop() {
        Some(found) => Ok(found),
        None => Err(refused.unwrap_or_else(|| {
            Error::new(Kind::Gap, "the archive holds no binlog yet").hint("`binvault status` shows what it has")
        })),
    }
}

/// Until when a line is known to have nothing but what is archived: its last commit, or what an agent said later.
pub(super) fn known_until(beacons: &[Beacon], line: &Line) -> u64 {
    let end = line.end();
    let caught_up =
        |beacon: &&Beacon| beacon.server == line.server && beacon.durable == end && beacon.server_position == end;
    let said = beacons.iter().filter(caught_up).map(|beacon| beacon.as_of_us).max();
    said.unwrap_or(0).max(line.last_commit.micros())
}

/// Schemas that every server makes for itself.
const SYSTEM: &[&str] = &["information_schema", "performance_schema", "sys", "mysql"];

/// A base backup with what follows it, or why it does not serve.
type Choice = Result<(Playlist, bool)>;

struct Planner<'a> {
    archive: &'a Archive,
    lines: &'a Lines,
    lineage: &'a [Segment],
    place: &'a Place,
    options: &'a PlanOptions,
}

impl Planner<'_> {
    async fn choose_base(&self) -> Result<(BaseManifest, Playlist, bool)> {
        let bases = self.archive.bases().await?;
        let named = |base: &BaseManifest| self.options.base.as_ref().is_none_or(|wanted| base.id.starts_with(wanted));
        let wanted: Vec<&BaseManifest> = bases.complete.iter().filter(|base| named(base)).collect();
        if let (Some(wanted), [_, _, ..]) = (&self.options.base, wanted.as_slice()) {
            return Err(
                Error::config(format!("several base backups are named {wanted:?}")).hint("`binvault list` shows them")
            );
        }
        let mut serving: Option<(u64, &BaseManifest, Playlist, bool)> = None;
        let mut refused: Option<Error> = None;
        for base in wanted.iter().rev() {
            match self.follow(base).await {
                Ok((playlist, by_gtid)) => {
                    let (bytes, _) = playlist.sizes();
                    if serving.as_ref().is_none_or(|best| bytes < best.0) {
                        serving = Some((bytes, base, playlist, by_gtid));
                    }
                }
                Err(error) if error.kind() == Kind::Gap => refused = refused.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        if let Some((_, base, playlist, by_gtid)) = serving {
            return Ok((base.clone(), playlist, by_gtid));
        }
        Err(match (refused, &self.options.base) {
            (Some(error), _) => error,
            (None, Some(wanted)) => {
                Error::config(format!("the archive has no base backup {wanted:?}")).hint("`binvault list` shows them")
            }
            (None, None) => Error::new(Kind::Gap, "the archive has no base backup to begin with")
                .hint("`binvault base` takes one; until then `binvault export` gives the binlog files back"),
        })
    }

    /// What has to be played on top of a base.
    async fn follow(&self, base: &BaseManifest) -> Choice {
        if self.options.into_server && base.content == BaseContent::Clone {
            let message =
                format!("the base backup {} is a clone: files, which cannot be put into a running server", base.id);
            return Err(Error::new(Kind::Gap, message).hint(
                "restore with --datadir DIR, or choose a base backup of another engine with --base; `binvault list` shows them",
            ));
        }
        let segments = self.lineage.get(..self.place.segment.saturating_add(1)).unwrap_or(self.lineage);
        if !self.lines.belongs(base, segments) {
            let place = base.coordinates.position();
            return Err(self.too_late(base, &format!("it was taken at {place}, which is not in this history")));
        }
        if let Target::Time(time) = self.options.target
            && base.finished_us > time.micros()
            && self.place_is_beginning()
        {
            return Err(
                self.too_late(base, "it was taken later, and nothing in this history is known of the time before")
            );
        }
        if base.coordinates.by_gtid() {
            Ok((self.by_gtid(base).await?, true))
        } else {
            Ok((self.by_position(base)?, false))
        }
    }

    /// Whether no transaction that the archive has, or none but those before a gap, stands before the place: then nobody
    /// knows when what was before was committed.
    fn place_is_beginning(&self) -> bool {
        let line = self.lineage.get(self.place.segment).and_then(|segment| self.lines.lines.get(segment.line));
        let before = self.place.segment.checked_sub(1).and_then(|before| self.lineage.get(before));
        self.place.last_in.is_none()
            && before.is_none_or(|before| !before.missing_after.is_empty())
            && line.is_some_and(|line| self.place.executed.is_subset_of(&line.before))
    }

    async fn by_gtid(&self, base: &BaseManifest) -> Result<Playlist> {
        let beyond = base.possibly_executed().minus(&self.place.executed);
        if !beyond.is_empty() {
            return Err(self.too_late(base, &format!("it has executed {beyond}, which the target has not")));
        }
        let have = &base.certainly_executed();
        let place = self.place;
        let begin = match self.lines.beginning(self.lineage, (place.segment, place.file), have) {
            Ok(begin) => begin,
            Err(missing) => return Err(self.gap(base, self.lines.line(missing.before)?, &missing.gtids)),
        };
        let mut files = Vec::new();
        let segments = self.lineage.iter().enumerate().take(place.segment.saturating_add(1)).skip(begin.segment);
        for (index, segment) in segments {
            let line = self.lines.line(segment.line)?;
            let (is_first, is_last) = (index == begin.segment, index == place.segment);
            let upto = if is_last { place.file } else { line.files.len().saturating_sub(1) };
            let from = if is_first { begin.file } else { 0 };
            for (number, file) in line.files.iter().enumerate().take(upto.saturating_add(1)).skip(from) {
                let is_end = is_last && number == place.file;
                let until = if is_end { place.position.offset } else { file.contiguous_end() };
                let footed = begin.footed && is_first && number == begin.file;
                let from = if footed { self.footing(file, segment, have).await? } else { FIRST_EVENT };
                let only = segment.only.clone().map(Arc::new);
                files.push(PlayFile {
                    chunks: Arc::clone(&file.chunks),
                    from: from.min(until.max(FIRST_EVENT)),
                    until: until.max(FIRST_EVENT),
                    only,
                });
            }
        }
        Ok(Playlist { files })
    }

    /// Where in its file reading may begin for who has executed `have`.
    async fn footing(&self, file: &FileState, segment: &Segment, have: &GtidSet) -> Result<u64> {
        let scan = Scan { archive: self.archive, read: &self.options.read, file };
        let limit = match &segment.only {
            // What is not played anyway need not have been executed.
            Some(only) => {
                let mut limit = file.executed_at_end().unwrap_or_default().minus(only);
                limit.union_with(have);
                limit
            }
            None => have.clone(),
        };
        Ok(scan.footing_within(&limit).await?.offset.max(FIRST_EVENT))
    }

    fn gap(&self, base: &BaseManifest, line: &Line, missing: &GtidSet) -> Error {
        Error::new(
            Kind::Gap,
            format!("a gap stands between the base backup {} and the target: {missing} (before {}) is nowhere in the archive", base.id, line.name()),
        )
        .hint("choose a target before the gap, or one behind a later base backup; `binvault status` shows the ranges")
    }

    fn too_late(&self, base: &BaseManifest, why: &str) -> Error {
        Error::new(Kind::Gap, format!("the base backup {} does not lead to the target: {why}", base.id))
            .hint("the target lies before the oldest fitting base backup, or in another history; `binvault list` shows the base backups")
    }

    fn by_position(&self, base: &BaseManifest) -> Result<Playlist> {
        let segment = self.lineage.get(self.place.segment).ok_or_else(|| Error::failed("a lineage of nothing"))?;
        let line = self.lines.line(segment.line)?;
        let coordinates = &base.coordinates;
        let other = || {
            self.too_late(
                base,
                &format!("its position {}:{} is not in this history", coordinates.file, coordinates.position),
            )
        };
        if base.server != line.server {
            return Err(other());
        }
        let is_it = |file: &FileState| {
            let incarnation = file.incarnation();
            let begun = coordinates.created_s.is_none_or(|created| created == incarnation.created_s);
            incarnation.file == coordinates.file
                && begun
                && u64::from(incarnation.created_s) <= base.finished_us / 1_000_000
        };
        let begin = line.files.iter().rposition(is_it).ok_or_else(other)?;
        if (begin, coordinates.position) > (self.place.file, self.place.position.offset) {
            return Err(self.too_late(base, "it was taken later"));
        }
        let files = line.files.iter().enumerate().take(self.place.file.saturating_add(1)).skip(begin);
        let play = |(number, file): (usize, &FileState)| PlayFile {
            chunks: Arc::clone(&file.chunks),
            from: if number == begin { coordinates.position.max(FIRST_EVENT) } else { FIRST_EVENT },
            until: if number == self.place.file { self.place.position.offset } else { file.contiguous_end() },
            only: None,
        };
        Ok(Playlist { files: files.map(play).collect() })
    }

    /// The first transaction to be played.
    async fn first(&self, playlist: &Playlist, base: &BaseManifest, by_gtid: bool) -> Result<Option<TransactionNote>> {
        let Some(play) = playlist.files.first() else { return Ok(None) };
        let file = self.archive.file_state_of(play.chunks.as_ref().clone(), None).await?;
        let scan = Scan { archive: self.archive, read: &self.options.read, file: &file };
        let mut first = None;
        let mut from = super::scan::Footing { offset: play.from, executed: GtidSet::new() };
        let have = &base.coordinates.executed;
        let visit = |transaction: &crate::mysql::walk::Transaction| {
            let known = by_gtid && transaction.gtid.as_ref().is_some_and(|gtid| have.contains(gtid));
            let ours =
                play.only.as_ref().is_none_or(|only| transaction.gtid.as_ref().is_some_and(|gtid| only.contains(gtid)));
            if known || !ours {
                return std::ops::ControlFlow::Continue(());
            }
            if transaction.start < play.until {
                first = Some(TransactionNote {
                    gtid: transaction.gtid.clone(),
                    commit: transaction.commit,
                    position: Position { file: play.chunks.incarnation.file.clone(), offset: transaction.start },
                });
            }
            std::ops::ControlFlow::Break(())
        };
        scan.run(&mut from, visit).await?;
        Ok(first)
    }

    /// Transactions in the chunks that the playlist touches.
    async fn count(&self, playlist: &Playlist) -> Result<u64> {
        let mut count = 0_u64;
        for play in &playlist.files {
            for piece in play.pieces() {
                let Some(chunk) = play.chunks.chunks.get(piece.index) else { continue };
                count = count.saturating_add(self.archive.meta(chunk).await?.transactions);
            }
        }
        Ok(count)
    }

    fn remarks(&self, base: &BaseManifest, skip: &GtidSet, others: &[Head]) -> Result<Vec<String>> {
        let mut remarks = Vec::new();
        if !skip.is_empty() {
            remarks.push(format!(
                "{} transactions are left out ({skip}): later ones that build on them may fail or give other rows",
                skip.count()
            ));
        }
        let unknown = self.options.skip.minus(skip);
        if !unknown.is_empty() {
            remarks.push(format!("nothing to leave out: {unknown} is not between the base backup and the target"));
        }
        for head in others {
            let last = head.last_commit.as_deref().unwrap_or("-");
            remarks.push(format!("another history ends at {last}: --head {} follows it", head.name));
        }
        // What every server has of its own is no loss.
        let own = |name: &&String| SYSTEM.iter().any(|system| name.as_str() == *system || name.starts_with("mysql."));
        let lost: Vec<&str> = base.left_out.iter().filter(|name| !own(name)).map(String::as_str).collect();
        if !lost.is_empty() {
            remarks.push(format!("the base backup does not have: {}", lost.join(", ")));
        }
        Ok(remarks)
    }
}

impl PlayFile {
    /// The pieces of the file's chunks that are read.
    fn pieces(&self) -> impl Iterator<Item = &crate::archive::Piece> {
        let wanted = ByteRange::new(self.from, self.until);
        self.chunks.cover.contiguous().iter().filter(move |piece| {
            wanted.is_some_and(|wanted| piece.take.end() > wanted.start() && piece.take.start() < wanted.end())
        })
    }
}

impl Playlist {
    /// Whether nothing has to be played.
    pub fn is_empty(&self) -> bool {
        self.files.iter().all(|file| file.until <= file.from)
    }

    /// Raw bytes to be played and bytes of the objects that have to be fetched for it.
    fn sizes(&self) -> (u64, u64) {
        let mut sizes = (0_u64, 0_u64);
        for file in &self.files {
            sizes.0 = sizes.0.saturating_add(file.until.saturating_sub(file.from));
            for piece in file.pieces() {
                let stored = file.chunks.chunks.get(piece.index).map_or(0, |chunk| chunk.object.size);
                sizes.1 = sizes.1.saturating_add(stored);
            }
        }
        sizes
    }
}

/// The moment a plan ends at, as far as it is known.
impl Plan {
    /// The commit time of the last transaction before the end.
    pub fn reached(&self) -> Option<CommitTime> {
        self.place.last_in.as_ref().map(|note| note.commit)
    }
}
