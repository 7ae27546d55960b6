//! Where to go on, whatever happened to the server: in its own files, behind a break in them, or on another server.
//!
//! ```text
//!   known server ─► its files go on where the archive ends? ─► yes: there
//!                                │ no
//!                                ├─ it lost the tail of its last file: with the next one
//!                                └─ purged, reset, re-cloned, renamed: with its oldest
//!   new server ───► has it executed what is archived, and has it still what is not? ─► with the newest file that begins
//!                                                                                      inside of what is archived
//! ```
//!
//! Owns: this choice, and the record of what is missing or lost by it. Does not own: the plain case (`start`).
//!
//! Invariants: nothing is passed over in silence: what is not provably without a break gives a record; of two places the
//! earlier one is taken, so a transaction may come twice into the archive, and none is left out; a server that shares no
//! history with the archive is refused unless it is meant.

mod another;

use tokio::io::AsyncReadExt;

use super::PROGRAM;
use super::start::{EXECUTED_PAUSE, EXECUTED_TRIES, Start, check_executed, check_follows, choose_first, plain_size};
use super::survey::{Binlogs, parse_file};
use crate::archive::{Archive, BreakKind, GapRecord, ResumeInFile, ResumePoint, archived_at};
use crate::chunk::Link;
use crate::clock;
use crate::config::AgentOptions;
use crate::error::{Error, Kind, Result};
use crate::mysql::dump::{DumpItem, DumpReader};
use crate::mysql::event::{FIRST_EVENT, FormatDescription, types};
use crate::mysql::facts::{ServerFacts, executed_gtids, previous_gtids, purged_gtids};
use crate::mysql::replica::{DumpRequest, start_dump};
use crate::mysql::{Connection, SourceOptions};
use crate::position::{BinlogFile, CommitTime, GtidSet, Position, ServerUuid, created_text};
use crate::ship::Expected;

/// Where to go on, and what is to be told of it.
#[derive(Debug)]
pub(super) struct Beginning {
    pub(super) start: Start,
    /// Whether it is behind a break, or on another server.
    pub(super) anew: bool,
    /// What broke, if something did.
    pub(super) gap: Option<GapRecord>,
}

/// Everything that the choice rests on.
pub(super) struct Scene<'a> {
    pub(super) archive: &'a Archive,
    pub(super) asked: &'a mut Connection,
    pub(super) source: &'a SourceOptions,
    pub(super) agent: &'a AgentOptions,
    pub(super) facts: &'a ServerFacts,
    pub(super) server: ServerUuid,
    pub(super) by_gtid: bool,
}

