//! Every transaction of every kind: place, time, GTID, size, tables and rows are those that the stock tool tells.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::oracle::{self, Told};
use crate::support::lab::Mysqld;
use crate::support::workload::named;
use crate::{Archived, KINDS, archive, transactions, with_gtids};

/// Holds all that `find` finds against the stock tool.
fn hold(archived: &Archived) {
    let document = archived.find(&["--limit", "100000"]);
    assert_eq!(document["limited"], false);
    assert_eq!(document["not_searched"].as_array().unwrap().len(), 0, "{}", document["not_searched"]);
    let told = oracle::all(&archived.server);
    let found = transactions(&document);
    for (told, found) in told.iter().zip(found) {
        hold_one(told, found);
    }
    assert_eq!(found.len(), told.len());
    let bytes: u64 = archived.server.binlogs().iter().map(|file| file.metadata().unwrap().len()).sum();
    assert_eq!(document["scanned_bytes"], bytes);
}

fn hold_one(told: &Told, found: &Value) {
    let what = format!("{}:{}\n{found:#}\n{}", told.file, told.start, told.text.chars().take(3000).collect::<String>());
    assert_eq!(
        (found["file"].as_str(), found["start"].as_u64()),
        (Some(told.file.as_str()), Some(told.start)),
        "{what}"
    );
    assert_eq!(
        (found["bytes"].as_u64(), found["commit_us"].as_u64()),
        (Some(told.bytes), Some(told.commit_us)),
        "{what}"
    );
    assert_eq!(found["gtid"].as_str(), told.gtid.as_deref(), "{what}");
    assert_eq!((&found["complete"], &found["unread_events"]), (&Value::Bool(true), &Value::from(0)), "{what}");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let number = |value: &Value| value.as_u64().unwrap();
    let counts = |value: &Value| ["inserted", "updated", "deleted"].map(|name| number(&value[name]));
    assert_eq!(found["rows_exact"], true, "{what}");
    let mut rows = BTreeMap::new();
    for table in found["tables"].as_array().unwrap() {
        let counts = counts(table);
        if counts != [0; 3] {
            rows.insert(format!("{}.{}", text(&table["schema"]), text(&table["table"])), counts);
        }
    }
    let sum = rows.values().fold([0; 3], |sum: [u64; 3], rows| [sum[0] + rows[0], sum[1] + rows[1], sum[2] + rows[2]]);
    assert_eq!(counts(found), sum, "{what}");
    // The stock tool gives up on the rest of an event at a type that it does not know (a geometry).
    if told.text.contains("Don't know how to handle") {
        let least = told.rows.iter().all(|(table, told)| (0..3).all(|action| rows[table][action] >= told[action]));
        assert!(least && rows.len() == told.rows.len(), "{rows:?} and {:?}: {what}", told.rows);
    } else {
        assert_eq!(rows, told.rows, "{what}");
    }
    let kinds: Vec<&str> = found["kinds"].as_array().unwrap().iter().map(|kind| kind.as_str().unwrap()).collect();
    assert_eq!(kinds.contains(&"rows"), !told.rows.is_empty(), "{what}");
    assert_eq!(kinds.contains(&"xa"), told.text.contains("\nXA ") || told.text.contains("\tXA "), "{what}");
    assert_eq!(found["compressed"], told.text.contains("Transaction_Payload"), "{what}");
    // The very words, wherever the tool prints them; bytes that are no ASCII, and files to be loaded, in its own way.
    if let Some(statement) = found["statement"].as_str().filter(|statement| statement.is_ascii()) {
        let words = match statement.split_once("INTO TABLE") {
            Some((load, words)) if load.starts_with("LOAD DATA") => words,
            // Behind that stands a salt: any bytes, which the tool prints in its own way.
            _ => statement.split_once(" AS '$A$").map_or(statement, |(words, _)| words),
        };
        assert!(
            told.text.contains(words) || told.text.contains(&words.replace('\n', "\n# ")),
            "{words:?} is not in {what}"
        );
    }
}

#[test]
fn every_kind_of_transaction_is_what_the_stock_tool_tells() {
    hold(with_gtids());
}

#[test]
fn anonymous_transactions_too() {
    let server = Mysqld::start("find_off", &["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"]);
    for kind in KINDS.iter().filter(|kind| **kind != "tagged") {
        named(kind).run(&server);
    }
    server.sql(crate::ACCIDENT);
    let archived = archive(server);
    hold(&archived);
    // Without a GTID it is found again by its place.
    let text = archived.text(&["--kind", "drop", "--table", "shop.orders", "--limit", "1"]);
    let (line, command) = text.split_once("\n\n").unwrap();
    assert!(line.contains("  anonymous  "), "{line}");
    let place = line.split("  ").map(str::trim).find(|cell| cell.starts_with("binlog.")).unwrap();
    assert!(command.contains(&format!("restore --to {place} --before ")), "{text}");
}
