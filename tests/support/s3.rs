//! A real S3 server for tests: HTTP, signatures, chunked bodies, checksums and XML are those of the crate `s3s`;
//! the objects lie in a folder of their own. It listens on a free port of 127.0.0.1 and ends with the value.
//!
//! Why not `s3s-fs` as it is: its put-if-absent looks and then writes (two writers can both win), it keeps side files
//! whose names hold the object's name in base64 (names beyond some 160 bytes fail, ours are longer), and a body whose
//! checksum is wrong is stored before it is refused. So the storage here is our own and small: a sorted index under
//! one lock, bodies as files. What is not needed by a client that only puts, gets, heads, lists and deletes is not
//! there and is answered with NotImplemented.
//!
//! Other test binaries take it with `#[path = "../support/s3.rs"] mod s3;`.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::StreamExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::checksum::ChecksumHasher;
use s3s::dto::*;
use s3s::service::S3ServiceBuilder;
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};
use tokio_util::sync::CancellationToken;

/// The one user.
pub(crate) const ACCESS_KEY: &str = "binvault-test-access";
/// The one user's secret.
pub(crate) const SECRET_KEY: &str = "binvault-test-secret";
/// The one bucket.
pub(crate) const BUCKET: &str = "archive";

/// What the server does besides serving. All can be switched while it runs.
#[derive(Debug, Default)]
pub(crate) struct Switches {
    /// Writes and deletes are answered with AccessDenied.
    pub(crate) read_only: AtomicBool,
    /// Objects whose name contains this are under a lock: to delete one is answered with AccessDenied.
    pub(crate) locked: Mutex<Option<String>>,
    /// Every request is answered with 503 ServiceUnavailable.
    pub(crate) down: AtomicBool,
    /// So many further requests are answered with 503 SlowDown.
    pub(crate) slow_down: AtomicU64,
    /// So many further requests are answered with 500 InternalError.
    pub(crate) internal_error: AtomicU64,
    /// So many further conditional PUTs are answered with 409 ConditionalRequestConflict.
    pub(crate) conflict: AtomicU64,
    /// PUTs are answered with 507 XMinioStorageFull.
    pub(crate) full: AtomicBool,
    /// Every request waits so long first, in milliseconds.
    pub(crate) delay_ms: AtomicU64,
    /// Conditional PUTs are answered with 501 NotImplemented, as by stores that do not know `If-None-Match`.
    pub(crate) refuse_conditions: AtomicBool,
    /// `If-None-Match` is ignored, as by old stores.
    pub(crate) ignore_conditions: AtomicBool,
    /// Listings that are cut carry no continuation token.
    pub(crate) no_token: AtomicBool,
    /// Bodies of GET break off in the middle.
    pub(crate) cut_bodies: AtomicBool,
    /// Listings do not show what was put within so many last milliseconds, as those of eventually consistent stores.
    pub(crate) list_lag_ms: AtomicU64,
    /// Connections that are open: without any, no request is being carried out.
    pub(crate) connections: AtomicU64,
    /// Requests that were let in.
    pub(crate) requests: AtomicU64,
    /// Which operations were asked for.
    pub(crate) operations: Mutex<BTreeSet<String>>,
    /// PUTs that were carried out.
    pub(crate) puts: AtomicU64,
    /// PUTs that carried a checksum.
    pub(crate) checksums: AtomicU64,
}

/// Any other S3 store, where the environment names one: its bucket must exist, and may keep versions or lock objects.
///
/// - `BINVAULT_TEST_S3_URL`: `s3://bucket/prefix`
/// - `BINVAULT_TEST_S3_ENDPOINT`: `https://host:port`; without it, Amazon's
/// - `BINVAULT_TEST_S3_ACCESS_KEY`, `BINVAULT_TEST_S3_SECRET_KEY`: without them, the default chain
#[derive(Debug)]
pub(crate) struct Named {
    /// With a prefix of its own.
    pub(crate) url: String,
    pub(crate) endpoint: Option<String>,
    pub(crate) access_key: Option<String>,
    pub(crate) secret_key: Option<String>,
}

