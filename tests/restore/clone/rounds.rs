//! Rounds: a clone under load, a restore to a place behind it, and the same made by stock tools.

use binvault::position::GtidSet;
use serde_json::Value;

use super::load::{Churn, assert_kinds, prepare};
use super::refuse::edit;
use super::scene::{Scene, clone, plain, with_program};
use crate::oracle::{History, fingerprint};
use crate::place::{Restored, look_into_with};
use crate::scene::{last_gtid, orders};
use crate::support::agent::said;
use crate::support::dice::Dice;
use crate::support::lab::Mysqld;

/// Rounds in the suite; `make soak-clone` says how many there.
const ROUNDS: usize = 2;

/// The transactions up to the place of a base, and those behind it that may be in it.
fn until_base(history: &History, manifest: &Value) -> usize {
    let (file, offset) = (manifest["coordinates"]["file"].as_str(), manifest["coordinates"]["position"].as_u64());
    let at = (file.unwrap(), offset.unwrap());
    let place = history.until(|seen| (seen.file.as_str(), seen.start) >= at);
    let undecided: GtidSet = manifest["clone"]["undecided"].as_str().unwrap_or_default().parse().unwrap();
    let is_undecided = |gtid: &str| undecided.contains(&gtid.parse().unwrap());
    let last = history.seen.iter().rposition(|seen| seen.gtid.as_deref().is_some_and(is_undecided));
    place.max(last.map_or(0, |last| last + 1))
}

/// One round: churn, a clone in the middle of it, more churn; then a restore to somewhere behind the clone.
fn round(scene: &Scene, reference: &Mysqld, applied: &mut usize, dice: &mut Dice, number: usize) {
    let (source, config) = (&scene.source, &scene.config);
    let mut agent = config.spawn();
    let churn = Churn::start(source, dice, number);
    churn.wait(1 + dice.index(40) as u64, 2 + dice.index(20) as u64);
    let before = churn.definitions();
    let (id, manifest) = clone(config);
    let meanwhile = churn.definitions() - before;
    churn.wait(5, 2 + dice.index(10) as u64);
    drop(churn);
    agent.wait_caught_up(source);
    agent.terminate();
    let history = History::of(source);
    let from = until_base(&history, &manifest);
    let upto = if dice.index(3) == 0 { history.seen.len() } else { from + dice.index(history.seen.len() - from) + 1 };
    let to = if upto == history.seen.len() {
        "latest".to_owned()
    } else {
        format!("gtid:{}", history.seen[upto - 1].gtid.clone().unwrap())
    };
    println!(
        "round {number}: {meanwhile} changes of definitions while {id} was taken; restore to {to}: {} of {} transactions on top",
        upto - from,
        history.seen.len() - from
    );
    // The reference only goes forward, and so do the targets: behind a base that was taken behind the last target.
    assert!(*applied <= upto, "a target behind the reference");
    history.apply(reference, *applied..upto);
    *applied = upto;
    let far = scene.external_files();
    let dir = tempfile::tempdir().unwrap();
    let datadir = dir.path().join("data");
    let more = ["--base", &id, "--check-tables", "--keep-running", "--json"];
    let arguments = with_program(config, &to, &datadir, &scene.mysqld(), &more);
    let out = config.output(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(out.status.success(), "round {number}: restore ended with {}:\n{}", out.status, said(&out));
    let restored = Restored::of(&out);
    restored.assert_executed(&history.set(reference, 0..upto));
    assert_eq!(
        fingerprint(|sql| restored.sql(sql)),
        fingerprint(|sql| reference.sql(sql)),
        "round {number}: left is restored, right the oracle's"
    );
    assert_eq!(restored.report["examined"]["bad_tables"].as_array().map(Vec::len), Some(0));
    restored.assert_clean();
    say_what_is_not_in_it(&restored, &datadir);
    leave_the_donor_alone(scene, &restored, &far);
    drop(restored);
    // The server that goes on with it finds everything as it was left: the keyring is where the data directory says.
    let options = ["--innodb-directories="];
    let rows = look_into_with(&scene.mysqld(), &datadir, &options, "SELECT COUNT(*) FROM kinds.secretzip");
    assert!(rows.trim().parse::<u32>().unwrap() > 0);
}

/// What a clone does not have is said.
fn say_what_is_not_in_it(restored: &Restored, datadir: &std::path::Path) {
    let next = restored.report["next"].to_string();
    let keyring = datadir.with_file_name("data.keyring");
    for word in ["my.cnf", "tables of other engines", keyring.to_str().unwrap(), "read_local_manifest", "ts_far.ibd"] {
        assert!(next.contains(word), "{word} is not in {next}");
    }
    assert_eq!(restored.sql("SELECT COUNT(*) FROM kinds.isam"), "0\n");
}

/// Nothing of the restored server lies in the donor's folders, whatever is done to it.
fn leave_the_donor_alone(scene: &Scene, restored: &Restored, far: &[(std::path::PathBuf, u64)]) {
    let external = scene.external.path().display().to_string();
    let files = restored.sql("SELECT path FROM information_schema.innodb_datafiles");
    assert!(!files.contains(&external), "the restored server has files of the donor's: {files}");
    restored.sql(
        "SET SESSION sql_log_bin = 0; TRUNCATE kinds.far; ALTER TABLE kinds.farsecret FORCE; DROP TABLE kinds.farparts",
    );
    assert_eq!(scene.external_files(), far, "the donor's own files changed");
}

#[test]
fn clones_under_load_equal_the_oracle() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("BINVAULT_SEED").unwrap_or_else(binvault::clock::now_us);
    let rounds = number("BINVAULT_CLONE_ROUNDS").map_or(ROUNDS, |rounds| usize::try_from(rounds).unwrap());
    println!("BINVAULT_SEED={seed} gives the same statements, if not the same moments");
    let mut dice = Dice::new(seed);
    let scene = Scene::new("rclone");
    prepare(&scene.source);
    assert_kinds(&scene.source);
    let reference = Scene::reference("rcloneref");
    let mut applied = 0;
    for number in 0..rounds {
        round(&scene, &reference, &mut applied, &mut dice, number);
    }
}

