//! Retention: what nobody needs any more is removed, and nothing else.
//!
//! ```text
//!   policy ─► since when, which base backups ─┐
//!   lines, base backups, beacons ─────────────┴─► timeline: what is needed ─► the rest, if it is old ─► record ─► remove
//! ```
//!
//! Owns: the policy, the choice, the order of removing. Does not own: what a moment needs (`timeline`), the record that
//! keeps removed files from being called a gap (`archive`).
//!
//! Invariants: what is removed is older than every moment that is kept, by commit time, never by the time of its upload;
//! every moment that is kept can be restored as before, whenever the removing is interrupted; the newest base backup that leads to a
//! history's end is never removed, and where none does, nothing of that history is; what was needed until lately (`grace`) is
//! not removed, so a restore that runs keeps its objects.

mod policy;
mod remove;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;

use crate::archive::{Archive, BaseManifest, FileChunks, History, PruneRecord, PrunedFile, Seam};
use crate::clock;
use crate::error::Result;
use crate::position::{CommitTime, ServerUuid};
use crate::timeline::{KeptHead, Lines, Needed};

pub use policy::Policy;

/// A base backup without a manifest is a leftover after so long, in microseconds: a week.
const LEFT_OVER_US: u64 = 7 * 24 * 3600 * 1_000_000;
/// Version of the report and of the record.
const SCHEMA: u32 = 1;

/// What goes or stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// Base backups.
    pub bases: u64,
    /// Binlog files.
    pub files: u64,
    /// Objects of both.
    pub objects: u64,
    /// Their bytes.
    pub stored_bytes: u64,
}

impl Amount {
    fn add(&mut self, objects: u64, bytes: u64) {
        self.objects = self.objects.saturating_add(objects);
        self.stored_bytes = self.stored_bytes.saturating_add(bytes);
    }
}

/// A binlog file that goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OldFile {
    /// Its server.
    pub server: ServerUuid,
    /// Its name and time.
    pub file: String,
    /// Last commit in it, RFC 3339.
    pub last_commit: Option<String>,
    /// Its objects.
    pub objects: u64,
    /// Their bytes.
    pub stored_bytes: u64,
}

/// A base backup that goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OldBase {
    /// Its id.
    pub id: String,
    /// Its objects.
    pub objects: u64,
    /// Their bytes.
    pub stored_bytes: u64,
    /// It was never finished.
    pub left_over: bool,
}

/// What was found, and done.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Version of this document.
    pub schema: u32,
    /// Nothing was removed.
    pub dry_run: bool,
    /// Every moment from here on is kept, RFC 3339.
    pub since: String,
    /// The histories that are kept.
    pub heads: Vec<KeptHead>,
    /// The base backups that go, oldest first.
    pub bases: Vec<OldBase>,
    /// The binlog files that go, in order.
    pub files: Vec<OldFile>,
    /// All that goes.
    pub removed: Amount,
    /// All that stays.
    pub kept: Amount,
}

/// What can be removed.
pub struct Prune {
    report: Report,
    record: PruneRecord,
    former: Vec<PruneRecord>,
    files: Vec<Arc<FileChunks>>,
}

impl Prune {
    /// Finds out what nobody needs. Removes nothing.
    ///
    /// # Errors
    /// [`crate::error::Kind::Config`] for a policy that asks for nothing; those of reading the archive.
    pub async fn plan(archive: &Archive, policy: &Policy) -> Result<Self> {
        policy.check()?;
        let now_us = clock::now_us();
        let histories = archive.histories().await?;
        let lines = Lines::of(&histories);
        let bases = archive.bases().await?;
        let beacons = archive.beacons().await?;
        let former = archive.prunes().await?;
        let wanted = policy.wanted(&bases.complete, now_us);
        let needed = lines.needed_since(&bases.complete, &beacons, wanted.since_us, &wanted.spare)?;
        let (files, kept_files) = old_files(&histories, &needed, wanted.since_us);
        let (going, staying): (Vec<_>, Vec<_>) = bases
            .complete
            .iter()
            .partition(|base| !needed.bases.contains(&base.id) && base.finished_us < wanted.since_us);
        let left_over = bases.unfinished.iter().filter(|id| is_left_over(id, now_us)).cloned();
        let mut old_bases: Vec<OldBase> = going.iter().map(|base| old_base(base)).collect();
        for id in left_over {
            old_bases.push(remove::left_over(archive, id).await?);
        }
        let report = report(&files, old_bases, &kept_files, &staying, needed.heads, wanted.since_us);
        let record = PruneRecord {
            schema: SCHEMA,
            at_us: now_us,
            since_us: wanted.since_us,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            files: names(&files).chain(still_followed(&lines, &former)).collect::<BTreeSet<_>>().into_iter().collect(),
            bases: report.bases.iter().map(|base| base.id.clone()).collect(),
            objects: report.removed.objects,
            stored_bytes: report.removed.stored_bytes,
        };
        Ok(Self { report, record, former, files })
    }

