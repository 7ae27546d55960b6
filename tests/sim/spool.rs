//! The spools of a history's agents: real folders, in memory where the host has such, which outlive their agents.
//!
//! What is in one counts as durable wherever it is the level that was asked for; what is told of the store must not count it.

use std::fs;
use std::path::{Path, PathBuf};

use binvault::archive::chunk_spool;
use binvault::chunk::ChunkName;
use binvault::store::spool::SpoolOptions;
use tempfile::TempDir;

/// More than any history writes.
const BYTES_MAX: u64 = 1 << 30;

/// All spools of one history.
#[derive(Debug)]
pub(crate) struct Spools {
    root: TempDir,
    /// Few, and they are full soon.
    entries_max: usize,
}

impl Spools {
    pub(crate) fn new(entries_max: usize) -> Self {
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        Self { root: root.unwrap(), entries_max }
    }

    /// An agent's, over all its lives.
    pub(crate) fn of(&self, agent: &str) -> SpoolOptions {
        chunk_spool(self.root.path().join(agent), BYTES_MAX, self.entries_max)
    }
}

/// The chunks that a spool holds.
pub(crate) fn held(dir: &Path) -> Vec<ChunkName> {
    let mut folders: Vec<PathBuf> = vec![dir.join("chunks")];
    let mut held = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                held.push(ChunkName::parse(path.strip_prefix(dir).unwrap().to_str().unwrap()).unwrap());
            }
        }
    }
    held
}
