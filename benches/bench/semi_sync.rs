//! Commits that wait until they are durable: what they cost, by clients and by the distance of the store.
//!
//! Clients commit one row after the other over connections of their own. The latency of the store is added in this
//! process. `store` and `spool` are held against the same server a moment later, when it waits for nobody any more, and
//! against the round trip of what they wait for: bare writes of small objects, one after the other, by the same client,
//! before and behind. The wanted figures are those of `docs/rpo-zero.md`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use binvault::mysql::{Address, Connection, SourceOptions, TlsMode};
use binvault::store::disk::{DiskOptions, DiskStore};
use binvault::store::s3::{S3Options, S3Store};
use binvault::store::{Key, Store};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::s3;
use crate::support::agent::{AgentConfig, PASSWORD};
use crate::support::lab::Mysqld;
use crate::support::wait_until;

const CLIENTS: [u64; 3] = [1, 8, 64];
/// Milliseconds that each request to the S3 server takes longer; the first is a folder, without any.
const STORES: [Option<u64>; 4] = [None, Some(5), Some(20), Some(100)];
const WARM: Duration = Duration::from_secs(1);
/// Bare writes of which the median is the store's round trip, and their size: a few commits, sealed.
const BARE_WRITES: usize = 100;
const BARE_BYTES: usize = 1200;

/// Loads with one mode and one store.
struct Series {
    /// Of what commits wait for.
    round_trip_ms: f64,
    figures: Vec<Figures>,
    /// The same loads, when the source waits for nobody.
    plain: Vec<Figures>,
}

/// What one load came to.
#[derive(Debug, Clone, Copy)]
struct Figures {
    p50_ms: f64,
    p99_ms: f64,
    per_second: f64,
}

pub fn run(seconds: u64) -> Value {
    println!("\ncommits that wait until they are durable, {seconds} s each:");
    println!(
        "  {:<12} {:>7} {:>10} {:>10} {:>10} {:>10}  against plain",
        "mode", "clients", "bare ms", "p50 ms", "p99 ms", "commits/s"
    );
    let measured = Duration::from_secs(seconds);
    let mut rows = rows("off", None, &series("off", None, measured));
    for store in STORES {
        rows.extend(self::rows("store", store, &series("store", store, measured)));
    }
    // A spool waits for a disk, however far the store is.
    for store in [Some(20), Some(100)] {
        rows.extend(self::rows("spool", store, &series("spool", store, measured)));
    }
    Value::Array(rows)
}

/// One server, one agent, every number of clients.
fn series(mode: &str, delay_ms: Option<u64>, measured: Duration) -> Series {
    let server = Mysqld::start(
        "bench-rpo",
        &[
            "--plugin-load-add=semisync_source.so",
            "--rpl-semi-sync-source-enabled=ON",
            "--rpl-semi-sync-source-timeout=60000",
            "--rpl-semi-sync-source-wait-no-replica=OFF",
            "--max-connections=200",
            "--sync-binlog=1",
            "--innodb-flush-log-at-trx-commit=1",
        ],
    );
    server.sql(&format!(
        "CREATE DATABASE t; CREATE TABLE t.t (client INT, n INT, pad CHAR(100), PRIMARY KEY (client, n));
         CREATE USER bench@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON t.* TO bench@'%'"
    ));
    let s3 = s3::Server::start();
    s3.switches.delay_ms.store(delay_ms.unwrap_or(0), Ordering::SeqCst);
    let settings =
        format!("[semi_sync]\nmode = \"{mode}\"\nwait_limit = \"30s\"\n[agent]\npoll_interval = \"500ms\"\n");
    let spool = tempfile::tempdir().unwrap();
    let settings = match mode {
        "spool" => format!("{settings}[spool]\ndir = \"{}\"\n", spool.path().join("spool").display()),
        _ => settings,
    };
    let config = match delay_ms {
        None => AgentConfig::with_extra(&server, &settings),
        Some(_) => AgentConfig::with(&server, &format!("s3://{}/bench", s3::BUCKET), &(s3.settings() + &settings)),
    };
    let bare = || match (mode, delay_ms) {
        ("off", _) => 0.0,
        ("store", Some(_)) => bare_s3(&s3),
        _ => bare_folder(),
    };
    let before = bare();
    let mut agent = config.spawn();
    if mode == "off" {
        agent.wait_caught_up(&server);
    } else {
        wait_until("commits are protected", Duration::from_secs(60), || {
            config.status().is_some_and(|status| status["agents"][0]["semi_sync"]["protected"] == true)
        });
    }
    let loads = || CLIENTS.map(|clients| load(&server, clients, measured)).to_vec();
    let figures = loads();
    let mut plain = figures.clone();
    if mode != "off" {
        let row = server.value("SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_source_no_times'");
        assert_eq!(row.split('\t').nth(1), Some("0"), "the source had stopped waiting: {}", agent.log_tail());
        server.sql("SET GLOBAL rpl_semi_sync_source_enabled = OFF");
        plain = loads();
    }
    let round_trip_ms = (before + bare()) / 2.0;
    s3.switches.delay_ms.store(0, Ordering::SeqCst);
    agent.terminate();
    Series { round_trip_ms, figures, plain }
}

