//! A spool: a folder in front of a store. What is put is durable there at once, and goes to the store behind the caller's
//! back, in order.
//!
//! ```text
//!   put_new ─► room? ─► the folder, fsynced ─► Created          (a full spool makes the caller wait)
//!                            │
//!                            └─► drain: several at a time, begun in order ─► the store ─► out of the folder
//! ```
//!
//! Two kinds of entries: *whole* ones, which go to the store, and *pieces*, which are there only to be durable until a whole
//! one that covers them is. A piece goes to the store only if its generation ends before it is covered, or the process does.
//!
//! Owns: the folder, its lock and its mark of whom it belongs to, the bounds, the order, draining ([`Spool::drain`]), and the
//! store as seen through it ([`Spooled`]). Does not own: what the objects are; its user says which names it takes, and whether
//! an object's bytes are what its name says.
//!
//! Invariants: an entry leaves the folder only when the store has acknowledged it, or what covers it is durable; never more
//! than the bounds are taken; one process at a time has the folder; a spool is drained into the archive it was filled for.

mod drain;
mod front;
mod index;

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::index::{Index, Lane};
use super::disk::{DiskOptions, DiskStore};
use super::{Key, ListDepth, Put, Store, StoreError, StoreErrorKind, list_collect};
use crate::retry::{RetryOptions, Stopped, retry};
use crate::{clock, threads};

pub use drain::DrainOptions;
pub use front::Spooled;
pub use index::SpoolState;

/// Says whom the folder belongs to.
const MARK: &str = "spool.json";
/// Held by the process that has the folder.
const LOCK: &str = "spool.lock";
/// More entries than this in a folder are no spool's.
const ENTRIES_MAX: usize = 1 << 20;

/// Where, how much, and what.
#[derive(Debug, Clone)]
pub struct SpoolOptions {
    /// The folder. It is made if its parent is there.
    pub dir: PathBuf,
    /// Most bytes of entries.
    pub bytes_max: u64,
    /// Most entries.
    pub entries_max: usize,
    /// The names it takes begin so; others go to the store at once.
    pub prefix: &'static str,
    /// Whether bytes are those of an object of that name.
    pub is_whole: fn(&Key, &[u8]) -> bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    format: u32,
    archive: String,
}

/// An open spool.
pub struct Spool {
    options: SpoolOptions,
    disk: DiskStore,
    index: Mutex<Index>,
    changed: watch::Sender<()>,
    _lock: File,
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spool").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Spool {
    /// Opens the folder for an archive, and finds what an earlier run has left.
    ///
    /// # Errors
    /// `Config` if another process has it, or if it is another archive's; and what the folder says.
    pub async fn open(options: SpoolOptions, archive: &str) -> Result<Arc<Self>, StoreError> {
        let mut index = Index::new(options.bytes_max, options.entries_max);
        let disk = DiskOptions { create: true, spares: index.spares() };
        let disk = DiskStore::open(&options.dir, &disk).await?;
        let lock = lock(&options.dir)?;
        claim(&disk, &options.dir, archive).await?;
        // Whoever wrote them is dead.
        disk.sweep(0).await?;
        remove_empty(&options.dir.join(options.prefix));
        let mut listing = list_collect(&disk, options.prefix, ListDepth::Everything, ENTRIES_MAX).await?;
        listing.objects.sort_by(|one, other| (one.modified_us, &one.key).cmp(&(other.modified_us, &other.key)));
        for object in listing.objects {
            index.found(&object.key, object.size, object.modified_us.unwrap_or_else(clock::now_us));
        }
        Ok(Arc::new(Self { options, disk, index: Mutex::new(index), changed: watch::Sender::new(()), _lock: lock }))
    }

