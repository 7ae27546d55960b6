//! From a backup's bytes to parts in the store: read, compress, seal, upload, each while the next is on its way.
//!
//! Invariants: nothing touches a disk; in memory are the compressed frames of the part being filled, the parts being
//! sealed and stored (at most `uploads`, each once: a frame leaves when it is sealed), and two raw frames, in buffers that
//! go round; only the very last part says that it is the last.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
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
/// Room for headers and the cipher's tags, above the compressed bytes.
const ROOM_BYTES: usize = 64 << 10;
/// Buffers kept for their next use. More would stay resident beside the part that is being filled.
const IDLE_MAX: usize = 2;

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
}

/// Buffers of one size. They are made with all their room, and come back when dropped: buffers that grow, or are made and
/// freed on many threads, leave an allocator with several times what is in use.
struct Buffers {
    idle: Mutex<Vec<Vec<u8>>>,
    room: usize,
}

/// One of them.
struct Buffer {
    bytes: Vec<u8>,
    home: Arc<Buffers>,
}

impl Buffers {
    /// For so many bytes that no compressor can shrink.
    fn new(raw_bytes: usize) -> Arc<Self> {
        let room = raw_bytes.saturating_add(raw_bytes / 256).saturating_add(ROOM_BYTES);
        Arc::new(Self { idle: Mutex::new(Vec::new()), room })
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
        let mut idle = self.home.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(bytes);
        }
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
    frames: Vec<Buffer>,
}

impl Pump<'_> {
    /// Reads the backup to its end and stores every part.
    ///
    /// # Errors
    /// Those of the backup, of sealing and of the store. Parts that were stored stay; without a manifest they are no
    /// backup.
    pub(super) async fn run(&self, from: &mut dyn Running) -> Result<Stored, Trouble> {
        let worker = || Ok::<_, Error>(Worker { compressor: Compressor::new(self.compress)?, raw: Vec::new() });
        let mut idle = vec![worker()?, worker()?];
        let mut working: Option<JoinHandle<Result<(Worker, Buffer)>>> = None;
        let part_bytes = usize::try_from(self.part_bytes).unwrap_or(usize::MAX);
        let frame_bytes = part_bytes.clamp(1, FRAME_BYTES);
        let mut flights = Flights::default();
        // The last frame of a part may reach behind its end.
        let (frames, objects) = (Buffers::new(frame_bytes), Buffers::new(part_bytes.saturating_add(frame_bytes)));
        let mut open = Open { number: 1, offset: 0, raw_bytes: 0, frames: Vec::new() };
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
                let next = self.next_after(&open)?;
                let full = std::mem::replace(&mut open, next);
                flights.flying.push_back(self.seal_and_store(full, ended, objects.lend()));
            }
            if ended {
                return Ok(flights.land().await?);
            }
            let mut frame = frames.lend();
            working = Some(tokio::task::spawn_blocking(move || {
                worker.compressor.frame(&worker.raw, &mut frame.bytes)?;
                Ok((worker, frame))
            }));
        }
    }

    fn next_after(&self, part: &Open) -> Result<Open> {
        if part.number >= PARTS_MAX {
            return Err(Error::failed(format!("the backup has more than {PARTS_MAX} parts"))
                .definite()
                .hint("raise base.part_size"));
        }
        Ok(Open {
            number: part.number.saturating_add(1),
            offset: part.offset.saturating_add(part.raw_bytes),
            raw_bytes: 0,
            frames: Vec::new(),
        })
    }

    /// Seals a part in the memory given, and stores it, in the background.
    fn seal_and_store(&self, part: Open, last: bool, mut room: Buffer) -> AbortOnDropHandle<Result<BasePart>> {
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
            let sealing = tokio::task::spawn_blocking(move || {
                let sealed = seal_part_into(&meta, &recipients, part.frames, std::mem::take(&mut room.bytes))?;
                room.bytes = sealed.object;
                Ok::<_, Error>((sealed.name, room))
            });
            let (name, sealed) = sealing.await.map_err(broke_down)??;
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
async fn collect(done: JoinHandle<Result<(Worker, Buffer)>>, open: &mut Open) -> Result<Worker> {
    let (worker, frame) = done.await.map_err(broke_down)??;
    open.frames.push(frame);
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
