//! `--json`: one document, the fields that `docs/JSON.md` tells, with the types that it tells, and no others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::Value;

use super::support::agent::{AgentConfig, PASSWORD, said};
use super::support::lab::Mysqld;
use super::support::repo;

/// A small server that nobody writes to any more, and a fresh archive of it in two files.
pub(super) fn archived() -> (Arc<Mysqld>, AgentConfig) {
    static SERVER: Mutex<Weak<Mysqld>> = Mutex::new(Weak::new());
    let server = {
        let mut shared = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let started = Arc::new(Mysqld::start("cli", &[]));
            started.create_agent_user("binvault", PASSWORD);
            started.sql(
                "SET SESSION sql_log_bin = 0; GRANT SELECT, RELOAD, PROCESS, SHOW VIEW, TRIGGER, EVENT, SHOW_ROUTINE,
                 XA_RECOVER_ADMIN ON *.* TO binvault@'%'",
            );
            started.sql(
                "CREATE DATABASE d; CREATE TABLE d.t (v LONGTEXT); INSERT INTO d.t VALUES ('a'); FLUSH BINARY LOGS;
                 INSERT INTO d.t SELECT HEX(RANDOM_BYTES(1000)); INSERT INTO d.t SELECT * FROM d.t; FLUSH BINARY LOGS;
                 INSERT INTO d.t VALUES (REPEAT('x', 300000)); FLUSH BINARY LOGS;
                 INSERT INTO d.t VALUES ('z');",
            );
            *shared = Arc::downgrade(&started);
            started
        })
    };
    let tool = super::support::lab::bin().join("mysqldump");
    let extra = format!("[agent]\nchunk_size = \"64KiB\"\n[base]\nmysqldump = \"{}\"\n", tool.display());
    let config = AgentConfig::with_extra(&server, &extra);
    config.archive_now();
    (server, config)
}

/// The fields of a document: path and JSON type. Lists are `[]`.
fn fields(value: &Value, path: &str, found: &mut BTreeMap<String, BTreeSet<&'static str>>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(list) => {
            for item in list {
                fields(item, &format!("{path}[]"), found);
            }
            "list"
        }
        Value::Object(map) => {
            for (name, item) in map {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                fields(item, &path, found);
            }
            "object"
        }
    };
    if !path.is_empty() {
        found.entry(path.to_owned()).or_default().insert(kind);
    }
}

/// What the documentation says of a command: the rows `| field | type | meaning |` below its heading.
fn documented(command: &str) -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(repo().join("docs/JSON.md")).unwrap();
    let heading = format!("\n## `binvault {command} --json`\n");
    let section = text.split(&heading).nth(1).unwrap_or_else(|| panic!("docs/JSON.md has no{heading}"));
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let mut cells = row.split('|').map(str::trim);
        let field = cells.next().unwrap().trim_end_matches('`').to_owned();
        let kinds = cells.next().unwrap().split(" or ").map(str::to_owned).collect();
        assert!(cells.next().is_some_and(|meaning| meaning.len() > 3), "{field} is not explained");
        (field, kinds)
    })
    .collect()
}

/// Holds documents of one command against the documentation. Every field must occur in one of them, with something
/// in it, or the test shows nothing.
fn hold(command: &str, documents: &[Value]) {
    let mut found = BTreeMap::new();
    for document in documents {
        assert_eq!(document["schema"], 1, "{document}");
        fields(document, "", &mut found);
    }
    let documented = documented(command);
    for (field, kinds) in &found {
        let known = documented.get(field).unwrap_or_else(|| panic!("{command}: {field} is not in docs/JSON.md"));
        for kind in kinds {
            assert!(known.contains(*kind), "{command}: {field} is {kind}, docs/JSON.md says {known:?}");
        }
    }
    for (field, kinds) in &documented {
        let seen = found.get(field).unwrap_or_else(|| panic!("{command}: {field} is documented, but never there"));
        let only_null = seen.iter().all(|kind| *kind == "null");
        assert!(!only_null || kinds.len() == 1, "{command}: {field} is never anything but null here");
    }
}

fn json(config: &AgentConfig, arguments: &[&str]) -> Value {
    let out = config.output(arguments);
    serde_json::from_slice(&out.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}", said(&out)))
}

