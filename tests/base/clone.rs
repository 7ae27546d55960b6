//! Base backups by MySQL's CLONE protocol: whole, exact, refused with reason, and given up cleanly.

mod broken_store;
mod killed;
mod paced;
mod proxy;
mod refused;
mod slow;
mod stream;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use self::stream::Stream;
use crate::scene::{list, take};
use crate::stock::{gtids_before, place, unpack};
use crate::support::agent::{AgentConfig, PASSWORD};
use crate::support::lab::Mysqld;
use crate::support::load::{Load, Pace};

/// Loads the plugin at the start.
pub(super) const PLUGIN: &str = "--plugin-load-add=mysql_clone.so";

/// A server that gives clones, and an account that may take them, and no more.
pub(super) fn donor(hint: &str, options: &[&str]) -> Mysqld {
    let server = Mysqld::start(hint, &[&[PLUGIN], options].concat());
    account(&server);
    server
}

pub(super) fn account(server: &Mysqld) {
    server.create_agent_user("binvault", PASSWORD);
    server.sql("SET SESSION sql_log_bin = 0; GRANT BACKUP_ADMIN ON *.* TO binvault@'%'");
}

/// A configuration that archives into a folder; `base` stands in `[base]`. Nothing of mysqldump.
pub(super) fn config(server: &Mysqld, base: &str) -> AgentConfig {
    AgentConfig::with_extra(server, &format!("[base]\n{base}\n"))
}

