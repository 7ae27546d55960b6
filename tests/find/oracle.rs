//! What the stock tool says of a server's files.

use std::collections::BTreeMap;
use std::path::Path;

use crate::support::lab::{Mysqld, tool};

/// A transaction as `mysqlbinlog -vv` prints it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) file: String,
    pub(crate) start: u64,
    pub(crate) bytes: u64,
    pub(crate) commit_us: u64,
    pub(crate) gtid: Option<String>,
    /// Rows inserted, updated and deleted, by table.
    pub(crate) rows: BTreeMap<String, [u64; 3]>,
    /// All it prints, for statements to be looked up in.
    pub(crate) text: String,
}

/// All transactions of all files of a server, in order.
pub(crate) fn all(server: &Mysqld) -> Vec<Told> {
    server.binlogs().iter().flat_map(|file| of_file(file)).collect()
}

fn of_file(path: &Path) -> Vec<Told> {
    let out = tool("mysqlbinlog").args(["-vv", "--base64-output=decode-rows"]).arg(path).output().unwrap();
    assert!(out.status.success(), "mysqlbinlog: {}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let file = path.file_name().unwrap().to_str().unwrap();
    let mut all: Vec<Told> = Vec::new();
    let mut at = 0;
    for line in text.lines() {
        if let Some(position) = line.strip_prefix("# at ") {
            at = position.parse().unwrap();
        } else if line.starts_with('#') && line.contains("\timmediate_commit_timestamp=") {
            let field = |name: &str| -> u64 {
                let rest = line.split(&format!("{name}=")).nth(1).unwrap_or_else(|| panic!("no {name}: {line}"));
                rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
            };
            all.push(Told {
                file: file.to_owned(),
                start: at,
                bytes: field("transaction_length"),
                commit_us: field("immediate_commit_timestamp"),
                ..Told::default()
            });
        }
        let Some(told) = all.last_mut() else { continue };
        told.text.push_str(line);
        told.text.push('\n');
        if let Some(gtid) = line.strip_prefix("SET @@SESSION.GTID_NEXT= '") {
            let gtid = gtid.split('\'').next().unwrap();
            if !matches!(gtid, "ANONYMOUS" | "AUTOMATIC") {
                told.gtid = Some(gtid.to_owned());
            }
        }
        let actions = [("### INSERT INTO ", 0), ("### UPDATE ", 1), ("### DELETE FROM ", 2)];
        for (prefix, action) in actions {
            if let Some(table) = line.strip_prefix(prefix) {
                told.rows.entry(table.replace('`', "")).or_default()[action] += 1;
            }
        }
    }
    all
}