#[test]
fn status_and_list() {
    let (server, config) = archived();
    let key = config.identity();
    let online = json(&config, &["status", "--json"]);
    let lag = &online["servers"][0]["lag"];
    assert_eq!(
        (lag["from"].as_str(), lag["bytes"].as_u64(), lag["seconds"].as_f64()),
        (Some("server"), Some(0), Some(0.0))
    );
    let offline = json(&config, &["status", "--json", "--offline"]);
    assert_eq!(offline["servers"][0]["lag"]["from"], "beacon");
    assert_eq!(offline["agents"][0]["stopped"], true);
    let planned = json(&config, &["base", "--dry-run", "--json"]);
    let taken = json(&config, &["base", "--json"]);
    let unprotected = with_a_lapse(&config);
    let drained = drained(&config, online["archive"].as_str().unwrap());
    odd_bases(&config, taken["base"]["id"].as_str().unwrap());
    a_gap(&config, &server);
    let mut judged = config.command(&["status", "--json"]);
    judged.env("BINVAULT_OBJECTIVES__RPO", "10s").env("BINVAULT_OBJECTIVES__RTO", "1s");
    let judged = judged.output().unwrap();
    let judged: Value = serde_json::from_slice(&judged.stdout).unwrap();
    let met = |index: usize| judged["protection"]["objectives"][index]["met"].as_bool();
    assert_eq!((met(0), met(1)), (Some(true), Some(false)), "{judged}");
    let whole = json(&config, &["list", "--json"]);
    assert_eq!(whole["files"][0]["complete"], true);
    let base = &whole["bases"][0];
    assert_eq!((&base["covered"], &base["last_verified"]), (&true.into(), &"2026-11-22T03:00:00.000000Z".into()));
    // With a chunk missing there are holes and gaps to tell of.
    let sound = json(&config, &["verify", "--no-bases", "--json"]);
    assert_eq!(sound["findings"], serde_json::json!([]));
    let deep = json(&config, &["verify", "--deep", "--json", "--identity", key.to_str().unwrap()]);
    assert!(deep["events"].as_u64().unwrap() > 10 && deep["transactions"].as_u64().unwrap() > 2, "{deep}");
    remove_a_chunk(&config);
    let gaps = json(&config, &["status", "--json"]);
    let holes = json(&config, &["list", "--json"]);
    let out = config.output(&["verify", "--no-bases", "--json"]);
    assert_eq!(out.status.code(), Some(12), "the exit code says it too: {}", said(&out));
    std::fs::remove_dir_all(config.archive().join("chunks")).unwrap();
    let bare = json(&config, &["list", "--json"]);
    assert_eq!(bare["bases"][0]["covered"], false);
    hold("base", &[planned, taken]);
    hold("drain", &drained);
    hold("list", &[whole, holes, bare]);
    hold("status", &[online, offline, gaps, judged, unprotected]);
    hold("verify", &[sound, deep, serde_json::from_slice(&out.stdout).unwrap()]);
}

#[test]
fn prune() {
    let (_server, mut config) = archived();
    config.ok(&["base"]);
    config.ok(&["base"]);
    let given_up = config.archive().join("bases/20251122T030000.000000Z-clone");
    std::fs::create_dir(&given_up).unwrap();
    std::fs::write(given_up.join("part-000001"), "part").unwrap();
    config.env("BINVAULT_RETENTION__BASES", "1");
    config.env("BINVAULT_RETENTION__GRACE", "0s");
    let would = json(&config, &["prune", "--dry-run", "--json"]);
    let done = json(&config, &["prune", "--json"]);
    assert_eq!((&would["removed"], done["bases"][1]["left_over"].as_bool()), (&done["removed"], Some(true)));
    // Without a base backup everything is kept.
    std::fs::remove_dir_all(config.archive().join("bases")).unwrap();
    let whole = json(&config, &["prune", "--json"]);
    hold("prune", &[would, done, whole]);
}

/// The status with the words of a further agent, whose commits wait until they are durable, and once did not.
fn with_a_lapse(config: &AgentConfig) -> Value {
    let agents = config.archive().join("agents");
    let text = std::fs::read_to_string(agents.join("main.json")).unwrap();
    let mut beacon: Value = serde_json::from_str(&text).unwrap();
    let lapse = |to_us: Value, gtids: Value| serde_json::json!({"from_us": 1_795_316_000_000_000_u64, "to_us": to_us, "reason": "made up", "commits": 3, "gtids": gtids});
    beacon["agent"] = "waited-for".into();
    beacon["semi_sync"] = serde_json::json!({
        "mode": "store", "protected": false, "since_us": 1_795_316_000_000_000_u64, "reason": "made up", "ever": true,
        "last_ack_us": 1_795_316_000_000_000_u64, "uncovered": 6, "lapses": [
            lapse(1_795_316_400_000_000_u64.into(), "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-3".into()),
            lapse(Value::Null, Value::Null),
        ],
    });
    beacon["spool"] =
        serde_json::json!({"dir": "/s", "objects": 2, "bytes": 3000, "oldest_us": 1_795_316_000_000_000_u64});
    beacon["verified"] = serde_json::json!({"at_us": 1_795_316_000_000_000_u64, "problem": "a bad chunk"});
    let planted = agents.join("waited-for.json");
    std::fs::write(&planted, beacon.to_string()).unwrap();
    let status = json(config, &["status", "--json", "--offline"]);
    let shown = config.ok(&["status", "--offline"]);
    assert!(shown.contains("2 objects, 2.93 KiB were not in the store yet"), "{shown}");
    assert!(shown.contains("NOT WHOLE") && shown.contains("a bad chunk"), "{shown}");
    assert!(shown.contains("NOT PROTECTED") && shown.contains("c80aa9429562:1-3"), "{shown}");
    std::fs::remove_file(planted).unwrap();
    status
}

