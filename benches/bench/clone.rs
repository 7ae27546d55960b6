//! Base backups by clone: beside `mysqldump`, beside the server's own clone (`CLONE INSTANCE` by a second server, `CLONE
//! LOCAL`), and beside the cost of zstd and cipher alone, of the same data; and the way back.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use crate::alone;
use crate::measure::{Cost, median, whole};
use crate::support::agent::{AgentConfig, PASSWORD, cpu_seconds, peak_rss};
use crate::support::lab::{Mysqld, bin};

/// Tables that the data is spread over.
pub const TABLES: u64 = 4;
/// Bytes of a row with its index, about.
const ROW_BYTES: u64 = 250;
/// Threads that compress parts, as the agent has them.
const SEALERS: usize = 2;

/// A server of some size, as one in production: what it writes is its own business here.
pub const OPTIONS: &[&str] = &[
    "--plugin-load-add=mysql_clone.so",
    "--innodb-buffer-pool-size=512M",
    "--innodb-redo-log-capacity=1G",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-doublewrite=ON",
];

/// One candidate's rounds.
struct Candidate {
    name: &'static str,
    taken: Vec<Cost>,
    donor_cpu_s: Vec<f64>,
    restored: Vec<Cost>,
    bytes: u64,
}

impl Candidate {
    fn new(name: &'static str) -> Self {
        Self { name, taken: Vec::new(), donor_cpu_s: Vec::new(), restored: Vec::new(), bytes: 0 }
    }

    /// Measures one way of taking a backup, and what the donor did meanwhile.
    fn take(&mut self, donor: &Mysqld, work: impl FnOnce() -> Cost) {
        let before = donor_cpu(donor);
        self.taken.push(work());
        self.donor_cpu_s.push(donor_cpu(donor) - before);
    }
}

fn donor_cpu(donor: &Mysqld) -> f64 {
    cpu_seconds(u32::try_from(donor.pid()).unwrap())
}

/// Makes the donor's data, without binlog.
pub fn fill(server: &Mysqld, bytes: u64) {
    server.create_agent_user("binvault", PASSWORD);
    server.grant_base("binvault");
    let each = bytes / ROW_BYTES / TABLES;
    let mut script = String::from(
        "SET SESSION sql_log_bin = 0; CREATE DATABASE big; USE big; SET SESSION cte_max_recursion_depth = 1000000;\n",
    );
    for table in 1..=TABLES {
        script.push_str(&format!(
            "CREATE TABLE t{table} (id INT PRIMARY KEY, k INT NOT NULL, c CHAR(120) NOT NULL, pad CHAR(60) NOT NULL, KEY (k));\n"
        ));
        let mut from = 1;
        while from <= each {
            let until = (from + 99_999).min(each);
            script.push_str(&format!(
                "INSERT INTO t{table} WITH RECURSIVE n (i) AS (SELECT {from} UNION ALL SELECT i + 1 FROM n WHERE i < {until})
                   SELECT i, i * 7919 % 1000003, LEFT(SHA2(i + {table}, 512), 120), LEFT(SHA2(i * 31, 256), 60) FROM n;\n"
            ));
            from = until + 1;
        }
    }
    server.sql(&script);
    // What is dirty would be written while the first candidate is measured.
    server.sql("SET GLOBAL innodb_max_dirty_pages_pct = 0");
    crate::support::wait_until("all pages are clean", std::time::Duration::from_secs(300), || {
        let dirty = server.value("SHOW GLOBAL STATUS LIKE 'Innodb_buffer_pool_pages_dirty'");
        dirty.rsplit('\t').next().unwrap().parse::<u64>().unwrap() < 50
    });
}

