//! Retention on a real history: what is kept restores as before, what goes is gone, and nothing takes it for a gap.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use binvault::archive::Archive;
use binvault::store::disk::{DiskOptions, DiskStore};
use binvault::verify::{Manner, Report, Scope, verify};
use serde_json::Value;

use crate::oracle::fingerprint;
use crate::place::{Restored, base, try_restore};
use crate::scene::{last_gtid, orders, shop_with};
use crate::support::agent::{AgentConfig, said};
use crate::support::lab::Mysqld;

/// Every moment since the newest base backup, and nothing that was needed before.
pub(crate) const POLICY: &str = "[retention]\nbases = 1\ngrace = \"0s\"\n";

/// Every object of an archive.
fn objects(archive: &Path) -> Vec<PathBuf> {
    let (mut all, mut folders) = (Vec::new(), vec![archive.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { all.push(path.strip_prefix(archive).unwrap().to_owned()) }
        }
    }
    all.sort();
    all
}

fn names(archive: &Path, beginning: &str) -> Vec<String> {
    let all = objects(archive).into_iter().map(|path| path.display().to_string());
    all.filter(|name| name.starts_with(beginning)).collect()
}

/// Three binlog files, each with a base backup in its middle; the GTID behind each base backup, and the ids.
fn history(source: &Mysqld, config: &AgentConfig) -> (Vec<String>, Vec<String>) {
    let (mut gtids, mut ids) = (Vec::new(), Vec::new());
    for name in ["a", "b", "c"] {
        orders(source, &[name]);
        config.archive_now();
        ids.push(base(config));
        orders(source, &["behind"]);
        gtids.push(last_gtid(source));
        source.sql("FLUSH BINARY LOGS");
    }
    orders(source, &["last"]);
    config.archive_now();
    (gtids, ids)
}

fn prune(config: &AgentConfig, more: &[&str]) -> Value {
    let report = config.ok(&[&["prune", "--json"], more].concat());
    serde_json::from_str(&report).unwrap()
}

fn files(report: &Value) -> Vec<String> {
    let files = report["files"].as_array().unwrap().iter();
    files.map(|file| file["file"].as_str().unwrap().split_once('.').unwrap().1[..6].to_owned()).collect()
}

/// Everything that is kept restores to what the source was, and no command speaks of a gap.
fn assert_whole(source: &Mysqld, config: &AgentConfig, middle: &str) {
    let restored = Restored::to(config, "latest", &["--check-tables"]);
    restored.assert_executed(&source.value("SELECT @@GLOBAL.gtid_executed").replace('\n', ""));
    assert_eq!(fingerprint(|sql| restored.sql(sql)), fingerprint(|sql| source.sql(sql)));
    restored.assert_clean();
    drop(restored);
    let restored = Restored::to(config, &format!("gtid:{middle}"), &[]);
    assert_eq!(restored.sql("SELECT what FROM shop.orders ORDER BY id DESC LIMIT 1"), "behind\n");
    drop(restored);
    config.verify_deep();
    let status = config.status().unwrap();
    assert_eq!(status["servers"][0]["gaps"].as_array().map(Vec::len), Some(0), "{status}");
    assert_eq!(status["servers"][0]["ranges"].as_array().map(Vec::len), Some(1), "{status}");
}

#[test]
fn what_is_kept_restores_and_what_goes_is_no_gap() {
    let (source, config) = shop_with("prune", &[], POLICY);
    let (gtids, ids) = history(&source, &config);
    let archive = config.archive();
    let before = objects(&archive);
    let would = prune(&config, &["--dry-run"]);
    assert_eq!(objects(&archive), before, "a dry run removes nothing");
    assert_eq!((would["dry_run"].as_bool(), files(&would)), (Some(true), vec!["000001".to_owned(), "000002".into()]));
    assert_eq!(would["heads"][0]["base"], ids[2].as_str());

    let report = prune(&config, &[]);
    assert_eq!((&report["files"], &report["bases"]), (&would["files"], &would["bases"]));
    let after = objects(&archive);
    let gone = before.iter().filter(|object| !after.contains(object)).count() as u64;
    assert_eq!(report["removed"]["objects"].as_u64(), Some(gone));
    assert_eq!(report["removed"]["bases"], 3, "that of the beginning, and two: {report}");
    assert_eq!(names(&archive, "bases/").iter().filter(|name| name.ends_with("manifest.json")).count(), 1);
    assert_eq!(names(&archive, "prunes/").len(), 1);
    assert_whole(&source, &config, &gtids[2]);

    // The server has them still, and nobody fetches them again.
    orders(&source, &["later"]);
    config.archive_now();
    assert!(
        names(&archive, "chunks/").iter().all(|name| !name.contains("000001.")),
        "{:?}",
        names(&archive, "chunks/")
    );
    // What is gone cannot be restored, and that is said.
    let dir = tempfile::tempdir().unwrap();
    let out = try_restore(&config, &format!("gtid:{}", gtids[0]), &dir.path().join("data"), &[]);
    assert_eq!(out.status.code(), Some(12), "{}", said(&out));

    // Nothing more is old, and nothing is written for that.
    assert_eq!(prune(&config, &[])["removed"]["objects"], 0);
    assert_eq!(names(&archive, "prunes/").len(), 1);
    let words = config.ok(&["prune", "--dry-run"]);
    assert!(words.contains("nothing is older") && words.contains(&ids[2]), "{words}");

    // The next record takes the place of this one, whose files nothing follows then.
    source.sql("FLUSH BINARY LOGS");
    orders(&source, &["behind"]);
    config.archive_now();
    let newest = base(&config);
    orders(&source, &["behind"]);
    let middle = last_gtid(&source);
    config.archive_now();
    assert_eq!(prune(&config, &[])["heads"][0]["base"], newest.as_str());
    assert_eq!(names(&archive, "prunes/").len(), 1);
    assert_whole(&source, &config, &middle);
}

