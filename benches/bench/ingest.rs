//! Ingest: the agent into a file archive, against `mysqlbinlog --read-from-remote-server --raw`, from the same server.

use serde_json::{Value, json};

use crate::alone;
use crate::measure::{Cost, median, process};
use crate::support::agent::{AgentConfig, PASSWORD};
use crate::support::lab::{Mysqld, tool};
use crate::support::oltp;

/// Threads that the agent compresses on.
const SEALERS: usize = 2;

/// One candidate's rounds.
struct Candidate {
    name: String,
    costs: Vec<Cost>,
}

pub fn run(bytes: u64, rounds: usize) -> Value {
    println!("ingest: making {} MiB of OLTP binlog …", bytes >> 20);
    let server = Mysqld::start("bench", oltp::FAST);
    server.create_agent_user("binvault", PASSWORD);
    oltp::prepare(&server);
    let files = oltp::generate(&server, bytes);
    let first = files[0].file_name().unwrap().to_str().unwrap().to_owned();
    server.sql(&format!("PURGE BINARY LOGS TO '{first}'"));
    let total = alone::total(&files);

    let mut agent = [1, 3].map(|level| Candidate { name: format!("binvault run, level {level}"), costs: Vec::new() });
    let mut peer = Candidate { name: "mysqlbinlog --raw".into(), costs: Vec::new() };
    let mut limits = Limits::default();
    let archived = AgentConfig::new(&server);
    archived.archive_now();
    let mut stored = [0, 0];
    for round in 1..=rounds {
        println!("  round {round} of {rounds}");
        for (candidate, level) in agent.iter_mut().zip([1, 3]) {
            candidate.costs.push(binvault(&server, level));
            peer.costs.push(mysqlbinlog(&server, &first));
        }
        for (index, level) in [1, 3].into_iter().enumerate() {
            let (cost, size) = alone::zstd(&files, level, 1);
            limits.zstd[index].push(cost);
            limits.zstd_twice[index].push(alone::zstd(&files, level, SEALERS).0);
            stored[index] = size;
        }
        limits.age.push(alone::age(stored[0]));
        limits.socket.push(alone::socket(&server, &first, false));
        limits.split.push(alone::socket(&server, &first, true));
        limits.walk.push(alone::walk(&files, false));
        limits.look.push(alone::walk(&files, true));
        limits.find.push(find(&archived));
    }
    report(total, stored, &agent, &peer, &limits)
}

#[derive(Default)]
struct Limits {
    zstd: [Vec<Cost>; 2],
    zstd_twice: [Vec<Cost>; 2],
    age: Vec<Cost>,
    socket: Vec<Cost>,
    split: Vec<Cost>,
    walk: Vec<Cost>,
    look: Vec<Cost>,
    find: Vec<Cost>,
}

/// The search for a table that was dropped: every chunk is opened, every event looked into.
fn find(archived: &AgentConfig) -> Cost {
    let key = archived.identity();
    process(&mut archived.command(&["find", "--kind", "drop", "--identity", key.to_str().unwrap()]))
}

fn binvault(server: &Mysqld, level: i32) -> Cost {
    let config = AgentConfig::with_extra(server, &format!("[compression]\nlevel = {level}\n"));
    config.edit("[archive]", "tls = \"disabled\"\n[archive]");
    process(&mut config.command(&["run", "--once"]))
}

fn mysqlbinlog(server: &Mysqld, first: &str) -> Cost {
    let folder = tempfile::tempdir().unwrap();
    let mut command = tool("mysqlbinlog");
    command
        .args(["--read-from-remote-server", "--raw", "--to-last-log", "--host=127.0.0.1", "--user=binvault"])
        .args(["--ssl-mode=DISABLED", "--get-server-public-key", &format!("--port={}", server.port())])
        .arg(format!("--result-file={}/", folder.path().display()))
        .arg(first)
        .env("MYSQL_PWD", PASSWORD);
    process(&mut command)
}

fn row(name: &str, total: u64, costs: &[Cost]) -> Value {
    let mib = total as f64 / f64::from(1 << 20);
    let (wall, cpu) = (median(costs, |c| c.wall_s), median(costs, |c| c.cpu_s));
    let peak = costs.iter().map(|c| c.peak_bytes).max().unwrap_or(0);
    let memory = if peak > 0 { format!("{:7.1}", peak as f64 / f64::from(1 << 20)) } else { "      -".into() };
    println!("  {name:<28} {:9.0} {:11.2} {memory}", mib / wall, cpu / (mib / 1024.0));
    json!({ "name": name, "mib_per_s": mib / wall, "cpu_s_per_gib": cpu / (mib / 1024.0), "peak_bytes": peak })
}

fn report(total: u64, stored: [u64; 2], agent: &[Candidate; 2], peer: &Candidate, limits: &Limits) -> Value {
    println!("\n  {} MiB of binlog, medians             MiB/s   CPU s/GiB  peak MiB", total >> 20);
    let mut rows = Vec::new();
    for candidate in agent.iter().chain([peer]) {
        rows.push(row(&candidate.name, total, &candidate.costs));
    }
    println!("  each part alone, on one thread where nothing else is said:");
    rows.push(row("bare socket read", total, &limits.socket));
    rows.push(row("socket, split, CRC32", total, &limits.split));
    rows.push(row("zstd level 1", total, &limits.zstd[0]));
    rows.push(row("zstd level 3", total, &limits.zstd[1]));
    rows.push(row("zstd level 1, two threads", total, &limits.zstd_twice[0]));
    rows.push(row("zstd level 3, two threads", total, &limits.zstd_twice[1]));
    rows.push(row("age, of level 1's bytes", total, &limits.age));
    rows.push(row("walk: split, CRC32", total, &limits.walk));
    rows.push(row("walk, and a look inside", total, &limits.look));
    println!("  the way back:");
    rows.push(row("binvault find, all chunks", total, &limits.find));
    let peer_wall = median(&peer.costs, |c| c.wall_s);
    let mut ratios = serde_json::Map::new();
    let mut say = |name: &str, value: f64, wanted: f64| {
        println!("  {name:<60} {value:5.2}  (wanted: ≥ {wanted})");
        ratios.insert(name.into(), json!(value));
    };
    println!();
    say("speed of binvault, level 1, to mysqlbinlog --raw", peer_wall / median(&agent[0].costs, |c| c.wall_s), 3.0);
    for (index, wanted) in [(0, 0.65), (1, 0.80)] {
        let whole = median(&agent[index].costs, |c| c.cpu_s);
        for (threads, zstd) in [("one thread", &limits.zstd), ("its threads", &limits.zstd_twice)] {
            let name = format!("CPU of zstd alone ({threads}) to {}", agent[index].name);
            say(&name, median(&zstd[index], |c| c.cpu_s) / whole, wanted);
        }
    }
    println!(
        "  compression: level 1 {:.2}:1, level 3 {:.2}:1",
        total as f64 / stored[0] as f64,
        total as f64 / stored[1] as f64
    );
    json!({ "bytes": total, "rows": rows, "ratios": ratios, "stored_bytes": stored })
}
