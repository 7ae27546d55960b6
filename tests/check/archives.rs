//! Stores, archives and keys. One server serves them all: none of the tests changes it.

use std::sync::atomic::Ordering;

use crate::s3::{ACCESS_KEY, BUCKET, SECRET_KEY, Server};
use crate::support::agent::AgentConfig;
use crate::support::lab::Mysqld;
use crate::{GOOD, check, check_with, finding, level, second_recipient};

fn s3_config(server: &Mysqld, store: &Server, bucket: &str) -> AgentConfig {
    let extra = format!(
        "endpoint = \"{}\"\nregion = \"us-east-1\"\naccess_key = \"{ACCESS_KEY}\"\nsecret_key = \"{SECRET_KEY}\"",
        store.endpoint
    );
    AgentConfig::with(server, &format!("s3://{bucket}/some/prefix"), &extra)
}

#[test]
fn stores_of_every_temper() {
    let server = Mysqld::start("check-stores", GOOD);
    let store = Server::start();
    let config = s3_config(&server, &store, BUCKET);
    let (report, code) = check(&config);
    assert_eq!(code, 0, "{report:#}");
    for id in ["archive-reachable", "archive-write", "archive-read", "put-if-absent", "archive-list", "archive-delete"]
    {
        assert_eq!(level(&report, id), "ok", "{id}: {report:#}");
    }
    assert_eq!(level(&report, "archive-identity"), "note", "no archive yet, and none made: {report:#}");
    assert_eq!(level(&check(&config).0, "archive-identity"), "note", "nothing was left behind");

    store.switches.ignore_conditions.store(true, Ordering::SeqCst);
    let (report, code) = check(&config);
    assert_eq!((level(&report, "put-if-absent"), code), ("warning", 0), "{report:#}");
    let fix = finding(&report, "put-if-absent")["fix"].as_str().unwrap();
    assert!(fix.contains("put_if_absent = \"never\""), "{fix}");
    config.edit("endpoint =", "put_if_absent = \"never\"\nendpoint =");
    assert_eq!(level(&check(&config).0, "put-if-absent"), "note", "the setting mends it");
    store.switches.ignore_conditions.store(false, Ordering::SeqCst);

    store.switches.full.store(true, Ordering::SeqCst);
    let (report, code) = check(&config);
    assert_eq!((level(&report, "archive-write"), code), ("error", 9), "{report:#}");
    store.switches.full.store(false, Ordering::SeqCst);

    store.switches.read_only.store(true, Ordering::SeqCst);
    let (report, code) = check(&config);
    assert_eq!((level(&report, "archive-write"), code), ("error", 9), "{report:#}");
    assert_eq!(level(&report, "connect"), "ok", "the server is checked all the same");
    store.switches.read_only.store(false, Ordering::SeqCst);

    let (report, code) = check(&s3_config(&server, &store, "no-such-bucket"));
    assert_eq!((level(&report, "archive-reachable"), code), ("error", 9), "{report:#}");
}

#[test]
fn folders_keys_and_archives_that_cannot_be_used() {
    let server = Mysqld::start("check-keys", GOOD);
    let config = AgentConfig::new(&server);
    assert_eq!(level(&check(&config).0, "recipients"), "warning", "a single key");
    second_recipient(&config);
    let (report, _) = check(&config);
    assert_eq!((level(&report, "recipients"), level(&report, "identity")), ("ok", "note"), "{report:#}");
    config.archive_now();

    let stranger = config.dir().join("stranger");
    config.ok(&["keygen", "-o", stranger.to_str().unwrap()]);
    let (report, code) = check_with(&config, &["--identity", stranger.to_str().unwrap()]);
    let levels = (level(&report, "identity"), level(&report, "identity-archive"), code);
    assert_eq!(levels, ("error", "error", 11), "{report:#}");

    // The setting that is printed makes the key fit for what comes, and cannot for what is sealed already.
    let fix = finding(&report, "identity")["fix"].as_str().unwrap();
    let public = fix.split('"').find(|word| word.starts_with("age1")).unwrap();
    config.edit("recipients = [", &format!("recipients = [\"{public}\", "));
    let (report, code) = check_with(&config, &["--identity", stranger.to_str().unwrap()]);
    let levels = (level(&report, "identity"), level(&report, "identity-archive"), code);
    assert_eq!(levels, ("ok", "error", 11), "{report:#}");

    // An archive of the future, one that lost its name, and a folder with other people's files.
    let identity = config.archive().join("binvault.json");
    let kept = std::fs::read_to_string(&identity).unwrap();
    std::fs::write(&identity, kept.replace("\"format\": 1", "\"format\": 99")).unwrap();
    let (report, code) = check(&config);
    assert_eq!((level(&report, "archive-identity"), code), ("error", 13), "{report:#}");
    std::fs::remove_file(&identity).unwrap();
    let (report, code) = check(&config);
    assert_eq!((level(&report, "archive-identity"), code), ("error", 10), "{report:#}");
    assert!(!identity.exists(), "checking makes no archive");
    std::fs::remove_dir_all(config.archive().join("chunks")).unwrap();
    std::fs::write(config.archive().join("other.txt"), "mine").unwrap();
    let (report, code) = check(&config);
    assert_eq!((level(&report, "archive-identity"), code), ("warning", 0), "{report:#}");

    // A folder whose parent is not there either.
    let url = format!("url = \"file://{}\"", config.archive().display());
    config.edit(&url, &format!("url = \"file://{}/no/where\"", config.dir().display()));
    let (report, code) = check(&config);
    assert_eq!((level(&report, "archive-reachable"), code), ("error", 9), "{report:#}");
    assert!(finding(&report, "archive-reachable")["fix"].as_str().unwrap().starts_with("install -d "));
}
