//! The server's own binlog files, all of a run: kept as hard links, so that neither PURGE nor RESET takes them.
//!
//! Owns: which files there ever were, in which epoch (a RESET begins another), and the comparison with what was exported.
//!
//! Invariant: a file is linked before anything that could remove it, so there is no file of the run that is not here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::support::compare::{Extent, difference};
use crate::support::lab::Mysqld;

/// A file: its name, and the second in which it was begun, as it says itself. A name comes back after a RESET.
pub(crate) type Name = (String, u32);

/// A kept file.
#[derive(Debug, Clone)]
pub(crate) struct KeptFile {
    pub(crate) epoch: usize,
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// All files of a run.
pub(crate) struct Kept {
    folder: PathBuf,
    epoch: usize,
}

impl Kept {
    pub(crate) fn new(server: &Mysqld) -> Self {
        Self { folder: server.scratch().join("kept"), epoch: 0 }
    }

    /// The number of RESETs so far.
    pub(crate) fn epoch(&self) -> usize {
        self.epoch
    }

    /// Links what the server has now.
    pub(crate) fn link(&self, server: &Mysqld) {
        let folder = self.folder.join(self.epoch.to_string());
        std::fs::create_dir_all(&folder).unwrap();
        for file in server.binlogs() {
            let to = folder.join(file.file_name().unwrap());
            if !to.exists() {
                std::fs::hard_link(&file, &to).unwrap();
            }
        }
    }

    /// The server was reset: what it has from now on is another history.
    pub(crate) fn next_epoch(&mut self) {
        self.epoch += 1;
    }

    /// All files, in the order in which they were written.
    pub(crate) fn files(&self) -> Vec<KeptFile> {
        (0..=self.epoch).flat_map(|epoch| self.of_epoch(epoch)).collect()
    }

    /// Those of one epoch.
    pub(crate) fn of_epoch(&self, epoch: usize) -> Vec<KeptFile> {
        let entries =
            std::fs::read_dir(self.folder.join(epoch.to_string())).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<KeptFile> = entries
            .map(|path| KeptFile { epoch, name: path.file_name().unwrap().to_str().unwrap().to_owned(), path })
            .collect();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        files
    }
}

/// When a file was begun: the time in the header of its first event.
pub(crate) fn begun(file: &Path) -> u32 {
    use std::io::Read as _;
    let mut head = [0; 8];
    std::fs::File::open(file).and_then(|mut file| file.read_exact(&mut head)).unwrap();
    u32::from_le_bytes(head[4..].try_into().unwrap())
}

/// The exported files of a folder. A name that came twice is exported with the time of each.
pub(crate) fn exported(folder: &Path) -> BTreeMap<Name, PathBuf> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // Of one whose beginning is missing nothing can be written.
        if path.metadata().unwrap().len() == 0 {
            continue;
        }
        let name: Vec<&str> = path.file_name().unwrap().to_str().unwrap().split('.').take(2).collect();
        let before = files.insert((name.join("."), begun(&path)), path.clone());
        assert!(before.is_none(), "{} and {before:?} are one file", path.display());
    }
    files
}

/// A kept file that the archive does not have as a whole.
#[derive(Debug, Clone)]
pub(crate) struct Short {
    pub(crate) file: KeptFile,
    /// What it has: the beginning of the file up to here.
    pub(crate) end: u64,
}

/// The comparison of all files of a run.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    /// Files that are the same to the last byte.
    pub(crate) whole: usize,
    pub(crate) bytes: u64,
    pub(crate) short: Vec<Short>,
}

/// Holds every kept file against the exported one. What differs in a byte fails; what ends early is for the caller to judge.
pub(crate) fn compare(kept: &Kept, mut exported: BTreeMap<Name, PathBuf>) -> Compared {
    let mut compared = Compared::default();
    for file in kept.files() {
        let Some(archived) = exported.remove(&(file.name.clone(), begun(&file.path))) else {
            compared.short.push(Short { file, end: 0 });
            continue;
        };
        let (have, whole) = (archived.metadata().unwrap().len(), file.path.metadata().unwrap().len());
        let extent = if have < whole { Extent::Prefix } else { Extent::Whole };
        if let Some(text) = difference(&file.path, &archived, extent) {
            panic!("epoch {}: {text}", file.epoch);
        }
        compared.bytes += have;
        match extent {
            Extent::Whole => compared.whole += 1,
            Extent::Prefix => compared.short.push(Short { file, end: have }),
        }
    }
    assert!(exported.is_empty(), "archived, but never written by the server: {exported:?}");
    compared
}
