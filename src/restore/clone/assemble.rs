//! From parts to a data directory that a server starts on: sizes, keys, names, and the marks that a server looks for.
//!
//! ```text
//!   #clone/#status_in_progress      while anything is missing: no server starts (made first, removed last)
//!   #clone/#status_fix              the server makes folders of empty schemas, and tables of other engines, empty
//!   #clone/#replace_files           the server writes down where the snapshot stands (#clone/#status_recovery)
//! ```
//!
//! Tested on 9.7. Invariants: everything is durable before the first mark is removed; nothing is overwritten.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::keys::MasterKey;
use super::page::{Shape, crc32c, put};
use super::snapshot::{Files, Part, Which};
use super::write::part_path;
use crate::error::{Context, Error, Result};
use crate::mysql::clone::descriptor::SpaceId;

const MARKS: &str = "#clone";
const IN_PROGRESS: &str = "#clone/#status_in_progress";
const FIX: &str = "#clone/#status_fix";
const REPLACE: &str = "#clone/#replace_files";
/// Where the server writes the snapshot's place down.
pub(super) const RECOVERED: &str = "#clone/#status_recovery";
/// Where files lie under their numbers.
const PARTS: &str = ".binvault-restore.parts";
/// Files put in place at a time.
const AT_A_TIME: usize = 4;
/// In a tablespace's flags: encrypted.
const ENCRYPTED: u32 = 1 << 13;
/// On a first page: the tablespace's flags.
const FLAGS_AT: usize = 54;
/// In a redo file's header: the block that has the log's key, and where in it.
const REDO_KEY_BLOCK: usize = 1024;
const REDO_KEY_AT: usize = 48;
const REDO_BLOCK_BYTES: usize = 512;

/// A data directory on its way.
#[derive(Debug)]
pub(super) struct Assembly {
    datadir: PathBuf,
    /// The donor's `innodb_page_size`.
    page_size: u32,
    /// Redo files have a folder of their own (8.0.30 and later).
    redo_folder: bool,
    /// Wraps the keys, if there are any.
    master: Option<MasterKey>,
}

