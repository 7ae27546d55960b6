//! The agent's numbers over HTTP: whether commits are protected, at every moment, and how far it is.

use crate::s3;
use crate::scene::{LONG, on_s3, source, wait_protected};
use crate::support::wait_until;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Asks; status line and body.
fn get(port: u16, path: &str) -> (String, String) {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return Default::default() };
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    drop(stream.read_to_string(&mut answer));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

/// A metric's value, with its labels as they stand.
fn value(port: u16, name: &str) -> Option<f64> {
    let (_, body) = get(port, "/metrics");
    let line = body.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
}

#[test]
fn metrics_tell_whether_commits_are_protected() {
    let server = source("metrics", &[]);
    let store = s3::Server::start();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = on_s3(&server, &store, "mode = \"store\"\nwait_limit = \"700ms\"\nreturn_after = \"500ms\"", "");
    config.edit("[log]", &format!("[metrics]\nlisten = \"127.0.0.1:{port}\"\n[log]"));
    let mut agent = config.spawn();
    wait_until("it answers", LONG, || get(port, "/healthz").0.contains("200"));
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
    assert!(get(port, "/nothing").0.contains("404"));
    // A second agent cannot have the port, and says so.
    let said = config.fails(&["run", "--once"], 2);
    assert!(said.contains("metrics.listen") && said.contains("HINT"), "{said}");
    // Names and documentation are one list.
    let told: std::collections::BTreeSet<String> = get(port, "/metrics")
        .1
        .lines()
        .filter_map(|line| Some(line.strip_prefix("# TYPE ")?.split(' ').next()?.to_owned()))
        .collect();
    let documented = std::fs::read_to_string(crate::support::repo().join("docs/metrics.md")).unwrap();
    for name in &told {
        assert!(documented.contains(&format!("`{name}")), "{name} is not in docs/metrics.md");
    }
    agent.terminate();
}
