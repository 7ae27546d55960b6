//! Each way to ask: what is found is what of everything fits, and little is opened for it.

use serde_json::Value;

use crate::{places, transactions, with_gtids};

/// Everything, for comparison.
fn everything() -> Value {
    with_gtids().find(&["--limit", "100000"])
}

fn those(document: &Value, fits: impl Fn(&Value) -> bool) -> Vec<String> {
    let place = |t: &Value| format!("{}:{}", t["file"].as_str().unwrap(), t["start"]);
    transactions(document).iter().filter(|t| fits(t)).map(place).collect()
}

#[test]
fn the_accident_is_found_and_so_is_the_way_back() {
    let archived = with_gtids();
    let text = archived.text(&["--kind", "drop", "--table", "shop.orders"]);
    let lines: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), 2, "the table's, and the database's, which has all tables:\n{text}");
    assert!(lines[0].contains("  drop  ") && lines[0].contains("shop.orders  DROP TABLE `orders`"), "{text}");
    assert!(lines[1].contains("shop.*  DROP DATABASE shop"), "{text}");
    assert!(text.contains("To restore to just before the last of these 2:\n  binvault -c "), "{text}");

    let dropped = archived.find(&["--kind", "drop", "--table", "SHOP.ord?rs", "--limit", "1"]);
    assert_eq!(dropped["limited"], true);
    let gtid = transactions(&dropped)[0]["gtid"].as_str().unwrap();
    let text = archived.text(&["--gtid", gtid]);
    assert!(text.contains("To restore to just before this:\n  binvault -c "), "{text}");
    let key = archived.config.identity();
    let command = format!("restore --to gtid:{gtid} --before --identity {} --datadir NEW_DIRECTORY\n", key.display());
    assert!(text.ends_with(&command), "{text}");
    // The transaction with several tables, in one line.
    let text = archived.text(&["--table", "shop.items", "--kind", "delete"]);
    assert!(text.contains("shop.orders +1 ~2 -2, shop.items ~2"), "{text}");
    assert_eq!(archived.text(&["--table", "shop.nothing"]).lines().next(), Some(lines[1]), "it took every table");
    assert_eq!(archived.text(&["--table", "elsewhere.orders"]), "");
}

#[test]
fn by_gtid_few_bytes_are_opened() {
    let (archived, all) = (with_gtids(), everything());
    let found = transactions(&all);
    let whole = all["scanned_bytes"].as_u64().unwrap();
    for wanted in found.iter().step_by(found.len() / 12) {
        let gtid = wanted["gtid"].as_str().unwrap();
        let one = archived.find(&["--gtid", gtid]);
        assert_eq!(transactions(&one), std::slice::from_ref(wanted), "{gtid}");
        let scanned = one["scanned_bytes"].as_u64().unwrap();
        let own = wanted["bytes"].as_u64().unwrap();
        assert!(scanned < own + whole / 5, "{gtid} of {own} bytes: {scanned} of {whole} bytes opened");
    }
    // A set: an interval, and a tag.
    let uuid = archived.server.uuid();
    let set = format!("{uuid}:5-40:60-62:nightly:1-2");
    let tagged = format!("{uuid}:nightly:");
    let in_set = |t: &Value| {
        let gtid = t["gtid"].as_str().unwrap();
        let number: u64 = gtid.rsplit(':').next().unwrap().parse().unwrap();
        match gtid.strip_prefix(&tagged) {
            Some(_) => number <= 2,
            None => gtid == format!("{uuid}:{number}") && ((5..=40).contains(&number) || (60..=62).contains(&number)),
        }
    };
    let expected = those(&all, in_set);
    assert_eq!(expected.len(), 36 + 3 + 2);
    assert_eq!(places(&archived.find(&["--gtid", &set])), expected);
    assert_eq!(transactions(&archived.find(&["--gtid", "00000000-0000-0000-0000-000000000001:1-99"])).len(), 0);
}

