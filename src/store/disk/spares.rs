//! Files that are written again instead of being made anew.
//!
//! Where objects come and go hundreds of times a second, a file system spends more on making and removing files than on
//! writing them: inodes and blocks are sought and given back, and given-back blocks discarded on the device.
//!
//! Owns: which files there are, and how many. Does not own: what is written into them.
//!
//! Invariants: never more than the bounds; what is kept lies among the temporary files, so that a sweep takes it once its
//! owner is dead; a file that has a second name is nobody's to write to.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

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
    files: Vec<(PathBuf, u64)>,
    bytes: u64,
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
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let (path, bytes) = kept.files.pop()?;
            kept.bytes = kept.bytes.saturating_sub(bytes);
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

    /// Takes a file away from its name and keeps it under another. `false`: it is where it was.
    pub(super) fn keep(&self, path: &Path, spare: PathBuf) -> bool {
        let Ok(found) = fs::symlink_metadata(path) else { return false };
        let bytes = found.len();
        let fits = found.is_file() && found.nlink() == 1 && bytes <= FILE_BYTES_MAX;
        if !fits || !self.reserve(bytes) {
            return false;
        }
        let moved = fs::rename(path, &spare).is_ok();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if moved {
            kept.files.push((spare, bytes));
        } else {
            kept.bytes = kept.bytes.saturating_sub(bytes);
        }
        moved
    }

    fn reserve(&self, bytes: u64) -> bool {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = kept.bytes.saturating_add(bytes);
        let fits = kept.files.len() < self.options.files && sum <= self.options.bytes;
        if fits {
            kept.bytes = sum;
        }
        fits
    }
}
