//! What is told, held against the documentation, and what is left out.

use std::collections::{BTreeMap, BTreeSet};

use std::time::Duration;

use super::*;
use crate::archive::VerifyWord;
use crate::position::{BinlogFile, CommitTime, Position};
use crate::ship::Durable;
use crate::store::meter::Operation;
use crate::store::spool::SpoolState;
use crate::store::{StoreError, StoreErrorKind};

fn at(file: &str, offset: u64) -> Position {
    Position { file: BinlogFile::new(file).unwrap(), offset }
}

/// With everything that there may be.
fn full() -> Observed {
    let progress = Progress::default();
    progress.set_durable(Durable { position: Some(at("b.000007", 1234)), commit: CommitTime::from_micros(2_000_000) });
    let word = SemiSyncWord {
        mode: "store".into(),
        protected: true,
        since_us: 5_500_000,
        last_ack_us: Some(6_000_000),
        uncovered: 3,
        ..SemiSyncWord::default()
    };
    let server = crate::position::ServerUuid(uuid::Uuid::nil());
    let base = BaseMark {
        id: "b".into(),
        engine: "clone".into(),
        server,
        started_us: 1_000_000,
        finished_us: 2_000_000,
        stored_bytes: 9,
    };
    let drill = DrillMark { started_us: 3_000_000, ok: false, seconds: 4.5, problem: Some("a test".into()) };
    let outlook = Outlook {
        as_of_us: 7_000_000,
        bases: vec![base],
        drills: vec![drill],
        chunks: (10, 1000),
        base_objects: (2, 9),
        restorable_from_us: Some(2_000_000),
        ..Outlook::default()
    };
    let answered = Answered {
        position: at("b.000008", 50),
        as_of_us: 8_000_000,
        lag_bytes: Some(70),
        margin_files: Some(2),
        expiry_s: Some(1_000_000_000_000),
    };
    let seen = Seen {
        started_us: 1_000_000,
        streaming: true,
        answered: Some(answered),
        gaps: 1,
        base_due_us: Some(9_000_000),
        prune_due_us: Some(9_500_000),
        prunes: Counted { done_us: Some(4_000_000), ..Counted::default() },
        verified: Some(VerifyWord { at_us: 5_000_000, problem: None }),
        guard_purged: Some(0),
        notifications: Some([1, 2, 3]),
        outlook: Some(Arc::new(outlook)),
        ..Seen::default()
    };
    let state = SpoolState { objects: 2, bytes: 99, oldest_us: Some(1_000_000) };
    let meter = Meter::default();
    let error = StoreError::new(StoreErrorKind::Throttled, "a test");
    meter.tried(Operation::Put, Duration::from_secs(1), true, Some(&error));
    Observed {
        agent: "main".into(),
        progress: Arc::new(progress),
        meter,
        semi_sync: Some(word),
        spool: Some(SpoolWord { dir: "/s".into(), state }),
        seen,
        cost: Some(1.25),
    }
}

#[test]
fn what_is_known_is_told_and_nothing_else() {
    let bare = render(&Observed::default());
    assert!(bare.contains("binvault_chunks_total 0\n"), "{bare}");
    for absent in ["protected", "spool", "durable_position", "durable_commit_t", "lag", "archive", "verify", "guard"] {
        assert!(!bare.contains(&format!("binvault_{absent}")), "{absent}: {bare}");
    }
    let text = render(&full());
    for line in [
        "binvault_durable_position_bytes{file=\"b.000007\"} 1234.0",
        "binvault_durable_commit_timestamp_seconds 2.0",
        "binvault_commits_protected{mode=\"store\"} 1.0",
        "binvault_commits_protected_since_timestamp_seconds 5.5",
        "binvault_commits_uncovered_total 3",
        "binvault_spool_bytes 99.0",
        "binvault_gaps_total 1",
        "binvault_archive_bytes{part=\"chunks\"} 1000.0",
        "binvault_store_errors_total{operation=\"put\",kind=\"throttled\"} 1",
        "binvault_store_request_seconds_count{operation=\"put\"} 1",
        "binvault_notifications_total{result=\"suppressed\"} 3",
        "binvault_drill_ok 0.0",
        "binvault_archive_cost_per_month 1.25",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
}

/// Names and types of all metrics, as they are told.
fn told(text: &str) -> BTreeMap<String, String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let full = |(name, kind): (&str, &str)| {
        let total = if kind == "counter" { "_total" } else { "" };
        (format!("{name}{total}"), kind.to_owned())
    };
    types.map(full).collect()
}

#[test]
fn the_documentation_lists_what_is_told_and_nothing_else() {
    let documentation = include_str!("../../docs/metrics.md");
    let mut documented = BTreeMap::new();
    for row in documentation.lines().filter(|line| line.starts_with("| `binvault_")) {
        let mut cells = row.split('|').map(str::trim).skip(1);
        let (names, kind) = (cells.next().unwrap(), cells.next().unwrap());
        for name in names.split(", ") {
            let name = name.trim_matches('`').split('{').next().unwrap();
            documented.insert(name.to_owned(), kind.to_owned());
        }
    }
    let mut told = told(&render(&full()));
    let process: BTreeSet<String> = told.keys().filter(|name| name.starts_with("process_")).cloned().collect();
    for name in &process {
        assert!(documentation.contains(&format!("`{name}`")), "{name}");
        told.remove(name);
    }
    assert_eq!(process.len(), 5, "{process:?}");
    assert_eq!(told, documented);
}

