//! Restore: replay by the server's own applier, against `mysqlbinlog | mysql` into the same kind of server with the same
//! durability; and fetch + open alone, which must not be what holds it back.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use binvault::archive::{Archive, ReadOptions};
use binvault::chunk::keys::Identities;
use binvault::position::ByteRange;
use binvault::store::{StoreOptions, open};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::alone;
use crate::measure::{Cost, median, thread};
use crate::support::agent::{AgentConfig, PASSWORD};
use crate::support::lab::{Mysqld, bin, tool};
use crate::support::oltp;

/// What the private server of a restore runs with, where it matters for speed.
const SAME: &[&str] = &[
    "--server-id=77",
    "--skip-log-bin",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-doublewrite=ON",
    "--performance-schema=ON",
    "--innodb-buffer-pool-size=512M",
    "--innodb-redo-log-capacity=512M",
    "--table-open-cache=4000",
];

pub fn run(bytes: u64, rounds: usize) -> Value {
    println!("\nreplay: making {} MiB of OLTP binlog on top of a base backup …", bytes >> 20);
    let server = Mysqld::start("bench-replay", oltp::FAST);
    server.create_agent_user("binvault", PASSWORD);
    server.grant_base("binvault");
    oltp::prepare(&server);
    let dump = format!("[base]\nmysqldump = \"{}\"\n", bin().join("mysqldump").display());
    let config = AgentConfig::with_extra(&server, &dump);
    config.archive_now();
    config.ok(&["base"]);
    let files = oltp::generate(&server, bytes);
    config.archive_now();
    let total = alone::total(&files);
    let set = server.value("SELECT @@GLOBAL.gtid_executed").replace('\n', "");
    let (mut ours, mut peer, mut fetch) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        println!("  round {round} of {rounds}");
        ours.push(restore(&config));
        peer.push(mysqlbinlog(&config, &files, &set));
        fetch.push(fetch_and_open(&config));
    }
    report(total, &ours, &peer, &fetch)
}

/// The seconds of the replay alone: not those of the base backup.
fn restore(config: &AgentConfig) -> Cost {
    let dir = tempfile::tempdir().unwrap();
    let (datadir, key, mysqld) = (dir.path().join("data"), config.identity(), bin().join("mysqld"));
    let mut arguments = vec!["restore", "--to", "latest", "--json", "--identity", key.to_str().unwrap()];
    arguments.extend(["--datadir", datadir.to_str().unwrap(), "--mysqld", mysqld.to_str().unwrap()]);
    for option in ["--innodb-buffer-pool-size=512M", "--innodb-redo-log-capacity=512M"] {
        arguments.extend(["--mysqld-option", option]);
    }
    let report: Value = serde_json::from_str(&config.ok(&arguments)).unwrap();
    Cost { wall_s: report["replay_seconds"].as_f64().unwrap(), ..Cost::default() }
}

/// The stock way: the dump loaded, then its events replayed by one client.
fn mysqlbinlog(config: &AgentConfig, files: &[std::path::PathBuf], set: &str) -> Cost {
    let server = Mysqld::start("bench-peer", SAME);
    let parts = format!(
        "for part in $(ls {0}/bases/*/part-* | sort); do {1} -d -i {2} $part | {3} -dcq; done",
        config.archive().display(),
        bin().join("age").display(),
        config.identity().display(),
        bin().join("zstd").display()
    );
    pipe(Command::new("sh").args(["-c", &parts]), &server);
    let begin = Instant::now();
    let mut source = tool("mysqlbinlog");
    pipe(source.args(files), &server);
    let wall_s = begin.elapsed().as_secs_f64();
    let missing = server.value(&format!("SELECT GTID_SUBTRACT('{set}', @@GLOBAL.gtid_executed)"));
    assert_eq!(missing, "", "mysqlbinlog | mysql did not replay everything");
    Cost { wall_s, ..Cost::default() }
}

fn pipe(source: &mut Command, server: &Mysqld) {
    let mut source = source.stdout(Stdio::piped()).spawn().unwrap();
    let mut from = source.stdout.take().unwrap();
    server.sql_stream(|input| std::io::copy(&mut from, input).map(|_| ()));
    assert!(source.wait().unwrap().success());
}

/// Every file of the archive, read and opened, thrown away.
fn fetch_and_open(config: &AgentConfig) -> Cost {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let text = secrecy::SecretString::from(std::fs::read_to_string(config.identity()).unwrap());
    let read = ReadOptions::new(Arc::new(Identities::parse("key", &text).unwrap()));
    let url = format!("file://{}", config.archive().display());
    let mut bytes = 0;
    let cost = thread(|| {
        runtime.block_on(async {
            let options = StoreOptions { url, ..StoreOptions::default() };
            let store = open(&options, &CancellationToken::new()).await.unwrap();
            let archive = Archive::open(store, false).await.unwrap();
            for server in archive.servers().await.unwrap() {
                for file in archive.history(&server).await.unwrap().files {
                    let all = ByteRange::new(0, file.contiguous_end()).unwrap();
                    let mut reader = archive.read_range(Arc::clone(&file.chunks), all, &read);
                    while let Some(block) = reader.next().await.unwrap() {
                        bytes += block.bytes.len() as u64;
                    }
                }
            }
        });
    });
    Cost { wall_s: cost.wall_s, peak_bytes: bytes, ..Cost::default() }
}

fn report(total: u64, ours: &[Cost], peer: &[Cost], fetch: &[Cost]) -> Value {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let (ours, peer) = (median(ours, |c| c.wall_s), median(peer, |c| c.wall_s));
    let opened = fetch.first().map_or(0, |cost| cost.peak_bytes);
    let open_rate = mib(opened) / median(fetch, |c| c.wall_s);
    let (our_rate, peer_rate) = (mib(total) / ours, mib(total) / peer);
    println!("\n  {:.0} MiB of binlog, medians        MiB/s", mib(total));
    println!("  replay by restore              {our_rate:9.1}");
    println!("  mysqlbinlog | mysql            {peer_rate:9.1}");
    println!("  fetch and open alone           {open_rate:9.1}\n");
    println!("  replay to mysqlbinlog | mysql  {:9.2}  (wanted: ≥ 4)", our_rate / peer_rate);
    println!("  fetch and open to replay       {:9.2}  (wanted: ≥ 3)", open_rate / our_rate);
    json!({
        "bytes": total, "replay_mib_per_s": our_rate, "mysqlbinlog_mib_per_s": peer_rate, "open_mib_per_s": open_rate,
        "ratios": { "replay to mysqlbinlog | mysql": our_rate / peer_rate, "fetch and open to replay": open_rate / our_rate },
    })
}
