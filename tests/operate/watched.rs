//! Health, metrics, `/status` and the page, while a server comes and goes.

use serde_json::Value;

use crate::support::http::{get, metric, status};
use crate::support::lab::Mysqld;
use crate::support::wait_until;
use crate::{LONG, watched};

fn document(port: u16) -> Value {
    serde_json::from_str(&get(port, "/status").1).unwrap_or_default()
}

#[test]
fn ready_only_while_it_streams_and_the_page_tells_why_not() {
    let mut server = Mysqld::start("operate", &["--binlog-expire-logs-seconds=86400"]);
    server.sql("CREATE DATABASE t; CREATE TABLE t.t (id INT PRIMARY KEY, v TEXT)");
    let (config, port) = watched(&server, "");
    let mut agent = config.spawn();
    wait_until("it is ready", LONG, || status(port, "/readyz") == 200);
    agent.wait_caught_up(&server);
    server.sql("FLUSH BINARY LOGS; INSERT INTO t.t VALUES (1, 'x')");
    agent.wait_caught_up(&server);
    wait_until("the lag is told", LONG, || metric(port, "binvault_lag_bytes") == Some(0.0));
    assert_eq!(metric(port, "binvault_streaming"), Some(1.0));
    assert_eq!(metric(port, "binvault_purge_horizon_seconds"), Some(86_400.0));
    wait_until("the margin is told", LONG, || metric(port, "binvault_purge_margin_files") >= Some(1.0));
    assert!(metric(port, "binvault_commit_to_durable_seconds_count") >= Some(1.0));
    assert!(metric(port, "binvault_store_request_seconds_count{operation=\"put\"}") >= Some(1.0));
    assert!(metric(port, "process_resident_memory_bytes") > Some(1e6));
    wait_until("the archive was looked at", LONG, || {
        metric(port, "binvault_archive_objects{part=\"chunks\"}") >= Some(1.0)
    });

    let told = document(port);
    let agent_said = &told["agent"];
    assert_eq!((agent_said["state"].as_str(), agent_said["ready"].as_bool()), (Some("streaming"), Some(true)));
    assert_eq!(told["archive"]["schema"], 1, "{told}");
    assert_eq!(agent_said["lag_seconds"], 0.0, "{told}");
    let wrong: Vec<&str> =
        told["actions"].as_array().unwrap().iter().filter_map(|action| action["id"].as_str()).collect();
    assert_eq!(wrong, ["base-missing"], "{told}");
    let (head, page) = get(port, "/");
    assert!(head.contains("text/html") && head.contains("content-security-policy: default-src 'none'"), "{head}");
    assert!(page.contains("<title>") && page.trim_end().ends_with("</html>"), "{page}");
    assert_eq!((status(port, "/healthz"), status(port, "/nothing")), (200, 404));

    server.stop();
    wait_until("it is not ready", LONG, || status(port, "/readyz") == 503);
    assert_eq!(status(port, "/healthz"), 200, "it is alive none the less");
    wait_until("the trouble is told", LONG, || !document(port)["agent"]["trouble"].is_null());
    let why = get(port, "/readyz").1;
    assert!(why.len() > 10 && !why.contains(crate::support::agent::PASSWORD), "{why}");
    server.start_again(&[]);
    wait_until("it is ready again", LONG, || status(port, "/readyz") == 200);
    assert!(metric(port, "binvault_interruptions_total") >= Some(1.0));
    assert!(document(port)["agent"]["trouble"].is_null());
    agent.terminate();
}
