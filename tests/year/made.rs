//! An archive of a year that ends now: a file a day, its chunks of a transaction each, a base backup a week.

use std::sync::{Arc, OnceLock};

use binvault::archive::{Archive, BaseContent, BaseManifest, BasePart, Coordinates, ReadOptions};
use binvault::chunk::compress::{CompressOptions, Compressor};
use binvault::chunk::keys::{Identities, generate};
use binvault::chunk::{ChunkMeta, Close, Executed, FORMAT_VERSION, Link, seal};
use binvault::clock;
use binvault::position::{BinlogFile, ChecksumAlgorithm, CommitTime, Gtid, GtidSet, ServerUuid, Sid, Tag};
use binvault::retry::RetryOptions;
use binvault::store::meter::Meter;
use binvault::store::retry::Retrying;
use binvault::store::{Key, Store};
use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::event::{VERSION, Writer};
use crate::store::Fragile;

pub(crate) const DAY_US: u64 = 86_400_000_000;
const DAYS: u64 = 365;
const UUID: Uuid = Uuid::from_u128(0x5e4e_4000_0000_4000_8000_0000_0000_0001);
pub(crate) const SERVER: ServerUuid = ServerUuid(UUID);

/// The key pair of all archives here.
fn keys() -> Arc<Identities> {
    static KEYS: OnceLock<Arc<Identities>> = OnceLock::new();
    Arc::clone(KEYS.get_or_init(|| Arc::new(Identities::parse("made here", &generate().0).unwrap())))
}

pub(crate) fn read() -> ReadOptions {
    ReadOptions::new(keys())
}

/// The archive, and what is true of it.
pub(crate) struct Year {
    pub(crate) archive: Archive,
    pub(crate) chunks: u64,
    pub(crate) files: usize,
    /// Ids, the oldest first.
    pub(crate) bases: Vec<String>,
    pub(crate) begin_us: u64,
    pub(crate) end_us: u64,
    pub(crate) executed: GtidSet,
}

/// The file of a day.
fn file(day: u64) -> BinlogFile {
    BinlogFile::new(&format!("binlog.{:06}", day + 1)).unwrap()
}

/// When in its day a transaction is committed.
fn into_day_us(number: u64, count: u64) -> u64 {
    (number + 1) * (DAY_US - 2_000_000) / count
}

impl Year {
    /// Transactions that were committed by a moment.
    pub(crate) fn committed_until(&self, moment_us: u64) -> u64 {
        let a_day = self.chunks / DAYS;
        let days = (moment_us - self.begin_us) / DAY_US;
        let into_us = (moment_us - self.begin_us) % DAY_US;
        days * a_day + (0..a_day).filter(|number| into_day_us(*number, a_day) <= into_us).count() as u64
    }

    /// Makes it in a store, whose calls are counted from then on.
    pub(crate) async fn make(chunks: u64, store: Fragile, meter: &Meter) -> Self {
        let counted = Retrying::new(Arc::new(store.clone()), RetryOptions::default(), 10_000, CancellationToken::new());
        let archive = Archive::open(Arc::new(counted.counted(meter.clone())), true).await.unwrap();
        let end_us = clock::now_us();
        let begin_us = end_us - DAYS * DAY_US;
        let a_day = chunks.div_ceil(DAYS).max(2);
        let year = Self {
            archive,
            chunks: a_day * DAYS,
            files: usize::try_from(DAYS).unwrap(),
            bases: Vec::new(),
            begin_us,
            end_us,
            executed: GtidSet::new(),
        };
        year.fill(&store, a_day).await
    }

    async fn fill(mut self, store: &Fragile, a_day: u64) -> Self {
        let mut before: Option<Link> = None;
        for day in 0..DAYS {
            let begun_us = self.begin_us + day * DAY_US;
            let link = self.day(store, day, begun_us, a_day, before.take()).await;
            if day % 7 == 3 {
                let id = self.base(&link, begun_us + DAY_US - 1_000_000).await;
                self.bases.push(id);
            }
            before = Some(link);
        }
        self
    }

