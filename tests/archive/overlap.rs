//! Any number of writers: agents of different minds on one archive do no harm.

use serde_json::Value;

use crate::check::{self, Overlaps};
use crate::support::agent::AgentConfig;
use crate::support::lab::Mysqld;
use crate::support::load::{Load, Pace};

#[test]
fn two_agents_on_one_archive() {
    let server = Mysqld::start("two", &[]);
    let one =
        AgentConfig::with_extra(&server, "[agent]\nid = \"one\"\nchunk_size = \"64KiB\"\nflush_interval = \"70ms\"");
    let archive = format!("file://{}", one.archive().display());
    let two = AgentConfig::with(
        &server,
        &archive,
        "[agent]\nid = \"two\"\nchunk_size = \"200KiB\"\nflush_interval = \"310ms\"",
    );
    // Whoever reads holds one key: both seal to it.
    two.edit(two.recipient(), one.recipient());
    let load = Load::start(&server, 2, Pace::Full);
    load.wait_for(200);
    let (mut first, mut second) = (one.spawn(), two.spawn());
    load.wait_for(600);
    server.sql("FLUSH BINARY LOGS");
    load.wait_for(600);
    // One goes and comes back: it goes on where the other is by now, who does not wait while it looks.
    for _ in 0..5 {
        first.kill();
        load.wait_for(200);
        first = one.spawn();
        load.wait_for(200);
        let report: Value = serde_json::from_str(&one.ok(&["check", "--json"])).unwrap();
        for id in ["archive-resume", "archive-executed"] {
            let found = report["findings"].as_array().unwrap().iter().find(|finding| finding["id"] == id);
            assert_eq!(found.expect(id)["level"], "ok", "while both archive: {report:#}");
        }
    }
    load.stop();
    first.wait_caught_up(&server);
    second.wait_caught_up(&server);
    let agents = server.sql("SHOW REPLICAS");
    assert!(agents.contains("binvault-one") && agents.contains("binvault-two"), "SHOW REPLICAS:\n{agents}");
    first.terminate();
    second.terminate();
    let stored: u64 = check::metas(&one).iter().map(|meta| meta.end - meta.start).sum();
    let bytes = check::whole(&one, &server, Overlaps::Allowed);
    assert!(stored > bytes, "{stored} bytes in chunks of {bytes}: nothing overlaps, so nothing was tried");
}
