//! The agent's numbers over HTTP: whether commits are protected, at every moment, and how far it is.

use crate::s3;
use crate::scene::{LONG, on_s3, source, wait_protected};
use crate::support::http::{free_port, metric as value, status};
use crate::support::wait_until;
use std::sync::atomic::Ordering;

#[test]
fn metrics_tell_whether_commits_are_protected() {
    let server = source("metrics", &[]);
    let store = s3::Server::start();
    let port = free_port();
    let config = on_s3(&server, &store, "mode = \"store\"\nwait_limit = \"700ms\"\nreturn_after = \"500ms\"", "");
    config.edit("[log]", &format!("[metrics]\nlisten = \"127.0.0.1:{port}\"\n[log]"));
    let mut agent = config.spawn();
    wait_until("it answers", LONG, || status(port, "/healthz") == 200);
    wait_protected(&config, &mut agent);
    let protected = "binvault_commits_protected{mode=\"store\"}";
    assert_eq!(value(port, protected), Some(1.0));
    server.sql("INSERT INTO t.t VALUES (1, 1, 'x')");
    let (file, end) = server.position();
    let position = format!("binvault_durable_position_bytes{{file=\"{file}\"}}");
    assert_eq!(value(port, &position), Some(end as f64), "a commit that returned is durable");
    assert!(value(port, "binvault_acknowledged_timestamp_seconds").is_some());
    store.switches.delay_ms.store(3_000, Ordering::SeqCst);
    server.sql("INSERT INTO t.t VALUES (1, 2, 'x')");
    wait_until("protection is gone", LONG, || value(port, protected) == Some(0.0));
    server.sql("INSERT INTO t.t VALUES (1, 3, 'x')");
    store.switches.delay_ms.store(0, Ordering::SeqCst);
    wait_until("and back", LONG, || value(port, protected) == Some(1.0));
    assert!(value(port, "binvault_commits_uncovered_total") >= Some(1.0));
    // A second agent cannot have the port, and says so.
    let said = config.fails(&["run", "--once"], 2);
    assert!(said.contains("metrics.listen") && said.contains("HINT"), "{said}");
    agent.terminate();
}
