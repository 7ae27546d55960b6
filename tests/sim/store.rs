//! The model of an object store: what it holds for good, and how it behaves to an agent.
//!
//! A [`Shelf`] is the store itself, without a fault; a [`Counter`] is what one life of an agent sees of it, under the sky
//! of the moment. The shelf watches over what may never happen to an archive, whoever writes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use binvault::archive::Beacon;
use binvault::chunk::ChunkName;
use binvault::clock::{self, Instant};
use binvault::position::{BinlogFile, Incarnation};
use binvault::store::memory::MemoryStore;
use binvault::store::{Key, ListDepth, ListPage, ObjectMeta, Put, Store, StoreError, StoreErrorKind};
use bytes::Bytes;

use crate::server::{File, Server};
use crate::spool;
use crate::world::{Life, Sky, World, lock};

/// Longer than any agent believes in an answer.
const NEVER: Duration = Duration::from_secs(1 << 30);

/// The objects of one archive.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    pub(crate) objects: MemoryStore,
    /// Names that listings do not show yet, and until when.
    hidden: Mutex<BTreeMap<String, Instant>>,
    /// The ranges of chunks, by incarnation.
    ranges: Mutex<BTreeMap<String, Vec<(u64, u64)>>>,
    /// When files came, by incarnation.
    arrivals: Mutex<BTreeMap<String, Arrival>>,
    /// Whether a break was recorded soon after chunks had not been listed.
    misled: AtomicBool,
}

/// When anything of a file was there.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    /// The first chunk was put.
    at: Instant,
    /// A listing showed one.
    listed: Instant,
}

/// How long an agent may take from its listing to the record of a break, and to what it archives behind that.
const LISTED_BEFORE: Duration = Duration::from_secs(20);

impl Shelf {
    /// Up to where a file is archived without a hole.
    pub(crate) fn covered(&self, file: &File) -> u64 {
        self.covered_with(file, &[])
    }

    /// The same with chunks that are elsewhere.
    pub(crate) fn covered_with(&self, file: &File, elsewhere: &[ChunkName]) -> u64 {
        self.covered_of(&incarnation_of(file), elsewhere)
    }

    fn covered_of(&self, incarnation: &str, elsewhere: &[ChunkName]) -> u64 {
        let mut ranges = lock(&self.ranges).get(incarnation).cloned().unwrap_or_default();
        let of_file = elsewhere.iter().filter(|chunk| chunk.incarnation.to_string() == incarnation);
        ranges.extend(of_file.map(|chunk| (chunk.range.start(), chunk.range.end())));
        ranges.sort_unstable();
        let mut reach = 0;
        for (start, end) in ranges {
            if start > reach {
                break;
            }
            reach = reach.max(end);
        }
        reach
    }

    /// The most that is archived without a hole of any file of a name, with chunks that are elsewhere.
    pub(crate) fn covered_by_name(&self, name: &str, elsewhere: &[ChunkName]) -> u64 {
        let prefix = format!("{name}.");
        let mut incarnations: Vec<String> = lock(&self.ranges).keys().cloned().collect();
        incarnations.extend(elsewhere.iter().map(|chunk| chunk.incarnation.to_string()));
        incarnations.retain(|incarnation| incarnation.starts_with(&prefix));
        incarnations.iter().map(|incarnation| self.covered_of(incarnation, elsewhere)).max().unwrap_or(0)
    }

    /// Whether something that is there was not listed since a moment.
    pub(crate) fn hid_since(&self, moment: Instant) -> bool {
        lock(&self.hidden).values().any(|until| *until > moment)
    }

    /// Whether an agent may have recorded a break that only listings without newer chunks gave: what it saw did not go on, and
    /// so the archive says.
    pub(crate) fn misled(&self) -> bool {
        self.misled.load(Ordering::Relaxed)
    }

    /// Whether whoever began one of these files may have seen an empty archive: all that the server wrote before it came, or was
    /// listed, a moment before that, or later.
    pub(crate) fn begun_unseeing(&self, server: &Server, is_it: impl Fn(&File) -> bool) -> bool {
        let arrivals = lock(&self.arrivals);
        let arrival = |file: &File| arrivals.get(&incarnation_of(file)).copied();
        let all: Vec<(&File, Arrival)> = server.files.iter().filter_map(|file| Some((file, arrival(file)?))).collect();
        all.iter()
            .enumerate()
            .skip(1)
            .filter(|(_, (file, _))| is_it(file))
            .any(|(index, (_, begun))| all[..index].iter().all(|(_, other)| other.listed + LISTED_BEFORE > begun.at))
    }

    fn is_hidden(&self, name: &str) -> bool {
        lock(&self.hidden).get(name).is_some_and(|until| *until > clock::monotonic())
    }