    /// What it found.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Removes it: writes the record first, then takes away base backups, manifests first, then files, from their first byte
    /// on. `on_objects` is told of every object that is gone. Where it is interrupted, the next one goes on.
    ///
    /// # Errors
    /// Those of the store; what was removed until then is gone.
    pub async fn remove(self, archive: &Archive, on_objects: &(dyn Fn(u64) + Send + Sync)) -> Result<Report> {
        let Self { mut report, record, former, files } = self;
        report.dry_run = false;
        if record.bases.is_empty() && files.is_empty() {
            return Ok(report);
        }
        archive.put_prune(&record).await?;
        for id in &record.bases {
            remove::base(archive, id, on_objects).await?;
        }
        for file in &files {
            remove::file(archive, file, on_objects).await?;
        }
        archive.replace_prunes(&record, &former).await?;
        Ok(report)
    }
}

/// The files that nobody needs and that have nothing since the first moment that is kept; and those that stay.
fn old_files(histories: &[History], needed: &Needed, since_us: u64) -> (Vec<Arc<FileChunks>>, Vec<Arc<FileChunks>>) {
    let files = histories.iter().flat_map(|history| &history.files).map(|file| Arc::clone(&file.chunks));
    files.partition(|chunks| {
        let is_needed = needed.files.contains(&(chunks.server, chunks.incarnation.clone()));
        !is_needed && last_us(chunks) < since_us
    })
}

/// The last moment that a file has something of, be it whole or not, microseconds since 1970.
fn last_us(chunks: &FileChunks) -> u64 {
    let begun = CommitTime::from_seconds(chunks.incarnation.created_s);
    chunks.chunks.iter().map(|chunk| chunk.name.high_commit).fold(begun, CommitTime::max).micros()
}

/// Whether a base backup that was never finished was begun so long ago that nobody is at it.
fn is_left_over(id: &str, now_us: u64) -> bool {
    let begun = id.split_once('-').and_then(|(begun, _)| begun.parse::<CommitTime>().ok());
    begun.is_some_and(|begun| begun.micros().saturating_add(LEFT_OVER_US) < now_us)
}

fn old_base(base: &BaseManifest) -> OldBase {
    // The manifest is an object, too.
    let objects = (base.parts.len() as u64).saturating_add(1);
    OldBase { id: base.id.clone(), objects, stored_bytes: base.stored_bytes, left_over: false }
}

fn names(files: &[Arc<FileChunks>]) -> impl Iterator<Item = PrunedFile> + '_ {
    files.iter().map(|file| PrunedFile { server: file.server, file: file.incarnation.clone() })
}

/// The files removed formerly that one which is there still follows.
fn still_followed(lines: &Lines, former: &[PruneRecord]) -> Vec<PrunedFile> {
    let firsts = lines.lines.iter().filter_map(|line| Some((line.server, &line.files.first()?.seam)));
    let followed: BTreeSet<PrunedFile> = firsts
        .filter_map(|(server, seam)| match seam {
            Seam::Pruned { wanted } => Some(PrunedFile { server, file: wanted.incarnation() }),
            _ => None,
        })
        .collect();
    let removed = former.iter().flat_map(|record| record.files.iter());
    removed.filter(|file| followed.contains(file)).cloned().collect()
}

fn report(
    files: &[Arc<FileChunks>],
    bases: Vec<OldBase>,
    kept_files: &[Arc<FileChunks>],
    kept_bases: &[&BaseManifest],
    heads: Vec<KeptHead>,
    since_us: u64,
) -> Report {
    let files: Vec<OldFile> = files
        .iter()
        .map(|file| OldFile {
            server: file.server,
            file: file.incarnation.to_string(),
            last_commit: Some(file.high_commit()).filter(|commit| !commit.is_none()).map(CommitTime::rfc3339),
            objects: file.chunks.len() as u64,
            stored_bytes: file.stored_bytes(),
        })
        .collect();
    let removed = amount(
        bases.iter().map(|base| (base.objects, base.stored_bytes)),
        files.iter().map(|file| (file.objects, file.stored_bytes)),
    );
    let kept_bases: Vec<OldBase> = kept_bases.iter().map(|base| old_base(base)).collect();
    let kept = amount(
        kept_bases.iter().map(|base| (base.objects, base.stored_bytes)),
        kept_files.iter().map(|file| (file.chunks.len() as u64, file.stored_bytes())),
    );
    let since = CommitTime::from_micros(since_us).rfc3339();
    Report { schema: SCHEMA, dry_run: true, since, heads, bases, files, removed, kept }
}

fn amount(bases: impl Iterator<Item = (u64, u64)>, files: impl Iterator<Item = (u64, u64)>) -> Amount {
    let mut sum = Amount::default();
    for (objects, bytes) in bases {
        sum.bases = sum.bases.saturating_add(1);
        sum.add(objects, bytes);
    }
    for (objects, bytes) in files {
        sum.files = sum.files.saturating_add(1);
        sum.add(objects, bytes);
    }
    sum
}