#[test]
fn lag_and_horizon_are_of_what_is_not_durable() {
    let mut observed = full();
    let lag = observed.lag_seconds().unwrap();
    assert!(lag > 1e9, "since 1970: {lag}");
    assert!(observed.purge_horizon_seconds().unwrap() < 1e12 - 1e9);
    observed.seen.answered.as_mut().unwrap().position = at("b.000007", 1234);
    assert_eq!((observed.lag_seconds(), observed.lag_bytes()), (Some(0.0), Some(0)), "it has come since");
    assert_eq!(observed.purge_horizon_seconds(), Some(1e12));
    observed.seen.answered.as_mut().unwrap().expiry_s = None;
    assert_eq!(observed.purge_horizon_seconds(), None, "it never expires");
    observed.seen.answered = None;
    assert_eq!(observed.lag_seconds(), None, "nobody knows");
}

#[test]
fn what_is_wrong_is_said_the_most_urgent_first() {
    let ids = |observed: &Observed| actions(observed).iter().map(|action| action.id).collect::<Vec<_>>();
    let mut observed = full();
    observed.seen.answered = None;
    observed.semi_sync = None;
    observed.spool = None;
    assert_eq!(ids(&observed), ["drill"], "the last one failed");
    assert_eq!(ids(&Observed { seen: Seen { streaming: true, ..Seen::default() }, ..Observed::default() }), [""; 0]);
    let mut outlook = Outlook { gaps_without_base: 1, holes: 2, ..Outlook::default() };
    observed.seen.outlook = Some(Arc::new(outlook.clone()));
    observed.seen.streaming = false;
    observed.seen.trouble = Some(Trouble { at_us: 1, text: "no route".into(), hint: Some("look".into()) });
    assert_eq!(ids(&observed), ["interrupted", "gap-without-base", "holes", "base-missing"]);
    let first = actions(&observed).remove(0);
    assert!(first.text.contains("no route") && first.hint.as_deref() == Some("look"), "{first:?}");
    outlook = Outlook { unmet: vec!["rpo".into()], ..Outlook::default() };
    observed.seen.outlook = Some(Arc::new(outlook));
    observed.seen.streaming = true;
    observed.seen.bases.failed(&crate::error::Error::failed("it broke"));
    observed.seen.verified = Some(VerifyWord { at_us: 1, problem: Some("a bad chunk".into()) });
    let found = ids(&observed);
    assert!(found.starts_with(&["base-missing", "verify"]) && found.contains(&"base-failed"), "{found:?}");
    observed.seen.bases.done();
    assert!(!ids(&observed).contains(&"base-failed"));
}

#[test]
fn rates_are_of_neighbouring_points() {
    let mut observed = full();
    for (at_s, bytes) in [(10, 1000), (20, 6000), (30, 6000)] {
        let point = Point { at_us: at_s * 1_000_000, received_bytes: bytes, ..point() };
        observed.seen.add_point(point);
    }
    let document = document(&observed);
    let history = document["history"].as_array().unwrap();
    let rates: Vec<f64> = history.iter().map(|point| point["received_per_second"].as_f64().unwrap()).collect();
    assert_eq!(rates, [500.0, 0.0]);
    for _ in 0..2000 {
        observed.seen.add_point(point());
    }
    assert_eq!(observed.seen.trail.len(), 720);
}

fn point() -> Point {
    Point { at_us: 1, lag_seconds: None, received_bytes: 0, durable_bytes: 0, puts: 0 }
}

/// Paths of all fields; lists are `[]`, and what another section documents is not gone into.
fn paths(value: &serde_json::Value, path: &str, found: &mut BTreeSet<String>) {
    const ELSEWHERE: [&str; 3] = ["archive", "agent.semi_sync", "agent.spool"];
    if !path.is_empty() && !path.ends_with("[]") {
        found.insert(path.to_owned());
    }
    match value {
        serde_json::Value::Object(fields) if !ELSEWHERE.contains(&path) => {
            for (name, field) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                paths(field, &path, found);
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| paths(item, &format!("{path}[]"), found)),
        _ => {}
    }
}

#[test]
fn the_document_has_the_documented_fields() {
    let mut observed = full();
    observed.seen.trouble = Some(Trouble { at_us: 1, text: "a test".into(), hint: None });
    for at_us in [1, 2] {
        observed.seen.add_point(Point { at_us, ..point() });
    }
    let mut found = BTreeSet::new();
    paths(&document(&observed), "", &mut found);
    let text = include_str!("../../docs/JSON.md");
    let section = text.split("\n## `GET /status`\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let documented: BTreeSet<String> = rows.map(|(field, _)| field.to_owned()).collect();
    assert_eq!(found, documented);
}
