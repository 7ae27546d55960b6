//! What must be true of an archive, whatever has happened.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use binvault::archive::{Archive, BaseContent, BaseManifest, BasePart, Coordinates, FileChunks, ReadOptions};
use binvault::chunk::{FORMAT_VERSION, OpenedChunk};
use binvault::config::Objectives;
use binvault::position::{BinlogFile, ByteRange, Incarnation, ServerUuid};
use binvault::status::survey;
use binvault::store::{Key, ListDepth, ListPage, ObjectMeta, Put, SharedStore, Store, StoreError, get_all};
use bytes::Bytes;

use crate::agent::keys;
use crate::dice::Dice;
use crate::event::VERSION;
use crate::restore;
use crate::server::{File, SERVER, Server};
use crate::store::Shelf;
use crate::world::{World, lock};

/// What was looked at.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) archives: u64,
    pub(crate) chunks: u64,
    pub(crate) bytes: u64,
    pub(crate) plans: u64,
    pub(crate) refused: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Counts) {
        self.archives += other.archives;
        self.chunks += other.chunks;
        self.bytes += other.bytes;
        self.plans += other.plans;
        self.refused += other.refused;
    }
}

/// What the archive lacks of what the server has.
pub(crate) fn lacking(server: &Server, shelf: &Shelf) -> Option<String> {
    let files = server.listed.iter().map(|index| &server.files[*index]);
    let short = files.map(|file| (file, shelf.covered(file))).find(|(file, covered)| *covered < file.kept);
    short.map(|(file, covered)| format!("{} has {} bytes, {covered} are archived", file.name(), file.kept))
}

/// A shelf as a store that keeps its promises.
#[derive(Debug)]
pub(crate) struct Plain(pub(crate) Arc<Shelf>);

#[async_trait::async_trait]
impl Store for Plain {
    fn url(&self) -> String {
        "simulated:".into()
    }

    async fn put_new(&self, key: &Key, body: Bytes) -> Result<Put, StoreError> {
        self.0.objects.put_new(key, body).await
    }

    async fn put_over(&self, key: &Key, body: Bytes) -> Result<(), StoreError> {
        self.0.objects.put_over(key, body).await
    }

    async fn get_range(&self, key: &Key, start: u64, length: u64) -> Result<Bytes, StoreError> {
        self.0.objects.get_range(key, start, length).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        self.0.objects.head(key).await
    }

    async fn list_page(&self, prefix: &str, depth: ListDepth, after: Option<&str>) -> Result<ListPage, StoreError> {
        self.0.objects.list_page(prefix, depth, after).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.0.objects.delete(key).await
    }
}

pub(crate) async fn open(shelf: &Arc<Shelf>) -> Option<Archive> {
    let store: SharedStore = Arc::new(Plain(Arc::clone(shelf)));
    Archive::open(store, false).await.ok()
}

/// Checks an archive: each byte, and each way back.
pub(crate) async fn archive(
    world: &World,
    shelf: &Arc<Shelf>,
    dice: &mut Dice,
    counts: &mut Counts,
) -> Result<(), String> {
    let Some(archive) = open(shelf).await else { return Ok(()) };
    counts.archives += 1;
    let said = |error: binvault::error::Error| error.chain();
    for server in archive.servers().await.map_err(said)? {
        for incarnation in archive.incarnations(&server).await.map_err(said)? {
            let chunks = archive.chunks(&server, &incarnation).await.map_err(said)?;
            let written = written(&lock(&world.server), &incarnation)?;
            each_chunk(&archive, &chunks, &written, counts).await?;
            exported(&archive, chunks, &written).await?;
        }
    }
    told(world, shelf, &archive).await?;
    // Which files stood behind a hole when a history was left, only times tell: where they deceive, too much is told.
    if !world.clock_went_back.load(Ordering::Relaxed) {
        recorded(world, shelf, &archive).await?;
    }
    restore::plans(world, shelf, &archive, dice, counts).await
}

/// What is lost, or missing in the middle, is told: by a record, or by the files themselves.
async fn told(world: &World, shelf: &Shelf, archive: &Archive) -> Result<(), String> {
    let silent = {
        let server = lock(&world.server);
        let state = server.state();
        let begun = server.files.iter().position(|file| shelf.covered(file) > 0).unwrap_or(usize::MAX);
        let mut of_concern = server.files.iter().skip(begun).flat_map(|file| {
            let covered = shelf.covered(file);
            file.transactions
                .iter()
                .filter(move |one| one.end <= covered || one.end <= file.kept)
                .map(move |one| (one, covered))
        });
        // Archived, and gone from the server; or the server's, and in no archived file.
        let broken = of_concern.find(|(one, covered)| (one.end <= *covered) != state.contains(&one.id));
        let nobody_knows = restore::numbers_came_again(&server, shelf) || names_came_again(&server, shelf);
        broken.filter(|_| !nobody_knows).map(|(one, _)| one.id)
    };
    let Some(id) = silent else { return Ok(()) };
    let said = |error: binvault::error::Error| error.chain();
    let runs = archive.history(&ServerUuid(SERVER)).await.map_err(said)?.runs().len();
    let told = runs > 1 || !archive.gaps().await.map_err(said)?.is_empty();
    if told { Ok(()) } else { Err(format!("transaction {id} is lost or missing, and nobody is told")) }
}

/// Once all has healed, each break that `status` shows is recorded; but whoever saw an empty archive had nothing
/// to tell.
async fn recorded(world: &World, shelf: &Shelf, archive: &Archive) -> Result<(), String> {
    let survey = survey(archive, None, &Objectives::default()).await.map_err(|error| error.chain())?;
    let server = lock(&world.server);
    let mut gaps = survey.report.servers.iter().flat_map(|server| &server.gaps);
    let silent =
        gaps.find(|gap| !gap.recorded && !shelf.begun_unseeing(&server, |file| file.name() == gap.file.as_str()));
    silent.map_or(Ok(()), |gap| Err(format!("nobody is told of the gap at {}: {}", gap.file, gap.problem)))
}

