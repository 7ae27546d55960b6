//! Restores that must not be: each refused with its own exit code, the reason and what to do, and nothing written.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::place::{arguments, base};
use crate::scene::{chunks, last_gtid, orders, shop};
use crate::support::agent::{AgentConfig, said};
use crate::support::lab::{self, Mysqld};

const CONFIG: i32 = 2;
const UNFIT: i32 = 5;
const KEY: i32 = 11;
const GAP: i32 = 12;

/// A command that must be refused, with the words that matter; all that it said.
#[track_caller]
fn refused(mut command: Command, code: i32, words: &[&str]) -> String {
    let out = command.output().unwrap();
    let text = said(&out);
    assert_eq!(out.status.code(), Some(code), "{command:?} said:\n{text}");
    for word in words.iter().chain(&["HINT:"]) {
        assert!(text.contains(word), "no {word:?} in:\n{text}");
    }
    text
}

/// A restore into `datadir`, of the archive in `archive`.
fn into(config: &AgentConfig, archive: &Path, to: &str, datadir: &Path, more: &[&str]) -> Command {
    let all = arguments(config, to, datadir, more);
    let mut command = config.command(&all.iter().map(String::as_str).collect::<Vec<_>>());
    command.env("BINVAULT_ARCHIVE__URL", format!("file://{}", archive.display()));
    command
}

/// As [`into`], a dry run.
fn plan(config: &AgentConfig, archive: &Path, to: &str, more: &[&str]) -> Command {
    let more: Vec<&str> = more.iter().copied().chain(["--dry-run"]).collect();
    into(config, archive, to, Path::new("/nowhere/at/all"), &more)
}

/// A copy of the archive that may be harmed.
fn copy(config: &AgentConfig, name: &str) -> PathBuf {
    let to = config.dir().join(name);
    assert!(Command::new("cp").arg("-a").args([&config.archive(), &to]).status().unwrap().success());
    to
}