    async fn put_new(&self, world: &World, key: &Key, body: Bytes, hide: Duration) -> Result<Put, StoreError> {
        if !hide.is_zero() && self.objects.head(key).await.is_err() {
            lock(&self.hidden).insert(key.to_string(), clock::monotonic() + hide);
        }
        let lately = clock::monotonic().checked_sub(LISTED_BEFORE);
        if key.as_str().starts_with("gaps/") && lately.is_none_or(|lately| self.hid_since(lately)) {
            self.misled.store(true, Ordering::Relaxed);
        }
        let put = self.objects.put_new(key, body.clone()).await?;
        let there = self.objects.get_range(key, 0, u64::MAX).await?;
        if there != body && key.as_str().starts_with("chunks/") {
            world.wrong(format!("{key} names two objects"));
        }
        if let Ok(ChunkName { incarnation, range, .. }) = ChunkName::parse(key.as_str()) {
            lock(&self.ranges).entry(incarnation.to_string()).or_default().push((range.start(), range.end()));
            let (at, hidden) = (clock::monotonic(), lock(&self.hidden).get(key.as_str()).copied());
            let first = Arrival { at, listed: hidden.unwrap_or(at) };
            let mut arrivals = lock(&self.arrivals);
            let arrival = arrivals.entry(incarnation.to_string()).or_insert(first);
            arrival.listed = arrival.listed.min(first.listed);
        }
        Ok(put)
    }

    async fn put_over(&self, world: &World, key: &Key, body: Bytes) -> Result<(), StoreError> {
        if !key.as_str().starts_with("agents/") {
            world.wrong(format!("{key} is overwritten"));
        }
        if let Ok(Beacon { durable: Some(durable), .. }) = serde_json::from_slice(&body) {
            let covered = self.covered_by_name(durable.file.as_str(), &[]);
            if covered < durable.offset {
                world.wrong(format!("{key} calls {durable} durable, the archive has {covered}"));
            }
        }
        self.objects.put_over(key, body).await
    }
}

/// A file as it is told apart in keys.
fn incarnation_of(file: &File) -> String {
    Incarnation { file: BinlogFile::new(&file.name()).unwrap(), created_s: file.created_s }.to_string()
}

/// What a life of an agent sees.
#[derive(Debug)]
pub(crate) struct Counter {
    pub(crate) world: Arc<World>,
    pub(crate) life: Arc<Life>,
}

/// What a call suffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered,
    /// Carried out, and the answer lost.
    Lost,
    /// Not carried out, or only when nobody waits any more.
    Unanswered {
        late: bool,
    },
    /// Carried out, and the agent dies over it.
    Fatal,
}

impl Counter {
    async fn begin(&self, call: &str, name: &str) -> Result<Fate, StoreError> {
        if self.life.dead.is_cancelled() {
            std::future::pending::<()>().await;
        }
        let shown = without_digest(name);
        let died = self.burn();
        let sky = *lock(&self.world.sky);
        let chance = self.world.below(100);
        let delay = match sky {
            Sky::Slow => 50 + self.world.below(900),
            _ => self.world.below(20),
        };
        let error = |kind, why: &str| Err(StoreError::new(kind, format!("{call} {shown}: {why}")));
        let verdict = match sky {
            _ if died => Ok(if chance < 50 { Fate::Fatal } else { Fate::Unanswered { late: chance < 60 } }),
            Sky::Failing(percent) if chance < percent => error(StoreErrorKind::Transient, "a 5xx"),
            Sky::Throttled if chance < 60 => error(StoreErrorKind::Throttled, "slow down"),
            Sky::Deaf if chance < 60 => Ok(Fate::Lost),
            Sky::Hanging if chance < 50 => Ok(Fate::Unanswered { late: chance < 25 }),
            _ => Ok(Fate::Answered),
        };
        self.world.note(|| format!("{} {call} {shown} {verdict:?}", self.life.name).replace("StoreError", "fault"));
        if died && verdict.as_ref().is_ok_and(|fate| *fate != Fate::Fatal) {
            self.die();
        }
        clock::sleep(Duration::from_millis(delay)).await;
        if self.life.dead.is_cancelled() && verdict.as_ref().is_ok_and(|fate| *fate == Fate::Answered) {
            // The request is on its way: whether the store sees it is the network's affair.
            return Ok(Fate::Unanswered { late: chance < 50 });
        }
        verdict
    }

    /// Whether the agent's spool holds a chunk that says the same of itself as this one.
    fn spool_has_twin_of(&self, key: &Key) -> bool {
        let (Some(spool), Ok(name)) = (&self.life.spool, ChunkName::parse(key.as_str())) else { return false };
        spool::held(spool).iter().any(|held| ChunkName { digest: name.digest.clone(), ..held.clone() } == name)
    }