/// Whether, without GTIDs, a file was taken for the one that follows an archived file, whose name it has, and which nobody has
/// archived.
pub(crate) fn names_came_again(server: &Server, shelf: &Shelf) -> bool {
    let there = |file: &File| shelf.covered(file) > 0;
    let whole = |file: &File| {
        let bytes = file.written.bytes.len() as u64;
        file.kept == bytes && shelf.covered(file) == bytes
    };
    let follows = |next: &File, last: &File| next.number == last.number + 1;
    let taken = |last: &File| {
        let own = |next: &&File| next.epoch == last.epoch && follows(next, last);
        server.files.iter().any(|next| next.epoch > last.epoch && follows(next, last) && there(next))
            && !server.files.iter().filter(own).any(there)
    };
    !server.gtid_mode && server.files.iter().any(|last| whole(last) && taken(last))
}

/// The bytes that a file had.
fn written(server: &Server, incarnation: &Incarnation) -> Result<Vec<u8>, String> {
    let file = server.incarnation(incarnation).ok_or(format!("the server never had {incarnation}"))?;
    Ok(server.files[file].written.bytes.clone())
}

/// Every object is of the bytes that its name says, overlapping or not.
async fn each_chunk(archive: &Archive, file: &FileChunks, written: &[u8], counts: &mut Counts) -> Result<(), String> {
    if let Some(stranger) = file.strangers.first() {
        return Err(format!("{stranger} is no chunk"));
    }
    for chunk in &file.chunks {
        let key = &chunk.object.key;
        let object = get_all(archive.store().as_ref(), key, u64::MAX).await.map_err(|error| error.to_string())?;
        let mut raw = Vec::new();
        let opened = OpenedChunk::new(&chunk.name, &object, &keys());
        let copied = opened.and_then(|opened| {
            opened.copy(chunk.name.range, |_, bytes| {
                raw.extend_from_slice(bytes);
                Ok(())
            })
        });
        copied.map_err(|error| format!("{key}: {}", error.chain()))?;
        same(&raw, written, chunk.name.range).map_err(|wrong| format!("{key}: {wrong}"))?;
        counts.chunks += 1;
        counts.bytes += raw.len() as u64;
    }
    Ok(())
}

/// What is read in order, as an export reads it, is the file.
async fn exported(archive: &Archive, file: FileChunks, written: &[u8]) -> Result<(), String> {
    let Some(range) = ByteRange::new(0, file.cover.contiguous_end) else { return Ok(()) };
    let name = file.incarnation.to_string();
    let mut reader = archive.read_range(Arc::new(file), range, &ReadOptions::new(keys()));
    let mut raw = Vec::new();
    loop {
        match reader.next().await {
            Ok(Some(block)) if block.offset == raw.len() as u64 => raw.extend_from_slice(&block.bytes),
            Ok(Some(block)) => return Err(format!("{name}: a block for {} comes at {}", block.offset, raw.len())),
            Ok(None) => return same(&raw, written, range).map_err(|wrong| format!("{name}, exported: {wrong}")),
            Err(error) => return Err(format!("{name}: {}", error.chain())),
        }
    }
}

fn same(raw: &[u8], written: &[u8], range: ByteRange) -> Result<(), String> {
    let [start, end] = [range.start(), range.end()].map(|offset| usize::try_from(offset).unwrap());
    let wanted = written.get(start..end).ok_or_else(|| format!("the file has only {} bytes", written.len()))?;
    if raw == wanted {
        return Ok(());
    }
    let at = raw.iter().zip(wanted).take_while(|(one, other)| one == other).count();
    Err(format!("{} bytes that differ from the server's {} at {}", raw.len(), wanted.len(), start + at))
}

/// Puts a base backup of this moment into the archive, if there is one: its manifest, which is all that a plan reads.
pub(crate) async fn take_base(world: &World, shelf: &Arc<Shelf>) {
    let Some(archive) = open(shelf).await else { return };
    let (coordinates, now) = {
        let server = lock(&world.server);
        let (file, end) = server.end();
        let file = &server.files[file];
        let coordinates = Coordinates {
            file: BinlogFile::new(&file.name()).unwrap(),
            created_s: Some(file.created_s),
            position: end,
            executed: server.logged_and_purged(),
            gtid_mode: if server.gtid_mode { "ON" } else { "OFF" }.into(),
        };
        (coordinates, World::now_us())
    };
    let id = BaseManifest::id_of(now, "simulated");
    let part = BasePart { object: format!("part-000001.{}.zst.age", "0".repeat(32)), raw_bytes: 1, stored_bytes: 1 };
    let manifest = BaseManifest {
        format: FORMAT_VERSION,
        archive: archive.id(),
        id: id.clone(),
        engine: "simulated".into(),
        content: BaseContent::Sql,
        server: ServerUuid(SERVER),
        server_version: VERSION.into(),
        started_us: now,
        finished_us: now,
        coordinates,
        raw_bytes: 1,
        stored_bytes: 1,
        tool: "none".into(),
        left_out: Vec::new(),
        settings: std::collections::BTreeMap::default(),
        clone: None,
        parts: vec![part],
    };
    let key = Key::new(format!("bases/{id}/manifest.json")).unwrap();
    let json = serde_json::to_vec(&manifest).unwrap();
    let _ = shelf.objects.put_new(&key, Bytes::from(json)).await;
}
