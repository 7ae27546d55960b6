//! The spool on real folders, before a store in memory.

use std::time::Duration;

use super::*;
use crate::store::memory::MemoryStore;
use crate::store::{Entry, SharedStore, get_all, list_all};

const DRAIN: DrainOptions =
    DrainOptions { uploads: 2, memory_bytes: 1 << 20, object_bytes_max: 1 << 20, patient: true };

fn options(dir: &Path) -> SpoolOptions {
    SpoolOptions {
        dir: dir.join("spool"),
        bytes_max: 1 << 20,
        entries_max: 800,
        prefix: "chunks/",
        is_whole: |_, bytes| !bytes.starts_with(b"BAD"),
    }
}

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

struct Scene {
    dir: tempfile::TempDir,
    store: SharedStore,
}

impl Scene {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), store: Arc::new(MemoryStore::new()) }
    }

    async fn open(&self) -> Arc<Spool> {
        Spool::open(options(self.dir.path()), "archive-1").await.unwrap()
    }

    fn front(&self, spool: &Arc<Spool>) -> Spooled {
        Spooled::new(Arc::clone(spool), Arc::clone(&self.store))
    }
}

/// Drains until nothing is left.
async fn drain(spool: &Arc<Spool>, store: &SharedStore) {
    tokio::select! {
        ended = spool.drain(store, DRAIN) => panic!("{ended:?}"),
        () = spool.drained() => {}
    }
}

async fn names(store: &dyn Store, prefix: &str, depth: ListDepth) -> Vec<String> {
    let mut names = Vec::new();
    let each = |entry| {
        names.push(match entry {
            Entry::Object(object) => object.key.to_string(),
            Entry::Folder(folder) => folder,
        });
        Ok(())
    };
    list_all(store, prefix, depth, each).await.unwrap();
    names.sort();
    names
}

#[tokio::test]
async fn what_is_put_is_there_at_once_and_in_the_store_later() {
    let scene = Scene::new();
    let spool = scene.open().await;
    let front = scene.front(&spool);
    assert_eq!(front.put_new(&key("chunks/a/1"), Bytes::from_static(b"one")).await.unwrap(), Put::Created);
    assert_eq!(front.put_new(&key("chunks/a/1"), Bytes::from_static(b"one")).await.unwrap(), Put::AlreadyThere);
    front.put_new(&key("bases/1"), Bytes::from_static(b"not for the spool")).await.unwrap();
    assert_eq!(get_all(&front, &key("chunks/a/1"), 100).await.unwrap(), "one");
    assert_eq!(names(scene.store.as_ref(), "", ListDepth::Everything).await, ["bases/1"]);
    assert_eq!(spool.turns(), (1, 0));
    drain(&spool, &scene.store).await;
    assert_eq!((spool.turns(), spool.state()), ((1, 1), SpoolState::default()));
    assert_eq!(names(scene.store.as_ref(), "", ListDepth::Everything).await, ["bases/1", "chunks/a/1"]);
    assert_eq!(get_all(&front, &key("chunks/a/1"), 100).await.unwrap(), "one");
}

#[tokio::test]
async fn a_later_run_finds_what_an_earlier_one_left_and_pieces_too() {
    let scene = Scene::new();
    let spool = scene.open().await;
    let front = scene.front(&spool);
    front.put_new(&key("chunks/a/1"), Bytes::from_static(b"one")).await.unwrap();
    let generation = spool.release_pieces();
    spool.put_piece(generation, &key("chunks/a/2"), Bytes::from_static(b"two")).await.unwrap();
    spool.put_piece(generation, &key("chunks/a/3"), Bytes::from_static(b"three")).await.unwrap();
    spool.remove(vec![key("chunks/a/2")]).await.unwrap();
    drop((front, spool));
    let spool = scene.open().await;
    assert_eq!(spool.state().objects, 2);
    assert!(spool.state().oldest_us.is_some());
    assert_eq!(names(&scene.front(&spool), "chunks/", ListDepth::OneLevel).await, ["chunks/a/"]);
    drain(&spool, &scene.store).await;
    assert_eq!(names(scene.store.as_ref(), "", ListDepth::Everything).await, ["chunks/a/1", "chunks/a/3"]);
    drop(spool);
    // The last upload's task may still have it for a moment.
    while Spool::open(options(scene.dir.path()), "archive-1").await.is_err() {
        clock::sleep(Duration::from_millis(1)).await;
    }
    assert!(!scene.dir.path().join("spool/chunks/a").exists(), "empty folders are removed");
}

