//! Where in a head's history a target is: the place between two transactions.

use std::cell::Cell;
use std::ops::ControlFlow;

use super::line::{Line, Lines, Segment};
use super::scan::{Footing, Scan};
use super::target::{Edge, Target};
use crate::archive::{Archive, FileState, ReadOptions};
use crate::chunk::ChunkMeta;
use crate::error::{Error, Kind, Result};
use crate::mysql::walk::Transaction;
use crate::position::{CommitTime, Gtid, GtidSet, Position};

/// A transaction, as a plan tells it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TransactionNote {
    /// Its GTID, if it has one.
    #[serde(serialize_with = "gtid_text")]
    pub gtid: Option<Gtid>,
    /// When it was committed.
    #[serde(serialize_with = "time_text")]
    pub commit: CommitTime,
    /// Where it begins.
    pub position: Position,
}

fn gtid_text<S: serde::Serializer>(gtid: &Option<Gtid>, to: S) -> Result<S::Ok, S::Error> {
    match gtid {
        Some(gtid) => to.collect_str(gtid),
        None => to.serialize_none(),
    }
}

fn time_text<S: serde::Serializer>(commit: &CommitTime, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&commit.rfc3339())
}

/// A place between two transactions of a lineage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Index of the lineage's segment.
    pub segment: usize,
    /// Index of the file in the segment's line.
    pub file: usize,
    /// Offset in the file: the end of a transaction, or the beginning of one.
    pub position: Position,
    /// From this offset of the file to the place stands nothing but events that belong to no transaction.
    pub quiet_from: u64,
    /// What is executed there, of the head's own history.
    pub executed: GtidSet,
    /// The last transaction before it, where one is near.
    pub last_in: Option<TransactionNote>,
    /// The first transaction behind it.
    pub first_out: Option<TransactionNote>,
    /// What whoever asked should know.
    pub warnings: Vec<String>,
}

/// Resolves targets in one lineage.
pub(super) struct Resolver<'a> {
    pub(super) archive: &'a Archive,
    pub(super) read: &'a ReadOptions,
    pub(super) lines: &'a Lines,
    pub(super) lineage: &'a [Segment],
    /// Microseconds since 1970 up to which the head is known to have nothing but what is archived.
    pub(super) known_until_us: u64,
}

/// What one file's scan found.
struct Found {
    footing: Footing,
    /// The end of the last transaction before it, or the offset where the scan began.
    quiet_from: u64,
    last_in: Option<TransactionNote>,
    first_out: Option<TransactionNote>,
    /// Why what follows could not be read, where that does not matter.
    unread: Option<Error>,
}

/// What could be read of a file whose next chunk cannot be.
struct Stuck<'a> {
    /// The end of what was read.
    offset: u64,
    /// What the header of the unreadable chunk says, if it begins just there, between two transactions.
    next: Option<&'a ChunkMeta>,
}

