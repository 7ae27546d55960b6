//! The agent dies by SIGKILL at every stage of the ship, over and over, under load, on a folder and on S3; and in the
//! end the archive is contiguous, identical to the server's files, and tidy.
//!
//! Where it dies is told by fail points (the cargo feature `failpoints`), so this binary is built with that feature only.
//! `make soak-kill` makes 200 kills; without `BINVAULT_SOAK` (`.ci/run`) it is two a stage and store. `BINVAULT_SEED` repeats a
//! run's choices.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test that is how things fail")]
#![allow(clippy::print_stderr, reason = "the table of kills, and what is shown with a test that fails")]

#[path = "../support/s3.rs"]
mod s3;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use support::agent::AgentConfig;
use support::compare::assert_exported;
use support::dice::Dice;
use support::lab::Mysqld;
use support::load::{Load, Pace};

/// Where a fail point stands, and `outside`: a kill at any moment.
const STAGES: &[&str] = &["receive", "cut", "seal", "upload", "uploaded", "commit", "outside"];
const STORES: &[&str] = &["folder", "s3"];
/// A round that has not ended by then hangs.
const ROUND_LIMIT: Duration = Duration::from_secs(60);
/// Small chunks, often: many passages through every stage.
const SETTINGS: &str = "[agent]\nchunk_size = \"64KiB\"\nflush_interval = \"50ms\"\npoll_interval = \"500ms\"\n";

#[test]
fn killed_anywhere_it_goes_on_and_nothing_is_lost() {
    let rounds = if std::env::var_os("BINVAULT_SOAK").is_some() { 200 } else { STAGES.len() * STORES.len() * 2 };
    let seed = std::env::var("BINVAULT_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(binvault::clock::now_us);
    eprintln!("{rounds} kills, BINVAULT_SEED={seed}");
    let mut dice = Dice::new(seed);
    let start = binvault::clock::monotonic();
    // Files of 4 MiB: kills fall on their ends and beginnings too.
    let server = Mysqld::start("kill", &["--max-binlog-size=4M"]);
    let s3 = s3::Server::start();
    let configs = [AgentConfig::with_extra(&server, SETTINGS), in_bucket(&server, &s3)];
    let load = Load::start(&server, 2, Pace::PerSecond(300));
    let mut kills: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for round in 0..rounds {
        let stage = STAGES[round % STAGES.len()];
        let store = round / STAGES.len() % STORES.len();
        die(&configs[store], stage, &mut dice);
        *kills.entry((stage, STORES[store])).or_default() += 1;
    }
    let transactions = load.stop();
    let passed = start.elapsed();
    for (config, store) in configs.iter().zip(STORES) {
        config.archive_now();
        assert_eq!(config.durable(), Some(server.position()), "{store}");
        config.ok(&["verify"]);
        let said = config.verify_deep();
        let bytes = assert_exported(&server, &config.export());
        eprintln!("{store}: {bytes} bytes in {} files identical; {}", server.binlogs().len(), said.trim());
    }
    leftovers(&configs[0]);
    eprintln!("{}", table(&kills));
    eprintln!("{rounds} kills in {:.0} s, {transactions} transactions meanwhile", passed.as_secs_f64());
    for stage in STAGES {
        for store in STORES {
            assert!(kills.contains_key(&(stage, store)), "never killed at {stage} on {store}");
        }
    }
}

fn in_bucket(server: &Mysqld, s3: &s3::Server) -> AgentConfig {
    let settings = s3.settings() + SETTINGS;
    AgentConfig::with(server, &format!("s3://{}/kill", s3::BUCKET), &settings)
}

/// One round: the agent starts, and dies by SIGKILL at `stage`. Anything else fails.
fn die(config: &AgentConfig, stage: &str, dice: &mut Dice) {
    let log = config.dir().join("round.log");
    let mut command = config.command(&["run"]);
    let file = File::create(&log).unwrap();
    command.stdout(file.try_clone().unwrap()).stderr(file);
    let outside = stage == "outside";
    if !outside {
        command.env("BINVAULT_FAILPOINT", format!("{stage}:{}", dice.between(1, 10)));
    }
    let mut child = command.spawn().expect("start binvault");
    if outside {
        std::thread::sleep(dice.millis(1, 1500));
        assert_eq!(child.try_wait().unwrap(), None, "it ended by itself:\n{}", support::tail(&log, 20));
        child.kill().unwrap();
    }
    let status = wait(&mut child, &log);
    assert_eq!(status.signal(), Some(9), "killed at {stage}? {status}; its log ends:\n{}", support::tail(&log, 20));
}

fn wait(child: &mut Child, log: &std::path::Path) -> ExitStatus {
    let start = binvault::clock::monotonic();
    loop {
        if let Some(status) = child.try_wait().expect("ask after the agent") {
            return status;
        }
        if start.elapsed() > ROUND_LIMIT {
            drop(child.kill());
            drop(child.wait());
            panic!("the agent does not come to its end; its log ends:\n{}", support::tail(log, 20));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What dead writers leave is in one place, is no part of the archive, and goes when it is old.
fn leftovers(config: &AgentConfig) {
    let (mut temporary, mut folders) = (Vec::new(), vec![config.archive()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            let place = path.strip_prefix(config.archive()).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                folders.push(path);
            } else if place.starts_with(".tmp/") {
                temporary.push(path);
            } else {
                let known = place == "binvault.json" || place.starts_with("agents/") || place.ends_with(".zst.age");
                assert!(known, "{place} is left over");
            }
        }
    }
    eprintln!("folder: {} temporary files left by the dead", temporary.len());
    let old = std::time::UNIX_EPOCH + Duration::from_micros(binvault::clock::now_us()) - Duration::from_secs(3600);
    for path in &temporary {
        File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
    }
    config.archive_now();
    for path in &temporary {
        assert!(!path.exists(), "{} was not swept", path.display());
    }
}

fn table(kills: &BTreeMap<(&str, &str), u32>) -> String {
    let mut text = format!("{:10} {:>7} {:>7}\n", "stage", STORES[0], STORES[1]);
    for stage in STAGES {
        let count = |store: &'static str| kills.get(&(*stage, store)).copied().unwrap_or(0);
        text.push_str(&format!("{stage:10} {:>7} {:>7}\n", count(STORES[0]), count(STORES[1])));
    }
    text
}
