//! What a service manager sees: ready only while it streams, alive, reloaded, stopped; and nothing is lost by any of it.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::process::Signal;

use crate::LONG;
use crate::check::{Overlaps, whole};
use crate::support::agent::AgentConfig;
use crate::support::http;
use crate::support::lab::Mysqld;
use crate::support::load::{Load, Pace};
use crate::support::wait_until;

/// The manager's socket.
struct Manager {
    socket: UnixDatagram,
    path: std::path::PathBuf,
    said: Vec<String>,
}

impl Manager {
    fn new(config: &AgentConfig) -> Self {
        let path = config.dir().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        Self { socket, path, said: Vec::new() }
    }

    /// Whether a line was said by now.
    fn heard(&mut self, line: &str) -> bool {
        let mut buffer = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            self.said.extend(String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned));
        }
        self.said.iter().any(|said| said.starts_with(line))
    }

    fn forget(&mut self) {
        self.heard("");
        self.said.clear();
    }
}

#[test]
fn ready_alive_reloaded_and_stopped_under_load() {
    let mut server = Mysqld::start("service", &[]);
    let mut config = AgentConfig::new(&server);
    let mut manager = Manager::new(&config);
    config.env("NOTIFY_SOCKET", manager.path.to_str().unwrap());
    config.env("WATCHDOG_USEC", "2000000");
    // Not ready while the server is away, and alive all the same.
    server.stop();
    let mut agent = config.spawn();
    wait_until("the trouble is told", LONG, || manager.heard("STATUS=interrupted"));
    assert!(!manager.heard("READY=1"), "{:?}", manager.said);
    server.start_again(&[]);
    wait_until("it is ready", LONG, || manager.heard("READY=1"));
    wait_until("the watchdog is fed", LONG, || manager.heard("WATCHDOG=1"));

    let load = Load::start(&server, 2, Pace::PerSecond(400));
    manager.forget();
    // What cannot be used changes nothing.
    let good = std::fs::read_to_string(config.path()).unwrap();
    config.rewrite(&good.replace("[archive]", "[archive]\nnonsense = 1"));
    agent.signal(Signal::HUP);
    wait_until("it is refused", LONG, || agent.log().contains("going on with the one there was"));
    assert!(!manager.heard("RELOADING=1"));
    // Another flush interval, and numbers.
    let port = http::free_port();
    config.rewrite(&format!("{good}\n[agent]\nflush_interval = \"200ms\"\n[metrics]\nlisten = \"127.0.0.1:{port}\"\n"));
    agent.signal(Signal::HUP);
    wait_until("it reloads", LONG, || manager.heard("RELOADING=1"));
    wait_until("and is ready again", LONG, || manager.heard("READY=1"));
    wait_until("with the new settings", LONG, || http::status(port, "/readyz") == 200);
    assert!(agent.exited().is_none(), "it is the same process");
    load.stop();
    agent.wait_caught_up(&server);
    agent.terminate();
    assert!(manager.heard("STOPPING=1"), "{:?}", manager.said);
    config.verify_deep();
}

/// A new version takes the place of the old one while the load goes on: each has its turn, nothing is lost.
#[test]
fn a_rolling_upgrade_loses_nothing() {
    let server = Mysqld::start("upgrade", &[]);
    let config = AgentConfig::new(&server);
    let load = Load::start(&server, 2, Pace::PerSecond(400));
    for turn in 0..6 {
        let agent = config.spawn();
        wait_until("it has archived", LONG, || config.durable().is_some());
        std::thread::sleep(Duration::from_millis(700));
        if turn % 2 == 0 {
            agent.terminate();
        } else {
            agent.kill();
        }
    }
    load.stop();
    config.archive_now();
    whole(&config, &server, Overlaps::Allowed);
}
