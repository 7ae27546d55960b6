//! `binvault check` reads the source's semi-synchronous settings, and its statements mend them.

use crate::s3;
use crate::scene::on_s3;
use crate::start::Replica;
use crate::support::agent::AgentConfig;
use crate::support::lab::Mysqld;
use std::collections::BTreeMap;

/// The findings on semi-synchronous replication: level and statement.
fn findings(config: &AgentConfig) -> BTreeMap<String, (String, Option<String>)> {
    let out = config.output(&["check", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let all = report["findings"].as_array().unwrap().iter().filter_map(|finding| {
        let id = finding["id"].as_str()?.to_owned();
        let level = finding["level"].as_str()?.to_owned();
        id.starts_with("semi-sync").then(|| (id, (level, finding["fix"].as_str().map(str::to_owned))))
    });
    all.collect()
}

#[test]
fn the_statements_of_check_mend_the_source() {
    let server = Mysqld::start("checked", &[]);
    let store = s3::Server::start();
    let config = on_s3(&server, &store, "mode = \"store\"", "");
    let level = |id: &str| findings(&config).get(id).map(|(level, _)| level.clone());
    let mend = |ids: &[&str]| {
        for id in ids {
            let found = findings(&config);
            let (level, fix) = found.get(*id).unwrap_or_else(|| panic!("no {id}: {found:?}"));
            assert_eq!(level, "warning", "{id}: {found:?}");
            server.sql(fix.as_deref().unwrap());
            assert_eq!(findings(&config)[*id].0, "ok", "{id} behind {fix:?}");
        }
    };
    mend(&["semi-sync"]);
    assert_eq!(level("semi-sync-no-replica").as_deref(), Some("ok"));
    assert_eq!(level("semi-sync-offsite").as_deref(), Some("note"), "there is nobody else who could take over");
    server.sql(
        "SET GLOBAL rpl_semi_sync_source_enabled = OFF; SET GLOBAL rpl_semi_sync_source_wait_no_replica = ON;
         SET GLOBAL rpl_semi_sync_source_timeout = 4000; SET GLOBAL rpl_semi_sync_source_wait_point = AFTER_COMMIT",
    );
    mend(&["semi-sync", "semi-sync-no-replica", "semi-sync-timeout", "semi-sync-wait-point"]);
    let other = Replica::start(&server, 3, true);
    mend(&["semi-sync-offsite"]);
    drop(other);
    config.edit("mode = \"store\"", "mode = \"off\"");
    assert_eq!(findings(&config), BTreeMap::new(), "who does not ask for it is not told");
}