impl Named {
    /// The store that the environment names, if it does; `under` begins the prefix.
    pub(crate) fn by_environment(under: &str) -> Option<Self> {
        let variable = |name: &str| std::env::var(format!("BINVAULT_TEST_S3_{name}")).ok();
        let url = variable("URL")?;
        Some(Self {
            url: format!("{}/{under}-{}", url.trim_end_matches('/'), uuid::Uuid::new_v4()),
            endpoint: variable("ENDPOINT"),
            access_key: variable("ACCESS_KEY"),
            secret_key: variable("SECRET_KEY"),
        })
    }

    /// The lines of `[archive]` that lead to it.
    pub(crate) fn settings(&self) -> String {
        let line = |name: &str, value: &Option<String>| {
            value.as_ref().map_or_else(String::new, |value| format!("{name} = \"{value}\"\n"))
        };
        line("endpoint", &self.endpoint) + &line("access_key", &self.access_key) + &line("secret_key", &self.secret_key)
    }
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    /// `http://127.0.0.1:port`.
    pub(crate) endpoint: String,
    /// What it does besides serving.
    pub(crate) switches: Arc<Switches>,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    /// Starts a server with one empty bucket, on threads of its own.
    pub(crate) fn start() -> Self {
        let switches = Arc::new(Switches::default());
        let stop = CancellationToken::new();
        let (send, receive) = std::sync::mpsc::channel();
        let (ours, until) = (Arc::clone(&switches), stop.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(serve(ours, until, send));
            runtime.shutdown_timeout(Duration::from_secs(1));
        });
        let address: SocketAddr = receive.recv().expect("the S3 server did not start");
        Self { endpoint: format!("http://{address}"), switches, stop, thread: Some(thread) }
    }

    /// What a configuration says in `[archive]` to use it.
    pub(crate) fn settings(&self) -> String {
        format!(
            "endpoint = \"{}\"\nregion = \"us-east-1\"\npath_style = true\naccess_key = \"{ACCESS_KEY}\"\n\
             secret_key = \"{SECRET_KEY}\"\n",
            self.endpoint
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

async fn serve(switches: Arc<Switches>, stop: CancellationToken, started: std::sync::mpsc::Sender<SocketAddr>) {
    let folder = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bucket = BucketFolder {
        folder: folder.path().to_owned(),
        counter: AtomicU64::new(0),
        index: Mutex::default(),
        switches: Arc::clone(&switches),
    };
    let mut builder = S3ServiceBuilder::new(bucket);
    builder.set_auth(OneUser);
    builder.set_access(Gate(Arc::clone(&switches)));
    let service = builder.build();
    let http = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    started.send(listener.local_addr().unwrap()).unwrap();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let Ok((socket, _)) = accepted else { continue };
        let connection = http.serve_connection(TokioIo::new(socket), service.clone()).into_owned();
        switches.connections.fetch_add(1, Ordering::SeqCst);
        let switches = Arc::clone(&switches);
        tokio::spawn(async move {
            drop(connection.await);
            switches.connections.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

struct OneUser;

#[async_trait::async_trait]
impl S3Auth for OneUser {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        if access_key == ACCESS_KEY { Ok(SecretKey::from(SECRET_KEY)) } else { Err(s3_error!(InvalidAccessKeyId)) }
    }
}

/// Where the switches work that hit every kind of request.
struct Gate(Arc<Switches>);

#[async_trait::async_trait]
impl S3Access for Gate {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        if context.credentials().is_none() {
            return Err(s3_error!(AccessDenied, "Signature is required"));
        }
        self.0.requests.fetch_add(1, Ordering::SeqCst);
        binvault::clock::sleep(Duration::from_millis(self.0.delay_ms.load(Ordering::SeqCst))).await;
        if self.0.down.load(Ordering::SeqCst) {
            return Err(s3_error!(ServiceUnavailable));
        }
        if take(&self.0.slow_down) {
            return Err(s3_error!(SlowDown));
        }
        if take(&self.0.internal_error) {
            return Err(s3_error!(InternalError));
        }
        self.0.operations.lock().unwrap().insert(context.s3_op().name().to_owned());
        let writes = matches!(context.s3_op().name(), "PutObject" | "DeleteObject");
        if writes && self.0.read_only.load(Ordering::SeqCst) {
            return Err(s3_error!(AccessDenied));
        }
        Ok(())
    }
}

/// Takes one of what is left.
fn take(left: &AtomicU64) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

/// The storage: bodies in files that are never changed, and an index of which name has which body.
struct BucketFolder {
    folder: PathBuf,
    counter: AtomicU64,
    index: Mutex<BTreeMap<String, Entry>>,
    switches: Arc<Switches>,
}

#[derive(Clone)]
struct Entry {
    path: PathBuf,
    size: u64,
    modified: SystemTime,
}

impl BucketFolder {
    fn check_bucket(&self, bucket: &str) -> S3Result<()> {
        if bucket == BUCKET { Ok(()) } else { Err(s3_error!(NoSuchBucket)) }
    }

    fn find(&self, bucket: &str, key: &str) -> S3Result<Entry> {
        self.check_bucket(bucket)?;
        self.index.lock().unwrap().get(key).cloned().ok_or_else(|| s3_error!(NoSuchKey))
    }

    /// Reads the body and refuses it if the checksum that came with it, as header or trailer, is another.
    async fn receive(&self, input: &mut PutObjectInput, trailers: Option<s3s::TrailingHeaders>) -> S3Result<Vec<u8>> {
        let mut stream = input.body.take().ok_or_else(|| s3_error!(IncompleteBody))?;
        let mut body = Vec::new();
        while let Some(part) = stream.next().await {
            body.extend_from_slice(&part.map_err(|_| s3_error!(IncompleteBody))?);
        }
        if input.content_length.is_some_and(|length| length != i64::try_from(body.len()).unwrap()) {
            return Err(s3_error!(IncompleteBody));
        }
        let trailer = trailers.and_then(|trailers| trailers.take());
        let trailer = trailer.and_then(|found| Some(found.get("x-amz-checksum-crc32")?.to_str().ok()?.to_owned()));
        if let Some(expected) = input.checksum_crc32.clone().or(trailer) {
            let mut hasher = ChecksumHasher { crc32: Some(Default::default()), ..ChecksumHasher::default() };
            hasher.update(&body);
            if hasher.finalize().checksum_crc32 != Some(expected) {
                return Err(s3_error!(BadDigest));
            }
            self.switches.checksums.fetch_add(1, Ordering::SeqCst);
        }
        Ok(body)
    }
}

fn not_implemented_header() -> S3Error {
    s3_error!(NotImplemented, "A header you provided implies functionality that is not implemented")
}

#[async_trait::async_trait]
impl S3 for BucketFolder {
    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let mut input = request.input;
        self.check_bucket(&input.bucket)?;
        let mut only_if_absent = input.if_none_match.as_ref().is_some_and(ETagCondition::is_any);
        if only_if_absent && self.switches.refuse_conditions.load(Ordering::SeqCst) {
            return Err(not_implemented_header());
        }
        if only_if_absent && take(&self.switches.conflict) {
            return Err(s3_error!(ConditionalRequestConflict));
        }
        if self.switches.full.load(Ordering::SeqCst) {
            let mut error = S3Error::new(S3ErrorCode::from_bytes(b"XMinioStorageFull").unwrap());
            error.set_status_code(507.try_into().unwrap());
            return Err(error);
        }
        only_if_absent &= !self.switches.ignore_conditions.load(Ordering::SeqCst);
        let body = self.receive(&mut input, request.trailing_headers).await?;
        let number = self.counter.fetch_add(1, Ordering::SeqCst);
        let path = self.folder.join(number.to_string());
        tokio::fs::write(&path, &body).await.map_err(S3Error::internal_error)?;
        let entry = Entry {
            path,
            size: body.len() as u64,
            modified: UNIX_EPOCH + Duration::from_micros(binvault::clock::now_us()),
        };
        let mut index = self.index.lock().unwrap();
        if only_if_absent && index.contains_key(&input.key) {
            return Err(s3_error!(PreconditionFailed));
        }
        index.insert(input.key, entry);
        self.switches.puts.fetch_add(1, Ordering::SeqCst);
        Ok(S3Response::new(PutObjectOutput { e_tag: Some(ETag::Strong(number.to_string())), ..Default::default() }))
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        let entry = self.find(&input.bucket, &input.key)?;
        let body = Bytes::from(tokio::fs::read(&entry.path).await.map_err(S3Error::internal_error)?);
        let range = input.range.map(|range| range.check(entry.size)).transpose()?;
        let content_range = range.as_ref().map(|r| format!("bytes {}-{}/{}", r.start, r.end - 1, entry.size));
        let range = range.unwrap_or(0..entry.size);
        let body = body.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap());
        let content_length = Some(i64::try_from(body.len()).unwrap());
        let mut parts: Vec<Result<Bytes, std::io::Error>> = vec![Ok(body.clone())];
        if self.switches.cut_bodies.load(Ordering::SeqCst) {
            parts = vec![Ok(body.slice(..body.len() / 2)), Err(std::io::Error::other("cut, as planned"))];
        }
        Ok(S3Response::new(GetObjectOutput {
            body: Some(StreamingBlob::wrap(futures_util::stream::iter(parts))),
            content_length,
            content_range,
            last_modified: Some(Timestamp::from(entry.modified)),
            ..Default::default()
        }))
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let entry = self.find(&request.input.bucket, &request.input.key)?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: Some(i64::try_from(entry.size).unwrap()),
            last_modified: Some(Timestamp::from(entry.modified)),
            ..Default::default()
        }))
    }

    async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.check_bucket(&request.input.bucket)?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.check_bucket(&request.input.bucket)?;
        if self.switches.locked.lock().unwrap().as_ref().is_some_and(|part| request.input.key.contains(part)) {
            return Err(s3_error!(AccessDenied, "Object is WORM protected and cannot be overwritten or deleted"));
        }
        self.index.lock().unwrap().remove(&request.input.key);
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        self.check_bucket(&input.bucket)?;
        let prefix = input.prefix.clone().unwrap_or_default();
        let max = usize::try_from(input.max_keys.unwrap_or(1000)).unwrap_or(0).min(1000);
        // A continuation token names the last entry that was given; start_after is a plain name.
        let token = input.continuation_token.as_deref().map(|token| token.strip_prefix("t-").unwrap_or(token));
        let encode = |name: &str| encode(name, input.encoding_type.is_some());
        let (mut contents, mut folders, mut truncated, mut last) = (Vec::new(), BTreeSet::new(), false, String::new());
        let lag = Duration::from_millis(self.switches.list_lag_ms.load(Ordering::SeqCst));
        let shown_until = UNIX_EPOCH + Duration::from_micros(binvault::clock::now_us()) - lag;
        let index = self.index.lock().unwrap();
        for (name, entry) in index.range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded)) {
            let Some(rest) = name.strip_prefix(&prefix) else { break };
            let hidden = !lag.is_zero() && entry.modified > shown_until;
            if hidden || input.start_after.as_deref().is_some_and(|after| name.as_str() <= after) {
                continue;
            }
            let folder = input.delimiter.as_deref().and_then(|by| rest.find(by).map(|at| at + by.len()));
            let shown = folder.map_or(name.as_str(), |end| &name[..prefix.len() + end]);
            if token.is_some_and(|token| shown <= token) || folders.contains(shown) {
                continue;
            }
            if contents.len() + folders.len() == max {
                truncated = true;
                break;
            }
            shown.clone_into(&mut last);
            if folder.is_some() {
                folders.insert(shown.to_owned());
            } else {
                contents.push(Object {
                    key: Some(encode(name)),
                    size: Some(i64::try_from(entry.size).unwrap()),
                    last_modified: Some(Timestamp::from(entry.modified)),
                    ..Default::default()
                });
            }
        }
        let give_token = truncated && !self.switches.no_token.load(Ordering::SeqCst);
        let common = folders.iter().map(|folder| CommonPrefix { prefix: Some(encode(folder)) });
        Ok(S3Response::new(ListObjectsV2Output {
            common_prefixes: Some(common.collect()),
            contents: Some(contents),
            is_truncated: Some(truncated),
            next_continuation_token: give_token.then(|| format!("t-{last}")),
            ..Default::default()
        }))
    }
}

/// `encoding-type=url`, as Amazon does it: everything but letters, digits, `-._~/` and `*`.
fn encode(name: &str, url: bool) -> String {
    if !url {
        return name.to_owned();
    }
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~/*".contains(byte);
    name.bytes()
        .map(|byte| match byte {
            b' ' => "+".to_owned(),
            byte if plain(&byte) => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}
