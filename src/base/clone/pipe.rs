//! The way from the donor to the pump: bytes in order, in bounded memory, and in the spool where the donor must not
//! be kept waiting.
//!
//! Owns: the order, the bounds, waking both sides. Does not own: the spool's file (`spool`).
//!
//! Invariants: what was put in comes out, once, in order; at most [`BLOCKS`] blocks are in memory between the two ends;
//! with the spool full or broken the donor waits, and nothing is lost.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::spool::{Slot, Spool};
use crate::error::{Error, Result};

/// Bytes of a block.
pub(super) const BLOCK_BYTES: usize = 1 << 20;
/// Blocks in memory.
const BLOCKS: usize = 4;

/// What both ends share.
struct Shared {
    state: Mutex<State>,
    /// There is something to take, or nothing more will come.
    filled: Notify,
    /// There is room, or nobody takes any more.
    emptied: Notify,
}

#[derive(Default)]
struct State {
    memory: VecDeque<Vec<u8>>,
    spool: Option<Spool>,
    /// The spool's disk failed.
    spool_broken: bool,
    /// Blocks that were emptied, for reuse.
    idle: Vec<Vec<u8>>,
    closed: bool,
    /// The reader is gone.
    left: bool,
    spooled_bytes: u64,
}

/// The end into which the donor's bytes go.
pub(super) struct Writer {
    shared: Arc<Shared>,
    open: Vec<u8>,
}

/// The end from which the pump reads.
pub(super) struct Reader {
    shared: Arc<Shared>,
    block: Vec<u8>,
    given: usize,
}