/// What `drain` says of a spool that holds a copy of a chunk, before and behind.
fn drained(config: &AgentConfig, archive: &str) -> [Value; 2] {
    let spool = config.dir().join("spool");
    std::fs::create_dir(&spool).unwrap();
    let copied = std::process::Command::new("cp").arg("-r").arg(config.archive().join("chunks")).arg(&spool).status();
    assert!(copied.unwrap().success());
    std::fs::write(spool.join("spool.json"), format!("{{\"format\": 1, \"archive\": \"{archive}\"}}")).unwrap();
    let dir = spool.to_str().unwrap();
    let before = json(config, &["drain", "--dry-run", "--json", "--dir", dir]);
    let behind = json(config, &["drain", "--json", "--dir", dir]);
    assert_eq!(before["objects"], behind["objects"]);
    assert!(behind["objects"].as_u64() > Some(0), "{behind}");
    [before, behind]
}

/// A recorded break, as an agent writes it.
fn a_gap(config: &AgentConfig, server: &Mysqld) {
    let ends = serde_json::json!({"file": "binlog.000001", "offset": 400});
    let record = serde_json::json!({
        "schema": 1, "at_us": 1_795_316_000_000_000_u64, "agent": "main", "kind": "purged", "problem": "made up",
        "server": server.uuid(), "ends": ends, "goes_on_with": server.uuid(),
        "goes_on_at": {"file": "binlog.000003", "offset": 4},
        "missing": format!("{}:77", server.uuid()), "lost": "",
    });
    let folder = config.archive().join("gaps");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("20261122T025320.000000Z.json"), record.to_string()).unwrap();
    let shown = config.ok(&["status", "--offline"]);
    assert!(shown.contains("BREAK") && shown.contains(":77"), "{shown}");
}

/// Beside a good base backup: one that was given up, one that cannot be read, and a drill's record of the good one.
fn odd_bases(config: &AgentConfig, good: &str) {
    let write = |name: &str, text: &str| {
        let path = config.archive().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("bases/20200101T000000.000000Z-mysqldump/part-000001", "half");
    write("bases/20200101T000000.000001Z-mysqldump/manifest.json", "{}");
    let record = serde_json::json!({
        "schema": 1, "started_us": 1_795_316_000_000_000_u64, "finished_us": 1_795_316_400_000_000_u64, "ok": true,
        "base": good, "target": "latest", "position": null, "reached_us": 1_795_316_000_000_000_u64, "executed": null, "transactions": 0,
        "load_seconds": 1.0, "replay_seconds": 1.0, "seconds": 2.0, "base_bytes": 0, "binlog_bytes": 0, "tables": 0,
        "assertions": 0, "server_version": "9.7.4", "version": "0.1.0",
    });
    write("drills/20261122T025320.000000Z.json", &record.to_string());
    let mut failed = record;
    (failed["ok"], failed["problem"]) = (false.into(), "made up".into());
    write("drills/20261122T035320.000000Z.json", &failed.to_string());
}

/// Removes a chunk from the middle of the last file but one.
fn remove_a_chunk(config: &AgentConfig) {
    let mut all = Vec::new();
    let mut folders = vec![config.archive().join("chunks")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { all.push(path) }
        }
    }
    all.sort();
    assert!(all.len() > 4, "{all:?}");
    std::fs::remove_file(&all[all.len() - 3]).unwrap();
}