/// Whatever was removed when it was interrupted, the rest is whole, and the next one goes on.
#[test]
fn an_interrupted_prune_does_no_harm() {
    let (source, config) = shop_with("prunecut", &[], &format!("{POLICY}[agent]\nchunk_size = \"64KiB\"\n"));
    source.sql("CREATE TABLE shop.big (id INT PRIMARY KEY AUTO_INCREMENT, body LONGTEXT)");
    for _ in 0..6 {
        source.sql("INSERT INTO shop.big (body) SELECT HEX(RANDOM_BYTES(1024)) FROM shop.orders; INSERT INTO shop.big (body) VALUES (REPEAT(HEX(RANDOM_BYTES(1000)), 40))");
    }
    let (gtids, _) = history(&source, &config);
    let archive = config.archive();
    let whole = objects(&archive);
    let copy = tempfile::tempdir().unwrap();
    copy_all(&archive, copy.path(), &whole);
    prune(&config, &[]);
    let left = objects(&archive);
    let gone: Vec<PathBuf> = whole.iter().filter(|object| !left.contains(object)).cloned().collect();
    let chunks: Vec<PathBuf> = gone.iter().filter(|object| object.starts_with("chunks")).cloned().collect();
    let first = chunks.iter().filter(|object| object.display().to_string().contains(".000001.")).count();
    assert!(first > 2, "several chunks in the first file: {chunks:?}");
    // Back comes what stands behind a place in the order of removing: base backups first, then files from their beginning.
    for removed in [1, first] {
        copy_all(copy.path(), &archive, &chunks[removed..]);
        assert_whole(&source, &config, &gtids[2]);
        let report = prune(&config, &[]);
        assert_eq!(report["removed"]["objects"].as_u64(), Some((chunks.len() - removed) as u64));
        assert_eq!(objects(&archive).len(), left.len());
    }
}

/// A prune in the middle of a verification, which has then listed what is gone when it comes to it.
#[test]
fn what_is_pruned_while_it_is_verified_is_no_finding() {
    let extra = format!("{POLICY}[agent]\nchunk_size = \"64KiB\"\n[base]\npart_size = \"256KiB\"\n");
    let (source, config) = shop_with("prunemid", &[], &extra);
    source.sql("CREATE TABLE shop.big (id INT PRIMARY KEY AUTO_INCREMENT, body LONGTEXT)");
    for _ in 0..3 {
        source.sql("INSERT INTO shop.big (body) VALUES (REPEAT(HEX(RANDOM_BYTES(1000)), 100))");
    }
    history(&source, &config);
    let archive = config.archive();
    let whole = objects(&archive);
    let copy = tempfile::tempdir().unwrap();
    copy_all(&archive, copy.path(), &whole);
    let chunks = names(&archive, "chunks/").len() as u64;
    let before = verified(&archive, u64::MAX, || ());
    assert_eq!((before.chunks as u64, before.findings.len()), (chunks, 0));
    assert!(before.bases >= 3 && before.base_bytes > 0, "{before:?}");
    // Behind the first chunk, and behind the first part of the first base backup.
    for reads in [1, chunks + 1] {
        let report = verified(&archive, reads, || drop(prune(&config, &[])));
        assert!(objects(&archive).len() < whole.len(), "nothing was pruned");
        assert!(report.findings.is_empty(), "{report:#?}");
        report.into_result().unwrap();
        copy_all(copy.path(), &archive, &whole);
        for record in names(&archive, "prunes/") {
            std::fs::remove_file(archive.join(record)).unwrap();
        }
    }
    // What nobody pruned is one.
    let chunk = archive.join(names(&archive, "chunks/").pop().unwrap());
    let report = verified(&archive, 1, || std::fs::remove_file(&chunk).unwrap());
    assert!(!report.findings.is_empty());
}

/// Verifies without a key, one object after the other; after so many of them something happens.
fn verified(archive: &Path, after: u64, happens: impl Fn() + Send + Sync) -> Report {
    let reads = AtomicU64::new(0);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = DiskStore::open(archive, &DiskOptions::default()).await.unwrap();
        let archive = Archive::open(Arc::new(store), false).await.unwrap();
        let scope = Scope { server: None, bases: true, manner: Manner::Gentle };
        let on_bytes = |_| {
            if reads.fetch_add(1, Ordering::Relaxed) + 1 == after {
                happens();
            }
        };
        verify(&archive, scope, None, &on_bytes).await.unwrap()
    })
}

fn copy_all(from: &Path, to: &Path, objects: &[PathBuf]) {
    for object in objects {
        std::fs::create_dir_all(to.join(object).parent().unwrap()).unwrap();
        std::fs::copy(from.join(object), to.join(object)).unwrap();
    }
}

#[test]
fn without_a_policy_nothing_goes() {
    let (_source, config) = shop_with("prunenone", &[], "");
    let words = config.fails(&["prune"], 2);
    assert!(words.contains("retention.keep") && words.contains("HINT"), "{words}");
    config.edit("[archive]", "[retention]\nkeep = \"5m\"\n[archive]");
    assert!(config.fails(&["prune"], 2).contains("less than an hour"));
}
