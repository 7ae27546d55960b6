//! What goes wrong, kind of store by kind of store, and what is said of it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use binvault::clock;
use binvault::retry::RetryOptions;
use binvault::store::disk::{DiskOptions, DiskStore};
use binvault::store::faults::{FaultPlan, Faults, Op};
use binvault::store::memory::MemoryStore;
use binvault::store::retry::Retrying;
use binvault::store::s3::{Checksums, PutIfAbsent, S3Options, S3Store};
use binvault::store::{
    Key, ListDepth, Put, SharedStore, Store, StoreError, StoreErrorKind, StoreOptions, get_all, list_collect,
};
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::fixture::{quick, s3_options};
use crate::server::Server;

fn key() -> Key {
    Key::new("chunks/a/1").unwrap()
}

fn body() -> Bytes {
    Bytes::from_static(b"some bytes of a chunk")
}

/// The kinds that putting, getting, looking and listing end with.
async fn kinds(store: &dyn Store) -> [Result<(), StoreErrorKind>; 4] {
    fn kind<T>(result: Result<T, StoreError>) -> Result<(), StoreErrorKind> {
        result.map(|_| ()).map_err(|error| error.kind)
    }
    [
        kind(store.put_new(&key(), body()).await),
        kind(store.get_range(&key(), 0, 10).await),
        kind(store.head(&key()).await),
        kind(store.list_page("", ListDepth::OneLevel, None).await),
    ]
}

async fn open_disk(root: &Path) -> Result<DiskStore, StoreError> {
    DiskStore::open(root, &DiskOptions::default()).await
}

#[tokio::test]
async fn a_folder_whose_parent_is_missing_is_a_missing_bucket() {
    let folder = tempfile::tempdir().unwrap();
    let error = open_disk(&folder.path().join("a/b")).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::NoBucket);
    assert!(error.message.contains("a/b"), "{error}");
    let error = DiskStore::open(folder.path().join("a"), &DiskOptions { create: false, ..DiskOptions::default() })
        .await
        .unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::NoBucket);
    open_disk(&folder.path().join("a")).await.unwrap();
}

#[tokio::test]
async fn a_folder_that_went_away_is_a_missing_bucket() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("archive");
    let store = open_disk(&root).await.unwrap();
    std::fs::remove_dir(&root).unwrap();
    assert_eq!(kinds(&store).await, [Err(StoreErrorKind::NoBucket); 4]);
}

#[tokio::test]
async fn a_file_in_the_place_of_a_folder_is_denied() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert_eq!(open_disk(&file).await.unwrap_err().kind, StoreErrorKind::Denied);
    assert_eq!(open_disk(&file.join("below")).await.unwrap_err().kind, StoreErrorKind::Denied);

    let root = folder.path().join("archive");
    let store = open_disk(&root).await.unwrap();
    std::fs::write(root.join("chunks"), "").unwrap();
    assert_eq!(store.put_new(&key(), body()).await.unwrap_err().kind, StoreErrorKind::Denied);
    assert_eq!(std::fs::read_dir(root.join(".tmp")).unwrap().count(), 0, "a failed write left its temporary file");
    // And a folder in the place of the object.
    std::fs::remove_file(root.join("chunks")).unwrap();
    std::fs::create_dir_all(root.join("chunks/a/1")).unwrap();
    assert_eq!(store.put_new(&key(), body()).await.unwrap_err().kind, StoreErrorKind::Denied);
    assert!(store.head(&key()).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_folder_that_was_removed_meanwhile_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_disk(folder.path()).await.unwrap();
    store.put_new(&key(), body()).await.unwrap();
    std::fs::remove_dir_all(folder.path().join("chunks")).unwrap();
    assert_eq!(store.put_new(&key(), body()).await.unwrap(), Put::Created);
    assert_eq!(get_all(&store, &key(), 100).await.unwrap(), body());
}

#[tokio::test]
async fn names_of_the_stores_own_folder_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_disk(folder.path()).await.unwrap();
    let name = Key::new(".tmp/x").unwrap();
    assert_eq!(store.put_new(&name, body()).await.unwrap_err().kind, StoreErrorKind::Config);
    assert_eq!(store.delete(&name).await.unwrap_err().kind, StoreErrorKind::Config);
}

