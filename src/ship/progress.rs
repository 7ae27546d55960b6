//! What a ship tells those who watch: positions, counts, and the time each stage spent waiting.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio::sync::watch;

use crate::chunk::ChunkMeta;
use crate::clock::{self, Instant};
use crate::position::{CommitTime, Position};

/// A stage, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Waiting for frame buffers: the sealers are behind.
    Receive = 0,
    /// Waiting for object memory or the uploader: the store is behind.
    Seal = 1,
    /// Waiting for a place among the uploads: the store is behind.
    Upload = 2,
}

/// The durable position and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Durable {
    /// Everything before this is durable in the archive. `None` until the first chunk of this run is.
    pub position: Option<Position>,
    /// The highest commit time up to there.
    pub commit: CommitTime,
}

/// Counters and positions, shared by the stages and their watchers.
#[derive(Debug)]
pub struct Progress {
    durable: watch::Sender<Durable>,
    received_bytes: AtomicU64,
    reached: [AtomicU64; 2],
    raw_bytes: AtomicU64,
    stored_bytes: AtomicU64,
    chunks: AtomicU64,
    transactions: AtomicU64,
    blocked_us: [AtomicU64; 3],
    /// Raw bytes of each chunk made durable.
    pub chunk_bytes: Histogram,
    /// For each chunk made durable that has a commit: the age of its first one by then, seconds.
    pub commit_to_durable: Histogram,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// Bytes read from the server.
    pub received_bytes: u64,
    /// Raw binlog bytes made durable.
    pub raw_bytes: u64,
    /// Bytes of their objects.
    pub stored_bytes: u64,
    /// Chunks made durable.
    pub chunks: u64,
    /// Transactions made durable.
    pub transactions: u64,
    /// Microseconds spent waiting, by [`Stage`].
    pub blocked_us: [u64; 3],
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            durable: watch::Sender::new(Durable::default()),
            received_bytes: AtomicU64::new(0),
            reached: [AtomicU64::new(0), AtomicU64::new(0)],
            raw_bytes: AtomicU64::new(0),
            stored_bytes: AtomicU64::new(0),
            chunks: AtomicU64::new(0),
            transactions: AtomicU64::new(0),
            blocked_us: [AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0)],
            // A few commits to the largest chunk.
            chunk_bytes: Histogram::new(exponential_buckets(256.0, 4.0, 9)),
            commit_to_durable: Histogram::new(exponential_buckets(0.001, 2.0, 20)),
        }
    }
}

impl Progress {
    /// Follows the durable position.
    pub fn watch(&self) -> watch::Receiver<Durable> {
        self.durable.subscribe()
    }

    /// The durable position now.
    pub fn durable(&self) -> Durable {
        self.durable.borrow().clone()
    }

    /// Says what the archive holds at the start of a generation.
    pub fn set_durable(&self, durable: Durable) {
        self.durable.send_replace(durable);
    }

    /// The counters now.
    pub fn snapshot(&self) -> Snapshot {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Snapshot {
            received_bytes: get(&self.received_bytes),
            raw_bytes: get(&self.raw_bytes),
            stored_bytes: get(&self.stored_bytes),
            chunks: get(&self.chunks),
            transactions: get(&self.transactions),
            blocked_us: [get(&self.blocked_us[0]), get(&self.blocked_us[1]), get(&self.blocked_us[2])],
        }
    }

    pub(super) fn received(&self, bytes: usize) {
        self.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Up to where the stream has come: number of the file, and offset. The two may be of two moments.
    pub fn reached(&self) -> (u64, u64) {
        (self.reached[0].load(Ordering::Relaxed), self.reached[1].load(Ordering::Relaxed))
    }

    pub(super) fn set_reached(&self, (file, offset): (u64, u64)) {
        self.reached[0].store(file, Ordering::Relaxed);
        self.reached[1].store(offset, Ordering::Relaxed);
    }

    /// A chunk is durable, and everything before it.
    pub(super) fn committed(&self, meta: &ChunkMeta, stored_bytes: u64) {
        let raw_bytes = meta.end.saturating_sub(meta.start);
        self.raw_bytes.fetch_add(raw_bytes, Ordering::Relaxed);
        self.stored_bytes.fetch_add(stored_bytes, Ordering::Relaxed);
        self.chunks.fetch_add(1, Ordering::Relaxed);
        self.transactions.fetch_add(meta.transactions, Ordering::Relaxed);
        self.chunk_bytes.observe(raw_bytes as f64);
        if !meta.first_commit_us.is_none() {
            let age = Duration::from_micros(clock::now_us().saturating_sub(meta.first_commit_us.micros()));
            self.commit_to_durable.observe(age.as_secs_f64());
        }
        let position = Position { file: meta.file.clone(), offset: meta.end };
        self.durable.send_replace(Durable { position: Some(position), commit: meta.high_commit_us });
    }

    /// Adds the time since `from` to what a stage spent waiting.
    pub(super) fn blocked(&self, stage: Stage, from: Instant) {
        let waited = clock::monotonic().saturating_duration_since(from).max(Duration::ZERO);
        if let Some(counter) = self.blocked_us.get(stage as usize) {
            counter.fetch_add(u64::try_from(waited.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }
}
