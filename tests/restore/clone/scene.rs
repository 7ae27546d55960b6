//! A donor with a table of every kind that InnoDB stores in a way of its own, and a server for reference without any clone.

use std::path::{Path, PathBuf};

use crate::place::arguments;
use crate::support::agent::{AgentConfig, PASSWORD, said};
use crate::support::keyring;
use crate::support::lab::Mysqld;

/// Tables with the same columns, each stored in another way: name, options. `EXTERNAL` is a folder of the donor's.
pub(crate) const KINDS: &[(&str, &str)] = &[
    ("plain", ""),
    ("zip", "ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=8"),
    ("zipsmall", "ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=4"),
    ("pagezlib", "COMPRESSION='zlib'"),
    ("pagelz4", "COMPRESSION='lz4'"),
    ("secret", "ENCRYPTION='Y'"),
    ("secretzip", "ENCRYPTION='Y' ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=8"),
    ("secretpage", "ENCRYPTION='Y' COMPRESSION='zlib'"),
    ("redundant", "ROW_FORMAT=REDUNDANT"),
    ("parts", "PARTITION BY HASH (id) PARTITIONS 4"),
    ("general", "TABLESPACE ts_near"),
    ("generalzip", "TABLESPACE ts_zip ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=8"),
    ("generalsecret", "TABLESPACE ts_secret ENCRYPTION='Y'"),
    ("generalfar", "TABLESPACE ts_far"),
    ("shared", "TABLESPACE innodb_system"),
    ("far", "DATA DIRECTORY='EXTERNAL'"),
    ("farsecret", "ENCRYPTION='Y' DATA DIRECTORY='EXTERNAL'"),
    (
        "farparts",
        "PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (1000) DATA DIRECTORY='EXTERNAL', \
         PARTITION p1 VALUES LESS THAN MAXVALUE)",
    ),
    ("words", "FULL"),
];

/// Rows of each at first.
const ROWS: usize = 2000;

/// Makes the tables, without a trace in the binlog: the reference has them where it likes.
fn tables(server: &Mysqld, external: Option<&Path>) {
    let far = external.map(|folder| folder.display().to_string());
    let file = |name: &str| match &far {
        Some(folder) => format!("{folder}/{name}.ibd"),
        None => format!("{name}.ibd"),
    };
    let mut script = format!(
        "SET SESSION sql_log_bin = 0; SET SESSION cte_max_recursion_depth = 100000;
         CREATE DATABASE kinds; CREATE DATABASE empty_schema; USE kinds;
         CREATE TABLESPACE ts_near ADD DATAFILE 'ts_near.ibd';
         CREATE TABLESPACE ts_zip ADD DATAFILE 'ts_zip.ibd' FILE_BLOCK_SIZE=8192;
         CREATE TABLESPACE ts_secret ADD DATAFILE 'ts_secret.ibd' ENCRYPTION='Y';
         CREATE TABLESPACE ts_far ADD DATAFILE '{}';
         CREATE UNDO TABLESPACE undo_mine ADD DATAFILE 'undo_mine.ibu';
         CREATE TABLE isam (id INT PRIMARY KEY) ENGINE=MyISAM;\n",
        file("ts_far")
    );
    for (name, options) in KINDS {
        let (key, options) = if *options == "FULL" { (", FULLTEXT (body)", "") } else { ("", *options) };
        let options = match &far {
            Some(folder) => options.replace("EXTERNAL", folder),
            None => options.replace("DATA DIRECTORY='EXTERNAL'", ""),
        };
        script.push_str(&format!(
            "CREATE TABLE {name} (id INT NOT NULL, k INT NOT NULL, body VARCHAR(2000) NOT NULL, PRIMARY KEY (id), KEY (k){key}) {options};
             INSERT INTO {name} WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
               SELECT i, i * 7 % 1000, CONCAT_WS(' ', 'word', i, SHA2(i, 256), REPEAT(SHA2(i * 3, 256), i % 9)) FROM n;\n"
        ));
    }
    server.sql(&script);
}

/// A donor with everything, its archive, and a program that restores what is encrypted.
pub(crate) struct Scene {
    pub(crate) source: Mysqld,
    pub(crate) config: AgentConfig,
    /// Folder of what lies outside the donor's data directory.
    pub(crate) external: tempfile::TempDir,
    programs: tempfile::TempDir,
}

