//! Writers: several files at a time, a bounded number of bytes on their way.
//!
//! Invariants: bytes for one stretch of a file go through one writer, in order; [`Writers::settle`] comes back when everything
//! handed over before it lies in the files; the first error is kept, and ends everything.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{FallocateFlags, fallocate};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::snapshot::Which;
use crate::error::{Context, Error, Result};

/// Writers at a time.
const WRITERS: usize = 4;
/// Bytes on their way, at most, unless a single write is larger.
const QUEUE_BYTES: u32 = 24 << 20;
/// Writes that wait for one writer, at most.
const QUEUE_WRITES: usize = 1024;
/// Files that a writer keeps open.
const OPEN_FILES: usize = 16;
/// What one writer gets of a file at a time, in bytes: what a donor sends as one chunk.
const STRETCH_BYTES: u64 = 64 << 20;
/// Zeros in a file with holes are left out by blocks of this size.
const HOLE_BYTES: usize = 4096;

struct Job {
    which: Which,
    offset: u64,
    bytes: Bytes,
    holes: bool,
    _room: OwnedSemaphorePermit,
}

/// The writers of one restore.
pub(super) struct Writers {
    queues: Vec<mpsc::Sender<Job>>,
    tasks: Vec<JoinHandle<Result<()>>>,
    room: Arc<Semaphore>,
}

/// Where a file lies as long as only its number is known.
pub(super) fn part_path(folder: &Path, which: Which) -> PathBuf {
    folder.join(match which {
        Which::Data(index) => format!("data-{index}"),
        Which::Redo(index) => format!("redo-{index}"),
    })
}

impl Writers {
    /// Writers into a folder that is there.
    pub(super) fn new(folder: &Path) -> Self {
        let mut writers =
            Self { queues: Vec::new(), tasks: Vec::new(), room: Arc::new(Semaphore::new(QUEUE_BYTES as usize)) };
        for _ in 0..WRITERS {
            let (queue, jobs) = mpsc::channel(QUEUE_WRITES);
            let folder = folder.to_owned();
            writers.queues.push(queue);
            writers.tasks.push(tokio::task::spawn_blocking(move || work(&folder, jobs)));
        }
        writers
    }

    /// Hands bytes over; waits while too many are on their way.
    ///
    /// # Errors
    /// That of a writer that failed.
    pub(super) async fn write(&mut self, which: Which, offset: u64, bytes: Bytes, holes: bool) -> Result<()> {
        let need = u32::try_from(bytes.len()).unwrap_or(u32::MAX).clamp(1, QUEUE_BYTES);
        let room = Arc::clone(&self.room).acquire_many_owned(need).await;
        let room = room.map_err(|error| Error::failed("the writers are gone").source(error))?;
        let number = match which {
            Which::Data(index) | Which::Redo(index) => u64::from(index),
        };
        let slot = number.wrapping_mul(7).wrapping_add(offset / STRETCH_BYTES) % self.queues.len().max(1) as u64;
        let queue = usize::try_from(slot).ok().and_then(|slot| self.queues.get(slot));
        let sent = match queue {
            Some(queue) => queue.send(Job { which, offset, bytes, holes, _room: room }).await.is_ok(),
            None => false,
        };
        if sent { Ok(()) } else { Err(self.failure().await) }
    }

    /// Waits until everything is written.
    ///
    /// # Errors
    /// That of a writer that failed.
    pub(super) async fn settle(&mut self) -> Result<()> {
        let all = self.room.acquire_many(QUEUE_BYTES).await;
        drop(all.map_err(|error| Error::failed("the writers are gone").source(error))?);
        if self.tasks.iter().any(JoinHandle::is_finished) { Err(self.failure().await) } else { Ok(()) }
    }

    /// Ends the writers.
    ///
    /// # Errors
    /// The first of theirs.
    pub(super) async fn finish(mut self) -> Result<()> {
        self.queues.clear();
        for task in std::mem::take(&mut self.tasks) {
            task.await.map_err(broken)??;
        }
        Ok(())
    }