/// The round trip of a folder, durably written, where the archive and the spool are.
fn bare_folder() -> f64 {
    let folder = tempfile::tempdir().unwrap();
    bare(async || DiskStore::open(folder.path().join("bare"), &DiskOptions::default()).await.unwrap())
}

/// The round trip of the S3 server, as it answers now.
fn bare_s3(server: &s3::Server) -> f64 {
    let options = S3Options {
        bucket: s3::BUCKET.into(),
        prefix: "bare".into(),
        endpoint: Some(server.endpoint.clone()),
        region: Some("us-east-1".into()),
        path_style: Some(true),
        access_key: Some(s3::ACCESS_KEY.into()),
        secret_key: Some(s3::SECRET_KEY.into()),
        ..S3Options::default()
    };
    bare(async || S3Store::open(options).await.unwrap())
}

/// The median of bare writes, in milliseconds.
fn bare<S: Store>(open: impl AsyncFnOnce() -> S) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = open().await;
        let mut took = Vec::new();
        for number in 0..BARE_WRITES {
            let (key, body) = (Key::new(format!("bare/{number}")).unwrap(), Bytes::from(vec![7; BARE_BYTES]));
            let begun = Instant::now();
            store.put_new(&key, body).await.unwrap();
            took.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        took.sort_by(f64::total_cmp);
        took[took.len() / 2]
    })
}

/// Commits as fast as the clients get their answers.
fn load(server: &Mysqld, clients: u64, measured: Duration) -> Figures {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let address = Address::Tcp { host: "127.0.0.1".into(), port: server.port() };
    let mut options = SourceOptions::new(address, "bench", Some(PASSWORD.into()));
    options.tls.mode = TlsMode::Disabled;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        let measuring = Instant::now() + WARM;
        for _ in 0..clients {
            let client = NEXT.fetch_add(1, Ordering::Relaxed);
            let mut connection = Connection::connect(&options, "bench").await.unwrap();
            let stop = Arc::clone(&stop);
            tasks.push(tokio::spawn(async move {
                let mut latencies = Vec::new();
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let begun = Instant::now();
                    let insert = format!("INSERT INTO t.t VALUES ({client}, {n}, REPEAT('x', 100))");
                    connection.execute(&insert).await.unwrap();
                    if begun >= measuring {
                        latencies.push(begun.elapsed().as_secs_f64() * 1e3);
                    }
                }
                latencies
            }));
        }
        tokio::time::sleep(WARM + measured).await;
        stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.unwrap());
        }
        all.sort_by(f64::total_cmp);
        let at = |share: f64| all[((all.len() - 1) as f64 * share) as usize];
        Figures { p50_ms: at(0.5), p99_ms: at(0.99), per_second: all.len() as f64 / measured.as_secs_f64() }
    })
}

fn rows(mode: &str, delay_ms: Option<u64>, series: &Series) -> Vec<Value> {
    let store = delay_ms.map_or_else(|| "folder".to_owned(), |delay| format!("s3+{delay} ms"));
    let round_trip_ms = series.round_trip_ms;
    let row = |((clients, figures), plain): ((u64, &Figures), &Figures)| {
        let Figures { p50_ms, p99_ms, per_second } = *figures;
        // What clients that wait for one plain commit and one round trip each could do, and what the source can.
        let bound = plain.per_second.min(clients as f64 * 1e3 / (plain.p50_ms + round_trip_ms));
        println!(
            "  {:<12} {clients:>7} {round_trip_ms:>10.1} {p50_ms:>10.1} {p99_ms:>10.1} {per_second:>10.0}  p50 +{:.1} ms, {:.0} % of the bound",
            match mode {
                "off" => mode.to_owned(),
                "spool" => format!("spool {}", delay_ms.unwrap_or(0)),
                _ => store.clone(),
            },
            p50_ms - plain.p50_ms,
            per_second * 100.0 / bound
        );
        json!({
            "mode": mode, "store": store, "clients": clients, "round_trip_ms": round_trip_ms, "p50_ms": p50_ms,
            "p99_ms": p99_ms, "commits_per_second": per_second, "plain_p50_ms": plain.p50_ms, "bound_per_second": bound,
        })
    };
    CLIENTS.into_iter().zip(&series.figures).zip(&series.plain).map(row).collect()
}