impl Assembly {
    /// Marks the directory incomplete.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn begin(datadir: &Path, page_size: u32, redo_folder: bool, master: Option<MasterKey>) -> Result<Self> {
        let assembly = Self { datadir: datadir.to_owned(), page_size, redo_folder, master };
        make_folder(&datadir.join(MARKS))?;
        touch(&datadir.join(IN_PROGRESS))?;
        make_folder(&assembly.parts())?;
        sync_folder(&datadir.join(MARKS))?;
        sync_folder(datadir)?;
        Ok(assembly)
    }

    /// Where the files are written.
    pub(super) fn parts(&self) -> PathBuf {
        self.datadir.join(PARTS)
    }

    /// Puts every file in its place.
    ///
    /// # Errors
    /// [`crate::error::Kind::Corrupt`] naming the file, and those of the file system.
    pub(super) fn finish(self, files: &Files) -> Result<()> {
        let all: Vec<(Which, Option<&Part>, u64)> = files
            .data
            .iter()
            .map(|(index, part)| (Which::Data(*index), Some(part), part.final_size(self.page_size)))
            .chain(files.redo.iter().map(|(index, size)| (Which::Redo(*index), None, *size)))
            .collect();
        let next = AtomicUsize::new(0);
        let work = || -> Result<BTreeSet<PathBuf>> {
            let mut folders = BTreeSet::new();
            while let Some((which, part, size)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                folders.extend(self.put_in_place(*which, *part, *size)?);
            }
            Ok(folders)
        };
        let mut folders = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(work)).collect();
            let ends = threads.into_iter().map(|thread| match thread.join() {
                Ok(result) => result,
                Err(_) => Err(Error::failed("a thread that puts files in place broke down")),
            });
            ends.collect::<Result<Vec<_>>>()
        })?
        .into_iter()
        .flatten()
        .collect::<BTreeSet<PathBuf>>();
        // A start without it ends at once, even if all tables of that schema are elsewhere.
        make_folder(&self.datadir.join("mysql"))?;
        for mark in [FIX, REPLACE] {
            touch(&self.datadir.join(mark))?;
        }
        let parts = self.parts();
        std::fs::remove_dir_all(&parts).context(|| format!("remove {}", parts.display()))?;
        folders.insert(self.datadir.join(MARKS));
        folders.insert(self.datadir.clone());
        folders.iter().try_for_each(|folder| sync_folder(folder))?;
        let mark = self.datadir.join(IN_PROGRESS);
        std::fs::remove_file(&mark).context(|| format!("remove {}", mark.display()))?;
        sync_folder(&self.datadir.join(MARKS))
    }

    /// One file: its size, its key, its name. Gives the folders that have changed.
    fn put_in_place(&self, which: Which, part: Option<&Part>, size: u64) -> Result<Vec<PathBuf>> {
        let from = part_path(&self.parts(), which);
        let to = match (part, which) {
            (Some(part), _) => part.place.clone(),
            (None, Which::Redo(index) | Which::Data(index)) => self.redo_place(index),
        };
        let what = || format!("put {} in place", to.display());
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o640);
        let file = options.open(&from).context(what)?;
        file.set_len(size).context(what)?;
        match part {
            Some(part) => self.rewrap_page(&file, part),
            None => self.rewrap_redo(&file),
        }
        .map_err(|error| error.context(what()))?;
        file.sync_all().context(what)?;
        let to = self.datadir.join(&to);
        let folders: Vec<PathBuf> =
            to.ancestors().skip(1).take_while(|folder| folder.starts_with(&self.datadir)).map(Path::to_owned).collect();
        if let Some(folder) = folders.first() {
            make_folder(folder)?;
        }
        move_to(&from, &to).context(what)?;
        Ok(folders)
    }

    fn redo_place(&self, index: u32) -> PathBuf {
        PathBuf::from(if self.redo_folder {
            format!("#innodb_redo/#ib_redo{index}")
        } else {
            format!("ib_logfile{index}")
        })
    }

    /// The key on a tablespace's first page, or that which came beside it.
    fn rewrap_page(&self, file: &File, part: &Part) -> Result<()> {
        if matches!(part.space, SpaceId::NONE | SpaceId::SYSTEM) {
            return Ok(());
        }
        let shape = Shape::of(part.fsp_flags, self.page_size)?;
        let mut page = vec![0; shape.bytes];
        let what = || "read its first page".to_owned();
        file.read_exact_at(&mut page, 0).context(what)?;
        let flags =
            page.get(FLAGS_AT..).and_then(|rest| rest.first_chunk()).map_or(0, |flags| u32::from_be_bytes(*flags));
        if flags & ENCRYPTED == 0 && part.secret.is_none() {
            return Ok(());
        }
        let master = self.master()?;
        if !master.rewrap(&mut page, shape.key_at())? {
            // Without one the server says which tablespace it cannot open; one that is dropped in the redo needs none.
            let Some(secret) = &part.secret else { return Ok(()) };
            master.insert(&mut page, shape.key_at(), secret)?;
        }
        shape.seal(&mut page);
        file.write_all_at(&page, 0).context(|| "write its first page".to_owned())
    }

    /// The key in the redo's header.
    fn rewrap_redo(&self, file: &File) -> Result<()> {
        let mut block = [0; REDO_BLOCK_BYTES];
        let at = REDO_KEY_BLOCK as u64;
        if file.metadata().context(|| "ask for its size".to_owned())?.len() < at.saturating_add(block.len() as u64) {
            return Ok(());
        }
        file.read_exact_at(&mut block, at).context(|| "read its header".to_owned())?;
        if !block.get(REDO_KEY_AT..).is_some_and(|rest| rest.starts_with(super::keys::MAGIC)) {
            return Ok(());
        }
        let sum = |block: &[u8]| block.get(..REDO_BLOCK_BYTES - 4).map(crc32c).unwrap_or_default().to_be_bytes();
        let sealed = block.ends_with(&sum(&block));
        self.master()?.rewrap(&mut block, REDO_KEY_AT)?;
        if sealed {
            let sum = sum(&block);
            put(&mut block, REDO_BLOCK_BYTES - 4, &sum);
        }
        file.write_all_at(&block, at).context(|| "write its header".to_owned())
    }

    fn master(&self) -> Result<&MasterKey> {
        self.master.as_ref().ok_or_else(|| Error::corrupt("it is encrypted, and the manifest says that nothing is"))
    }
}

/// Writes the keyring with the one key, and beside the data what makes a server look for it.
///
/// # Errors
/// Those of the file system; if the keyring is there already.
pub(super) fn write_keyring(datadir: &Path, keyring: &Path, master: &MasterKey) -> Result<()> {
    let shown = serde_json::to_string(&keyring.to_string_lossy());
    let shown = shown.map_err(|error| Error::failed("write the keyring's configuration").source(error))?;
    for (path, text) in [
        (keyring.to_owned(), master.keyring()),
        (datadir.join("mysqld.my"), r#"{"components": "file://component_keyring_file"}"#.to_owned()),
        (datadir.join("component_keyring_file.cnf"), format!(r#"{{"path": {shown}, "read_only": false}}"#)),
    ] {
        let what = || format!("write {}", path.display());
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).context(what)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).context(what)?;
        if let Some(folder) = path.parent() {
            sync_folder(folder)?;
        }
    }
    Ok(())
}

fn make_folder(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o750).create(path).context(|| format!("make {}", path.display()))
}

fn touch(path: &Path) -> Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(path);
    file.and_then(|file| file.sync_all()).context(|| format!("make {}", path.display()))
}

fn sync_folder(path: &Path) -> Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path).and_then(|folder| folder.sync_all()).context(|| format!("make {} durable", path.display()))
}

/// Moves a file; never onto another.
fn move_to(from: &Path, to: &Path) -> std::io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // A file system that does not know the flag.
        Err(rustix::io::Errno::INVAL) if !to.exists() => std::fs::rename(from, to),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