/// A program that says of itself what it is told to.
fn impostor(config: &AgentConfig, name: &str, says: &str) -> String {
    use std::os::unix::fs::PermissionsExt;

    let path = config.dir().join(name);
    std::fs::write(&path, format!("#!/bin/sh\necho '{says}'\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

/// The scene of all: a base backup in the first file, a chunk for each order behind it, the last in a second file.
struct Scene {
    source: Mysqld,
    config: AgentConfig,
    before_base: String,
    first_file: String,
}

impl Scene {
    fn make(hint: &str) -> Self {
        let (source, config) = shop(hint, &[]);
        let before_base = last_gtid(&source);
        let (first_file, _) = source.position();
        for name in ["four", "five", "six"] {
            orders(&source, &[name]);
            config.archive_now();
        }
        source.sql("FLUSH BINARY LOGS");
        orders(&source, &["seven"]);
        config.archive_now();
        Self { source, config, before_base, first_file }
    }
}

#[test]
fn targets_and_archives() {
    let Scene { source, config, before_base, first_file } = Scene::make("rrefuse");
    let archive = config.archive();
    let dry = |to: &str, code, words: &[&str]| refused(plan(&config, &archive, to, &[]), code, words);
    config.ok(&["restore", "--to", "latest", "--dry-run", "--identity", config.identity().to_str().unwrap()]);

    // Targets that the archive cannot lead to.
    let number: u64 = before_base.rsplit(':').next().unwrap().parse().unwrap();
    let early = format!("gtid:{}:{}", source.uuid(), number - 1);
    dry(&early, GAP, &["does not lead to the target", "which the target has not", "binvault list"]);
    dry("2001-01-01T00:00:00Z", GAP, &["does not lead to the target"]);
    let now = jiff::Timestamp::from_microsecond(i64::try_from(binvault::clock::now_us()).unwrap()).unwrap();
    dry(&now.to_string(), GAP, &["behind what the archive knows", "--to latest"]);
    dry("2999-01-01T00:00:00Z", CONFIG, &["lies in the future", "--to latest"]);
    dry(&format!("{first_file}:99999999"), GAP, &["lies behind what the archive has", "--to latest"]);
    dry("binlog.777777:4", GAP, &["binlog.777777 is not in this history", "binvault list"]);
    dry("gtid:11111111-2222-3333-4444-555555555555:7", GAP, &["is not in this history", "binvault find"]);
    dry(&format!("gtid:{}:999999", source.uuid()), GAP, &["is not in this history"]);
    dry("the day before", CONFIG, &["is no target", "latest"]);

    // Keys.
    let stranger = config.dir().join("stranger");
    config.ok(&["keygen", "-o", stranger.to_str().unwrap()]);
    let place = config.dir().join("new");
    let with = |key: &Path| {
        let text = ["restore", "--to", "latest", "--datadir", place.to_str().unwrap()].map(str::to_owned);
        let key = (!key.as_os_str().is_empty()).then(|| ["--identity".to_owned(), key.display().to_string()]);
        let all: Vec<String> = text.into_iter().chain(key.into_iter().flatten()).collect();
        config.command(&all.iter().map(String::as_str).collect::<Vec<_>>())
    };
    refused(with(&stranger), KEY, &["key"]);
    refused(with(&config.dir().join("no-such-key")), CONFIG, &["no-such-key"]);
    refused(with(Path::new("")), KEY, &["needs a private key", "--identity"]);
    assert!(!place.exists(), "refused, and yet it was made");

    // A chunk between the base and the target is gone; a target before it can still be reached.
    let holed = copy(&config, "holed");
    let of_first = chunks(&holed, &source, &first_file);
    let gone = &of_first[of_first.len() - 2];
    std::fs::remove_file(gone).unwrap();
    refused(plan(&config, &holed, "latest", &[]), GAP, &["gap", &source.uuid()]);
    let four = format!("gtid:{}:{}", source.uuid(), number + 1);
    assert!(plan(&config, &holed, &four, &[]).status().unwrap().success(), "before the gap is before the gap");
    // The same for the tail of a file, which only the next file's first chunk tells of.
    let cut = copy(&config, "cut");
    let of_first = chunks(&cut, &source, &first_file);
    // The last one has nothing but the end of the file: no transaction would be missed.
    of_first[of_first.len() - 2..].iter().for_each(|chunk| std::fs::remove_file(chunk).unwrap());
    refused(plan(&config, &cut, "latest", &[]), GAP, &["gap", &source.uuid()]);
    assert!(plan(&config, &cut, &four, &[]).status().unwrap().success(), "before the gap is before the gap");
    // A later base backup is a way round, for what lies behind it.
    let later = base(&config);
    let from = config.archive().join("bases").join(&later);
    let to = holed.join("bases").join(&later);
    assert!(Command::new("cp").arg("-a").args([&from, &to]).status().unwrap().success());
    assert!(plan(&config, &holed, "latest", &[]).status().unwrap().success(), "behind the gap from a later base");

    // Base backups that are not there.
    let bare = copy(&config, "bare");
    std::fs::remove_dir_all(bare.join("bases")).unwrap();
    refused(plan(&config, &bare, "latest", &[]), GAP, &["no base backup", "binvault base"]);
    refused(plan(&config, &archive, "latest", &["--base", "2001"]), CONFIG, &["2001", "binvault list"]);
}

#[test]
fn places_and_servers() {
    let Scene { source, config, .. } = Scene::make("rplaces");
    let archive = config.archive();
    let empty = config.dir().join("empty");

    // What lies there is not ours.
    let taken = config.dir().join("taken");
    std::fs::create_dir(&taken).unwrap();
    std::fs::write(taken.join("precious"), "mine").unwrap();
    refused(into(&config, &archive, "latest", &taken, &[]), CONFIG, &["is not empty", "precious", "never overwrites"]);
    assert_eq!(std::fs::read_to_string(taken.join("precious")).unwrap(), "mine");
    assert_eq!(std::fs::read_dir(&taken).unwrap().count(), 1);
    refused(into(&config, &archive, "latest", &source.datadir(), &[]), CONFIG, &["is not empty"]);

    // Too little room, by a base backup of an exabyte.
    let huge = copy(&config, "huge");
    let folder = std::fs::read_dir(huge.join("bases")).unwrap().next().unwrap().unwrap().path();
    let manifest = folder.join("manifest.json");
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
    let more = 1_u64 << 60;
    let added = |value: &serde_json::Value| serde_json::json!(value.as_u64().unwrap() + more);
    json["raw_bytes"] = added(&json["raw_bytes"]);
    json["parts"][0]["raw_bytes"] = added(&json["parts"][0]["raw_bytes"]);
    std::fs::write(&manifest, json.to_string()).unwrap();
    refused(into(&config, &huge, "latest", &empty, &[]), CONFIG, &["MiB free", "needs about", "--no-space-check"]);

    // Servers that are none, or cannot take what the archived one wrote.
    for (name, says, words) in [
        ("old", "mysqld  Ver 8.0.20 for Linux on x86_64 (MySQL Community Server - GPL)", "older than the archived one"),
        ("other", "mysqld  Ver 11.4.2-MariaDB for Linux on x86_64", "MariaDB"),
        ("ahead", "mysqld  Ver 99.0.1 for Linux on x86_64 (MySQL Community Server - GPL)", "too far ahead"),
        ("none", "Hello", "is no mysqld: Hello"),
    ] {
        let program = impostor(&config, name, says);
        refused(restore_with(&config, &empty, &program, &[]), UNFIT, &[words, "--mysqld"]);
    }
    let absent = config.dir().join("absent").display().to_string();
    refused(restore_with(&config, &empty, &absent, &[]), UNFIT, &["cannot be run", "--mysqld"]);

    // No client to load the dump with: beside the server, on PATH, or where it was said to be.
    let alone = config.dir().join("alone");
    std::fs::create_dir(&alone).unwrap();
    let mysqld = alone.join("mysqld");
    std::os::unix::fs::symlink(lab::bin().join("mysqld"), &mysqld).unwrap();
    let mut command = restore_with(&config, &empty, mysqld.to_str().unwrap(), &[]);
    command.env("PATH", &alone);
    refused(command, UNFIT, &["no mysql client at PATH", "--mysql"]);
    let server = lab::bin().join("mysqld").display().to_string();
    let command = restore_with(&config, &empty, &server, &["--mysql", &absent]);
    refused(command, UNFIT, &["no mysql client at", &absent, "--mysql"]);
    assert!(!empty.exists(), "refused, and yet it was made");
}

/// A restore of the latest with another mysqld.
fn restore_with(config: &AgentConfig, datadir: &Path, mysqld: &str, more: &[&str]) -> Command {
    let key = config.identity().display().to_string();
    let mut all = vec!["restore", "--to", "latest", "--datadir", datadir.to_str().unwrap()];
    all.extend(["--identity", &key, "--mysqld", mysqld]);
    all.extend(more);
    config.command(&all)
}

#[test]
fn running_servers() {
    let (source, config) = shop("rrunning", &["--server-id=7"]);
    orders(&source, &["four"]);
    config.archive_now();
    source.grant_base("binvault");
    let target = Mysqld::start("rtarget", &["--server-id=7"]);
    let (socket, key) = (target.socket().display().to_string(), config.identity().display().to_string());
    let client = lab::bin().join("mysql").display().to_string();
    let to = |mysql: &str| {
        config.command(&["restore", "--to", "latest", "--server", &socket, "--identity", &key, "--mysql", mysql])
    };
    let state = || {
        target.sql(
            "SELECT @@GLOBAL.gtid_executed, @@GLOBAL.sync_binlog, @@GLOBAL.replica_parallel_workers,
                    @@GLOBAL.event_scheduler; SHOW DATABASES; SHOW REPLICA STATUS",
        )
    };

    let before = state();
    refused(to(&client), UNFIT, &["server_id 7", "SET GLOBAL server_id"]);
    target.sql("SET GLOBAL server_id = 8");
    let absent = config.dir().join("absent").display().to_string();
    refused(to(&absent), UNFIT, &["no mysql client at", &absent, "--mysql"]);
    target.sql("SET GLOBAL gtid_mode = ON_PERMISSIVE");
    refused(to(&client), UNFIT, &["gtid_mode ON_PERMISSIVE", "SET GLOBAL gtid_mode"]);
    target.sql("SET GLOBAL gtid_mode = ON");
    assert_eq!(state(), before, "refused, and yet it was changed");

    target.sql("SET SESSION sql_log_bin = 0; CREATE DATABASE precious; CREATE TABLE precious.t (id INT PRIMARY KEY)");
    let before = state();
    refused(to(&client), CONFIG, &["not empty", "precious", "never overwrites"]);
    assert_eq!(state(), before, "refused, and yet it was changed");
    target.sql(
        "SET SESSION sql_log_bin = 0; DROP DATABASE precious;
         CHANGE REPLICATION SOURCE TO SOURCE_HOST = 'nowhere.invalid', SOURCE_USER = 'u'",
    );
    let before = state();
    refused(to(&client), CONFIG, &["not empty", "replica"]);
    assert_eq!(state(), before, "refused, and yet it was changed");
    target.sql("RESET REPLICA ALL");
    // The archived server itself, of all servers.
    let own = source.socket().display().to_string();
    let command =
        config.command(&["restore", "--to", "latest", "--server", &own, "--identity", &key, "--mysql", &client]);
    refused(command, UNFIT, &["server_id 7"]);
    assert_eq!(source.value("SELECT COUNT(*) FROM shop.orders"), "4");
    // Mended, it takes the restore.
    assert!(to(&client).status().unwrap().success());
    assert_eq!(target.value("SELECT COUNT(*) FROM shop.orders"), "4");
}