async fn open_s3(change: impl FnOnce(&mut S3Options)) -> (Server, S3Store) {
    let server = Server::start();
    let mut options = s3_options(&server);
    change(&mut options);
    let store = S3Store::open(options).await.unwrap();
    (server, store)
}

#[tokio::test]
async fn a_missing_bucket_is_said_to_be_missing() {
    let (_server, store) = open_s3(|options| options.bucket = "elsewhere".into()).await;
    assert_eq!(kinds(&store).await, [Err(StoreErrorKind::NoBucket); 4]);
}

#[tokio::test]
async fn wrong_credentials_are_denied() {
    let (_server, store) = open_s3(|options| options.secret_key = Some("wrong".into())).await;
    assert_eq!(kinds(&store).await, [Err(StoreErrorKind::Denied); 4]);
    let (_server, store) = open_s3(|options| options.access_key = Some("nobody".into())).await;
    assert_eq!(kinds(&store).await, [Err(StoreErrorKind::Denied); 4]);
    let error = store.put_new(&key(), body()).await.unwrap_err();
    assert!(error.message.contains("InvalidAccessKeyId"), "{error}");
}

#[tokio::test]
async fn credentials_that_may_only_read_are_denied_to_write() {
    let (server, store) = open_s3(|_| {}).await;
    store.put_new(&key(), body()).await.unwrap();
    server.switches.read_only.store(true, Ordering::SeqCst);
    let other = Key::new("b").unwrap();
    assert_eq!(store.put_new(&other, body()).await.unwrap_err().kind, StoreErrorKind::Denied);
    assert_eq!(store.put_over(&other, body()).await.unwrap_err().kind, StoreErrorKind::Denied);
    assert_eq!(store.delete(&key()).await.unwrap_err().kind, StoreErrorKind::Denied);
    assert_eq!(get_all(&store, &key(), 100).await.unwrap(), body());
}

