//! The oracle: what stock tools make of the source's own files. None of our own code.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::support::lab::{Mysqld, tool};

/// A transaction, as stock `mysqlbinlog` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) file: String,
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// `None` for an anonymous one.
    pub(crate) gtid: Option<String>,
    pub(crate) commit_us: u64,
}

/// The source's history: copies of its files, and their transactions in order.
pub(crate) struct History {
    /// Where the copies are, if they were made for this.
    _dir: Option<tempfile::TempDir>,
    files: Vec<PathBuf>,
    pub(crate) seen: Vec<Seen>,
}

impl History {
    /// Copies all files of a server that nobody writes to at the moment.
    pub(crate) fn of(server: &Mysqld) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Vec::new();
        for file in server.binlogs() {
            let to = dir.path().join(file.file_name().unwrap());
            std::fs::copy(&file, &to).unwrap();
            files.push(to);
        }
        Self { _dir: Some(dir), ..Self::of_files(files) }
    }

    /// Files in order that nobody writes to at the moment.
    pub(crate) fn of_files(files: Vec<PathBuf>) -> Self {
        let seen = files.iter().flat_map(|file| transactions(file)).collect();
        Self { _dir: None, files, seen }
    }

    /// Index of the first transaction that a predicate is true of; all if of none.
    pub(crate) fn until(&self, stop: impl Fn(&Seen) -> bool) -> usize {
        self.seen.iter().position(stop).unwrap_or(self.seen.len())
    }

    /// GTIDs of transactions as a set, as short as a server writes it.
    pub(crate) fn set(&self, server: &Mysqld, range: std::ops::Range<usize>) -> String {
        let gtids: Vec<&str> = self.seen[range].iter().filter_map(|seen| seen.gtid.as_deref()).collect();
        server.value(&format!("SELECT GTID_SUBTRACT('{}', '')", gtids.join(","))).replace('\n', "")
    }

    /// Applies some transactions to a server with `mysqlbinlog | mysql`. With GTIDs by their set, else by position.
    pub(crate) fn apply(&self, to: &Mysqld, range: std::ops::Range<usize>) {
        if range.is_empty() {
            return;
        }
        let mut command = tool("mysqlbinlog");
        let chosen = &self.seen[range.clone()];
        if chosen.iter().all(|seen| seen.gtid.is_some()) {
            let set = self.set(to, range.clone());
            command.arg(format!("--include-gtids={set}")).args(&self.files);
        } else {
            let (first, last) = (&chosen[0], &chosen[chosen.len() - 1]);
            command.arg(format!("--start-position={}", first.start)).arg(format!("--stop-position={}", last.end));
            let name = |path: &&PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
            let within =
                self.files.iter().filter(|path| (first.file.clone()..=last.file.clone()).contains(&name(path)));
            command.args(within);
        }
        let mut source = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = source.stdout.take().unwrap();
        to.sql_stream(|input| std::io::copy(&mut stdout, input).map(|_| ()));
        assert!(source.wait().unwrap().success(), "mysqlbinlog failed");
    }
}

/// What stock `mysqlbinlog` says of one file.
pub(crate) fn transactions(file: &Path) -> Vec<Seen> {
    let out = tool("mysqlbinlog").arg("--base64-output=decode-rows").arg(file).output().unwrap();
    assert!(out.status.success(), "mysqlbinlog {}", file.display());
    let text = String::from_utf8_lossy(&out.stdout);
    let name = file.file_name().unwrap().to_str().unwrap();
    let mut seen: Vec<Seen> = Vec::new();
    let mut at = 0;
    let field = |line: &str, name: &str| -> Option<u64> {
        let rest = line.split_once(name)?.1;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    for line in text.lines() {
        if let Some(offset) = line.strip_prefix("# at ") {
            at = offset.trim().parse().unwrap_or(at);
        } else if line.starts_with('#') && (line.contains("\tGTID\t") || line.contains("\tAnonymous_GTID\t")) {
            let length = field(line, "transaction_length=").unwrap();
            let commit_us = field(line, "immediate_commit_timestamp=").unwrap();
            seen.push(Seen { file: name.to_owned(), start: at, end: at + length, gtid: None, commit_us });
        } else if let Some(rest) = line.strip_prefix("SET @@SESSION.GTID_NEXT= '") {
            let gtid = rest.split('\'').next().unwrap();
            if let Some(last) = seen.last_mut().filter(|last| last.gtid.is_none() && gtid.contains(':')) {
                last.gtid = Some(gtid.to_owned());
            }
        }
    }
    seen
}

/// What a server holds: each table with its checksum, each routine, trigger, view and event, and the accounts.
pub(crate) fn fingerprint(sql: impl Fn(&str) -> String) -> String {
    const NOT_SYSTEM: &str = "NOT IN ('mysql', 'information_schema', 'performance_schema', 'sys')";
    let tables = sql(&format!(
        "SELECT CONCAT('`', table_schema, '`.`', table_name, '`') FROM information_schema.tables
         WHERE table_type = 'BASE TABLE' AND table_schema {NOT_SYSTEM} ORDER BY 1"
    ));
    let mut text = String::new();
    let names: Vec<&str> = tables.lines().collect();
    if !names.is_empty() {
        text.push_str(&sql(&format!("CHECKSUM TABLE {}", names.join(", "))));
    }
    for query in [
        "SELECT 'view', table_schema, table_name FROM information_schema.views WHERE table_schema",
        "SELECT 'routine', routine_schema, routine_name FROM information_schema.routines WHERE routine_schema",
        "SELECT 'trigger', trigger_schema, trigger_name FROM information_schema.triggers WHERE trigger_schema",
        "SELECT 'event', event_schema, event_name FROM information_schema.events WHERE event_schema",
        "SELECT 'schema', schema_name, default_collation_name FROM information_schema.schemata WHERE schema_name",
    ] {
        let _ = write!(text, "{}", sql(&format!("{query} {NOT_SYSTEM} ORDER BY 1, 2, 3")));
    }
    text
}