#[test]
fn by_time_few_bytes_are_opened() {
    let (archived, all) = (with_gtids(), everything());
    let found = transactions(&all);
    for wanted in found.iter().step_by(found.len() / 12) {
        let (time, us) = (wanted["commit"].as_str().unwrap(), wanted["commit_us"].as_u64().unwrap());
        let at = archived.find(&["--from", time, "--to", time]);
        assert_eq!(places(&at), those(&all, |t| t["commit_us"] == us), "{time}");
        let late = archived.find(&["--from", time, "--limit", "100000"]);
        assert_eq!(places(&late), those(&all, |t| t["commit_us"].as_u64().unwrap() >= us), "{time}");
    }
    // The newest are asked for most often: what came before is not opened.
    let last = found.last().unwrap()["commit"].as_str().unwrap();
    let (opened, whole) = (archived.find(&["--from", last]), all["scanned_bytes"].as_u64().unwrap());
    assert!(opened["scanned_bytes"].as_u64().unwrap() < whole / 5, "{} of {whole}", opened["scanned_bytes"]);
    let hours = archived.find(&["--from", "2 hours ago", "--to", "now", "--limit", "100000"]);
    assert_eq!(places(&hours), places(&all));
    assert_eq!(transactions(&archived.find(&["--to", "2 hours ago"])).len(), 0);
}

#[test]
fn by_kind_table_size_and_file() {
    let (archived, all) = (with_gtids(), everything());
    let has = |t: &Value, kind: &str| t["kinds"].as_array().unwrap().iter().any(|k| k == kind);
    for kind in [
        "ddl",
        "create",
        "alter",
        "drop",
        "truncate",
        "rename",
        "account",
        "admin",
        "rows",
        "insert",
        "update",
        "delete",
        "statement",
        "xa",
        "other",
    ] {
        let expected = those(&all, |t| has(t, kind));
        assert!(!expected.is_empty(), "nothing of kind {kind}");
        assert_eq!(places(&archived.find(&["--kind", kind, "--limit", "100000"])), expected, "{kind}");
    }
    let two = archived.find(&["--kind", "rename,truncate", "--limit", "100000"]);
    assert_eq!(places(&two), those(&all, |t| has(t, "rename") || has(t, "truncate")));
    let large = archived.find(&["--large", "100KiB"]);
    let expected = those(&all, |t| t["bytes"].as_u64().unwrap() >= 100 << 10);
    assert!(expected.len() > 3);
    assert_eq!(places(&large), expected);
    assert!(transactions(&large).iter().all(|t| has(t, "large")));
    let table = archived.find(&["--table", "w_xa.*", "--table", "*.audit", "--limit", "100000"]);
    let names = |t: &Value| {
        let dropped = |n: &Value| n["table"].is_null() && has(t, "drop");
        t["tables"].as_array().unwrap().iter().any(|n| n["schema"] == "w_xa" || n["table"] == "audit" || dropped(n))
    };
    assert!(transactions(&table).len() > 10);
    assert_eq!(places(&table), those(&all, names));
    let file = transactions(&all).last().unwrap()["file"].as_str().unwrap();
    assert_eq!(places(&archived.find(&["--file", file, "--limit", "100000"])), those(&all, |t| t["file"] == file));
}

#[test]
fn the_newest_first_and_no_more_than_wanted() {
    let (archived, all) = (with_gtids(), everything());
    let mut expected = places(&all);
    expected.reverse();
    let newest = archived.find(&["--newest-first", "--limit", "100000"]);
    assert_eq!(places(&newest), expected);
    let few = archived.find(&["--reverse", "-n", "7"]);
    assert_eq!((places(&few).as_slice(), &few["limited"]), (&expected[..7], &Value::Bool(true)));
    let first = transactions(&few)[0]["gtid"].as_str().unwrap();
    assert_eq!(few["restore"]["to"], format!("gtid:{first}"), "the newest");
    let count = expected.len().to_string();
    assert_eq!(archived.find(&["--limit", &count])["limited"], false, "there are no more than these");
}

#[test]
fn questions_that_make_no_sense_are_refused() {
    let config = &with_gtids().config;
    let key = config.identity();
    let key = key.to_str().unwrap();
    for (arguments, code, says) in [
        (&["--identity", key, "--from", "yesterdayish"][..], 2, "2 hours ago"),
        (&["--identity", key, "--from", "2026-02-01", "--to", "2026-01-01"], 2, "is behind --to"),
        (&["--identity", key, "--table", "orders"], 2, "DATABASE.TABLE"),
        (&["--identity", key, "--kind", "accident"], 2, "truncate"),
        (&["--identity", key, "--gtid", "42"], 2, "GTID set"),
        (&["--identity", key, "--limit", "0"], 2, "1 to 100000"),
        (&["--identity", key, "--file", "binlog.999999"], 2, "not in the archive"),
        (&["--identity", key, "--server", "00000000-0000-0000-0000-000000000001"], 2, "HINT:"),
        (&[], 11, "--identity"),
    ] {
        let said = config.fails(&[&["find"], arguments].concat(), code);
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
}