    /// Whether this is the call over which the agent dies.
    fn burn(&self) -> bool {
        let mut fuse = lock(&self.life.fuse);
        *fuse = fuse.and_then(|left| left.checked_sub(1));
        let out = *fuse == Some(0);
        if out {
            *fuse = None;
        }
        out
    }

    fn die(&self) {
        self.world.note(|| format!("{} dies", self.life.name));
        self.life.dead.cancel();
        self.world.cut(|line| line.life == self.life.name);
    }

    async fn end<T>(&self, fate: Fate, answer: T) -> Result<T, StoreError> {
        match fate {
            Fate::Answered if !self.life.dead.is_cancelled() => Ok(answer),
            Fate::Lost => Err(StoreError::new(StoreErrorKind::Transient, "the answer was lost")),
            Fate::Fatal => {
                self.die();
                silence().await
            }
            _ => silence().await,
        }
    }
}

async fn silence<T>() -> Result<T, StoreError> {
    clock::sleep(NEVER).await;
    Err(StoreError::new(StoreErrorKind::Transient, "silence"))
}

/// A name as the trace may have it: the digest is not the seed's.
fn without_digest(name: &str) -> String {
    let digest = |part: &&str| part.len() == 32 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    name.split('.').filter(|part| !digest(part)).collect::<Vec<_>>().join(".")
}

#[async_trait]
impl Store for Counter {
    fn url(&self) -> String {
        "simulated:".into()
    }

    async fn put_new(&self, key: &Key, body: Bytes) -> Result<Put, StoreError> {
        let fate = self.begin("put", key.as_str()).await?;
        let (world, shelf) = (Arc::clone(&self.world), Arc::clone(&self.life.shelf));
        let hides = *lock(&world.sky) == Sky::LateListing && key.as_str().starts_with("chunks/");
        let hide = Duration::from_millis(if hides { world.below(6000) } else { 0 });
        if let Fate::Unanswered { late } = fate {
            if late {
                let (key, wait) = (key.clone(), Duration::from_millis(world.below(8000)));
                tokio::spawn(async move {
                    clock::sleep(wait).await;
                    world.note(|| format!("late: {}", without_digest(key.as_str())));
                    // Until now it was there for nobody.
                    lock(&shelf.hidden).insert(key.to_string(), clock::monotonic());
                    shelf.put_new(&world, &key, body, hide).await
                });
            }
            return silence().await;
        }
        let put = shelf.put_new(&world, key, body, hide).await?;
        self.end(fate, put).await
    }

    async fn put_over(&self, key: &Key, body: Bytes) -> Result<(), StoreError> {
        let fate = self.begin("put over", key.as_str()).await?;
        if matches!(fate, Fate::Unanswered { .. }) {
            return silence().await;
        }
        self.life.shelf.put_over(&self.world, key, body).await?;
        self.end(fate, ()).await
    }

    async fn get_range(&self, key: &Key, start: u64, length: u64) -> Result<Bytes, StoreError> {
        // Which of two chunks with the same bytes is read hangs on their digests, so on lot; and one in the spool is read for
        // nothing.
        if self.spool_has_twin_of(key) && !self.life.dead.is_cancelled() {
            return self.life.shelf.objects.get_range(key, start, length).await;
        }
        let fate = self.begin("get", key.as_str()).await?;
        let body = self.life.shelf.objects.get_range(key, start, length).await?;
        self.end(fate, body).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        // Whether a chunk's size is asked hangs on its size, and that on what age adds to each header by lot: so it
        // costs neither time nor luck.
        if key.as_str().starts_with("chunks/") && !self.life.dead.is_cancelled() {
            return self.life.shelf.objects.head(key).await;
        }
        let fate = self.begin("head", key.as_str()).await?;
        let found = self.life.shelf.objects.head(key).await?;
        self.end(fate, found).await
    }

    async fn list_page(&self, prefix: &str, depth: ListDepth, after: Option<&str>) -> Result<ListPage, StoreError> {
        let fate = self.begin("list", prefix).await?;
        let shelf = &self.life.shelf;
        let mut page = shelf.objects.list_page(prefix, depth, after).await?;
        page.objects.retain(|object| !shelf.is_hidden(object.key.as_str()));
        let mut folders = Vec::new();
        for folder in page.folders {
            let inside = shelf.objects.list_page(&folder, ListDepth::Everything, None).await?.objects;
            if inside.iter().any(|object| !shelf.is_hidden(object.key.as_str())) {
                folders.push(folder);
            }
        }
        page.folders = folders;
        self.end(fate, page).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.world.wrong(format!("{key} is to be deleted"));
        Ok(())
    }
}