impl Scene<'_> {
    /// Chooses. `broken` is why the last try to go on in the server's own files failed, if it did.
    ///
    /// # Errors
    /// [`Kind::Diverged`] for a server that may be the wrong one; those of server and store.
    pub(super) async fn choose(&mut self, broken: Option<Error>) -> Result<(Beginning, Binlogs)> {
        let places = self.archive.resume_points(&self.server).await?;
        let own = places.last().cloned().unwrap_or_default();
        let elsewhere = if own.inside.is_none() { self.elsewhere(own.high_commit).await? } else { None };
        // Asked behind the listing: whatever another agent has archived by then, the server must have.
        let binlogs = Binlogs::ask(self.asked).await?;
        let mut beginning = match (own.inside.clone(), elsewhere) {
            (None, Some(elsewhere)) => self.on_another(elsewhere, &binlogs).await?,
            (None, None) => {
                let (start, _) = choose_first(places, &binlogs.logs, self.agent.start, &binlogs.end, self.by_gtid)?;
                Beginning { start, anew: false, gap: None }
            }
            (Some(inside), _) => {
                let went_on = match broken {
                    Some(error) => Err(error),
                    None => self.go_on(&places, &inside, &binlogs).await,
                };
                match went_on {
                    Ok((start, chosen)) => {
                        let gap = match self.never_filled(&places, chosen, &start).await? {
                            Some(gap) => Some(gap),
                            None => self.came_back(own.high_commit, &start).await?,
                        };
                        Beginning { start, anew: false, gap }
                    }
                    Err(error) if matches!(error.kind(), Kind::Purged | Kind::Diverged) => {
                        self.behind_a_break(&error, &places, &inside, &binlogs).await?
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        if let Some(gap) = beginning.gap.as_mut().filter(|gap| gap.goes_on_created_s.is_none()) {
            let created_s = self.created(&gap.goes_on_at.file).await?;
            gap.goes_on_created_s = Some(created_s);
            // Else the record would tell of a file of which nothing is archived, and none of the one that is.
            let start = &mut beginning.start;
            if start.position == FIRST_EVENT && start.from.inside.is_none() && start.file == gap.goes_on_at.file {
                start.expected.created_s = Some(created_s);
            }
        }
        if beginning.anew {
            self.still_oldest(&binlogs).await?;
        }
        Ok((beginning, binlogs))
    }

    /// Reading the archive behind a break takes its time. A file that is older than all which the choice knew would be
    /// passed over.
    async fn still_oldest(&mut self, binlogs: &Binlogs) -> Result<()> {
        let oldest = |binlogs: &Binlogs| binlogs.logs.first().map(|log| log.name.clone());
        let (was, is) = (oldest(binlogs), oldest(&Binlogs::ask(self.asked).await?));
        if was == is {
            return Ok(());
        }
        let name = |file: Option<String>| file.unwrap_or_else(|| "none".into());
        let message = format!("the server's oldest binlog was {}, and is {} now", name(was), name(is));
        Err(Error::failed(message).transient())
    }

    /// What of a set the server has not executed. Asked some times: a transaction reaches the dump before the set.
    async fn lacking(&mut self, archived: &GtidSet) -> Result<GtidSet> {
        let mut lacking = GtidSet::new();
        for _ in 0..EXECUTED_TRIES {
            lacking = archived.minus(&executed_gtids(self.asked).await?);
            if lacking.is_empty() {
                break;
            }
            clock::sleep(EXECUTED_PAUSE).await;
        }
        Ok(lacking)
    }

    /// In the server's own files, at the first of the archive's places that they have; and which that is.
    async fn go_on(
        &mut self,
        places: &[ResumePoint],
        inside: &ResumeInFile,
        binlogs: &Binlogs,
    ) -> Result<(Start, usize)> {
        if self.by_gtid {
            check_executed(self.asked, &inside.executed()).await?;
        }
        let (start, chosen) = self.first_served(places, binlogs).await?;
        // From a hole the server's files lead on to the newest place, if they still have it.
        if let Some(newest) = places.iter().skip(chosen.saturating_add(1)).last() {
            self.first_served(std::slice::from_ref(newest), binlogs).await?;
        }
        Ok((start, chosen))
    }

    /// The first of the archive's places that the server's files have, and are provably those that are archived.
    async fn first_served(&mut self, places: &[ResumePoint], binlogs: &Binlogs) -> Result<(Start, usize)> {
        let (mut start, chosen) =
            choose_first(places.to_vec(), &binlogs.logs, self.agent.start, &binlogs.end, self.by_gtid)?;
        if self.by_gtid
            && start.from.follows.is_some()
            && let Some(left) = places.get(chosen).and_then(|place| place.inside.as_ref())
        {
            let before = previous_gtids(self.asked, start.file.as_str()).await?;
            check_follows(&left.executed(), &before, &start.file)?;
            start.expected.before = Some(before);
        }
        // A name that came back may have grown beyond the archived end: then the position may lie inside of an event, and
        // a semi-synchronous dump would acknowledge what is not archived. And of a file whose beginning is not archived, only
        // this tells whether the server can still fill that hole.
        if let Some(inside) = &start.from.inside {
            let created_s = self.created(&start.file).await?;
            if created_s != inside.incarnation.created_s {
                let is = created_text(created_s);
                let message = format!("{} was begun at {is}, the archived one is {}", start.file, inside.incarnation);
                return Err(Error::new(Kind::Diverged, message));
            }
        }
        Ok((start, chosen))
    }

    /// Holes before the chosen place, left by an agent that died while chunks were on their way, which this server can fill no
    /// more: a gap like any other, unless it is recorded already.
    async fn never_filled(&self, places: &[ResumePoint], chosen: usize, start: &Start) -> Result<Option<GapRecord>> {
        let (passed, Some(run)) =
            (places.get(..chosen).unwrap_or_default(), places.get(chosen).and_then(|place| place.run.as_ref()))
        else {
            return Ok(None);
        };
        // The plain case, at each start: nothing is to be asked of the archive.
        if ends(passed).next().is_none() {
            return Ok(None);
        }
        let known = self.archive.gaps().await?;
        let is_told = |inside: &ResumeInFile| {
            let mut purges = known.iter().filter(|known| known.kind == BreakKind::Purged);
            purges.any(|purge| purge.explains_hole(&self.server, &inside.incarnation, inside.end))
        };
        let Some(inside) = ends(passed).find(|inside| !is_told(inside)) else { return Ok(None) };
        let up_to = if inside.end > 0 { format!("only up to {}", inside.end) } else { "not from its beginning".into() };
        let problem = format!(
            "{} was purged while it was archived {up_to}, and a part of what came behind that is archived",
            inside.incarnation.file
        );
        let gap = self.record(BreakKind::Purged, problem, (self.server, inside), start, None, None);
        let mut gap = GapRecord {
            goes_on_at: Position { file: run.first.file.clone(), offset: FIRST_EVENT },
            goes_on_created_s: Some(run.first.created_s),
            ..gap
        };
        if self.by_gtid {
            gap.missing = Some(run.before.minus(&self.archived().await?));
            gap.lost = Some(GtidSet::new());
        }
        Ok(Some(gap))
    }

    /// What was executed before a file: as it says itself, and together with what is in no file at all.
    async fn before(&mut self, file: &str) -> Result<(GtidSet, GtidSet)> {
        let previous = previous_gtids(self.asked, file).await?;
        let mut before = previous.clone();
        before.union_with(&purged_gtids(self.asked).await?);
        Ok((previous, before))
    }

    /// Everything archived of anybody.
    async fn archived(&self) -> Result<GtidSet> {
        let mut all = GtidSet::new();
        for server in self.archive.servers().await? {
            all.union_with(&archived_at(&self.archive.resume_points(&server).await?));
        }
        Ok(all)
    }

    /// The server's own files do not go on where the archive ends.
    async fn behind_a_break(
        &mut self,
        broken: &Error,
        places: &[ResumePoint],
        inside: &ResumeInFile,
        binlogs: &Binlogs,
    ) -> Result<Beginning> {
        let own = &places.last().cloned().unwrap_or_default();
        let lost = if self.by_gtid { self.lacking(&inside.executed()).await? } else { GtidSet::new() };
        if let Some(next) = self.behind_a_lost_tail(own, inside, binlogs).await? {
            let problem = format!(
                "the server lost the tail of {} behind {}",
                inside.incarnation.file,
                next.from.follows.as_ref().map_or(0, |link| link.end)
            );
            let lost = self.by_gtid.then_some(lost);
            let gap =
                self.record(BreakKind::LostTail, problem, (self.server, inside), &next, Some(GtidSet::new()), lost);
            // Holes before the tail are filled, where the server can: its files lead from there to the next one.
            let start = match self.first_served(places, binlogs).await {
                Ok((start, _)) => start,
                Err(error) if matches!(error.kind(), Kind::Purged | Kind::Diverged) => next,
                Err(error) => return Err(error),
            };
            return Ok(Beginning { start, anew: true, gap: Some(gap) });
        }
        let oldest = binlogs.logs.first().ok_or_else(|| Error::new(Kind::Unfit, "the server lists no binlog"))?;
        let file = parse_file(&oldest.name)?;
        let purged = broken.kind() == Kind::Purged;
        let high_commit = if purged { own.high_commit } else { CommitTime::NONE };
        let start = anew(file.clone(), high_commit);
        let kind = if purged { BreakKind::Purged } else { BreakKind::Reset };
        // What stands behind a hole is archived in vain.
        let ends = ends(places).next().unwrap_or(inside);
        let newest = own.newest.clone().filter(|newest| *newest != ends.incarnation);
        if !self.by_gtid {
            let gap = self.record(kind, broken.to_string(), (self.server, ends), &start, None, None);
            return Ok(Beginning { start, anew: true, gap: Some(GapRecord { newest, ..gap }) });
        }
        let (previous, before) = self.before(&oldest.name).await?;
        let start = Start { expected: Expected { before: Some(previous), ..Expected::default() }, ..start };
        let mut written = before.clone();
        written.union_with(&inside.executed());
        let missing = written.minus(&self.archived().await?);
        let elsewhere = self.elsewhere(own.high_commit).await?;
        let here = elsewhere.is_none_or(|elsewhere| elsewhere.inside.executed().is_subset_of(&inside.executed()));
        // A hole is a break: nobody fills it any more, and what stands behind it the server may never have had.
        let whole = ends == inside && own.newest.as_ref() == Some(&inside.incarnation) && !inside.torn;
        // Two empty sets prove nothing: a reset empties the server's.
        if before == inside.executed() && !before.is_empty() && here && missing.is_empty() && whole {
            // Everything before the file is what is archived, and nothing else: it follows, whatever its name. Or it is the
            // very file in which the archive ends, which follows what it did.
            let is_it = file == inside.incarnation.file && self.created(&file).await? == inside.incarnation.created_s;
            if is_it {
                tracing::warn!(%broken, %file, "archiving goes on from the beginning of the file, without a gap");
            } else {
                tracing::warn!(%broken, %file, "the server's binlogs have other names now, and go on without a gap");
            }
            let follows = (!is_it).then(|| inside.link());
            let from = ResumePoint { follows, high_commit: own.high_commit, ..ResumePoint::default() };
            return Ok(Beginning { start: Start { from, ..start }, anew: true, gap: None });
        }
        // So nobody knows whether anything is missing, either.
        let missing = (!purged || !before.is_empty()).then_some(missing);
        let gap = self.record(kind, broken.to_string(), (self.server, ends), &start, missing, Some(lost));
        Ok(Beginning { start, anew: true, gap: Some(GapRecord { newest, ..gap }) })
    }

    /// The file in which the archive ends is there, shorter, and another one behind it: a crash took its tail.
    async fn behind_a_lost_tail(
        &mut self,
        own: &ResumePoint,
        inside: &ResumeInFile,
        binlogs: &Binlogs,
    ) -> Result<Option<Start>> {
        let named = |index: usize| binlogs.logs.get(index).map(|log| parse_file(&log.name)).transpose();
        let Some(index) = (0..binlogs.logs.len())
            .find(|index| matches!(named(*index), Ok(Some(file)) if file == inside.incarnation.file))
        else {
            return Ok(None);
        };
        let Some(next) = named(index.saturating_add(1))? else { return Ok(None) };
        let size = binlogs.logs.get(index).map_or(0, plain_size);
        if size >= inside.end || self.created(&inside.incarnation.file).await? != inside.incarnation.created_s {
            return Ok(None);
        }
        let follows = Link { end: size, ..inside.link() };
        let from = ResumePoint { follows: Some(follows), high_commit: own.high_commit, ..ResumePoint::default() };
        let before = if self.by_gtid { Some(previous_gtids(self.asked, next.as_str()).await?) } else { None };
        let expected = Expected { before, ..Expected::default() };
        Ok(Some(Start { file: next, position: FIRST_EVENT, from, expected }))
    }

    /// When a file of the server's was begun: what its format description says, read from a dump of its own.
    ///
    /// # Errors
    /// [`Kind::Unreachable`] if the server has not said it, being stopped for example: that proves nothing of the file.
    async fn created(&self, file: &BinlogFile) -> Result<u32> {
        let request = DumpRequest { by_gtid: self.by_gtid, non_block: true, ..DumpRequest::unknown(file) };
        let connection = Connection::connect(self.source, PROGRAM).await?;
        let mut raw = start_dump(connection, &request).await?;
        let mut reader = DumpReader::new(&raw.leftover)?;
        let reading = async {
            loop {
                match reader.next()? {
                    Some(DumpItem::Part(part)) if part.header.kind == types::FORMAT_DESCRIPTION && part.first => {
                        return Ok(FormatDescription::parse(part.bytes)?.timestamp_s);
                    }
                    Some(DumpItem::Part(_)) => {}
                    Some(DumpItem::End) => return Err(unsaid(file, "it ended the dump")),
                    None => {
                        let read = raw.stream.read(reader.space()).await;
                        match read
                            .map_err(|error| Error::new(Kind::Unreachable, "read from the server").source(error))?
                        {
                            0 => return Err(unsaid(file, "it closed the connection")),
                            bytes => reader.filled(bytes),
                        }
                    }
                }
            }
        };
        let limit = self.source.query_timeout;
        clock::with_timeout(limit, reading)
            .await
            .unwrap_or_else(|| Err(unsaid(file, &format!("nothing came for {limit:?}"))))
    }

    fn record(
        &self,
        kind: BreakKind,
        problem: String,
        (server, inside): (ServerUuid, &ResumeInFile),
        start: &Start,
        missing: Option<GtidSet>,
        lost: Option<GtidSet>,
    ) -> GapRecord {
        GapRecord {
            schema: 1,
            at_us: clock::now_us(),
            agent: self.agent.id.clone(),
            kind,
            problem,
            server,
            ends: Position { file: inside.incarnation.file.clone(), offset: inside.end },
            ends_created_s: Some(inside.incarnation.created_s),
            newest: None,
            goes_on_with: self.server,
            goes_on_at: Position { file: start.file.clone(), offset: start.position },
            // Asked in the end, of whatever is chosen.
            goes_on_created_s: None,
            missing,
            lost,
        }
    }
}

/// The error of a server that has not said when a file was begun.
fn unsaid(file: &BinlogFile, why: &str) -> Error {
    Error::new(Kind::Unreachable, format!("the server does not say when {file} was begun: {why}"))
}

/// The archived ends: before each hole, be it a file's beginning, and the newest.
fn ends(places: &[ResumePoint]) -> impl Iterator<Item = &ResumeInFile> {
    places.iter().filter_map(|place| place.inside.as_ref())
}

/// From a file's first byte, knowing nothing of what was before it.
fn anew(file: BinlogFile, high_commit: CommitTime) -> Start {
    let from = ResumePoint { high_commit, ..ResumePoint::default() };
    Start { file, position: FIRST_EVENT, from, expected: Expected::default() }
}
