//! The judges: `age`, `zstd`, `mysql` and `mysqlbinlog`, none of our own code.

use crate::support::agent::AgentConfig;
use crate::support::lab::{Mysqld, tool};
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The backup's bytes, made of its parts by `age -d | zstd -d`, in the order of their names.
pub(crate) fn unpack(config: &AgentConfig, id: &str, to: &Path) {
    let folder = config.archive().join("bases").join(id);
    let mut parts: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    parts.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("part-"));
    parts.sort();
    assert!(!parts.is_empty(), "no parts of {id}");
    let out = File::create(to).unwrap();
    for part in parts {
        let mut age =
            tool("age").arg("-d").arg("-i").arg(config.identity()).arg(&part).stdout(Stdio::piped()).spawn().unwrap();
        let input = age.stdout.take().unwrap();
        let mut zstd = tool("zstd");
        let unpacked = zstd.args(["-d", "-q", "-c"]).stdin(input).stdout(out.try_clone().unwrap()).status().unwrap();
        assert!(unpacked.success(), "zstd -d of {}", part.display());
        assert!(age.wait().unwrap().success(), "age -d of {}", part.display());
    }
}

/// A second server with the backup loaded by the stock client.
pub(crate) fn loaded(hint: &str, sql: &Path, options: &[&str]) -> Mysqld {
    let server = Mysqld::start(hint, &[&["--server-id=99", "--event-scheduler=OFF"], options].concat());
    run(server.client().stdin(File::open(sql).unwrap()), "mysql");
    server
}

fn run(command: &mut Command, what: &str) {
    let out = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    assert!(out.status.success(), "{what}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Replays everything behind a position, whatever was executed: `mysqlbinlog --skip-gtids | mysql`. A transaction too
/// many fails on a duplicate or missing row, one too few leaves its rows out.
pub(crate) fn replay(from: &Mysqld, to: &Mysqld, file: &str, position: u64) {
    let mut files = from.binlogs();
    files.retain(|path| path.file_name().unwrap().to_str().unwrap() >= file);
    let script = to.scratch().join("replay.sql");
    let mut binlog = tool("mysqlbinlog");
    binlog.args(["--skip-gtids", &format!("--start-position={position}")]).args(&files);
    let status = binlog.stdout(File::create(&script).unwrap()).status().unwrap();
    assert!(status.success(), "mysqlbinlog {files:?}");
    run(to.client().arg("--binary-mode").stdin(File::open(script).unwrap()), "mysqlbinlog | mysql");
}

/// How many GTIDs the server's files hold before a position, as `mysqlbinlog` shows them.
pub(crate) fn gtids_before(server: &Mysqld, file: &str, position: u64) -> usize {
    let mut count = 0;
    for path in server.binlogs() {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.as_str() > file {
            continue;
        }
        let mut binlog = tool("mysqlbinlog");
        if name == file {
            binlog.arg(format!("--stop-position={position}"));
        }
        let out = binlog.args(["--base64-output=decode-rows"]).arg(path).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        count +=
            text.lines().filter(|line| line.starts_with("SET @@SESSION.GTID_NEXT= '") && line.contains(':')).count();
    }
    count
}

/// Checksums of every table outside the server's own schemas.
pub(crate) fn checksums(server: &Mysqld) -> String {
    let tables = server.sql(
        "SELECT CONCAT('`', table_schema, '`.`', table_name, '`') FROM information_schema.tables
         WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')
         ORDER BY 1",
    );
    let list: Vec<&str> = tables.lines().collect();
    assert!(!list.is_empty());
    server.sql(&format!("CHECKSUM TABLE {}", list.join(", ")))
}

/// Everything that is not rows: accounts with their passwords and rights, routines, triggers, events, views.
pub(crate) fn definitions(server: &Mysqld) -> String {
    server.sql(
        "SELECT user, host, plugin, HEX(authentication_string), account_locked FROM mysql.user ORDER BY 1, 2;
         SELECT * FROM mysql.global_grants ORDER BY 1, 2, 3; SELECT * FROM mysql.role_edges ORDER BY 1, 2, 3, 4;
         SELECT * FROM mysql.default_roles ORDER BY 1, 2, 3, 4; SELECT db, user, host, select_priv FROM mysql.db ORDER BY 1, 2, 3;
         SELECT routine_schema, routine_name, routine_definition, definer FROM information_schema.routines
           WHERE routine_schema NOT IN ('sys') ORDER BY 1, 2;
         SELECT trigger_schema, trigger_name, action_statement FROM information_schema.triggers
           WHERE trigger_schema NOT IN ('sys') ORDER BY 1, 2;
         SELECT event_schema, event_name, event_definition, interval_value FROM information_schema.events ORDER BY 1, 2;
         SELECT table_schema, table_name, view_definition FROM information_schema.views
           WHERE table_schema NOT IN ('sys') ORDER BY 1, 2;",
    )
}

/// File and offset of a document's position.
pub(crate) fn place(position: &Value) -> (String, u64) {
    (position["file"].as_str().unwrap().to_owned(), position["offset"].as_u64().unwrap())
}