impl Resolver<'_> {
    /// The place of a target.
    ///
    /// # Errors
    /// [`Kind::Gap`] if the target is not in this history; [`Kind::Key`] and [`Kind::Corrupt`] of the chunks looked into.
    pub(super) async fn place(&self, target: &Target, edge: Option<Edge>) -> Result<Place> {
        match target {
            Target::Latest => self.end().await,
            Target::Time(time) => self.at_time(*time, edge.unwrap_or(Edge::After)).await,
            Target::Gtid(gtid) => self.at_gtid(gtid, edge.unwrap_or(Edge::After)).await,
            Target::At(position) => self.at_position(position, edge).await,
        }
    }

    fn line(&self, segment: &Segment) -> Result<&Line> {
        self.lines.line(segment.line)
    }

    fn scan<'a>(&'a self, file: &'a FileState) -> Scan<'a> {
        Scan { archive: self.archive, read: self.read, file }
    }

    fn made(&self, segment: usize, file: usize, state: &FileState, found: Found) -> Place {
        let only = self.lineage.get(segment).and_then(|segment| segment.only.as_ref());
        let executed = match only {
            Some(only) => found.footing.executed.common_with(only),
            None => found.footing.executed.clone(),
        };
        let position = Position { file: state.incarnation().file.clone(), offset: found.footing.offset };
        let Found { quiet_from, last_in, first_out, unread, .. } = found;
        let warning = |error: Error| format!("what follows {position} cannot be read: {}", error.chain());
        let warnings = unread.map(warning).into_iter().collect();
        Place { segment, file, position, quiet_from, executed, last_in, first_out, warnings }
    }

    /// The end of the head: behind its last complete transaction.
    async fn end(&self) -> Result<Place> {
        let Some((segment_index, segment)) = self.lineage.iter().enumerate().next_back() else {
            return Err(Error::failed("a lineage of nothing"));
        };
        let line = self.line(segment)?;
        let Some((index, file)) = line.files.iter().enumerate().next_back() else {
            return Err(Error::failed("a line of nothing"));
        };
        let scan = self.scan(file);
        let from = scan.footing(scan.pieces().saturating_sub(1)).await?;
        let found = self.find(file, from, None, |_| false, |_| false).await?;
        Ok(self.made(segment_index, index, file, found))
    }

    /// Scans a file from a footing up to the first transaction (of `only`) that `stop` is true of or that is not complete.
    /// A chunk that cannot be read is an error, unless `enough` says that the place is before it in any case: so that
    /// what lies before the damage can be restored.
    async fn find(
        &self,
        file: &FileState,
        mut footing: Footing,
        only: Option<&GtidSet>,
        stop: impl Fn(&Transaction) -> bool,
        enough: impl Fn(&Stuck<'_>) -> bool,
    ) -> Result<Found> {
        let (mut last_in, mut first_out) = (None, None);
        let name = &file.incarnation().file;
        let note = |transaction: &Transaction| TransactionNote {
            gtid: transaction.gtid.clone(),
            commit: transaction.commit,
            position: Position { file: name.clone(), offset: transaction.start },
        };
        let visit = |transaction: &Transaction| {
            let ours = match (only, &transaction.gtid) {
                (Some(only), Some(gtid)) => only.contains(gtid),
                (Some(_), None) => false,
                (None, _) => true,
            };
            if !ours {
                return ControlFlow::Continue(());
            }
            if stop(transaction) || !transaction.complete {
                first_out = Some(note(transaction));
                return ControlFlow::Break(());
            }
            last_in = Some(note(transaction));
            ControlFlow::Continue(())
        };
        let mut unread = None;
        if let Err(error) = self.scan(file).run(&mut footing, visit).await {
            let next = self.scan(file).meta_at(footing.offset).await;
            let stuck = Stuck { offset: footing.offset, next: next.as_ref() };
            if !matches!(error.kind(), Kind::Corrupt | Kind::Store | Kind::Gap) || !enough(&stuck) {
                return Err(error);
            }
            unread = Some(error);
        }
        let quiet_from = footing.offset;
        if let Some(out) = &first_out {
            // What stands between two transactions belongs to neither.
            footing.offset = footing.offset.max(out.position.offset);
        }
        Ok(Found { footing, quiet_from, last_in, first_out, unread })
    }

    async fn at_time(&self, time: CommitTime, edge: Edge) -> Result<Place> {
        let late = |commit: CommitTime| if edge == Edge::Before { commit >= time } else { commit > time };
        for (segment_index, segment) in self.lineage.iter().enumerate() {
            for (index, file) in self.line(segment)?.files.iter().enumerate() {
                if !late(file.chunks.high_commit()) {
                    continue;
                }
                let cover = file.chunks.cover.contiguous();
                let high = |index: usize| file.chunks.chunks.get(index).map(|chunk| chunk.name.high_commit);
                let piece = cover.iter().position(|piece| high(piece.index).is_some_and(late)).unwrap_or(0);
                let from = self.scan(file).footing(piece).await?;
                let next_is_late = |stuck: &Stuck<'_>| stuck.next.is_some_and(|meta| late(meta.first_commit_us));
                let found = self.find(file, from, segment.only.as_ref(), |one| late(one.commit), next_is_late).await?;
                if found.unread.is_some() {
                    return Ok(self.made(segment_index, index, file, found));
                }
                if found.first_out.is_some() {
                    let mut place = self.made(segment_index, index, file, found);
                    self.warn_of_disorder(&mut place, file, late).await;
                    return Ok(place);
                }
            }
        }
        let end = self.end().await?;
        if time.micros() > self.known_until_us {
            let known = CommitTime::from_micros(self.known_until_us).rfc3339();
            return Err(Error::new(
                Kind::Gap,
                format!("the target {} lies behind what the archive knows of: {known}", time.rfc3339()),
            )
            .hint("--to latest restores all there is; `binvault status` shows how far the archive is behind"));
        }
        Ok(end)
    }

    /// Later transactions with earlier times are left out: whoever asked for a time should know.
    async fn warn_of_disorder(&self, place: &mut Place, file: &FileState, late: impl Fn(CommitTime) -> bool) {
        let mut from = Footing { offset: place.position.offset, executed: GtidSet::new() };
        let (mut looked, mut disordered) = (0_u32, 0_u64);
        let visit = |transaction: &Transaction| {
            looked = looked.saturating_add(1);
            disordered = disordered.saturating_add(u64::from(!late(transaction.commit)));
            if looked < DISORDER_LOOK { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        if let Err(error) = self.scan(file).run(&mut from, visit).await {
            place.warnings.push(format!("what follows cannot be read as a whole: {}", error.chain()));
        }
        if disordered > 0 {
            place.warnings.push(format!(
                "{disordered} of the next {looked} transactions were committed earlier than the first one left out (the \
                 clock went back, or parallel commits): they are left out, too; gtid: and file:pos targets are exact"
            ));
        }
    }

    async fn at_gtid(&self, gtid: &Gtid, edge: Edge) -> Result<Place> {
        for (segment_index, segment) in self.lineage.iter().enumerate() {
            let line = self.line(segment)?;
            let ours = segment.only.as_ref().is_none_or(|only| only.contains(gtid));
            if !ours || line.before.contains(gtid) || !line.executed.contains(gtid) {
                continue;
            }
            let holds = |file: &FileState| file.executed_at_end().is_some_and(|executed| executed.contains(gtid));
            let Some((index, file)) = line.files.iter().enumerate().find(|(_, file)| holds(file)) else { continue };
            let scan = self.scan(file);
            let piece = scan.first_piece(|executed| executed.contains(gtid)).await?;
            let from = scan.footing(piece.unwrap_or(0)).await?;
            let passed = Cell::new(false);
            let stop = |transaction: &Transaction| {
                let is_it = transaction.gtid.as_ref() == Some(gtid);
                let stop = if edge == Edge::Before { is_it } else { passed.get() };
                passed.set(passed.get() || is_it);
                stop
            };
            // The next transaction is the wanted one if it is the only one of the unreadable chunk.
            let alone = |meta: &ChunkMeta| meta.transactions == 1 && meta.gtids.contains(gtid);
            let enough = |stuck: &Stuck<'_>| match edge {
                Edge::Before => stuck.next.is_some_and(alone),
                Edge::After => passed.get(),
            };
            let found = self.find(file, from, segment.only.as_ref(), stop, enough).await?;
            let place = self.made(segment_index, index, file, found);
            if place.executed.contains(gtid) != (edge == Edge::After) {
                return Err(Error::new(Kind::Gap, format!("{gtid} is not in the archive as a whole yet"))
                    .hint("`binvault status` shows how far the archive is behind the server"));
            }
            return Ok(place);
        }
        Err(self.no_such(gtid))
    }

    fn no_such(&self, gtid: &Gtid) -> Error {
        let before = self.lineage.first().and_then(|first| self.lines.line(first.line).ok());
        if before.is_some_and(|line| line.before.contains(gtid)) {
            return Error::new(Kind::Gap, format!("{gtid} was executed before the archive begins"))
                .hint("`binvault status` shows what can be restored");
        }
        Error::new(Kind::Gap, format!("{gtid} is not in this history")).hint(
            "`binvault find --gtid` looks for it in the whole archive; `binvault status` shows what can be restored",
        )
    }

    async fn at_position(&self, at: &Position, edge: Option<Edge>) -> Result<Place> {
        for (segment_index, segment) in self.lineage.iter().enumerate().rev() {
            let line = self.line(segment)?;
            let named = line.files.iter().enumerate().rev().find(|(_, file)| file.incarnation().file == at.file);
            let Some((index, file)) = named else { continue };
            if at.offset > file.contiguous_end() {
                return Err(Error::new(
                    Kind::Gap,
                    format!("{at} lies behind what the archive has of the file: {}", file.contiguous_end()),
                )
                .hint("--to latest restores all there is"));
            }
            let cover = file.chunks.cover.contiguous();
            let piece = cover.iter().position(|piece| piece.take.end() >= at.offset).unwrap_or(0);
            let from = self.scan(file).footing(piece).await?;
            let offset = at.offset;
            let out = |transaction: &Transaction| match edge {
                Some(Edge::After) => transaction.start > offset,
                _ => transaction.end > offset,
            };
            let enough = |stuck: &Stuck<'_>| edge != Some(Edge::After) && stuck.offset >= offset;
            let found = self.find(file, from, segment.only.as_ref(), out, enough).await?;
            let mut place = self.made(segment_index, index, file, found);
            let inside = place.position.offset != at.offset && at.offset > crate::mysql::event::FIRST_EVENT;
            if inside && edge.is_none() {
                place
                    .warnings
                    .push(format!("{at} is not between two transactions; the restore ends at {}", place.position));
            }
            return Ok(place);
        }
        Err(Error::new(Kind::Gap, format!("{} is not in this history", at.file))
            .hint("`binvault list` shows the archived files; --head chooses another history"))
    }
}

/// How many transactions behind a time target are looked at for earlier times.
const DISORDER_LOOK: u32 = 10_000;
