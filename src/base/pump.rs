//! From a backup's bytes to parts in the store: read, compress, seal, upload, each while the next is on its way.
//!
//! Invariants: nothing touches a disk; in memory are a part's compressed bytes, those of the parts being sealed and
//! stored (at most `uploads`, one of them twice), and two frames, in buffers that go round; only the very last part
//! says that it is the last.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

use super::engine::{Running, Trouble};
use super::{Progress, Stored};
use crate::archive::{Archive, BasePart, part_key};
use crate::chunk::FORMAT_VERSION;
use crate::chunk::compress::{CompressOptions, Compressor};
use crate::chunk::keys::Recipients;
use crate::chunk::part::{PARTS_MAX, PartMeta, seal_part_into};
use crate::error::{Context, Error, Result};

/// Raw bytes of a frame; fewer if a part shall be smaller.
const FRAME_BYTES: usize = 1 << 20;
/// Room for a header and the cipher's tags, above the compressed bytes.
const SEAL_ROOM_BYTES: usize = 64 << 10;

/// Where the parts go.
pub(super) struct Pump<'a> {
    pub(super) archive: &'a Archive,
    pub(super) id: &'a str,
    pub(super) recipients: &'a Recipients,
    pub(super) compress: CompressOptions,
    pub(super) part_bytes: u64,
    pub(super) uploads: usize,
    pub(super) progress: &'a Arc<Progress>,
}

/// A compressor at work, with its memory.
struct Worker {
    compressor: Compressor,
    raw: Vec<u8>,
    frame: Vec<u8>,
}

/// Buffers for a part's bytes. They are made with room for a whole part, and come back when dropped: buffers that grow,
/// or are made and freed on many threads, leave an allocator with several times what is in use.
struct Buffers {
    idle: Mutex<Vec<Vec<u8>>>,
    room: usize,
    /// One part is sealed at a time: only then it is in memory twice.
    sealing: Semaphore,
}

/// One of them.
struct Buffer {
    bytes: Vec<u8>,
    home: Arc<Buffers>,
}

impl Buffers {
    /// For parts of so many unpacked bytes.
    fn new(part_bytes: u64) -> Arc<Self> {
        let part = usize::try_from(part_bytes).unwrap_or(usize::MAX).saturating_add(FRAME_BYTES);
        let room = part.saturating_add(part / 256).saturating_add(SEAL_ROOM_BYTES);
        Arc::new(Self { idle: Mutex::new(Vec::new()), room, sealing: Semaphore::new(1) })
    }