#[test]
fn find() {
    let (_server, config) = archived();
    let key = config.identity();
    let key = key.to_str().unwrap();
    let find = |more: &[&str]| json(&config, &[&["find", "--json", "--identity", key], more].concat());
    let whole = find(&[]);
    let last = whole["transactions"].as_array().unwrap().last().unwrap();
    assert_eq!(whole["restore"]["to"], format!("gtid:{}", last["gtid"].as_str().unwrap()));
    let nothing = find(&["--table", "no.where"]);
    assert_eq!((&nothing["transactions"], &nothing["restore"]), (&Value::Array(Vec::new()), &Value::Null));
    remove_a_chunk(&config);
    let holed = find(&[]);
    assert!(!holed["not_searched"].as_array().unwrap().is_empty(), "{holed}");
    hold("find", &[whole, nothing, holed]);
}

#[test]
fn restore_and_drill() {
    // A server of its own: the others' tests rely on nobody writing to theirs.
    let server = Mysqld::start("cli-restore", &[]);
    server.create_agent_user("binvault", PASSWORD);
    server.grant_base("binvault");
    server.sql("CREATE DATABASE d; CREATE TABLE d.t (v LONGTEXT); INSERT INTO d.t VALUES ('a')");
    let dump = super::support::lab::bin().join("mysqldump");
    let config = AgentConfig::with_extra(&server, &format!("[base]\nmysqldump = \"{}\"\n", dump.display()));
    config.archive_now();
    json(&config, &["base", "--json"]);
    server.sql("INSERT INTO d.t VALUES ('behind the base'); INSERT INTO d.t VALUES ('the last one')");
    config.archive_now();
    let (key, mysqld) = (config.identity(), super::support::lab::bin().join("mysqld"));
    let (key, mysqld) = (key.to_str().unwrap(), mysqld.to_str().unwrap());
    let gtid = format!("gtid:{}", server.value("SELECT SUBSTRING_INDEX(@@gtid_executed, ':', 1)"));
    let last = server.value("SELECT REGEXP_SUBSTR(@@gtid_executed, '[0-9]+$')");
    let (to, nothing) = (format!("{gtid}:{last}"), format!("{}:999999", &gtid[5..]));
    let plan =
        ["restore", "--to", &to, "--before", "--dry-run", "--json", "--identity", key, "--skip", nothing.as_str()];
    let plan = json(&config, &plan);
    assert_eq!((&plan["transactions"], &plan["left_out"]["gtid"]), (&1.into(), &to[5..].into()), "{plan}");
    let place = config.dir().join("restored");
    let restore = ["restore", "--to", "latest", "--datadir", place.to_str().unwrap(), "--identity", key];
    let restored = json(&config, &[&restore[..], &["--json", "--mysqld", mysqld, "--keep-running"]].concat());
    let mut admin = super::support::lab::tool("mysqladmin");
    admin.arg("-uroot").arg(format!("--socket={}", restored["socket"].as_str().unwrap())).arg("shutdown");
    assert!(admin.status().unwrap().success());
    let drill = ["drill", "--json", "--identity", key, "--mysqld", mysqld, "--folder", config.dir().to_str().unwrap()];
    let held = json(&config, &drill);
    config.edit("[base]\n", "[drill]\nassertions = [{ sql = \"SELECT 0\" }]\n[base]\n");
    let failed = json(&config, &drill);
    assert_eq!((&held["ok"], &failed["ok"]), (&true.into(), &false.into()));
    hold("restore", &[plan, restored]);
    hold("drill", &[held, failed]);
}

#[test]
fn export() {
    let (server, config) = archived();
    let (key, to) = (config.identity(), config.dir().join("out"));
    let (key, to) = (key.to_str().unwrap(), to.to_str().unwrap());
    let planned = json(&config, &["export", "--to", to, "--dry-run", "--json"]);
    assert!(!std::path::Path::new(to).exists(), "a plan writes nothing");
    let done = json(&config, &["export", "--to", to, "--json", "--identity", key]);
    let names = |document: &Value| {
        document["files"]
            .as_array()
            .unwrap()
            .iter()
            .map(|file| file["path"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&planned), names(&done), "the plan is what is done");
    assert_eq!(names(&done).len(), server.binlogs().len());
    super::support::compare::assert_exported(&server, std::path::Path::new(to));
    hold("export", &[planned, done]);
}

#[test]
fn an_archive_without_chunks_is_a_document_too() {
    let (_server, config) = archived();
    std::fs::remove_dir_all(config.archive().join("chunks")).unwrap();
    std::fs::remove_dir_all(config.archive().join("agents")).unwrap();
    assert_eq!(json(&config, &["status", "--json"])["servers"], Value::Array(Vec::new()));
    assert_eq!(json(&config, &["list", "--json"])["files"], Value::Array(Vec::new()));
    assert_eq!(json(&config, &["verify", "--json"])["files"], 0);
}