pub fn run(bytes: u64, rounds: usize) -> Value {
    println!("\nclone: making {} MiB of data …", bytes >> 20);
    let donor = Mysqld::start("bench-clone", OPTIONS);
    fill(&donor, bytes);
    let mut clone = Candidate::new("binvault base, clone");
    let mut dump = Candidate::new("binvault base, mysqldump");
    let mut instance = Candidate::new("CLONE INSTANCE, 2nd server");
    let mut local = Candidate::new("CLONE LOCAL DATA DIRECTORY");
    let (mut zstd, mut age) = (Vec::new(), Vec::new());
    let files = data_files(&donor);
    let total = alone::total(&files);
    for round in 1..=rounds {
        println!("  round {round} of {rounds}");
        base(&mut clone, &donor, "clone");
        base(&mut dump, &donor, "mysqldump");
        by_instance(&mut instance, &donor);
        by_local(&mut local, &donor);
        let (cost, stored) = alone::zstd(&files, 1, SEALERS);
        zstd.push(cost);
        age.push(alone::age(stored));
    }
    let rows: Vec<Value> = {
        println!(
            "\n  {} MiB on the donor's disk       seconds   CPU s  donor's  peak MiB  stored MiB  restore s   CPU s",
            total >> 20
        );
        [&clone, &dump, &instance, &local].map(row).into()
    };
    let ratios = ratios(&clone, &dump, &instance, &zstd, &age);
    json!({ "bytes": total, "rows": rows, "ratios": ratios })
}

/// The files of the data themselves.
fn data_files(donor: &Mysqld) -> Vec<PathBuf> {
    (1..=TABLES).map(|table| donor.datadir().join(format!("big/t{table}.ibd"))).collect()
}

/// A base backup by an engine of ours, and the restore of it.
fn base(candidate: &mut Candidate, donor: &Mysqld, engine: &str) {
    let extra = format!("[base]\nmysqldump = \"{}\"\n", bin().join("mysqldump").display());
    let config = AgentConfig::with_extra(donor, &extra);
    config.edit("[archive]", "tls = \"disabled\"\n[archive]");
    config.archive_now();
    candidate.take(donor, || whole(&mut config.command(&["base", "--engine", engine])));
    candidate.bytes = folder_bytes(&config.archive().join("bases"));
    let dir = tempfile::tempdir().unwrap();
    let (datadir, key, mysqld) = (dir.path().join("data"), config.identity(), bin().join("mysqld"));
    let mut arguments = vec!["restore", "--to", "latest", "--json", "--identity", key.to_str().unwrap()];
    arguments.extend(["--datadir", datadir.to_str().unwrap(), "--mysqld", mysqld.to_str().unwrap()]);
    for option in ["--innodb-buffer-pool-size=512M", "--innodb-redo-log-capacity=1G"] {
        arguments.extend(["--mysqld-option", option]);
    }
    candidate.restored.push(whole(&mut config.command(&arguments)));
}

/// The server's own: a second server is the recipient. Its restore is a start on the directory.
fn by_instance(candidate: &mut Candidate, donor: &Mysqld) {
    let recipient = Mysqld::start("bench-recipient", &[OPTIONS, &["--server-id=9"]].concat());
    let dir = recipient.scratch().join("cloned");
    let port = donor.port();
    recipient.sql(&format!("SET GLOBAL clone_valid_donor_list = '127.0.0.1:{port}'"));
    let pid = u32::try_from(recipient.pid()).unwrap();
    let before = cpu_seconds(pid);
    candidate.take(donor, || {
        let begin = Instant::now();
        recipient.sql(&format!(
            "CLONE INSTANCE FROM 'binvault'@'127.0.0.1':{port} IDENTIFIED BY '{PASSWORD}' DATA DIRECTORY = '{}' REQUIRE NO SSL",
            dir.display()
        ));
        Cost { wall_s: begin.elapsed().as_secs_f64(), cpu_s: cpu_seconds(pid) - before, peak_bytes: peak_rss(pid).expect("the process runs") }
    });
    candidate.bytes = folder_bytes(&dir);
    candidate.restored.push(start_on(&dir));
}

/// The donor's own, to its own disk.
fn by_local(candidate: &mut Candidate, donor: &Mysqld) {
    let dir = donor.scratch().join("cloned");
    let before = donor_cpu(donor);
    candidate.take(donor, || {
        let begin = Instant::now();
        donor.sql(&format!("CLONE LOCAL DATA DIRECTORY = '{}'", dir.display()));
        Cost { wall_s: begin.elapsed().as_secs_f64(), cpu_s: donor_cpu(donor) - before, peak_bytes: 0 }
    });
    candidate.bytes = folder_bytes(&dir);
    std::fs::remove_dir_all(&dir).unwrap();
}