#[tokio::test]
async fn a_spool_has_one_process_and_one_archive() {
    let scene = Scene::new();
    let spool = scene.open().await;
    let error = Spool::open(options(scene.dir.path()), "archive-1").await.unwrap_err();
    assert!(error.message.contains("in use by another process"), "{error}");
    drop(spool);
    let error = Spool::open(options(scene.dir.path()), "archive-2").await.unwrap_err();
    assert!(error.message.contains("is of archive archive-1, this one is archive-2"), "{error}");
    let (archive, state) = Spool::look(&options(scene.dir.path()).dir, "chunks/").await.unwrap().unwrap();
    assert_eq!((archive.as_str(), state), ("archive-1", SpoolState::default()));
    assert_eq!(Spool::look(scene.dir.path(), "chunks/").await.unwrap(), None);
}

#[tokio::test]
async fn a_full_spool_makes_the_next_one_wait_until_something_has_left() {
    let scene = Scene::new();
    let spool = scene.open().await;
    let front = scene.front(&spool);
    let body = Bytes::from(vec![7; 400 << 10]);
    for name in ["chunks/1", "chunks/2"] {
        front.put_new(&key(name), body.clone()).await.unwrap();
    }
    let third = key("chunks/3");
    let putting = front.put_new(&third, body.clone());
    tokio::pin!(putting);
    assert!(clock::with_timeout(Duration::from_millis(50), &mut putting).await.is_none());
    let draining = drain(&spool, &scene.store);
    let (put, ()) = tokio::join!(putting, draining);
    assert_eq!(put.unwrap(), Put::Created);
}

#[tokio::test]
async fn bytes_that_have_changed_never_reach_the_store() {
    let scene = Scene::new();
    let spool = scene.open().await;
    scene.front(&spool).put_new(&key("chunks/1"), Bytes::from_static(b"BAD")).await.unwrap();
    let error = spool.drain(&scene.store, DRAIN).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Corrupt);
    assert!(error.message.contains("have changed"), "{error}");
    assert_eq!(names(scene.store.as_ref(), "", ListDepth::Everything).await, [""; 0]);
    assert_eq!(spool.state().objects, 1, "it is left where it is");
}

/// Objects move while they are listed: each is seen exactly once, whatever the pages.
#[tokio::test]
async fn a_listing_names_each_object_once_while_they_move() {
    let scene = Scene::new();
    let spool = scene.open().await;
    let front = scene.front(&spool);
    let mut wanted = Vec::new();
    for number in 0..2600 {
        let name = format!("chunks/{}/{number:05}", number % 3);
        let store: &dyn Store = if number % 5 == 0 { &front } else { scene.store.as_ref() };
        store.put_new(&key(&name), Bytes::from_static(b"x")).await.unwrap();
        wanted.push(name);
    }
    wanted.sort();
    assert_eq!(spool.state().objects, 520);
    let listing = async {
        let mut seen = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = front.list_page("chunks/", ListDepth::Everything, after.as_deref()).await.unwrap();
            seen.extend(page.objects.into_iter().map(|object| object.key.to_string()));
            clock::sleep(Duration::from_millis(20)).await;
            match page.next {
                Some(next) => after = Some(next),
                None => return seen,
            }
        }
    };
    let (seen, ()) = tokio::join!(listing, drain(&spool, &scene.store));
    assert_eq!(seen, wanted);
    let folders = ["chunks/0/", "chunks/1/", "chunks/2/"];
    assert_eq!(names(&front, "chunks/", ListDepth::OneLevel).await, folders);
}