#[tokio::test]
async fn troubles_of_the_server_have_their_kind() {
    let (server, store) = open_s3(|_| {}).await;
    server.switches.slow_down.store(1, Ordering::SeqCst);
    assert_eq!(store.put_new(&key(), body()).await.unwrap_err().kind, StoreErrorKind::Throttled);
    server.switches.internal_error.store(1, Ordering::SeqCst);
    assert_eq!(store.put_new(&key(), body()).await.unwrap_err().kind, StoreErrorKind::Transient);
    server.switches.conflict.store(1, Ordering::SeqCst);
    assert_eq!(store.put_new(&key(), body()).await.unwrap_err().kind, StoreErrorKind::Transient);
    server.switches.full.store(true, Ordering::SeqCst);
    assert_eq!(store.put_new(&key(), body()).await.unwrap_err().kind, StoreErrorKind::Full);
    server.switches.full.store(false, Ordering::SeqCst);
    assert_eq!(server.switches.requests.load(Ordering::SeqCst), 4, "the client tried again by itself");
    assert_eq!(store.put_new(&key(), body()).await.unwrap(), Put::Created);
    server.switches.cut_bodies.store(true, Ordering::SeqCst);
    assert_eq!(store.get_range(&key(), 0, 100).await.unwrap_err().kind, StoreErrorKind::Transient);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_passing_trouble() {
    let (server, store) = open_s3(|_| {}).await;
    drop(server);
    assert_eq!(kinds(&store).await, [Err(StoreErrorKind::Transient); 4]);
}

#[tokio::test]
async fn a_slow_server_meets_the_time_limit() {
    let (server, store) = open_s3(|options| options.attempt_timeout_ms = 200).await;
    server.switches.delay_ms.store(2_000, Ordering::SeqCst);
    let started = clock::monotonic();
    assert_eq!(kinds(&store).await, [Err(StoreErrorKind::Transient); 4]);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_store_without_conditions_is_looked_at_first() {
    for mode in [PutIfAbsent::Auto, PutIfAbsent::Never] {
        let (server, store) = open_s3(|options| options.put_if_absent = mode).await;
        server.switches.refuse_conditions.store(true, Ordering::SeqCst);
        assert_eq!(store.put_new(&key(), body()).await.unwrap(), Put::Created);
        assert_eq!(store.put_new(&key(), body()).await.unwrap(), Put::AlreadyThere);
        assert_eq!(server.switches.puts.load(Ordering::SeqCst), 1);
        assert!(!store.put_new_is_atomic());
    }
    let (server, store) = open_s3(|options| options.put_if_absent = PutIfAbsent::Always).await;
    server.switches.refuse_conditions.store(true, Ordering::SeqCst);
    assert_eq!(store.put_new(&key(), body()).await.unwrap_err().kind, StoreErrorKind::Config);
}

#[tokio::test]
async fn a_store_that_ignores_conditions_does_no_harm() {
    let (server, store) = open_s3(|_| {}).await;
    server.switches.ignore_conditions.store(true, Ordering::SeqCst);
    store.put_new(&key(), body()).await.unwrap();
    store.put_new(&key(), body()).await.unwrap();
    assert_eq!(get_all(&store, &key(), 100).await.unwrap(), body());
}

#[tokio::test]
async fn a_checksum_travels_only_as_configured() {
    for (checksums, sent) in [(Checksums::Auto, 0), (Checksums::WhenRequired, 0), (Checksums::WhenSupported, 1)] {
        let (server, store) = open_s3(|options| options.checksums = checksums).await;
        store.put_new(&key(), body()).await.unwrap();
        assert_eq!(server.switches.checksums.load(Ordering::SeqCst), sent, "{checksums:?}");
        assert_eq!(get_all(&store, &key(), 100).await.unwrap(), body());
    }
}

#[tokio::test]
async fn a_cut_listing_without_a_token_goes_on_after_the_last_name() {
    let (server, store) = open_s3(|_| {}).await;
    server.switches.no_token.store(true, Ordering::SeqCst);
    for n in 0..1100 {
        store.put_new(&Key::new(format!("l/{n:04}/x")).unwrap(), Bytes::new()).await.unwrap();
    }
    assert_eq!(list_collect(&store, "l/", ListDepth::OneLevel, 2000).await.unwrap().folders.len(), 1100);
    assert_eq!(list_collect(&store, "l/", ListDepth::Everything, 2000).await.unwrap().objects.len(), 1100);
}

#[tokio::test]
async fn options_that_cannot_be_used_are_said_at_once() {
    let half = S3Options { access_key: Some("a".into()), endpoint: Some("http://x".into()), ..S3Options::default() };
    assert_eq!(S3Store::open(half).await.unwrap_err().kind, StoreErrorKind::Config);
    let ca = S3Options { ca_file: Some("/does/not/exist".into()), ..S3Options::default() };
    assert_eq!(S3Store::open(ca).await.unwrap_err().kind, StoreErrorKind::Config);
}

#[tokio::test]
async fn a_store_opens_by_its_url_and_tries_again() {
    let server = Server::start();
    let s3 = S3Options { prefix: String::new(), bucket: String::new(), ..s3_options(&server) };
    let options = StoreOptions { url: "s3://archive/p/q".into(), s3, retry: quick(), ..StoreOptions::default() };
    let store = binvault::store::open(&options, &CancellationToken::new()).await.unwrap();
    assert_eq!(store.url(), "s3://archive/p/q");
    server.switches.slow_down.store(2, Ordering::SeqCst);
    server.switches.internal_error.store(2, Ordering::SeqCst);
    assert_eq!(store.put_new(&key(), body()).await.unwrap(), Put::Created);
    assert_eq!(store.put_new(&key(), body()).await.unwrap(), Put::AlreadyThere);
    // A store at the bucket's root sees the whole name.
    let options = StoreOptions { url: "s3://archive".into(), ..options };
    let root = binvault::store::open(&options, &CancellationToken::new()).await.unwrap();
    assert_eq!(get_all(&*root, &Key::new("p/q/chunks/a/1").unwrap(), 100).await.unwrap(), body());
}

fn faulty(plan: FaultPlan) -> (Arc<Faults>, Retrying) {
    faulty_with(plan, quick(), 60_000)
}

fn faulty_with(plan: FaultPlan, options: RetryOptions, call_timeout_ms: u64) -> (Arc<Faults>, Retrying) {
    let faults = Arc::new(Faults::new(Arc::new(MemoryStore::new()), plan));
    let inner: SharedStore = faults.clone();
    (faults, Retrying::new(inner, options, call_timeout_ms, CancellationToken::new()))
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_does_no_harm() {
    let (faults, store) = faulty(FaultPlan { lose_first: 3, ..FaultPlan::default() });
    assert_eq!(store.put_new(&key(), body()).await.unwrap(), Put::AlreadyThere);
    assert_eq!(get_all(&store, &key(), 100).await.unwrap(), body());
    assert!(faults.counts().lost >= 6, "{:?}", faults.counts());
}

#[tokio::test(start_paused = true)]
async fn a_name_taken_by_something_of_another_size_is_corrupt() {
    let (_faults, store) = faulty(FaultPlan::default());
    store.put_new(&key(), body()).await.unwrap();
    let error = store.put_new(&key(), Bytes::from_static(b"short")).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Corrupt);
}

#[tokio::test(start_paused = true)]
async fn half_an_answer_is_never_taken_for_a_whole_one() {
    let (faults, store) = faulty(FaultPlan { halve_first: 3, ..FaultPlan::default() });
    store.put_new(&key(), body()).await.unwrap();
    assert_eq!(faults.get_range(&key(), 0, 21).await.unwrap().len(), 10, "the wrapper does not halve");
    assert_eq!(store.get_range(&key(), 0, 21).await.unwrap(), body());
    assert_eq!(store.get_range(&key(), 5, 1000).await.unwrap(), body()[5..]);
    faults.set_plan(FaultPlan { halve_first: u32::MAX, ..FaultPlan::default() });
    assert_eq!(store.get_range(&key(), 0, 21).await.unwrap_err().kind, StoreErrorKind::Transient);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_meets_the_time_limit_and_goes_on_when_it_is_released() {
    let options = RetryOptions { first_ms: 100, max_ms: 1000, ..quick() };
    let (faults, store) = faulty_with(FaultPlan::default(), options, 1000);
    faults.hang();
    let started = clock::monotonic();
    let error = store.put_new(&key(), body()).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Transient);
    let waited = started.elapsed();
    assert!(waited >= Duration::from_secs(8) && waited < Duration::from_secs(20), "eight tries took {waited:?}");

    let put = tokio::spawn(async move { store.put_new(&key(), body()).await.map(|put| (put, store)) });
    clock::sleep(Duration::from_millis(1500)).await;
    faults.release();
    let (put, store) = put.await.unwrap().unwrap();
    assert_eq!(put, Put::Created);
    assert_eq!(get_all(&store, &key(), 100).await.unwrap(), body());
}

#[tokio::test(start_paused = true)]
async fn what_a_retry_cannot_help_is_not_tried_again() {
    let kinds = [StoreErrorKind::Denied, StoreErrorKind::NoBucket, StoreErrorKind::Corrupt, StoreErrorKind::Config];
    for kind in kinds {
        let plan = FaultPlan { ops: vec![Op::PutNew], fail_first: 1, kind, ..FaultPlan::default() };
        let (faults, store) = faulty(plan);
        assert_eq!(store.put_new(&key(), body()).await.unwrap_err().kind, kind);
        assert_eq!(faults.counts().calls, 1);
    }
    let plan = FaultPlan { fail_first: 3, kind: StoreErrorKind::Full, ..FaultPlan::default() };
    let (_faults, store) = faulty(plan);
    assert_eq!(store.put_new(&key(), body()).await.unwrap(), Put::Created, "room was made, but nobody tried again");
}

#[tokio::test(start_paused = true)]
async fn faults_follow_the_seed() {
    let run = |seed| async move {
        let plan = FaultPlan { seed, fail_per_thousand: 300, ..FaultPlan::default() };
        let faults = Faults::new(Arc::new(MemoryStore::new()), plan);
        let mut pattern = Vec::new();
        for n in 0..100 {
            pattern.push(faults.put_new(&Key::new(format!("{n}")).unwrap(), body()).await.is_ok());
        }
        pattern
    };
    assert_eq!(run(1).await, run(1).await);
    assert_ne!(run(1).await, run(2).await);
    let good = run(3).await.iter().filter(|good| **good).count();
    assert!((50..=90).contains(&good), "{good} of 100 succeeded");
}
