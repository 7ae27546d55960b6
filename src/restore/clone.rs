//! A clone becomes a data directory: the donor's answers are made into files that a server starts on.
//!
//! ```text
//!   parts of the base ─► records ─► snapshot ─► writers ─► assembly ─► a server recovers ─► its own record is held
//!                                   what goes   several    sizes, keys,                     against the manifest
//!                                   where       at a time  names, marks
//! ```
//!
//! Owns: files, keys and marks up to the server's start, and the look at its record behind it.
//! Does not own: the server (`datadir`), the protocol's layout (`mysql::clone`).
//!
//! Invariants: a name of the stream's never leads out of the data directory; a directory that is not whole cannot be started;
//! what the server has recovered is what the manifest says, or the restore has failed.

mod assemble;
pub(super) mod compat;
mod keys;
mod page;
mod place;
mod snapshot;
mod write;

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use super::site::{Destination, Site, executed};
use super::{RestoreOptions, Step, stopped};
use crate::archive::{BaseReader, CloneFacts};
use crate::error::{Context, Error, Kind, Result};
use crate::mysql::Version;
use crate::mysql::clone::record::RecordReader;
use crate::position::GtidSet;
use crate::timeline::Plan;
use assemble::{Assembly, RECOVERED, write_keyring};
use keys::MasterKey;
use snapshot::{Files, Limits, Snapshot};
use write::Writers;

/// Bytes of a server's record, at most.
const RECORD_BYTES_MAX: u64 = 16 << 20;

/// Makes the files of the plan's base, which is a clone.
///
/// # Errors
/// [`Kind::Corrupt`] for a stream that is no donor's, and those of reading the base and of the file system.
pub(super) async fn fill(options: &RestoreOptions, to: &Destination) -> Result<()> {
    match options.stop.run_until_cancelled(Box::pin(run(options, to))).await {
        Some(done) => done,
        None => Err(stopped()),
    }
}

async fn run(options: &RestoreOptions, to: &Destination) -> Result<()> {
    let base = &options.plan.base;
    let facts = compat::facts(base)?;
    let version = Version::parse(&base.server_version);
    let limits = Limits {
        page_size: facts.innodb_page_size,
        version: number(&version),
        // What is made meanwhile, and ends of extents, come on top of what was counted.
        bytes: facts.disk_bytes.saturating_add(facts.disk_bytes / 4).saturating_add(1 << 30),
    };
    let master = match &to.keyring {
        Some(keyring) => {
            let master = MasterKey::fresh()?;
            write_keyring(&to.datadir, keyring, &master)?;
            Some(master)
        }
        None => None,
    };
    let redo_folder = version.is_mysql_at_least(8, 0, 30);
    let assembly = Assembly::begin(&to.datadir, limits.page_size, redo_folder, master)?;
    let files = materialise(options, limits, &assembly.parts()).await.context(|| format!("put back {}", base.id))?;
    let finished = tokio::task::spawn_blocking(move || assembly.finish(&files));
    let finished = finished
        .await
        .map_err(|error| Error::failed("the thread that puts files in place broke down").source(error))?;
    finished.context(|| format!("put back {}", base.id))
}

/// Follows a clone stream's records, up to the end or to what does not fit: the door of `fuzzing`.
pub(crate) fn follow_stream(records: impl Iterator<Item = bytes::Bytes>, bytes_max: u64) {
    let mut snapshot = Snapshot::new(Limits { page_size: 16_384, version: 90_704, bytes: bytes_max });
    for record in records {
        if snapshot.take(&record).is_err() {
            return;
        }
    }
    drop(snapshot.finish());
}

/// Writes all the files, under their numbers.
async fn materialise(options: &RestoreOptions, limits: Limits, folder: &Path) -> Result<Files> {
    let base = &options.plan.base;
    let mut blocks = BaseReader::new(&options.archive, base, Arc::clone(&options.read.keys))?;
    let (mut records, mut snapshot, mut writers) = (RecordReader::new(), Snapshot::new(limits), Writers::new(folder));
    let mut done = 0_u64;
    while let Some(block) = blocks.next().await? {
        records.push(&block);
        while let Some(record) = records.next()? {
            match snapshot.take(&record)? {
                snapshot::Step::Nothing => {}
                snapshot::Step::Settle => writers.settle().await?,
                snapshot::Step::Write { which, offset, bytes, holes } => {
                    writers.write(which, offset, bytes, holes).await?;
                }
            }
        }
        done = done.saturating_add(block.len() as u64);
        (options.on_step)(&Step::Load { bytes: done, total: base.raw_bytes });
    }
    records.finish()?;
    let files = snapshot.finish()?;
    writers.finish().await?;
    Ok(files)
}

/// A version as InnoDB writes it into pages.
fn number(version: &Version) -> u32 {
    u32::from(version.major) * 10_000 + u32::from(version.minor) * 100 + u32::from(version.patch)
}