    async fn failure(&mut self) -> Error {
        self.queues.clear();
        for task in std::mem::take(&mut self.tasks) {
            if let Err(error) = task.await.map_err(broken).and_then(|result| result) {
                return error;
            }
        }
        Error::failed("a writer has ended by itself")
    }
}

fn broken(error: tokio::task::JoinError) -> Error {
    Error::failed("a writing thread broke down").source(error)
}

fn work(folder: &Path, mut jobs: mpsc::Receiver<Job>) -> Result<()> {
    let mut open: Vec<(Which, File)> = Vec::new();
    while let Some(job) = jobs.blocking_recv() {
        let path = part_path(folder, job.which);
        let file = match open.iter().position(|(which, _)| *which == job.which) {
            Some(at) => at,
            None => {
                if open.len() >= OPEN_FILES {
                    open.remove(0);
                }
                let mut options = OpenOptions::new();
                let options = options.write(true).create(true).truncate(false).mode(0o640);
                open.push((job.which, options.open(&path).context(|| format!("make {}", path.display()))?));
                open.len().saturating_sub(1)
            }
        };
        let Some((_, file)) = open.get(file) else { continue };
        write(file, &job).context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn write(file: &File, job: &Job) -> std::io::Result<()> {
    if !job.holes {
        return file.write_all_at(&job.bytes, job.offset);
    }
    let mut at = job.offset;
    for run in job.bytes.chunks(HOLE_BYTES) {
        let zeros = run.iter().all(|byte| *byte == 0);
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        // A file system without holes gets the zeros.
        if !zeros || fallocate(file, flags, at, run.len() as u64).is_err() {
            file.write_all_at(run, at)?;
        }
        at = at.saturating_add(run.len() as u64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn later_bytes_win_and_holes_are_zeros() {
        let folder = tempfile::tempdir().unwrap();
        let mut writers = Writers::new(folder.path());
        let which = Which::Data(3);
        for (offset, byte) in [(0, 1), (8192, 2), (4096, 3), (STRETCH_BYTES, 4)] {
            writers.write(which, offset, Bytes::from(vec![byte; 4096]), false).await.unwrap();
        }
        writers.settle().await.unwrap();
        writers.write(which, 4096, Bytes::from([vec![0; 4096], vec![9; 100]].concat()), true).await.unwrap();
        writers.settle().await.unwrap();
        writers.finish().await.unwrap();
        let bytes = std::fs::read(part_path(folder.path(), which)).unwrap();
        assert_eq!(bytes.len() as u64, STRETCH_BYTES + 4096);
        let runs = [(0, 1), (4095, 1), (4096, 0), (8191, 0), (8192, 9), (8291, 9), (8292, 2), (12287, 2), (12288, 0)];
        for (at, wanted) in runs {
            assert_eq!(bytes[at], wanted, "at {at}");
        }
        assert_eq!(bytes[bytes.len() - 1], 4);
    }

    #[tokio::test]
    async fn a_write_larger_than_the_queue_goes_through() {
        let folder = tempfile::tempdir().unwrap();
        let mut writers = Writers::new(folder.path());
        let large = Bytes::from(vec![5; QUEUE_BYTES as usize + 1]);
        for index in 0..3 {
            writers.write(Which::Redo(index), 0, large.clone(), false).await.unwrap();
        }
        writers.settle().await.unwrap();
        writers.finish().await.unwrap();
        assert_eq!(std::fs::metadata(part_path(folder.path(), Which::Redo(2))).unwrap().len(), large.len() as u64);
    }

    #[tokio::test]
    async fn the_first_error_ends_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut writers = Writers::new(&folder.path().join("absent"));
        let mut failed = None;
        for _ in 0..100 {
            let wrote = writers.write(Which::Data(0), 0, Bytes::from_static(b"x"), false).await;
            failed = wrote.and(writers.settle().await).err();
            if failed.is_some() {
                break;
            }
        }
        assert!(failed.unwrap().to_string().contains("absent/data-0"));
    }
}
