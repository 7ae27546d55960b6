//! Another server: the archive's newest bytes are of one, and the agent follows another, by GTID.
//!
//! ```text
//!   a new server ─► shares history with the archive? ─► no: refused, unless it is meant
//!                          │ yes
//!                          └─ with its newest file that begins inside of what is archived, or its oldest
//!   a known one, taking over again ─► in its own files; what the other had and it has not is lost
//! ```
//!
//! Owns: the choice of its file, and the record of what is missing, lost, or will never be filled at the server that was left.
//! Does not own: a server's own breaks.

use super::{Beginning, Scene, anew, ends};
use crate::archive::{BreakKind, GapRecord, ResumeInFile, ResumePoint};
use crate::error::{Error, Kind, Result};
use crate::position::{BinlogFile, CommitTime, GtidSet, ServerUuid};
use crate::run::start::Start;
use crate::run::survey::{Binlogs, parse_file};
use crate::ship::Expected;

/// What is archived of the server written last, if that is another one.
pub(super) struct Elsewhere {
    server: ServerUuid,
    /// The newest place.
    pub(super) inside: ResumeInFile,
    /// Before the first hole; else the newest place, too.
    ends: ResumeInFile,
    high_commit: CommitTime,
}

impl Elsewhere {
    fn has_hole(&self) -> bool {
        self.ends != self.inside || self.inside.torn
    }
}

impl Scene<'_> {
    /// The archived end of another server that was written later than `own`.
    pub(super) async fn elsewhere(&self, own: CommitTime) -> Result<Option<Elsewhere>> {
        let mut latest: Option<Elsewhere> = None;
        for server in self.archive.servers().await?.into_iter().filter(|server| *server != self.server) {
            let places = self.archive.resume_points(&server).await?;
            let Some(ResumePoint { inside: Some(inside), high_commit, .. }) = places.last() else { continue };
            if latest.as_ref().is_none_or(|latest| *high_commit > latest.high_commit) {
                let ends = ends(&places).next().unwrap_or(inside).clone();
                latest = Some(Elsewhere { server, inside: inside.clone(), ends, high_commit: *high_commit });
            }
        }
        Ok(latest.filter(|latest| own.is_none() || latest.high_commit > own))
    }

    /// A known server takes over again: what another had committed meanwhile and this one never got is lost.
    pub(super) async fn came_back(&mut self, own: CommitTime, start: &Start) -> Result<Option<GapRecord>> {
        // A replica lags: what it lacks is on its way. And where no failover is expected, the other is archived beside this one.
        if !self.by_gtid || !self.agent.failover || self.facts.read_only == Some(true) {
            return Ok(None);
        }
        let Some(elsewhere) = self.elsewhere(own).await? else { return Ok(None) };
        let lost = self.lacking(&elsewhere.inside.executed()).await?;
        if lost.is_empty() {
            return Ok(self.left_with_a_hole(&elsewhere, start));
        }
        let problem =
            format!("{} takes over again without transactions of {}: {}", self.server, elsewhere.server, lost.shown());
        let from = (elsewhere.server, &elsewhere.ends);
        Ok(Some(self.record(BreakKind::Failover, problem, from, start, Some(GtidSet::new()), Some(lost))))
    }

    /// Another server was left, everything archived of it is here, and so is what stands in a hole of its archive: that nobody
    /// will fill the hole is to be known, and nothing more.
    fn left_with_a_hole(&self, left: &Elsewhere, start: &Start) -> Option<GapRecord> {
        // Where no failover is expected, another agent may be filling it.
        if !left.has_hole() || !self.by_gtid || !self.agent.failover {
            return None;
        }
        let problem = format!(
            "{} takes the place of {}, of which {} is archived up to {}, and a part of what came behind that; all of it is here",
            self.server, left.server, left.ends.incarnation.file, left.ends.end
        );
        let nothing = || Some(GtidSet::new());
        Some(self.record(BreakKind::Failover, problem, (left.server, &left.ends), start, nothing(), nothing()))
    }

    /// Another server than the archived one: by GTID, or not at all.
    pub(super) async fn on_another(&mut self, last: Elsewhere, binlogs: &Binlogs) -> Result<Beginning> {
        let archived = last.inside.executed();
        let lost = self.lacking(&archived).await?;
        let all = self.archived().await?;
        let (file, previous, missing) = self.newest_inside(&all, binlogs).await?;
        // A replica lags: what it lacks is on its way.
        let lags = self.facts.read_only == Some(true);
        let shares = self.by_gtid && lost.count() < archived.count();
        let proven = shares && missing.is_empty() && (lost.is_empty() || lags);
        if !(proven || self.agent.adopt || (shares && self.agent.failover)) {
            return Err(self.refused(&last, &lost, &missing));
        }
        let expected = Expected { before: self.by_gtid.then_some(previous), ..Expected::default() };
        let start = Start { expected, ..anew(file.clone(), CommitTime::NONE) };
        if proven {
            tracing::warn!(
                was = %last.server, server = %self.server, %file,
                "another server takes the archived one's place; it has everything that is archived, and archiving goes on without a gap"
            );
            let gap = self.left_with_a_hole(&last, &start);
            return Ok(Beginning { start, anew: true, gap });
        }
        let words = |set: &GtidSet| if set.is_empty() { "nothing".to_owned() } else { set.shown() };
        let problem = format!(
            "{} takes the place of {}; archived, but never executed by it: {}; executed before its oldest binlog and archived of nobody: {}",
            self.server,
            last.server,
            words(&lost),
            words(&missing)
        );
        let (missing, lost) = if self.by_gtid { (Some(missing), Some(lost)) } else { (None, None) };
        let gap = self.record(BreakKind::Failover, problem, (last.server, &last.ends), &start, missing, lost);
        Ok(Beginning { start, anew: true, gap: Some(gap) })
    }

    /// The newest file that begins inside of what is archived, or the oldest; what it says was executed before it, and
    /// what is missing there.
    async fn newest_inside(&mut self, archived: &GtidSet, binlogs: &Binlogs) -> Result<(BinlogFile, GtidSet, GtidSet)> {
        let (mut previous, mut missing) = (GtidSet::new(), GtidSet::new());
        let mut chosen = None;
        for log in binlogs.logs.iter().rev() {
            chosen = Some(parse_file(&log.name)?);
            if self.by_gtid {
                let before;
                (previous, before) = self.before(&log.name).await?;
                missing = before.minus(archived);
                if missing.is_empty() {
                    break;
                }
            }
        }
        Ok((chosen.ok_or_else(|| Error::new(Kind::Unfit, "the server lists no binlog"))?, previous, missing))
    }

    fn refused(&self, last: &Elsewhere, lost: &GtidSet, missing: &GtidSet) -> Error {
        let mut why = String::new();
        if self.by_gtid && !lost.is_empty() {
            why.push_str(&format!("; it has never executed transactions that are archived: {}", lost.shown()));
        }
        if self.by_gtid && !missing.is_empty() {
            why.push_str(&format!("; it no longer has transactions that are not archived: {}", missing.shown()));
        }
        let url = self.archive.store().url();
        Error::new(Kind::Diverged, format!("the archive at {url} is of server {}, this one is {}{why}", last.server, self.server))
            .hint("correct source.url or archive.url; if the server really takes the other's place, run once with --adopt; source.failover = true accepts whoever shares the archived history")
    }
}
