//! A corrupted chunk in the middle: named, nothing behind it applied, everything before it still to be had.

use crate::oracle::{History, fingerprint};
use crate::place::{Restored, look_into, try_restore};
use crate::scene::{chunks, orders, shop};
use crate::support::agent::said;
use crate::support::lab::Mysqld;

const CORRUPT: i32 = 10;

#[test]
fn a_corrupted_chunk_in_the_middle() {
    let (source, config) = shop("rdamage", &[]);
    let (file, _) = source.position();
    for pair in [["four", "five"], ["six", "seven"], ["eight", "nine"]] {
        orders(&source, &pair);
        config.archive_now();
    }
    let history = History::of(&source);
    let six = history.seen.len() - 4;
    let (five, six_start) = (&history.seen[six - 1], history.seen[six].start);
    // The chunk that begins with the sixth order: a name tells its range.
    let begins = format!("{six_start:020}-");
    let trimmed =
        |path: &std::path::Path| path.file_name().unwrap().to_str().unwrap().trim_start_matches('0').to_owned();
    let all = chunks(&config.archive(), &source, &file);
    let chunk = all.iter().find(|path| trimmed(path).starts_with(begins.trim_start_matches('0'))).unwrap();
    let name = chunk.file_name().unwrap().to_str().unwrap();
    let mut bytes = std::fs::read(chunk).unwrap();
    let middle = bytes.len() - 40;
    bytes[middle] ^= 1;
    std::fs::remove_file(chunk).unwrap();
    std::fs::write(chunk, &bytes).unwrap();

    let dir = tempfile::tempdir().unwrap();
    let datadir = dir.path().join("data");
    let out = try_restore(&config, "latest", &datadir, &[]);
    let text = said(&out);
    assert_eq!(out.status.code(), Some(CORRUPT), "{text}");
    assert!(text.contains(name) && text.contains("HINT:") && text.contains("nothing behind"), "{text}");
    // What was left behind holds a beginning of the history, and nothing of what lies behind the damage.
    let left = look_into(
        &datadir,
        &format!(
            "SELECT GTID_SUBTRACT(@@GLOBAL.gtid_executed, '{}'); SELECT GROUP_CONCAT(what ORDER BY id) FROM shop.orders",
            history.set(&source, 0..six)
        ),
    );
    let rows = left.strip_prefix('\n').unwrap_or_else(|| panic!("executed beyond the damage: {left}"));
    assert!("one,two,three,four,five\n".starts_with(rows.trim_end()), "{rows}");

    // Targets that the damage covers cannot be had, and the object is named again.
    for damaged in [&history.seen[six], &history.seen[six + 1]] {
        let out = try_restore(&config, &format!("gtid:{}", damaged.gtid.as_deref().unwrap()), &datadir, &["--dry-run"]);
        assert_eq!(out.status.code(), Some(CORRUPT), "{}", said(&out));
        assert!(said(&out).contains(name), "{}", said(&out));
    }
    // Just before it, by whatever name: all mean the same place, and say what cannot be read.
    let time = jiff::Timestamp::from_microsecond(i64::try_from(five.commit_us).unwrap()).unwrap().to_string();
    let upto = history.set(&source, 0..six);
    let by_gtid = format!("gtid:{}", five.gtid.as_deref().unwrap());
    let by_position = format!("{file}:{six_start}");
    for target in [&by_gtid, &by_position, &time] {
        let out = try_restore(&config, target, &datadir, &["--dry-run", "--json"]);
        assert!(out.status.success(), "{target}: {}", said(&out));
        let plan: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        let at = format!("{}:{}", plan["position"]["file"].as_str().unwrap(), plan["position"]["offset"]);
        assert_eq!((plan["executed"].as_str().unwrap(), at), (&*upto, by_position.clone()));
        assert!(plan["warnings"].to_string().contains(name), "{target}: {plan:#}");
    }
    // And it is what the oracle makes of it: the interrupted restore goes on, in the same place.
    let reference = Mysqld::start("rdamageref", &["--server-id=77"]);
    history.apply(&reference, 0..six);
    let restored = Restored::into(&config, &by_position, &datadir, &[]);
    assert_eq!(restored.report["continued"], true);
    restored.assert_executed(&upto);
    assert_eq!(fingerprint(|sql| restored.sql(sql)), fingerprint(|sql| reference.sql(sql)));
    restored.assert_clean();
}