/// The manifest of a backup.
pub(super) fn manifest(config: &AgentConfig, id: &str) -> Value {
    let path = config.archive().join("bases").join(id).join("manifest.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The donor's answers, unpacked by stock tools and taken apart by the test itself.
pub(super) fn stream(config: &AgentConfig, id: &str) -> Stream {
    let path = config.dir().join("clone.stream");
    unpack(config, id, &path);
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(bytes.len() as u64, manifest(config, id)["raw_bytes"].as_u64().unwrap());
    Stream::parse(&bytes)
}

/// Connections of clones that the donor has.
pub(super) fn clones(server: &Mysqld) -> usize {
    server.sql("SHOW PROCESSLIST").lines().filter(|line| line.contains("lone")).count()
}

/// A table `d.t` with so many rows of 7 KiB, two to a page, that nothing can shrink.
pub(super) fn bulk(server: &Mysqld, rows: u32) {
    let bytes = ["RANDOM_BYTES(1024)"; 7].join(", ");
    server.sql(&format!(
        "CREATE DATABASE d; SET SESSION cte_max_recursion_depth = {rows};
         CREATE TABLE d.t (id INT PRIMARY KEY AUTO_INCREMENT, n INT NOT NULL DEFAULT 0, v VARBINARY(7200));
         INSERT INTO d.t (v) WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
           SELECT CONCAT({bytes}) FROM n"
    ));
}

/// Whether the donor archives redo for a clone, or has kept some of it.
pub(super) fn archived_redo(server: &Mysqld) -> u64 {
    fn bytes(folder: &Path) -> u64 {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .map(|entry| {
                let path = entry.path();
                // The donor may remove it while we look.
                if path.is_dir() { bytes(&path) } else { path.metadata().map_or(0, |meta| meta.len()) }
            })
            .sum()
    }
    let groups = std::fs::read_dir(server.datadir().join("#ib_archive")).into_iter().flatten().flatten();
    groups
        .filter(|group| group.file_name().to_string_lossy().starts_with("log_"))
        .map(|group| bytes(&group.path()))
        .sum()
}

/// Changes definitions for as long as `until` is false: tables made, renamed, rebuilt, emptied, dropped, partitioned.
fn ddl(server: &Mysqld, until: &AtomicBool) -> u32 {
    let mut rounds = 0_u32;
    while !until.load(Ordering::Relaxed) {
        server.sql(&format!(
            "CREATE TABLE ddl.a{rounds} (id INT PRIMARY KEY, v VARCHAR(200)); INSERT INTO ddl.a{rounds} VALUES (1, 'x');
             CREATE TABLE ddl.p{rounds} (id INT PRIMARY KEY) PARTITION BY HASH (id) PARTITIONS 3;
             INSERT INTO ddl.p{rounds} VALUES (1), (2), (3);
             RENAME TABLE ddl.a{rounds} TO ddl.b{rounds}; ALTER TABLE ddl.b{rounds} ENGINE=InnoDB;
             ALTER TABLE ddl.p{rounds} ADD PARTITION PARTITIONS 2; TRUNCATE ddl.b{rounds};
             INSERT INTO ddl.b{rounds} VALUES (2, 'y');
             DROP TABLE IF EXISTS ddl.b{old}, ddl.p{old};",
            old = rounds.saturating_sub(3)
        ));
        rounds += 1;
    }
    rounds
}

#[test]
fn a_clone_under_load_and_ddl_is_whole_and_stands_at_a_transactions_end() {
    let server = donor("clone", &["--max-binlog-size=2M"]);
    server.sql(
        "CREATE DATABASE ddl; CREATE DATABASE kinds; USE kinds;
         CREATE TABLE zipped (id INT PRIMARY KEY, v TEXT) ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=8;
         INSERT INTO zipped VALUES (1, REPEAT('z', 5000)); CREATE TABLE words (id INT PRIMARY KEY, t TEXT, FULLTEXT (t));
         INSERT INTO words VALUES (1, 'some words'); CREATE TABLE own (id INT PRIMARY KEY) ENGINE=MyISAM;
         CREATE UNDO TABLESPACE more ADD DATAFILE 'more.ibu'",
    );
    let load = Load::start(&server, 2, Pace::PerSecond(600));
    load.wait_for(200);
    let config = config(&server, "engine = \"clone\"\nmax_rate = \"40MiB\"\npart_size = \"1MiB\"");
    let stop = AtomicBool::new(false);
    let (before, bounds) = (load.transactions(), server.position());
    let (taken, rounds) = std::thread::scope(|scope| {
        let changing = scope.spawn(|| ddl(&server, &stop));
        let taken: Vec<Value> = (0..2).map(|_| take(&config)).collect();
        stop.store(true, Ordering::Relaxed);
        (taken, changing.join().unwrap())
    });
    assert!(load.transactions() > before && rounds > 0, "nothing was written while the clones were taken");
    load.stop();
    let end = server.position();
    for document in &taken {
        let base = &document["base"];
        let id = base["id"].as_str().unwrap();
        let (file, offset) = place(&base["position"]);
        assert!((&bounds.0, bounds.1) <= (&file, offset) && (&file, offset) <= (&end.0, end.1), "{base}");
        let count = gtids_before(&server, &file, offset);
        assert_eq!(base["executed"].as_str().unwrap(), format!("{}:1-{count}", server.uuid()), "{file}:{offset}");
        let stream = stream(&config, id);
        stream.is_whole();
        let manifest = manifest(&config, id);
        assert_eq!((&manifest["content"], &manifest["engine"]), (&"clone".into(), &"clone".into()));
        let facts = &manifest["clone"];
        assert_eq!(facts["innodb_page_size"], 16_384);
        assert!(facts["disk_bytes"].as_u64().unwrap() >= stream.file_bytes(), "{facts}");
        assert_eq!((&facts["encrypted"], facts["compile_os"].as_str()), (&false.into(), Some("Linux")));
        assert_eq!(manifest["settings"]["innodb_data_file_path"], "ibdata1:12M:autoextend");
        println!("{id} at {file}:{offset}, {} rounds of DDL, {facts}", rounds);
    }
    let left_out: Vec<&str> =
        taken[0]["left_out"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert!(left_out.contains(&"my.cnf") && left_out.contains(&"keyring"), "{left_out:?}");
    config.archive_now();
    for base in list(&config)["bases"].as_array().unwrap() {
        assert_eq!((&base["engine"], &base["covered"]), (&"clone".into(), &true.into()), "{base}");
    }
    assert_eq!(archived_redo(&server), 0);
}

#[test]
fn a_quiet_server_is_cloned_at_the_very_end_of_its_binlog_and_by_default() {
    let server = donor("clone-quiet", &[]);
    server.sql("CREATE DATABASE d; CREATE TABLE d.t (id INT PRIMARY KEY); INSERT INTO d.t VALUES (1)");
    let config = config(&server, "");
    config.archive_now();
    let plan: Value = serde_json::from_str(&config.ok(&["base", "--dry-run", "--json"])).unwrap();
    assert_eq!((&plan["engine"], &plan["reason"]), (&"clone".into(), &"the server gives a clone".into()), "{plan}");
    for _ in 0..2 {
        server.sql("FLUSH BINARY LOGS; INSERT INTO d.t SELECT MAX(id) + 1 FROM d.t");
        let document = take(&config);
        assert_eq!(place(&document["base"]["position"]), server.position());
        assert_eq!(document["engine"], "clone");
    }
    // Without DDL: the donor holds it back.
    config.edit("[base]\n", "[base]\nddl = \"lock\"\n");
    take(&config);
    // Rows that would be lost: then it is no default, and a dump has them.
    server.sql("GRANT SELECT ON *.* TO binvault@'%'; CREATE TABLE d.own (id INT PRIMARY KEY) ENGINE=MyISAM");
    config.edit("[base]\n", &format!("[base]\n{}", crate::scene::tool_line(&crate::scene::mysqldump())));
    let text = config.ok(&["base", "--dry-run"]);
    assert!(text.contains("engine   mysqldump") && text.contains("1 MyISAM table"), "{text}");
    let plan: Value = serde_json::from_str(&config.ok(&["base", "--dry-run", "--json", "--engine", "clone"])).unwrap();
    let left_out = plan["left_out"].as_array().unwrap();
    assert!(left_out.contains(&"rows of 1 MyISAM table".into()), "{plan}");
}