    /// One file; gives the link from the next.
    async fn day(&mut self, store: &Fragile, day: u64, begun_us: u64, count: u64, follows: Option<Link>) -> Link {
        let created_s = u32::try_from(begun_us / 1_000_000).unwrap();
        let previous = self.executed.clone();
        let mut written = Writer::file(created_s, true, &previous);
        let mut compressor = Compressor::new(CompressOptions { level: 1, long_window_log: None }).unwrap();
        let (recipients, mut since, mut start) = (keys().recipients(), GtidSet::new(), 0);
        for number in 0..count {
            let commit_us = begun_us + into_day_us(number, count);
            let gtid = Gtid { sid: Sid { uuid: UUID, tag: Tag::NONE }, gno: day * count + number + 1 };
            written.at(commit_us);
            written.transaction(Some(&gtid), commit_us, &[vec![7; 20]]);
            since.add(&gtid);
            self.executed.add(&gtid);
            let mut gtids = GtidSet::new();
            gtids.add(&gtid);
            let closes = (number + 1 == count && day + 1 < DAYS).then(|| file(day + 1));
            if let Some(next) = &closes {
                written.rotate(next.as_str());
            }
            let end = written.bytes.len() as u64;
            let commit = CommitTime::from_micros(commit_us);
            let meta = ChunkMeta {
                format: FORMAT_VERSION,
                archive: self.archive.id(),
                server: SERVER,
                file: file(day),
                created_s,
                start,
                end,
                first_commit_us: commit,
                last_commit_us: commit,
                high_commit_us: commit,
                transactions: 1,
                gtids,
                executed: Executed::new(&previous, &since),
                previous: (start == 0).then(|| previous.clone()),
                unlogged: GtidSet::new(),
                follows: follows.clone().filter(|_| start == 0),
                starts_inside: false,
                open: None,
                resume: end,
                closes: closes.map(Close::Rotate),
                checksum: ChecksumAlgorithm::Crc32,
                server_version: VERSION.into(),
            };
            let raw = &written.bytes[usize::try_from(start).unwrap()..];
            let mut frame = Vec::new();
            compressor.frame(raw, &mut frame).unwrap();
            let sealed = seal(&meta, &recipients, &frame, Vec::new()).unwrap();
            let key = Key::new(sealed.name.to_string()).unwrap();
            store.put_new(&key, Bytes::from(sealed.object)).await.unwrap();
            start = end;
        }
        Link { file: file(day), created_s, end: start }
    }

    /// A base backup of a file's end.
    async fn base(&self, link: &Link, at_us: u64) -> String {
        let id = BaseManifest::id_of(at_us, "simulated");
        let part =
            BasePart { object: format!("part-000001.{}.zst.age", "0".repeat(32)), raw_bytes: 1, stored_bytes: 1 };
        let key = Key::new(format!("bases/{id}/{}", part.object)).unwrap();
        self.archive.store().put_new(&key, Bytes::from_static(b"x")).await.unwrap();
        let manifest = BaseManifest {
            format: FORMAT_VERSION,
            archive: self.archive.id(),
            id: id.clone(),
            engine: "simulated".into(),
            content: BaseContent::Sql,
            server: SERVER,
            server_version: VERSION.into(),
            started_us: at_us,
            finished_us: at_us,
            coordinates: Coordinates {
                file: link.file.clone(),
                created_s: Some(link.created_s),
                position: link.end,
                executed: self.executed.clone(),
                gtid_mode: "ON".into(),
            },
            raw_bytes: 1,
            stored_bytes: 1,
            tool: "none".into(),
            left_out: Vec::new(),
            settings: std::collections::BTreeMap::default(),
            clone: None,
            parts: vec![part],
        };
        self.archive.put_manifest(&manifest).await.unwrap();
        id
    }
}