/// A server starts on a cloned directory, recovers, and is shut down: what a restore does beside writing files.
fn start_on(dir: &Path) -> Cost {
    let sockets = tempfile::tempdir().unwrap();
    let (socket, init) = (sockets.path().join("s"), sockets.path().join("init.sql"));
    std::fs::write(&init, "SHUTDOWN;\n").unwrap();
    let mut command = Command::new(bin().join("mysqld"));
    command.args(["--no-defaults", "--user=root", "--skip-networking", "--mysqlx=OFF", "--skip-log-bin"]);
    command.args(["--secure-file-priv=NULL", "--innodb-buffer-pool-size=512M", "--innodb-redo-log-capacity=1G"]);
    command.arg(format!("--datadir={}", dir.display())).arg(format!("--socket={}", socket.display()));
    command.arg(format!("--init-file={}", init.display()));
    whole(&mut command)
}

/// What a folder takes on the disk.
fn folder_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;

    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { folder_bytes(&path) } else { path.metadata().unwrap().blocks() * 512 }).sum()
}

fn row(candidate: &Candidate) -> Value {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let (wall, cpu) = (median(&candidate.taken, |c| c.wall_s), median(&candidate.taken, |c| c.cpu_s));
    let donor = candidate.donor_cpu_s.iter().sum::<f64>() / candidate.donor_cpu_s.len() as f64;
    let peak = candidate.taken.iter().map(|c| c.peak_bytes).max().unwrap_or(0);
    let back = (!candidate.restored.is_empty())
        .then(|| (median(&candidate.restored, |c| c.wall_s), median(&candidate.restored, |c| c.cpu_s)));
    let shown = back.map_or_else(|| format!("{:>9} {:>7}", "-", "-"), |(wall, cpu)| format!("{wall:9.1} {cpu:7.1}"));
    println!(
        "  {:<30} {wall:9.1} {cpu:7.1} {donor:8.1} {:9.1} {:11.0}  {shown}",
        candidate.name,
        mib(peak),
        mib(candidate.bytes)
    );
    json!({
        "name": candidate.name, "seconds": wall, "cpu_s": cpu, "donor_cpu_s": donor, "peak_bytes": peak,
        "stored_bytes": candidate.bytes, "restore_s": back.map(|back| back.0), "restore_cpu_s": back.map(|back| back.1),
    })
}

fn ratios(clone: &Candidate, dump: &Candidate, instance: &Candidate, zstd: &[Cost], age: &[Cost]) -> Value {
    let wall = |costs: &[Cost]| median(costs, |c| c.wall_s);
    let (zstd_s, age_s) = (wall(zstd), wall(age));
    println!("  zstd level 1 alone, two threads: {zstd_s:.1} s; age alone, of its bytes: {age_s:.1} s\n");
    let peak = clone.taken.iter().map(|c| c.peak_bytes).max().unwrap_or(0) as f64 / f64::from(1 << 20);
    let mut ratios = serde_json::Map::new();
    let mut say = |name: &str, value: f64, wanted: &str| {
        println!("  {name:<66} {value:6.2}  {wanted}");
        ratios.insert(name.into(), json!(value));
    };
    let taken = wall(&clone.taken);
    say(
        "clone to CLONE INSTANCE and zstd and cipher alone",
        taken / (wall(&instance.taken) + zstd_s + age_s),
        "(wanted: ≤ 1.3)",
    );
    say("clone to CLONE INSTANCE", taken / wall(&instance.taken), "");
    say("mysqldump to clone", wall(&dump.taken) / taken, "");
    say("restore of a dump to restore of a clone", wall(&dump.restored) / wall(&clone.restored), "");
    say("peak MiB of clone", peak, "(wanted: ≤ 96)");
    Value::Object(ratios)
}
