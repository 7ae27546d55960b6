//! Targets of every kind, chosen at random in a history written under load, each held against the oracle.

use std::time::Duration;

use crate::oracle::{History, Seen, fingerprint};
use crate::place::{Restored, base};
use crate::support::agent::{AgentConfig, PASSWORD};
use crate::support::dice::Dice;
use crate::support::lab::Mysqld;
use crate::support::load::{Load, Pace};
use crate::support::workload::named;

/// Targets in the suite; `make soak-restore` says how many there.
const TARGETS: usize = 4;
/// Kinds of workload that are mixed into the load.
const KINDS: &[&str] = &["ddl", "xa", "compressed", "tagged", "rotation", "json_partial", "statement", "routines"];

/// A target: the words for it, how many transactions it has in it.
struct Wanted {
    words: Vec<String>,
    upto: usize,
}

fn wanted(dice: &mut Dice, history: &History, from: usize) -> Wanted {
    let index = from + dice.index(history.seen.len() - from);
    let seen = &history.seen[index];
    let words = |to: String, more: &str| {
        let mut words = vec![to];
        words.extend((!more.is_empty()).then(|| more.to_owned()));
        words
    };
    let time = |us: u64| jiff::Timestamp::from_microsecond(i64::try_from(us).unwrap()).unwrap().to_string();
    let gtid = seen.gtid.clone().unwrap();
    match dice.index(6) {
        0 => {
            Wanted { words: words(time(seen.commit_us), ""), upto: history.until(|one| one.commit_us > seen.commit_us) }
        }
        1 => Wanted {
            words: words(time(seen.commit_us), "--before"),
            upto: history.until(|one| one.commit_us >= seen.commit_us),
        },
        2 => Wanted { words: words(format!("gtid:{gtid}"), ""), upto: index + 1 },
        3 => Wanted { words: words(format!("gtid:{gtid}"), "--before"), upto: index },
        4 => Wanted { words: words(format!("{}:{}", seen.file, seen.end), ""), upto: index + 1 },
        _ => Wanted { words: words(format!("{}:{}", seen.file, seen.start), ""), upto: index },
    }
}

#[test]
fn random_targets_equal_the_oracle() {
    let seed = std::env::var("BINVAULT_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(binvault::clock::now_us);
    let count = std::env::var("BINVAULT_RESTORE_TARGETS").ok().and_then(|text| text.parse().ok()).unwrap_or(TARGETS);
    println!("BINVAULT_SEED={seed} gives the same targets of the same history");
    let mut source = Mysqld::start("rsource", &[]);
    source.create_agent_user("binvault", PASSWORD);
    source.grant_base("binvault");
    let config = AgentConfig::with_extra(&source, "[agent]\nchunk_size = \"256KiB\"\nflush_interval = \"200ms\"");
    let mut agent = config.spawn();
    let load = Load::start(&source, 2, Pace::PerSecond(300));
    named("types").run(&source);
    load.wait_for(200);
    let base_begun = source.value("SELECT @@GLOBAL.gtid_executed").replace('\n', "");
    base(&config);
    for (index, kind) in KINDS.iter().enumerate() {
        named(kind).run(&source);
        load.wait_for(60);
        if index == 3 {
            // The agent dies and comes back; later the server does.
            agent.kill();
            agent = config.spawn();
        }
        if index == 5 {
            source.stop();
            source.start_again(&[]);
        }
    }
    load.stop();
    agent.wait_archived(&source.position(), Duration::from_secs(60));
    agent.terminate();
    let history = History::of(&source);
    // What the base may have in it cannot be left out again: targets lie behind its end.
    let begun = history.seen.iter().rposition(|seen| contains(&source, &base_begun, seen)).unwrap();
    let from = (begun + 400).min(history.seen.len() - 100);
    let mut dice = Dice::new(seed);
    let mut all: Vec<Wanted> = (0..count).map(|_| wanted(&mut dice, &history, from)).collect();
    all.push(Wanted { words: vec!["latest".to_owned()], upto: history.seen.len() });
    all.sort_by_key(|wanted| wanted.upto);
    let reference = Mysqld::start("rreference", &["--server-id=77"]);
    let mut applied = 0;
    for Wanted { words, upto } in &all {
        println!("restore to {words:?}: {upto} of {} transactions", history.seen.len());
        history.apply(&reference, applied..*upto);
        applied = *upto;
        let more: Vec<&str> = words[1..].iter().map(String::as_str).collect();
        let restored = Restored::to(&config, &words[0], &more);
        restored.assert_executed(&history.set(&reference, 0..*upto));
        let (there, wanted) = (fingerprint(|sql| restored.sql(sql)), fingerprint(|sql| reference.sql(sql)));
        assert_eq!(there, wanted, "{words:?}, seed {seed}: left is restored, right the oracle's");
        restored.assert_clean();
    }
}

/// Whether a set of the server's has a transaction in it.
fn contains(server: &Mysqld, set: &str, seen: &Seen) -> bool {
    let gtid = seen.gtid.as_deref().unwrap();
    server.value(&format!("SELECT GTID_SUBSET('{gtid}', '{set}')")) == "1"
}
