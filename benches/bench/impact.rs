//! What a donor's own clients feel of a base backup: throughput and latency of their transactions, with and without one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use binvault::mysql::{Address, Connection, SourceOptions, TlsMode};
use serde_json::{Value, json};

use crate::clone::{OPTIONS, TABLES, fill};
use crate::support::agent::{AgentConfig, PASSWORD};
use crate::support::lab::{Mysqld, bin};

/// Clients, each on a connection of its own.
const CLIENTS: u64 = 4;

/// What the clients saw in one phase.
struct Phase {
    name: &'static str,
    /// Milliseconds a transaction, sorted.
    latencies: Vec<f64>,
    seconds: f64,
    backups: usize,
}

impl Phase {
    fn at(&self, share: f64) -> f64 {
        self.latencies[((self.latencies.len() - 1) as f64 * share) as usize]
    }

    fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.seconds
    }
}

pub fn run(bytes: u64, seconds: u64) -> Value {
    println!("\nimpact: making {} MiB of data …", bytes >> 20);
    let donor =
        Mysqld::start("bench-impact", &[OPTIONS, &["--sync-binlog=1", "--innodb-flush-log-at-trx-commit=1"]].concat());
    fill(&donor, bytes);
    donor.sql("SET SESSION sql_log_bin = 0; GRANT UPDATE ON big.* TO 'binvault'@'%'");
    let rows = donor.value("SELECT MAX(id) FROM big.t1").parse().unwrap();
    let extra = format!("[base]\nmysqldump = \"{}\"\n", bin().join("mysqldump").display());
    let config = AgentConfig::with_extra(&donor, &extra);
    config.edit("[archive]", "tls = \"disabled\"\n[archive]");
    config.archive_now();
    // To a steady state first.
    phase("warm", &donor, rows, seconds.min(5), |_| 0);
    let alone = |name| phase(name, &donor, rows, seconds, |_| 0);
    let during = |name, engine: &'static str| {
        phase(name, &donor, rows, seconds, |until| {
            let mut backups = 0;
            while backups == 0 || Instant::now() < until {
                config.ok(&["base", "--engine", engine]);
                backups += 1;
            }
            backups
        })
    };
    let phases =
        [alone("no backup"), during("clone", "clone"), alone("no backup, again"), during("mysqldump", "mysqldump")];
    println!("\n  {CLIENTS} clients at full speed       tx/s    p50 ms    p99 ms    max ms   backups");
    for phase in &phases {
        println!(
            "  {:<24} {:9.0} {:9.2} {:9.2} {:9.1} {:9}",
            phase.name,
            phase.rate(),
            phase.at(0.5),
            phase.at(0.99),
            phase.at(1.0),
            phase.backups
        );
    }
    let base = (phases[0].rate() + phases[2].rate()) / 2.0;
    let p99 = (phases[0].at(0.99) + phases[2].at(0.99)) / 2.0;
    println!("\n  throughput with a clone to without   {:6.2}", phases[1].rate() / base);
    println!("  p99 with a clone to without          {:6.2}", phases[1].at(0.99) / p99);
    let rows: Vec<Value> = phases
        .iter()
        .map(|phase| json!({ "name": phase.name, "tx_per_s": phase.rate(), "p50_ms": phase.at(0.5), "p99_ms": phase.at(0.99), "max_ms": phase.at(1.0), "backups": phase.backups }))
        .collect();
    json!({ "rows": rows, "ratios": { "throughput": phases[1].rate() / base, "p99": phases[1].at(0.99) / p99 } })
}

/// Clients at work while `meanwhile` runs, for so long at least.
fn phase(
    name: &'static str,
    donor: &Mysqld,
    rows: u64,
    seconds: u64,
    meanwhile: impl FnOnce(Instant) -> usize,
) -> Phase {
    let stop = AtomicBool::new(false);
    let begin = Instant::now();
    let until = begin + Duration::from_secs(seconds);
    let (mut latencies, backups) = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                scope.spawn({
                    let stop = &stop;
                    move || client(donor.port(), number, rows, stop)
                })
            })
            .collect();
        let backups = meanwhile(until);
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
        stop.store(true, Ordering::Relaxed);
        let all: Vec<f64> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        (all, backups)
    });
    latencies.sort_by(f64::total_cmp);
    Phase { name, latencies, seconds: begin.elapsed().as_secs_f64(), backups }
}

/// One client: updates of single rows, each a transaction.
fn client(port: u16, number: u64, rows: u64, stop: &AtomicBool) -> Vec<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let address = Address::Tcp { host: "127.0.0.1".into(), port };
    let mut source = SourceOptions::new(address, "binvault", Some(PASSWORD.into()));
    source.tls.mode = TlsMode::Disabled;
    runtime.block_on(async {
        let mut connection = Connection::connect(&source, "bench").await.unwrap();
        let (mut latencies, mut random) = (Vec::new(), number + 1);
        while !stop.load(Ordering::Relaxed) {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (table, id) = (1 + (random >> 20) % TABLES, 1 + (random >> 33) % rows);
            let begin = Instant::now();
            connection
                .execute(&format!("UPDATE big.t{table} SET k = k + 1, pad = REVERSE(pad) WHERE id = {id}"))
                .await
                .unwrap();
            latencies.push(begin.elapsed().as_secs_f64() * 1e3);
        }
        latencies
    })
}
