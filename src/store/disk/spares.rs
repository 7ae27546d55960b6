//! Files that are written again instead of being made anew.
//!
//! Where objects come and go hundreds of times a second, a file system spends more on making and removing files than on
//! writing them: inodes and blocks are sought and given back, and given-back blocks discarded on the device.
//!
//! Owns: which files there are, and how many. Does not own: what is written into them.
//!
//! Invariants: a file is written to only when it is durable that its old name is gone, or a crash would leave an object with
//! another one's bytes; never more than the bounds; what is kept lies among the temporary files, so that a sweep takes it once its
//! owner is dead; a file that has a second name is nobody's to write to.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::files::sync_folder;

/// Files above this, in bytes, are not kept.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// How much may be kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpareOptions {
    /// Files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// The files.
#[derive(Debug)]
pub(super) struct Spares {
    options: SpareOptions,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// To be written to.
    files: Vec<(PathBuf, u64)>,
    /// Whose old names may come back, with the folders of those.
    resting: Vec<(PathBuf, u64, PathBuf)>,
    /// Of both, and of those on their way between.
    count: usize,
    bytes: u64,
}

impl Kept {
    fn give_back(&mut self, bytes: u64) {
        (self.count, self.bytes) = (self.count.saturating_sub(1), self.bytes.saturating_sub(bytes));
    }
}

impl Spares {
    pub(super) fn new(options: SpareOptions) -> Self {
        Self { options, kept: Mutex::default() }
    }

    /// Whether any are ever kept.
    pub(super) fn are_kept(&self) -> bool {
        self.options.files > 0
    }

    /// A file to write to, opened; its old bytes are still in it.
    pub(super) fn take(&self) -> Option<(PathBuf, File)> {
        let (path, bytes) = {
            let mut kept = self.lock();
            let (path, bytes) = kept.files.pop()?;
            kept.give_back(bytes);
            (path, bytes)
        };
        match fs::OpenOptions::new().write(true).open(&path) {
            Ok(file) => Some((path, file)),
            Err(error) => {
                tracing::debug!(path = %path.display(), bytes, %error, "a spare file cannot be used");
                None
            }
        }
    }

    /// Takes a file away from its name and keeps it under another, for use behind [`Spares::settle`]. `false`: it is where
    /// it was.
    pub(super) fn keep(&self, path: &Path, spare: PathBuf) -> bool {
        let Ok(found) = fs::symlink_metadata(path) else { return false };
        let bytes = found.len();
        let fits = found.is_file() && found.nlink() == 1 && bytes <= FILE_BYTES_MAX;
        if !fits || !self.reserve(bytes) {
            return false;
        }
        let moved = fs::rename(path, &spare).is_ok();
        let mut kept = self.lock();
        match path.parent() {
            Some(folder) if moved => kept.resting.push((spare, bytes, folder.to_owned())),
            _ => kept.give_back(bytes),
        }
        moved
    }

    /// Makes durable that the old names of what was kept are gone: then it can be written to.
    pub(super) fn settle(&self) {
        let resting = std::mem::take(&mut self.lock().resting);
        let folders: BTreeSet<&PathBuf> = resting.iter().map(|(_, _, folder)| folder).collect();
        let durable = folders.into_iter().all(|folder| sync_folder(folder).is_ok());
        let mut kept = self.lock();
        for (spare, bytes, _) in resting {
            if durable {
                kept.files.push((spare, bytes));
            } else {
                // Best effort: what stays is swept later.
                drop(fs::remove_file(&spare));
                kept.give_back(bytes);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reserve(&self, bytes: u64) -> bool {
        let mut kept = self.lock();
        let sum = kept.bytes.saturating_add(bytes);
        let fits = kept.count < self.options.files && sum <= self.options.bytes;
        if fits {
            (kept.count, kept.bytes) = (kept.count.saturating_add(1), sum);
        }
        fits
    }
}