/// A pipe; without a spool the donor always waits.
pub(super) fn pipe(spool: Option<Spool>) -> (Writer, Reader) {
    let state = Mutex::new(State { spool, ..State::default() });
    let shared = Arc::new(Shared { state, filled: Notify::new(), emptied: Notify::new() });
    (Writer { shared: Arc::clone(&shared), open: Vec::new() }, Reader { shared, block: Vec::new(), given: 0 })
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a block goes.
enum Place {
    Memory,
    Spool(Slot),
    Nowhere,
}

impl State {
    fn place(&self, may_spool: bool) -> Place {
        // What was spooled comes before what is put into memory now.
        let spooled = self.spool.as_ref().is_some_and(|spool| !spool.is_empty());
        if !spooled && self.memory.len() < BLOCKS {
            return Place::Memory;
        }
        let free = self.spool.as_ref().filter(|_| may_spool && !self.spool_broken).and_then(Spool::free);
        free.map_or(Place::Nowhere, Place::Spool)
    }

    /// An empty block.
    fn block(&mut self) -> Vec<u8> {
        self.idle.pop().unwrap_or_else(|| Vec::with_capacity(BLOCK_BYTES + 64))
    }

    fn recycle(&mut self, mut block: Vec<u8>) {
        block.clear();
        if self.idle.len() < BLOCKS && block.capacity() >= BLOCK_BYTES {
            self.idle.push(block);
        }
    }
}

impl Writer {
    /// Puts bytes in. While there is no room the caller waits, unless it `may_spool`.
    ///
    /// # Errors
    /// If nobody reads any more.
    pub(super) async fn write(&mut self, mut bytes: &[u8], may_spool: bool) -> Result<()> {
        while !bytes.is_empty() {
            if self.open.capacity() == 0 {
                self.open = self.shared.lock().block();
            }
            let room = BLOCK_BYTES.saturating_sub(self.open.len());
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.open.extend_from_slice(now);
            bytes = later;
            if self.open.len() >= BLOCK_BYTES {
                self.push(may_spool).await?;
            }
        }
        Ok(())
    }

    /// Hands the open block on.
    async fn push(&mut self, may_spool: bool) -> Result<()> {
        loop {
            let place = {
                let mut state = self.shared.lock();
                if state.left {
                    return Err(Error::failed("nobody takes the clone any more"));
                }
                let place = state.place(may_spool);
                if matches!(place, Place::Memory) {
                    state.memory.push_back(std::mem::take(&mut self.open));
                    self.shared.filled.notify_one();
                    return Ok(());
                }
                place
            };
            match place {
                Place::Spool(slot) => {
                    if self.spool(slot).await? {
                        return Ok(());
                    }
                }
                Place::Memory | Place::Nowhere => self.shared.emptied.notified().await,
            }
        }
    }

    /// Writes the open block into the spool; `false` if that failed, and the block is still open.
    async fn spool(&mut self, slot: Slot) -> Result<bool> {
        let mut block = std::mem::take(&mut self.open);
        let writing = tokio::task::spawn_blocking(move || {
            let written = slot.write(&mut block);
            (written, block)
        });
        let (written, block) =
            writing.await.map_err(|panic| Error::failed("the spool's thread broke down").source(panic))?;
        let mut state = self.shared.lock();
        match written {
            Ok(sealed_bytes) => {
                if let Some(spool) = state.spool.as_mut() {
                    spool.written(sealed_bytes);
                }
                if state.spooled_bytes == 0 {
                    tracing::info!(
                        "the store is slower than the server: what comes is kept in the spool file meanwhile"
                    );
                }
                state.spooled_bytes = state.spooled_bytes.saturating_add(sealed_bytes as u64);
                state.recycle(block);
                self.shared.filled.notify_one();
                Ok(true)
            }
            Err(error) => {
                let (error, hint) = (error.chain(), "give base.spool_dir a disk with more room");
                tracing::warn!(error, hint, "the spool file cannot be written: the server waits for the store instead");
                state.spool_broken = true;
                self.open = block;
                Ok(false)
            }
        }
    }

    /// Ends it well: what was put in is read, and then comes the end.
    ///
    /// # Errors
    /// If nobody reads any more.
    pub(super) async fn close(mut self, may_spool: bool) -> Result<u64> {
        if !self.open.is_empty() {
            self.push(may_spool).await?;
        }
        Ok(self.shared.lock().spooled_bytes)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.filled.notify_one();
    }
}

impl Reader {
    /// The next bytes, into `room`; 0 at the end, whether that is a good one or not. Safe to cancel.
    ///
    /// # Errors
    /// Those of the spool.
    pub(super) async fn read(&mut self, room: &mut [u8]) -> Result<usize> {
        if self.given >= self.block.len() && !self.next().await? {
            return Ok(0);
        }
        let waiting = self.block.get(self.given..).unwrap_or(&[]);
        let got = waiting.len().min(room.len());
        if let (Some(to), Some(from)) = (room.get_mut(..got), waiting.get(..got)) {
            to.copy_from_slice(from);
        }
        self.given = self.given.saturating_add(got);
        Ok(got)
    }

    /// Takes the next block; `false` at the end.
    async fn next(&mut self) -> Result<bool> {
        loop {
            match self.look() {
                Found::Block(block) => {
                    self.block = block;
                    self.shared.emptied.notify_one();
                    return Ok(true);
                }
                Found::Spooled(slot, sealed_bytes, mut block) => {
                    // If this is cancelled, the block is still the oldest, and is read again.
                    let reading =
                        tokio::task::spawn_blocking(move || slot.read(sealed_bytes, &mut block).map(|()| block));
                    let broken = |panic| Error::failed("the spool's thread broke down").source(panic);
                    self.block = reading.await.map_err(broken)??;
                    if let Some(spool) = self.shared.lock().spool.as_mut() {
                        spool.read();
                    }
                    self.shared.emptied.notify_one();
                    return Ok(true);
                }
                Found::End => return Ok(false),
                Found::Nothing => self.shared.filled.notified().await,
            }
        }
    }

    /// Gives the last block back, and looks for the next one.
    fn look(&mut self) -> Found {
        let mut state = self.shared.lock();
        self.given = 0;
        if !self.block.is_empty() {
            state.recycle(std::mem::take(&mut self.block));
        }
        if let Some(block) = state.memory.pop_front() {
            return Found::Block(block);
        }
        match state.spool.as_ref().and_then(Spool::oldest) {
            Some((slot, sealed_bytes)) => Found::Spooled(slot, sealed_bytes, state.block()),
            None if state.closed => Found::End,
            None => Found::Nothing,
        }
    }
}

/// What there is for the reader.
enum Found {
    Block(Vec<u8>),
    Spooled(Slot, usize, Vec<u8>),
    End,
    Nothing,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.lock().left = true;
        self.shared.emptied.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use std::time::Duration;

    /// Bytes of which each tells its place.
    fn bytes(count: usize) -> Vec<u8> {
        (0..count).map(|index| u8::try_from(index * 7 % 251).unwrap()).collect()
    }

    async fn read_all(mut reader: Reader) -> Vec<u8> {
        let (mut out, mut room) = (Vec::new(), vec![0; 300_000]);
        loop {
            let got = reader.read(&mut room).await.unwrap();
            if got == 0 {
                return out;
            }
            out.extend_from_slice(&room[..got]);
        }
    }

    fn spool(blocks: usize) -> Option<Spool> {
        let bytes = blocks * (BLOCK_BYTES + 16);
        Some(Spool::create(&std::env::temp_dir(), BLOCK_BYTES, bytes as u64).unwrap())
    }

    #[tokio::test]
    async fn everything_comes_out_in_order_through_memory_and_spool() {
        let sent = bytes(30 * BLOCK_BYTES + 12_345);
        // All of it fits; a part of it, and the writer waits; none.
        for spool in [spool(40), spool(5), None] {
            let (mut writer, reader) = pipe(spool);
            let source = sent.clone();
            let writing = tokio::spawn(async move {
                for (index, piece) in source.chunks(700_001).enumerate() {
                    writer.write(piece, index % 3 > 0).await.unwrap();
                }
                writer.close(true).await.unwrap()
            });
            let got = read_all(reader).await;
            writing.await.unwrap();
            assert!(got == sent, "{} bytes of {}", got.len(), sent.len());
        }
    }

    #[tokio::test]
    async fn the_writer_waits_unless_it_may_spool() {
        let (mut writer, reader) = pipe(spool(10));
        let full = bytes(BLOCKS * BLOCK_BYTES);
        writer.write(&full, false).await.unwrap();
        let more = bytes(BLOCK_BYTES);
        let waits = clock::with_timeout(Duration::from_millis(200), writer.write(&more, false)).await;
        assert!(waits.is_none(), "memory is bounded");
        // The same block goes into the spool at once, with nobody reading.
        writer.write(&more, true).await.unwrap();
        let spooled = writer.close(true).await.unwrap();
        assert!(spooled >= BLOCK_BYTES as u64, "{spooled}");
        let got = read_all(reader).await;
        assert_eq!(got.len(), full.len() + more.len() * 2);
    }

    #[tokio::test]
    async fn each_end_notices_that_the_other_is_gone() {
        let (mut writer, reader) = pipe(None);
        writer.write(b"half", false).await.unwrap();
        drop(reader);
        assert!(writer.write(&bytes(BLOCK_BYTES), false).await.is_err());
        let (writer, reader) = pipe(None);
        drop(writer);
        assert!(read_all(reader).await.is_empty());
    }
}
