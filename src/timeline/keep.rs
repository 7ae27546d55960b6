//! What the moments since a given one need: base backups and files. Needs no key.
//!
//! A moment is restored from a base backup before it and every file from there on. So for each history that is still of
//! use, the newest base backup before the first moment that leads to the history's end is kept, with what follows it. Where
//! none does, nothing of that history may go.

use std::collections::BTreeSet;

use super::line::{Beginning, Head, Line, Lines, Segment};
use super::plan::known_until;
use crate::archive::{BaseManifest, Beacon};
use crate::error::Result;
use crate::position::{CommitTime, Incarnation, ServerUuid};

/// What is needed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needed {
    /// Files, whole.
    pub files: BTreeSet<(ServerUuid, Incarnation)>,
    /// Ids of base backups.
    pub bases: BTreeSet<String>,
    /// The histories, and from where on they are kept.
    pub heads: Vec<KeptHead>,
}

/// A history that is still of use.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct KeptHead {
    /// It.
    #[serde(flatten)]
    pub head: Head,
    /// The base backup that its moments begin with; `None` if none before the first of them leads to its end: then all of it is
    /// kept.
    pub base: Option<String>,
}

impl Lines {
    /// What every moment since `since_us` (microseconds since 1970) needs, and each of the `spare` base backups for its own
    /// place.
    ///
    /// # Errors
    /// Never, for an archive that could be read.
    pub fn needed_since(
        &self,
        bases: &[BaseManifest],
        beacons: &[Beacon],
        since_us: u64,
        spare: &BTreeSet<String>,
    ) -> Result<Needed> {
        let mut needed = Needed::default();
        let candidates = self.candidates();
        let lives = |line: &Line| known_until(beacons, line).max(written_us(line)) >= since_us;
        let some_live = candidates.iter().any(|index| self.lines.get(*index).is_some_and(lives));
        for index in candidates {
            let line = self.line(index)?;
            // What was left before the first moment is of no use, unless nothing else is there.
            if lives(line) || !some_live {
                self.add(index, bases, since_us, &mut needed)?;
            }
        }
        let later = bases.iter().filter(|base| base.finished_us >= since_us).map(|base| base.id.clone());
        needed.bases.extend(later.chain(spare.iter().cloned()));
        for base in bases.iter().filter(|base| needed.bases.contains(&base.id)) {
            // Its place is in this file; and what was undecided there is.
            let places = self.files_of(base);
            needed.files.extend(places);
        }
        Ok(needed)
    }

    /// The moment from which on everything up to the end of a server's newest line can be restored, microseconds since 1970: its
    /// own base backups lead there, or those of a server that it took over from. `None` if none does.
    ///
    /// # Errors
    /// Never, for an archive that could be read.
    pub fn restorable_from(&self, server: ServerUuid, bases: &[BaseManifest]) -> Result<Option<u64>> {
        let Some(newest) = self.lines.iter().rposition(|line| line.server == server) else { return Ok(None) };
        let lineage = self.lineage(newest)?;
        // A dump is of its beginning, a clone of its end: from there on, at the latest.
        Ok(bases.iter().filter(|base| self.leads(base, &lineage).is_some()).map(|base| base.finished_us).min())
    }

    /// Adds what a history needs.
    fn add(&self, head: usize, bases: &[BaseManifest], since_us: u64, needed: &mut Needed) -> Result<()> {
        let lineage = self.lineage(head)?;
        let mut before: Vec<&BaseManifest> = bases.iter().filter(|base| base.finished_us <= since_us).collect();
        before.sort_by_key(|base| (base.finished_us, &base.id));
        let leads = |base: &&BaseManifest| Some((self.leads(base, &lineage)?, (*base).clone()));
        let chosen = before.iter().rev().find_map(leads);
        let from = chosen.as_ref().map_or((0, 0), |(beginning, _)| (beginning.segment, beginning.file));
        for (number, segment) in lineage.iter().enumerate().skip(from.0) {
            let line = self.line(segment.line)?;
            let skip = if number == from.0 { from.1 } else { 0 };
            needed.files.extend(line.files.iter().skip(skip).map(|file| (line.server, file.incarnation().clone())));
        }
        match &chosen {
            Some((_, base)) => drop(needed.bases.insert(base.id.clone())),
            None => {
                let belonging = bases.iter().filter(|base| self.belongs(base, &lineage)).map(|base| base.id.clone());
                needed.bases.extend(belonging);
            }
        }
        needed.heads.push(KeptHead { head: self.head(head)?, base: chosen.map(|(_, base)| base.id) });
        Ok(())
    }

    /// The first file that is played on a base backup to reach a lineage's end, if it leads there.
    fn leads(&self, base: &BaseManifest, lineage: &[Segment]) -> Option<Beginning> {
        let line = self.lines.get(lineage.last()?.line)?;
        if !self.belongs(base, lineage) {
            return None;
        }
        let last = (lineage.len().checked_sub(1)?, line.files.len().checked_sub(1)?);
        if base.coordinates.by_gtid() {
            let within = base.possibly_executed().is_subset_of(&line.executed);
            return within.then(|| self.beginning(lineage, last, &base.certainly_executed()).ok()).flatten();
        }
        let at = &base.coordinates;
        let is_it = |(server, file): &(ServerUuid, Incarnation)| *server == base.server && at.file == file.file;
        let own = self.files_of(base).into_iter().find(is_it)?;
        let file = line.files.iter().position(|file| line.server == own.0 && *file.incarnation() == own.1)?;
        Some(Beginning { segment: last.0, file, footed: true })
    }

    /// The files that a base backup's place may be in: one, if the manifest tells which.
    fn files_of(&self, base: &BaseManifest) -> Vec<(ServerUuid, Incarnation)> {
        let at = &base.coordinates;
        let is_it = |file: &Incarnation| file.file == at.file && at.created_s.is_none_or(|made| made == file.created_s);
        let of_server = self.lines.iter().filter(|line| line.server == base.server);
        let files = of_server.flat_map(|line| line.files.iter().map(|file| (line.server, file.incarnation().clone())));
        files.filter(|(_, file)| is_it(file)).collect()
    }
}

/// The last moment of which a line has something, microseconds since 1970.
fn written_us(line: &Line) -> u64 {
    let begun = line.files.last().map(|file| CommitTime::from_seconds(file.incarnation().created_s));
    line.written_until.max(begun.unwrap_or_default()).micros()
}

#[cfg(test)]
mod tests;