    /// What a folder holds, without taking it: also while an agent has it. `None` if it is no spool.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn look(dir: &Path, prefix: &str) -> Result<Option<(String, SpoolState)>, StoreError> {
        if fs::metadata(dir.join(MARK)).is_err() {
            return Ok(None);
        }
        let disk = DiskStore::open(dir, &DiskOptions { create: false, ..DiskOptions::default() }).await?;
        let archive = read_mark(&disk, dir).await?;
        let listing = list_collect(&disk, prefix, ListDepth::Everything, ENTRIES_MAX).await?;
        let bytes = listing.objects.iter().fold(0_u64, |sum, object| sum.saturating_add(object.size));
        let oldest_us = listing.objects.iter().filter_map(|object| object.modified_us).min();
        Ok(Some((archive, SpoolState { objects: listing.objects.len(), bytes, oldest_us })))
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.options.dir
    }

    /// What it holds.
    pub fn state(&self) -> SpoolState {
        self.lock().state()
    }

    /// How many whole entries there have been so far, and how many of them, from the first without a break, are in the
    /// store. What was durable before this was asked is in the store once the second has reached the first.
    pub fn turns(&self) -> (u64, u64) {
        let index = self.lock();
        (index.taken(), index.stored())
    }

    /// Whether pieces take so much room that what covers them should come soon.
    pub fn has_many_pieces(&self) -> bool {
        self.lock().has_many_pieces()
    }

    /// Ends the generation of pieces: what is held goes to the store too. Returns the number of the next generation.
    pub fn release_pieces(&self) -> u64 {
        let generation = self.lock().release_pieces();
        self.changed.send_replace(());
        generation
    }

    /// Makes a piece durable.
    ///
    /// # Errors
    /// The folder's.
    pub async fn put_piece(self: &Arc<Self>, generation: u64, key: &Key, body: Bytes) -> Result<Put, StoreError> {
        self.put(Lane::Piece(generation), key, body).await
    }

    /// As [`Spool::put_piece`], at once, on a thread that may block; `None` if there is no room.
    ///
    /// # Errors
    /// The folder's.
    pub fn put_piece_now(&self, generation: u64, key: &Key, body: &[u8]) -> Option<Result<Put, StoreError>> {
        let lane = Lane::Piece(generation);
        let reserved = self.lock().reserve(lane, body.len() as u64);
        reserved.then(|| self.write(lane, key, body))
    }

    async fn put(self: &Arc<Self>, lane: Lane, key: &Key, body: Bytes) -> Result<Put, StoreError> {
        let write = || async {
            self.reserve(lane, body.len() as u64).await;
            let (spool, key, body) = (Arc::clone(self), key.clone(), body.clone());
            // Once begun it is carried through and counted, even if the caller is gone meanwhile.
            let written = threads::run(move || spool.write(lane, &key, &body));
            written.await.unwrap_or_else(|error| Err(cut_off(error)))
        };
        // A disk without room may get some: what is drained leaves it.
        let retryable = |error: &StoreError| error.kind.is_retryable();
        let what = || format!("spool {key}");
        match retry(write, &RetryOptions::default(), retryable, what, &CancellationToken::new()).await {
            Ok(put) => Ok(put),
            Err(Stopped::Failed { error, .. } | Stopped::Cancelled(Some(error))) => Err(error),
            Err(Stopped::Cancelled(None)) => Err(StoreError::new(StoreErrorKind::Transient, what())),
        }
    }

    /// Writes what room is reserved for.
    fn write(&self, lane: Lane, key: &Key, body: &[u8]) -> Result<Put, StoreError> {
        let size = body.len() as u64;
        let put = self.disk.put_blocking(key, body);
        let mut index = self.lock();
        match &put {
            Ok(_) => index.written(lane, key, size, clock::now_us()),
            Err(_) => index.unreserve(lane, size),
        }
        drop(index);
        self.changed.send_replace(());
        put
    }

    /// Waits until there is room, and takes it.
    async fn reserve(&self, lane: Lane, size: u64) {
        let mut changed = self.changed.subscribe();
        let mut told = false;
        while !self.lock().reserve(lane, size) {
            if !told {
                let SpoolState { objects, bytes, .. } = self.state();
                tracing::warn!(objects, bytes, dir = %self.options.dir.display(), "the spool is full: archiving waits for the store");
                told = true;
            }
            // The sender is ours.
            let _ = changed.changed().await;
        }
        if told {
            tracing::info!("the spool has room again");
        }
    }

    /// Takes entries out: what is in the store, or pieces that are covered by what is durable. One that a crash brings back
    /// goes to the store once more, which does no harm.
    ///
    /// # Errors
    /// The folder's.
    pub async fn remove(self: &Arc<Self>, keys: Vec<Key>) -> Result<(), StoreError> {
        let spool = Arc::clone(self);
        let removed = threads::run(move || {
            for key in keys {
                spool.disk.remove_blocking(&key)?;
                spool.lock().gone(&key);
            }
            spool.disk.settle_blocking();
            spool.changed.send_replace(());
            Ok(())
        });
        removed.await.unwrap_or_else(|error| Err(cut_off(error)))
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        // Every change is one call on the index.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes folders that what was drained has left. One that cannot be removed does no harm.
fn remove_empty(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&entry.path());
            drop(fs::remove_dir(entry.path()));
        }
    }
}

fn cut_off(error: tokio::task::JoinError) -> StoreError {
    StoreError::new(StoreErrorKind::Transient, "a disk task was cut off").with_source(error)
}

/// Takes the folder for this process; the kernel gives it back when the process ends, however it does.
fn lock(dir: &Path) -> Result<File, StoreError> {
    use std::os::unix::fs::OpenOptionsExt;

    let path = dir.join(LOCK);
    let failed = |error| StoreError::new(StoreErrorKind::Denied, format!("open {}", path.display())).with_source(error);
    let file =
        fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o640).open(&path).map_err(failed)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|errno| {
        let message = format!("the spool {} is in use by another process", dir.display());
        StoreError::new(StoreErrorKind::Config, message).with_source(std::io::Error::from(errno))
    })?;
    Ok(file)
}

/// Checks that the folder is the archive's, or makes it so.
async fn claim(disk: &DiskStore, dir: &Path, archive: &str) -> Result<(), StoreError> {
    if fs::metadata(dir.join(MARK)).is_err() {
        let mark = Mark { format: 1, archive: archive.to_owned() };
        let json = serde_json::to_vec_pretty(&mark)
            .map_err(|error| StoreError::new(StoreErrorKind::Config, "write the spool's mark").with_source(error))?;
        disk.put_new(&Key::new(MARK)?, Bytes::from(json)).await?;
    }
    let owner = read_mark(disk, dir).await?;
    if owner == archive {
        return Ok(());
    }
    let message = format!("the spool {} is of archive {owner}, this one is {archive}", dir.display());
    Err(StoreError::new(StoreErrorKind::Config, message))
}

async fn read_mark(disk: &DiskStore, dir: &Path) -> Result<String, StoreError> {
    const BYTES_MAX: u64 = 4096;
    let body = super::get_all(disk, &Key::new(MARK)?, BYTES_MAX).await?;
    let what = || format!("{}", dir.join(MARK).display());
    let mark: Mark = serde_json::from_slice(&body).map_err(|error| {
        StoreError::new(StoreErrorKind::Config, format!("{} is no spool's mark", what())).with_source(error)
    })?;
    if mark.format != 1 {
        let message = format!("{} is of format {}, this program knows 1", what(), mark.format);
        return Err(StoreError::new(StoreErrorKind::Config, message));
    }
    Ok(mark.archive)
}

#[cfg(test)]
mod tests;
