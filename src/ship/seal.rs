//! Seal: frames are compressed on several threads, chunks encrypted and named, all in the order of the stream.
//!
//! Owns: compressors and their scratch memory, the compressed bytes of the open chunk.
//! Invariant: at most two chunks' compressed bytes exist here (one filling, one being encrypted), and no more frames
//! are being compressed than there are compressors.

use std::sync::Arc;

use futures_util::stream::{FuturesOrdered, StreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

use super::buffers::{Buffer, BufferPool};
use super::cut::Cut;
use super::failpoint;
use super::progress::{Progress, Stage};
use crate::chunk::compress::{CompressOptions, Compressor};
use crate::chunk::keys::Recipients;
use crate::chunk::{ChunkMeta, ChunkName, seal};
use crate::clock;
use crate::error::{Error, Result};
use crate::threads;

/// How to seal.
#[derive(Debug, Clone, Copy)]
pub(super) struct SealOptions {
    pub(super) compress: CompressOptions,
    pub(super) sealers: usize,
}

/// A chunk ready for the store.
#[derive(Debug)]
pub(super) struct SealedChunk {
    pub(super) meta: Box<ChunkMeta>,
    pub(super) name: ChunkName,
    pub(super) object: Buffer,
}

/// A compressor and the frame it made last.
struct Sealer {
    compressor: Compressor,
    frame: Vec<u8>,
}

/// Work in the order of the stream.
enum Step {
    Frame(JoinHandle<Result<Sealer>>),
    End(Box<ChunkMeta>),
}

enum Done {
    Frame(Sealer),
    End(Box<ChunkMeta>),
}

impl Step {
    async fn done(self) -> Result<Done> {
        match self {
            Self::Frame(handle) => handle.await.map_err(broke_down)?.map(Done::Frame),
            Self::End(meta) => Ok(Done::End(meta)),
        }
    }
}

fn broke_down(panic: tokio::task::JoinError) -> Error {
    Error::failed("a sealing thread broke down").source(panic)
}

/// The seal stage. Ends when the cutter has.
pub(super) async fn run(
    options: SealOptions,
    recipients: Recipients,
    mut cuts: mpsc::Receiver<Cut>,
    to_upload: mpsc::Sender<SealedChunk>,
    objects: Arc<BufferPool>,
    progress: Arc<Progress>,
) -> Result<()> {
    let mut idle = Vec::new();
    for _ in 0..options.sealers.max(1) {
        idle.push(Sealer { compressor: Compressor::new(options.compress)?, frame: Vec::new() });
    }
    let mut finisher = Finisher::new(recipients, to_upload, objects, progress);
    let mut steps = FuturesOrdered::new();
    let mut open = true;
    let mut body = Vec::new();
    while open || !steps.is_empty() {
        tokio::select! {
            biased;
            Some(done) = steps.next(), if !steps.is_empty() => match done? {
                Done::Frame(sealer) => {
                    body.extend_from_slice(&sealer.frame);
                    idle.push(sealer);
                }
                Done::End(meta) => {
                    if !finisher.finish(meta, &mut body).await? {
                        return Ok(());
                    }
                }
            },
            cut = cuts.recv(), if open && !idle.is_empty() => match cut {
                Some(Cut::Frame(raw)) => steps.extend(idle.pop().map(|sealer| Step::Frame(compress(sealer, raw)).done())),
                Some(Cut::End(meta)) => steps.push_back(Step::End(meta).done()),
                None => open = false,
            },
        }
    }
    finisher.wait().await.map(|_| ())
}

fn compress(mut sealer: Sealer, raw: Buffer) -> JoinHandle<Result<Sealer>> {
    threads::run(move || {
        failpoint::pass("seal");
        sealer.compressor.frame(&raw, &mut sealer.frame)?;
        Ok(sealer)
    })
}

/// Encrypts finished chunks, one at a time, while the next one is being compressed.
struct Finisher {
    recipients: Arc<Recipients>,
    to_upload: mpsc::Sender<SealedChunk>,
    objects: Arc<BufferPool>,
    progress: Arc<Progress>,
    /// Memory for compressed bytes that is not in use: handed back and forth.
    spare_body: Vec<u8>,
    running: Option<AbortOnDropHandle<Result<Finished>>>,
}

/// A chunk went to the uploader.
struct Finished {
    /// The memory of its compressed bytes.
    body: Vec<u8>,
    /// Whether the uploader was there to take it.
    taken: bool,
}

/// Room for a header and the cipher's tags, above the compressed bytes.
const SEAL_ROOM_BYTES: usize = 64 << 10;

impl Finisher {
    fn new(
        recipients: Recipients,
        to_upload: mpsc::Sender<SealedChunk>,
        objects: Arc<BufferPool>,
        progress: Arc<Progress>,
    ) -> Self {
        Self { recipients: Arc::new(recipients), to_upload, objects, progress, spare_body: Vec::new(), running: None }
    }

    /// Takes the chunk's compressed bytes, leaving empty memory in their place. `false`: the uploader is gone.
    async fn finish(&mut self, meta: Box<ChunkMeta>, body: &mut Vec<u8>) -> Result<bool> {
        if !self.wait().await? {
            return Ok(false);
        }
        let since = clock::monotonic();
        let room = body.len().saturating_add(body.len() / 1024).saturating_add(SEAL_ROOM_BYTES);
        let mut object = self.objects.lend(room).await;
        self.progress.blocked(Stage::Seal, since);
        let full = std::mem::replace(body, std::mem::take(&mut self.spare_body));
        let recipients = Arc::clone(&self.recipients);
        let sealing = threads::run(move || {
            failpoint::pass("seal");
            let sealed = seal(&meta, &recipients, &full, std::mem::take(&mut object))?;
            *object = sealed.object;
            Ok::<_, Error>((SealedChunk { meta, name: sealed.name, object }, full))
        });
        let (to_upload, progress) = (self.to_upload.clone(), Arc::clone(&self.progress));
        self.running = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let (chunk, mut body) = sealing.await.map_err(broke_down)??;
            let since = clock::monotonic();
            let taken = to_upload.send(chunk).await.is_ok();
            progress.blocked(Stage::Seal, since);
            body.clear();
            Ok(Finished { body, taken })
        })));
        Ok(true)
    }

    /// Waits until the chunk being encrypted is with the uploader. `false`: the uploader is gone.
    async fn wait(&mut self) -> Result<bool> {
        let Some(running) = self.running.take() else { return Ok(true) };
        let Finished { body, taken } = running.await.map_err(broke_down)??;
        self.spare_body = body;
        Ok(taken)
    }
}