/// Holds what the server has recovered against the manifest, and gives the transactions that it has.
///
/// Where transactions have GTIDs, these decide: InnoDB keeps them with the transactions themselves. All that the manifest
/// names must be there, but for those that leave no trace in InnoDB, which are taken for executed, and for those that were
/// undecided when the place was noted, which the replay brings. What is there and behind the place is undecided too, or the
/// target has it. The replay goes on behind what is there, and the proof at its end is the same. Without GTIDs the place in
/// the binlog decides.
///
/// # Errors
/// [`Kind::Failed`], naming what differs.
pub(super) async fn confirm(plan: &Plan, datadir: &Path, site: &mut dyn Site) -> Result<GtidSet> {
    let base = &plan.base;
    let path = datadir.join(RECOVERED);
    let mut text = String::new();
    let read = std::fs::File::open(&path).and_then(|file| file.take(RECORD_BYTES_MAX).read_to_string(&mut text));
    read.context(|| format!("read what the server has recovered ({})", path.display()))?;
    let coordinates = &base.coordinates;
    let found = recovered(&text);
    let at = found.map_or_else(|| "nowhere".to_owned(), |(file, position)| format!("{file}:{position}"));
    let same_place = found == Some((coordinates.file.as_str(), coordinates.position));
    let differs = |what: String| {
        Error::new(Kind::Failed, format!("what the server recovered is not what {} says: {what}", base.id))
            .hint("choose another base backup with --base, and keep this one as evidence")
    };
    if !coordinates.by_gtid() {
        let what = || format!("it stands at {at}, by the manifest at {}", coordinates.position());
        return if same_place { Ok(coordinates.executed.clone()) } else { Err(differs(what())) };
    }
    let there = executed(site.connection()?).await?;
    let (missing, extra) = (coordinates.executed.minus(&there), there.minus(&coordinates.executed));
    let beyond = extra.minus(&plan.expected);
    let (unrecorded, undecided) =
        base.clone.as_ref().map(|facts| (facts.unrecorded.clone(), facts.undecided.clone())).unwrap_or_default();
    let traceless = missing.common_with(&unrecorded);
    let to_come = missing.minus(&traceless);
    let lost = to_come.minus(&undecided);
    if !lost.is_empty() {
        return Err(differs(format!("{lost} are missing")));
    }
    if !beyond.is_empty() {
        return Err(differs(format!("it has {beyond} too, which the target has not")));
    }
    let unforeseen = extra.minus(&undecided);
    if !same_place || !unforeseen.is_empty() {
        tracing::warn!(base = %base.id, %at, %unforeseen, "the server has recovered more than the manifest says: the replay begins behind that");
    }
    tracing::debug!(base = %base.id, %at, %to_come, %extra, "what the clone's place left undecided is decided");
    let mut have = there;
    have.union_with(&traceless);
    Ok(have)
}

/// File and position in the server's record: two times, the file, the position, the set of transactions.
fn recovered(text: &str) -> Option<(&str, u64)> {
    let mut lines = text.lines().skip(2);
    let file = lines.next()?.trim();
    let file = file.rsplit('/').next().unwrap_or(file);
    Some((file, lines.next()?.trim().parse().ok()?))
}

/// What is to be said about a server that was made of a clone.
pub(super) fn next_steps(facts: &CloneFacts, program: &Path, keyring: Option<&Path>) -> Vec<String> {
    let mut next = vec![
        "a clone has InnoDB's data alone: options (my.cnf), persisted variables and keyrings of the archived server are not in \
         it; tables of other engines are there, and empty"
            .to_owned(),
    ];
    if let Some(keyring) = keyring {
        next.push(format!(
            "its tablespaces' keys are wrapped under a new master key, in {}: keep it, let none but the server read it; {}",
            keyring.display(),
            compat::keyring_hint(program)
        ));
    }
    if !facts.external.is_empty() {
        next.push(format!(
            "{} tablespaces lay outside the archived server's data directory; they lie in this one now: {}",
            facts.external.len(),
            shortened(&facts.external)
        ));
    }
    next
}

fn shortened(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let mut text = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(", …");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_record_is_read() {
        let text = "1711\n1712\n./binlog.000003\n1234\nuuid:1-5,\nother:1-9\n";
        assert_eq!(recovered(text), Some(("binlog.000003", 1234)));
        assert_eq!(recovered("1\n2\n/logs/binlog.000003\n4\n\n"), Some(("binlog.000003", 4)));
        for odd in ["", "1\n2\n", "1\n2\nbinlog.000003\n", "1\n2\nbinlog.000003\nx\n"] {
            assert_eq!(recovered(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn versions_are_numbers_in_pages() {
        assert_eq!(number(&Version::parse("9.7.4-2")), 90_704);
        assert_eq!(number(&Version::parse("8.0.37")), 80_037);
    }
}