impl Scene {
    pub(crate) fn new(hint: &str) -> Self {
        let external = tempfile::Builder::new().prefix("bvx").tempdir().unwrap();
        let directories = format!("--innodb-directories={}", external.path().display());
        let options =
            ["--plugin-load-add=mysql_clone.so", "--innodb-redo-log-encrypt=ON", "--innodb-undo-log-encrypt=ON"];
        let source = Mysqld::start_with_keyring(hint, &[&options[..], &[directories.as_str()]].concat());
        source.create_agent_user("binvault", PASSWORD);
        source.grant_base("binvault");
        tables(&source, Some(external.path()));
        source.sql(
            "SET SESSION sql_log_bin = 0; ALTER TABLESPACE mysql ENCRYPTION='Y'; INSERT INTO kinds.isam VALUES (1)",
        );
        let config = AgentConfig::with_extra(&source, "[agent]\nchunk_size = \"256KiB\"\nflush_interval = \"200ms\"");
        config.source("tls = \"required\"");
        let programs = tempfile::Builder::new().prefix("bvp").tempdir().unwrap();
        keyring::local_program(programs.path());
        Self { source, config, external, programs }
    }

    /// A server that has the same tables, and then follows the donor's binlog by stock tools.
    pub(crate) fn reference(hint: &str) -> Mysqld {
        let server = Mysqld::start_with_keyring(hint, &["--server-id=77"]);
        tables(&server, None);
        server
    }

    /// The program that restores.
    pub(crate) fn mysqld(&self) -> String {
        self.programs.path().join("mysqld").display().to_string()
    }

    /// The files outside the donor's data directory with their sizes and times: nobody else may touch them.
    pub(crate) fn external_files(&self) -> Vec<(PathBuf, u64)> {
        let mut all = Vec::new();
        let mut folders = vec![self.external.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => all.push((path.clone(), std::os::unix::fs::MetadataExt::ino(&path.metadata().unwrap()))),
                }
            }
        }
        all.sort();
        all
    }
}

/// Takes a clone; its id and the manifest.
pub(crate) fn clone(config: &AgentConfig) -> (String, serde_json::Value) {
    let out = config.output(&["base", "--engine", "clone", "--json"]);
    assert!(out.status.success(), "base ended with {}:\n{}", out.status, said(&out));
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let id = report["base"]["id"].as_str().unwrap_or_else(|| panic!("{report}")).to_owned();
    let manifest = std::fs::read(config.archive().join("bases").join(&id).join("manifest.json")).unwrap();
    (id, serde_json::from_slice(&manifest).unwrap())
}

/// Arguments of a restore, with a program of the caller's. The later one of two options counts.
pub(crate) fn with_program(
    config: &AgentConfig,
    to: &str,
    datadir: &Path,
    program: &str,
    more: &[&str],
) -> Vec<String> {
    let mut all = arguments(config, to, datadir, more);
    let at = all.iter().position(|argument| argument == "--mysqld").unwrap();
    all[at + 1] = program.to_owned();
    all
}

/// A small donor without a keyring.
pub(crate) fn plain(hint: &str, rows: usize, options: &[&str]) -> (Mysqld, AgentConfig) {
    let source = Mysqld::start(hint, &[&["--plugin-load-add=mysql_clone.so"], options].concat());
    source.create_agent_user("binvault", PASSWORD);
    source.grant_base("binvault");
    source.sql(&format!(
        "CREATE DATABASE shop; CREATE TABLE shop.orders (id INT PRIMARY KEY AUTO_INCREMENT, what VARCHAR(40));
         INSERT INTO shop.orders (what) VALUES ('one'), ('two'), ('three');
         CREATE TABLE shop.bulk (id INT PRIMARY KEY, body VARCHAR(2000));
         SET SESSION cte_max_recursion_depth = 1000000;
         INSERT INTO shop.bulk WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
           SELECT i, CONCAT(SHA2(i, 512), SHA2(i + 1, 512), SHA2(i + 2, 512), SHA2(i + 3, 512)) FROM n"
    ));
    let config = AgentConfig::new(&source);
    config.archive_now();
    (source, config)
}
