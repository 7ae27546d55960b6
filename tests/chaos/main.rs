//! All faults mixed, on a real server and a real S3: the agent killed, stopped and starved, the dump killed, the server killed,
//! restarted and frozen, wires cut, torn, silent and slow, a store that throttles, fails, hangs and loses its answers, binlogs
//! purged in time and too early, resets; base backups and questions beside it; and all the while a workload.
//!
//! In the end every file that the server ever wrote is the archive's, byte for byte, but for the gaps that the test made;
//! those are recorded, and nothing else is; `verify --deep` finds nothing; and restores equal what stock tools make.
//!
//! `BINVAULT_CHAOS_SECONDS` says for how long (`make soak-chaos`: half an hour); `BINVAULT_SEED` repeats a run's choices, if
//! not its moments.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test that is how things fail")]
#![allow(clippy::print_stdout, reason = "what happened when, and the figures, for whoever runs this with --nocapture")]
#![allow(dead_code, reason = "modules shared with the tests of restores")]

mod breaks;
mod churn;
mod faults;
mod kept;
#[path = "../restore/oracle.rs"]
mod oracle;
#[path = "../restore/place.rs"]
mod place;
mod proof;
#[path = "../support/s3.rs"]
mod s3;
#[path = "../support/mod.rs"]
mod support;
mod wire;
mod world;

use std::time::Duration;

use binvault::clock::monotonic;

use churn::Churn;
use faults::{ALL, throw_until};
use kept::{compare, exported};
use proof::{Midway, midway, prove};
use support::agent::{AgentConfig, PASSWORD};
use support::dice::Dice;
use support::lab::{self, Mysqld};
use support::load::{Load, Pace};
use wire::Wire;
use world::{Scene, World};

/// How long faults are thrown in the suite.
const SECONDS: u64 = 30;
/// From this length on every kind of fault must have come.
const SECONDS_FOR_ALL: u64 = 900;
/// Transactions a second, if the machine allows for it.
const RATE: u32 = 200;

/// A server that keeps what it has committed when it is killed.
const SERVER: &[&str] = &[
    "--plugin-load-add=mysql_clone.so",
    "--sync-binlog=1",
    "--innodb-flush-log-at-trx-commit=1",
    "--innodb-doublewrite=ON",
    "--max-binlog-size=8M",
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// The agent's configuration, through the wires, and the same directly. The agent shall notice soon what is wrong.
fn configs(dice: &mut Dice, server: &Mysqld, s3: &s3::Server, wires: [&Wire; 2]) -> (AgentConfig, AgentConfig) {
    let [to_server, to_store] = wires;
    let url = format!("s3://{}/chaos", s3::BUCKET);
    let chunk = dice.pick(&["256KiB", "1MiB", "8MiB"]);
    let more = format!(
        "timeout = \"5s\"\n\
         [agent]\nchunk_size = \"{chunk}\"\npoll_interval = \"500ms\"\nflush_interval = \"200ms\"\nbeacon_interval = \"2s\"\n\
         [base]\nengine = \"clone\"\nschedule = \"0 0 1 1 *\"\n"
    );
    let through = s3.settings().replace(&s3.endpoint, &format!("http://127.0.0.1:{}", to_store.port()));
    let mut config = AgentConfig::with(server, &url, &(through + &more));
    config.as_a_service();
    config.edit(&format!(":{}\"", server.port()), &format!(":{}\"", to_server.port()));
    let tls = dice.pick(&["disabled", "required"]);
    config.source(&format!("heartbeat = \"1s\"\nconnect_timeout = \"3s\"\ntls = \"{tls}\""));
    // What the test asks must not keep it from ending the fault that stands in the way.
    let direct = AgentConfig::with(server, &url, &(s3.settings() + "give_up_after = \"2s\"\n" + &more));
    direct.edit(direct.recipient(), config.recipient());
    std::fs::copy(config.identity(), direct.identity()).unwrap();
    println!("chunks of {chunk}, TLS {tls}");
    (config, direct)
}

#[test]
fn all_faults_mixed_lose_nothing() {
    let seconds = number("BINVAULT_CHAOS_SECONDS").unwrap_or(SECONDS);
    let seed = number("BINVAULT_SEED").unwrap_or_else(binvault::clock::now_us);
    println!("BINVAULT_CHAOS_SECONDS={seconds} BINVAULT_SEED={seed}");
    let mut dice = Dice::new(seed);
    let mut server = Mysqld::start("chaos", SERVER);
    server.create_agent_user("binvault", PASSWORD);
    server.grant_base("binvault");
    let s3 = s3::Server::start();
    let to_server = Wire::to(server.port());
    let to_store = Wire::to(s3.endpoint.rsplit(':').next().unwrap().parse().unwrap());
    let (config, direct) = configs(&mut dice, &server, &s3, [&to_server, &to_store]);
    let load = Load::start(&server, 2, Pace::PerSecond(RATE));
    let churn = Churn::start(&server, load.gate(), dice.fork());
    let scene =
        Scene { config: &config, direct: &direct, s3: &s3, to_server: &to_server, to_store: &to_store, load: &load };
    let mut proof_dice = dice.fork();
    let mut world = World::new(&scene, &mut server, dice);
    let midway = live(&mut world, Duration::from_secs(seconds));
    world.calm();
    let acts = churn.stop();
    // Nobody writes any more.
    load.gate().held(|| {
        last_words(&mut world);
        judge(&world);
        for (what, times) in &world.thrown {
            println!("{times:6} x {what}");
        }
        println!("{} transactions, {acts} other acts, {:?}", load.transactions(), world.bounds);
        prove(&midway, &mut proof_dice, &world.kept, world.server, &direct);
    });
    let never: Vec<String> =
        ALL.iter().map(|(_, fault)| format!("{fault:?}")).filter(|fault| !world.thrown.contains_key(fault)).collect();
    assert!(seconds < SECONDS_FOR_ALL || never.is_empty(), "never thrown: {never:?}");
}

/// Faults, and a base backup among them behind which no break comes.
fn live(world: &mut World<'_>, time: Duration) -> Midway {
    world.wait("archiving begins", |world| world.scene.direct.durable().is_some());
    let begun = monotonic();
    // A short run is a dense one.
    let pause_ms = if time < Duration::from_secs(300) { (100, 900) } else { (200, 2_800) };
    throw_until(world, begun + time.mul_f64(0.7), pause_ms, true);
    let midway = midway(world);
    let rest = (begun + time).max(monotonic() + time.mul_f64(0.2));
    throw_until(world, rest, pause_ms, false);
    midway
}

/// No faults, and nobody writes: the agent gets everything, and ends in good order.
fn last_words(world: &mut World<'_>) {
    world.wait_for_helpers();
    world.server.sql("FLUSH BINARY LOGS");
    faults::catch_up(world);
    world.kept.link(world.server);
    world.take_agent().expect("is there").terminate();
}

/// The files, the gaps, and what `verify` says.
fn judge(world: &World<'_>) {
    let direct = world.scene.direct;
    let (to, key) = (direct.dir().join("all"), direct.identity());
    direct.ok(&["export", "--partial", "--to", to.to_str().unwrap(), "--identity", key.to_str().unwrap()]);
    let compared = compare(&world.kept, exported(&to));
    world.breaks.judge(&direct.status().unwrap(), &compared, world.server);
    println!(
        "{} files identical, {} bytes; {} more end in or are one of {} recorded breaks",
        compared.whole,
        compared.bytes,
        compared.short.len(),
        world.breaks.count()
    );
    println!("verify --deep: {}", direct.verify_deep().trim());
    std::fs::remove_dir_all(&to).unwrap();
}
