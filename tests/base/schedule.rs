//! Base backups by schedule, inside the agent.

use crate::scene::{config, counts, list, server, some_data, take, tool_line};
use crate::support::wait_until;
use std::path::Path;
use std::time::Duration;

#[test]
fn the_first_one_at_once_then_by_the_clock() {
    let server = server("clock", &[]);
    some_data(&server);
    let config = config(&server, "schedule = \"*/4 * * * * *\"\ntime_zone = \"UTC\"");
    let mut agent = config.spawn();
    wait_until("three base backups", Duration::from_secs(60), || counts(&config).0 >= 3);
    server.sql("INSERT INTO d.t (v) VALUES ('meanwhile')");
    agent.wait_caught_up(&server);
    assert!(agent.terminate() < Duration::from_secs(10));
    let started: Vec<String> = list(&config)["bases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|base| base["started"].as_str().unwrap().to_owned())
        .collect();
    println!("{started:?}");
    // RFC 3339: the seconds stand at 17. But for the first, each began in the second that was due or soon after.
    for started in &started[1..3] {
        let second: u32 = started[17..19].parse().unwrap();
        assert!(second % 4 <= 2, "{started}");
    }
}

/// Makes the archive's only base backup look as if it had been taken in 2020.
fn age(archive: &Path) {
    let folder = std::fs::read_dir(archive.join("bases")).unwrap().next().unwrap().unwrap().path();
    let id = folder.file_name().unwrap().to_str().unwrap().to_owned();
    let old = "20200101T000000.000000Z-mysqldump";
    let manifest = std::fs::read_to_string(folder.join("manifest.json")).unwrap();
    let started = serde_json::from_str::<serde_json::Value>(&manifest).unwrap()["started_us"].to_string();
    let manifest = manifest.replace(&id, old).replace(&started, "1577836800000000");
    std::fs::write(folder.join("manifest.json"), manifest).unwrap();
    std::fs::rename(&folder, folder.with_file_name(old)).unwrap();
}

#[test]
fn what_was_missed_is_caught_up_with_once() {
    let server = server("missed", &[]);
    some_data(&server);
    let config = config(&server, "schedule = \"@yearly\"");
    take(&config);
    let mut agent = config.spawn();
    agent.wait_caught_up(&server);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(counts(&config).0, 1, "nothing is due before next year");
    agent.terminate();
    age(&config.archive());
    let agent = config.spawn();
    wait_until("the one that was missed", Duration::from_secs(60), || counts(&config).0 == 2);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(counts(&config).0, 2, "five years, one base backup");
    agent.terminate();
}

#[test]
fn a_base_backup_that_fails_does_not_disturb_the_stream() {
    let server = server("undisturbed", &[]);
    some_data(&server);
    let broken = tool_line(Path::new("/no/such/tool"));
    let config = config(&server, &format!("{broken}schedule = \"*/2 * * * * *\""));
    let mut agent = config.spawn();
    wait_until("two failures", Duration::from_secs(60), || {
        agent.log().matches("the scheduled base backup failed").count() >= 2
    });
    for round in 0..5 {
        server.sql(&format!("INSERT INTO d.t (v) VALUES ('{round}')"));
        agent.wait_caught_up(&server);
    }
    assert!(agent.log().contains("ERROR"), "{}", agent.log());
    agent.terminate();
    assert_eq!(counts(&config).0, 0);
    config.verify_deep();
}