/// What leaves nothing in InnoDB may be in the binlog before the snapshot's place while InnoDB does not know its GTID yet: a
/// moment that no test can make. So the manifest here names one that came behind it.
#[test]
fn what_leaves_no_trace_in_innodb_was_executed_all_the_same() {
    let (source, config) = plain("rclonenone", 10, &[]);
    orders(&source, &["four"]);
    source.sql(
        "OPTIMIZE TABLE shop.orders; CREATE TABLE IF NOT EXISTS shop.orders (id INT); DROP TABLE IF EXISTS shop.none;
         CREATE TABLE shop.isam (id INT) ENGINE=MyISAM; INSERT INTO shop.isam VALUES (1); ANALYZE TABLE shop.bulk",
    );
    let (id, manifest) = clone(&config);
    let unrecorded = manifest["clone"]["unrecorded"].as_str().expect("there are some").to_owned();
    let (uuid, last) = (source.value("SELECT @@server_uuid"), last_gtid(&source));
    let newest: u64 = last.rsplit(':').next().unwrap().parse().unwrap();
    assert_eq!(unrecorded, format!("{uuid}:{}-{newest}", newest - 5), "the six newest");
    source.sql("OPTIMIZE TABLE shop.bulk");
    let later = last_gtid(&source);
    orders(&source, &["five"]);
    config.archive_now();
    edit(&config, &id, |manifest| {
        for set in ["/coordinates/executed", "/clone/unrecorded"] {
            let set = manifest.pointer_mut(set).unwrap();
            *set = format!("{},{later}", set.as_str().unwrap()).into();
        }
    });
    let restored = Restored::to(&config, "latest", &["--check-tables"]);
    restored.assert_executed(&source.value("SELECT @@GLOBAL.gtid_executed").replace('\n', ""));
    source.sql("SET SESSION sql_log_bin = 0; DELETE FROM shop.isam");
    assert_eq!(
        fingerprint(|sql| restored.sql(sql)),
        fingerprint(|sql| source.sql(sql)),
        "but for another engine's rows"
    );
    restored.assert_clean();
}

/// A donor may note a place behind transactions that it has not committed yet, and the snapshot may end before they are: a
/// moment that no test can make. So the manifest here names two that came behind it.
#[test]
fn what_was_on_its_way_when_the_place_was_noted_is_brought_by_the_replay() {
    let (source, config) = plain("rcloneway", 10, &[]);
    orders(&source, &["four"]);
    let (id, _) = clone(&config);
    let uuid = source.value("SELECT @@server_uuid");
    orders(&source, &["five"]);
    let first = last_gtid(&source);
    source.sql("DELETE FROM shop.orders WHERE what = 'two'");
    let late: u64 = last_gtid(&source).rsplit(':').next().unwrap().parse().unwrap();
    let late = format!("{uuid}:{}-{late}", first.rsplit(':').next().unwrap());
    orders(&source, &["six"]);
    config.archive_now();
    edit(&config, &id, |manifest| {
        let executed = manifest.pointer_mut("/coordinates/executed").unwrap();
        *executed = format!("{},{late}", executed.as_str().unwrap()).into();
        manifest["clone"]["undecided"] = late.into();
    });
    let restored = Restored::to(&config, "latest", &["--check-tables"]);
    restored.assert_executed(&source.value("SELECT @@GLOBAL.gtid_executed").replace('\n', ""));
    assert_eq!(fingerprint(|sql| restored.sql(sql)), fingerprint(|sql| source.sql(sql)));
    restored.assert_clean();
}

/// Without GTIDs the place in the binlog is all that there is.
#[test]
fn a_clone_without_gtids_is_gone_on_with_by_position() {
    let (source, config) = plain("rclonepos", 10, &["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"]);
    orders(&source, &["four"]);
    let plan = said(&config.output(&["base", "--dry-run"]));
    assert!(plan.contains("no clone: gtid_mode is OFF"), "a clone must be asked for: {plan}");
    clone(&config);
    orders(&source, &["five", "six"]);
    let middle = source.position();
    orders(&source, &["seven"]);
    config.archive_now();
    let restored = Restored::to(&config, &format!("{}:{}", middle.0, middle.1), &[]);
    assert_eq!(restored.report["by_gtid"], false);
    assert_eq!(restored.sql("SELECT COUNT(*), MAX(what) FROM shop.orders"), "6\ttwo\n");
    drop(restored);
    let restored = Restored::to(&config, "latest", &["--check-tables"]);
    assert_eq!(fingerprint(|sql| restored.sql(sql)), fingerprint(|sql| source.sql(sql)));
    restored.assert_clean();
}
