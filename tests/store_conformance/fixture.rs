//! The stores under test, each empty, each with what keeps it alive.

use std::any::Any;
use std::sync::Arc;

use binvault::retry::RetryOptions;
use binvault::store::disk::{DiskOptions, DiskStore};
use binvault::store::faults::{FaultPlan, Faults};
use binvault::store::memory::MemoryStore;
use binvault::store::retry::Retrying;
use binvault::store::s3::{S3Options, S3Store};
use binvault::store::{SharedStore, Store, StoreOptions};
use tokio_util::sync::CancellationToken;

use crate::server::{ACCESS_KEY, BUCKET, Named, SECRET_KEY, Server};

/// A store and what must live as long as it.
pub(crate) struct Fixture {
    pub(crate) store: SharedStore,
    _keep: Box<dyn Any + Send + Sync>,
}

impl Fixture {
    fn new(store: impl Store + 'static, keep: impl Any + Send + Sync) -> Self {
        Self { store: Arc::new(store), _keep: Box::new(keep) }
    }
}

/// Retries that do not make a test wait.
pub(crate) fn quick() -> RetryOptions {
    RetryOptions { first_ms: 1, max_ms: 5, factor: 2.0, jitter: 0.3, attempts_max: Some(8), elapsed_max_ms: None }
}

pub(crate) async fn memory() -> Fixture {
    Fixture::new(MemoryStore::new(), ())
}

pub(crate) async fn disk() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let store = DiskStore::open(folder.path().join("archive"), &DiskOptions::default()).await.unwrap();
    Fixture::new(store, folder)
}

pub(crate) async fn s3() -> Fixture {
    let server = Server::start();
    let store = S3Store::open(s3_options(&server)).await.unwrap();
    Fixture::new(store, server)
}

/// Options for the server that the tests start.
pub(crate) fn s3_options(server: &Server) -> S3Options {
    S3Options {
        bucket: BUCKET.into(),
        prefix: "some/prefix".into(),
        endpoint: Some(server.endpoint.clone()),
        access_key: Some(ACCESS_KEY.into()),
        secret_key: Some(SECRET_KEY.into()),
        ..S3Options::default()
    }
}

/// Every distinct call fails twice, then its answer is lost once (and, for a range, cut in half); delays besides.
pub(crate) async fn disk_behind_faults() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let store = DiskStore::open(folder.path().join("archive"), &DiskOptions::default()).await.unwrap();
    let plan = FaultPlan {
        fail_first: 2,
        lose_first: 1,
        halve_first: 2,
        fail_per_thousand: 20,
        latency_ms_max: 1,
        ..FaultPlan::default()
    };
    let faults = Arc::new(Faults::new(Arc::new(store), plan));
    Fixture::new(Retrying::new(faults, quick(), 10_000, CancellationToken::new()), folder)
}

/// The store that the environment names, if it does.
pub(crate) async fn from_environment() -> Option<Fixture> {
    let Named { url, endpoint, access_key, secret_key } = Named::by_environment("conformance")?;
    let secret_key = secret_key.map(Into::into);
    let s3 = S3Options { endpoint, access_key, secret_key, ..S3Options::default() };
    let options = StoreOptions { url, s3, ..StoreOptions::default() };
    let store = binvault::store::open(&options, &CancellationToken::new()).await.unwrap();
    Some(Fixture { store, _keep: Box::new(()) })
}
