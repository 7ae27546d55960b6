//! The data directory as a folder: whether it is free, taking it for one restore, emptying it.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::marker::Marker;
use crate::error::{Context, Error, Result};

/// A directory that one restore has for itself, as long as this lives.
#[derive(Debug)]
pub(super) struct Folder {
    place: PathBuf,
    /// `None`: it is not there yet.
    lock: Option<File>,
}

impl Folder {
    /// A directory that is there is taken, so that what is read of it stays true; one that is not stays away.
    ///
    /// # Errors
    /// If another restore has it.
    pub(super) fn open(place: &Path) -> Result<Self> {
        let mut folder = Self { place: place.to_owned(), lock: None };
        if place.exists() {
            folder.take()?;
        }
        Ok(folder)
    }

    /// Makes the directory if need be, and takes it.
    ///
    /// # Errors
    /// If another restore has it; those of the file system.
    pub(super) fn take(&mut self) -> Result<()> {
        if self.lock.is_some() {
            return Ok(());
        }
        let place = &self.place;
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o750).create(place).context(|| format!("make {}", place.display()))?;
        let what = || format!("lock {}", place.display());
        let file = File::open(place).context(what)?;
        match file.try_lock() {
            Ok(()) => self.lock = Some(file),
            Err(TryLockError::WouldBlock) => {
                return Err(Error::config(format!("another restore works in {}", place.display()))
                    .hint("wait for it or end it, or give another --datadir"));
            }
            Err(TryLockError::Error(error)) => return Err(error).context(what),
        }
        Ok(())
    }

    /// Refuses a directory that has anything in it.
    ///
    /// # Errors
    /// If it has, or cannot be looked into.
    pub(super) fn check_empty(&self) -> Result<()> {
        let place = &self.place;
        let entries = match std::fs::read_dir(place) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::config(format!("look into {}", place.display())).source(error)),
        };
        match entries.flatten().next() {
            None => Ok(()),
            Some(entry) => {
                Err(Error::config(format!("{} is not empty: {:?} is in it", place.display(), entry.file_name()))
                    .hint("a restore never overwrites: give an empty directory, or one that is not there yet"))
            }
        }
    }

    /// Marks the directory ours, and empties it if a load was interrupted. Gives its absolute path.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn prepare(&self, marker: &Marker, wipe: bool) -> Result<PathBuf> {
        marker.write(&self.place)?;
        if wipe {
            let what = || format!("empty {}", self.place.display());
            for entry in std::fs::read_dir(&self.place).context(what)? {
                let entry = entry.context(what)?;
                if Marker::is_named(&entry.file_name()) {
                    continue;
                }
                let (path, is_dir) = (entry.path(), entry.file_type().context(what)?.is_dir());
                let gone = if is_dir { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
                gone.context(what)?;
            }
        }
        self.absolute()
    }

    /// Its absolute path, without links.
    ///
    /// # Errors
    /// If it is not there.
    pub(super) fn absolute(&self) -> Result<PathBuf> {
        std::fs::canonicalize(&self.place).context(|| format!("find {}", self.place.display()))
    }
}

/// A folder for the socket: its path must be short (107 bytes), and nobody else may enter it.
///
/// # Errors
/// Those of the file system.
pub(super) fn private_folder() -> Result<PathBuf> {
    let name: String = Uuid::new_v4().simple().to_string().chars().take(12).collect();
    let folder = std::env::temp_dir().join(format!("binvault-{name}"));
    DirBuilder::new().mode(0o700).create(&folder).context(|| format!("make {}", folder.display()))?;
    Ok(folder)
}
