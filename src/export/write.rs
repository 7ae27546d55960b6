//! A file that appears whole or not at all.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::error::{Context, Error, Result};

/// A file being written under a temporary name; removed when dropped before [`NewFile::finish`].
#[derive(Debug)]
pub(super) struct NewFile {
    file: File,
    temporary: PathBuf,
    target: PathBuf,
    finished: bool,
}

impl NewFile {
    pub(super) fn create(target: &Path) -> Result<Self> {
        let (Some(folder), Some(name)) = (target.parent(), target.file_name().and_then(|name| name.to_str())) else {
            return Err(Error::config(format!("{} is no file name", target.display())));
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(folder)
            .context(|| format!("make the folder {}", folder.display()))?;
        let temporary = folder.join(format!(".{name}.{}.part", std::process::id()));
        // Binlogs hold the database's rows: nobody else's to read.
        let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary);
        let file = opened.context(|| format!("make {}", temporary.display()))?;
        Ok(Self { file, temporary, target: target.to_owned(), finished: false })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn path(&self) -> &Path {
        &self.target
    }

    /// Takes the unfinished file away now: other pieces may still be writing, and the program may end before they do.
    pub(super) fn discard(&self) {
        // Best effort: a leftover has a name that says what it is.
        drop(std::fs::remove_file(&self.temporary));
    }

    /// Checks the length, makes the file durable and gives it its name, unless that is taken.
    pub(super) fn finish(mut self, bytes: u64) -> Result<()> {
        let what = || format!("write {}", self.target.display());
        let length = self.file.metadata().context(what)?.len();
        if length != bytes {
            return Err(Error::corrupt(format!("{} has {length} bytes, {bytes} were planned", self.target.display())));
        }
        self.file.sync_all().context(what)?;
        renameat_with(CWD, &self.temporary, CWD, &self.target, RenameFlags::NOREPLACE)
            .or_else(|error| if error == rustix::io::Errno::INVAL { self.link() } else { Err(error.into()) })
            .context(what)?;
        self.finished = true;
        if let Some(folder) = self.target.parent() {
            File::open(folder).and_then(|folder| folder.sync_all()).context(what)?;
        }
        Ok(())
    }

    /// For filesystems that know no renaming without replacing.
    fn link(&self) -> std::io::Result<()> {
        std::fs::hard_link(&self.temporary, &self.target)?;
        std::fs::remove_file(&self.temporary)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.finished {
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}