    fn lend(self: &Arc<Self>) -> Buffer {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Buffer { bytes: idle.unwrap_or_else(|| Vec::with_capacity(self.room)), home: Arc::clone(self) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        self.home.idle.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The part being filled.
struct Open {
    number: u32,
    offset: u64,
    raw_bytes: u64,
    frames: Buffer,
}

impl Pump<'_> {
    /// Reads the backup to its end and stores every part.
    ///
    /// # Errors
    /// Those of the backup, of sealing and of the store. Parts that were stored stay; without a manifest they are no
    /// backup.
    pub(super) async fn run(&self, from: &mut dyn Running) -> Result<Stored, Trouble> {
        let worker = || {
            Ok::<_, Error>(Worker { compressor: Compressor::new(self.compress)?, raw: Vec::new(), frame: Vec::new() })
        };
        let mut idle = vec![worker()?, worker()?];
        let mut working: Option<JoinHandle<Result<Worker>>> = None;
        let frame_bytes = usize::try_from(self.part_bytes).unwrap_or(FRAME_BYTES).clamp(1, FRAME_BYTES);
        let mut flights = Flights::default();
        let buffers = Buffers::new(self.part_bytes);
        let mut open = Open { number: 1, offset: 0, raw_bytes: 0, frames: buffers.lend() };
        loop {
            let Some(mut worker) = idle.pop() else { return Err(Error::failed("no compressor is idle").into()) };
            fill(from, &mut worker.raw, frame_bytes).await?;
            self.progress.read(worker.raw.len() as u64);
            if let Some(done) = working.take() {
                idle.push(collect(done, &mut open).await?);
            }
            let ended = worker.raw.is_empty();
            if ended && open.raw_bytes == 0 {
                // Nothing at all: the tool knows why.
                return Ok(Stored::default());
            }
            // A full part waits for the next bytes, or for their absence: only then is it known whether it is the last.
            if ended || open.raw_bytes >= self.part_bytes {
                flights.make_room(self.uploads).await?;
                let next = self.next_after(&open, buffers.lend())?;
                let full = std::mem::replace(&mut open, next);
                flights.flying.push_back(self.seal_and_store(full, ended));
            }
            if ended {
                return Ok(flights.land().await?);
            }
            working = Some(tokio::task::spawn_blocking(move || {
                worker.compressor.frame(&worker.raw, &mut worker.frame)?;
                Ok(worker)
            }));
        }
    }

    fn next_after(&self, part: &Open, frames: Buffer) -> Result<Open> {
        if part.number >= PARTS_MAX {
            return Err(Error::failed(format!("the backup has more than {PARTS_MAX} parts"))
                .definite()
                .hint("raise base.part_size"));
        }
        Ok(Open {
            number: part.number.saturating_add(1),
            offset: part.offset.saturating_add(part.raw_bytes),
            raw_bytes: 0,
            frames,
        })
    }

    /// Seals a part and stores it, in the background.
    fn seal_and_store(&self, part: Open, last: bool) -> AbortOnDropHandle<Result<BasePart>> {
        let meta = PartMeta {
            format: FORMAT_VERSION,
            archive: self.archive.id(),
            base: self.id.to_owned(),
            number: part.number,
            offset: part.offset,
            raw_bytes: part.raw_bytes,
            last,
        };
        let (archive, progress, recipients) =
            (self.archive.clone(), Arc::clone(self.progress), self.recipients.clone());
        AbortOnDropHandle::new(tokio::spawn(async move {
            let (raw_bytes, id) = (meta.raw_bytes, meta.base.clone());
            let buffers = Arc::clone(&part.frames.home);
            let turn = buffers.sealing.acquire().await.map_err(|closed| Error::failed("seal a part").source(closed))?;
            let mut room = buffers.lend();
            let sealing = tokio::task::spawn_blocking(move || {
                let sealed = seal_part_into(&meta, &recipients, &part.frames.bytes, std::mem::take(&mut room.bytes))?;
                room.bytes = sealed.object;
                Ok::<_, Error>((sealed.name, room))
            });
            let (name, sealed) = sealing.await.map_err(broke_down)??;
            drop(turn);
            let object = name.to_string();
            let key = part_key(&id, &object)?;
            let stored_bytes = sealed.bytes.len() as u64;
            let put = archive.store().put_new(&key, Bytes::from_owner(sealed)).await.map_err(Error::from);
            // Already there: our own earlier try, for the name ends in the digest of the bytes.
            put.context(|| format!("store {key}"))?;
            progress.stored(stored_bytes);
            Ok(BasePart { object, raw_bytes, stored_bytes })
        }))
    }
}

/// Fills a frame's raw bytes; left empty at the end of the backup.
async fn fill(from: &mut dyn Running, raw: &mut Vec<u8>, bytes: usize) -> Result<(), Trouble> {
    raw.resize(bytes, 0);
    let mut filled = 0_usize;
    while let Some(room) = raw.get_mut(filled..).filter(|room| !room.is_empty()) {
        let got = from.read(room).await?;
        if got == 0 {
            break;
        }
        filled = filled.saturating_add(got);
    }
    raw.truncate(filled);
    Ok(())
}

/// Takes a compressed frame into the open part.
async fn collect(done: JoinHandle<Result<Worker>>, open: &mut Open) -> Result<Worker> {
    let worker = done.await.map_err(broke_down)??;
    open.frames.bytes.extend_from_slice(&worker.frame);
    open.raw_bytes = open.raw_bytes.saturating_add(worker.raw.len() as u64);
    Ok(worker)
}

fn broke_down(panic: tokio::task::JoinError) -> Error {
    Error::failed("a sealing thread broke down").source(panic)
}

/// Parts on their way, in order.
#[derive(Default)]
struct Flights {
    flying: VecDeque<AbortOnDropHandle<Result<BasePart>>>,
    stored: Stored,
}

impl Flights {
    /// Waits until one more makes at most `max`.
    async fn make_room(&mut self, max: usize) -> Result<()> {
        while self.flying.len() >= max.max(1) {
            self.land_one().await?;
        }
        Ok(())
    }

    async fn land_one(&mut self) -> Result<()> {
        if let Some(flight) = self.flying.pop_front() {
            let part = flight.await.map_err(broke_down)??;
            self.stored.raw_bytes = self.stored.raw_bytes.saturating_add(part.raw_bytes);
            self.stored.stored_bytes = self.stored.stored_bytes.saturating_add(part.stored_bytes);
            self.stored.parts.push(part);
        }
        Ok(())
    }

    async fn land(mut self) -> Result<Stored> {
        while !self.flying.is_empty() {
            self.land_one().await?;
        }
        Ok(self.stored)
    }
}
