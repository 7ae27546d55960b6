//! What the tests of this binary share: a source with the plugin, an agent with a store, clients that write down what
//! returned.

use crate::s3;
use crate::support::agent::{Agent, AgentConfig};
use crate::support::lab::{self, Mysqld};
use crate::support::wait_until;
use binvault::clock::{self, Instant};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// What every source of these tests runs with; it would wait for a minute, so nothing here passes by its time-out.
pub(crate) const PLUGIN: &[&str] = &[
    "--plugin-load-add=semisync_source.so",
    "--rpl-semi-sync-source-enabled=ON",
    "--rpl-semi-sync-source-timeout=60000",
    "--rpl-semi-sync-source-wait-no-replica=OFF",
];

/// Long enough for anything that is to come.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A source that waits for semi-synchronous replicas while there are any, with an empty table `t.t`.
pub(crate) fn source(hint: &str, more: &[&str]) -> Mysqld {
    let options: Vec<&str> = PLUGIN.iter().chain(more).copied().collect();
    let server = Mysqld::start(hint, &options);
    server.sql("CREATE DATABASE t; CREATE TABLE t.t (client INT, n INT, PRIMARY KEY (client, n), pad LONGBLOB)");
    server
}

/// An agent's configuration with its archive in a bucket; `semi_sync` is the content of that section.
pub(crate) fn on_s3(server: &Mysqld, store: &s3::Server, semi_sync: &str, agent: &str) -> AgentConfig {
    let extra = format!(
        "{}[semi_sync]\n{semi_sync}\n[agent]\npoll_interval = \"500ms\"\n{agent}\n[log]\nlevel = \"info,binvault=debug\"\n",
        store.settings()
    );
    AgentConfig::with(server, &format!("s3://{}/rpo", s3::BUCKET), &extra)
}

/// What the agent last said of commits, from the archive.
pub(crate) fn word(config: &AgentConfig) -> serde_json::Value {
    config.status().map(|status| status["agents"][0]["semi_sync"].clone()).unwrap_or_default()
}

/// Waits until the agent says that commits are protected.
pub(crate) fn wait_protected(config: &AgentConfig, agent: &mut Agent<'_>) {
    wait_until("commits are protected", LONG, || {
        assert!(agent.exited().is_none(), "the agent ended:\n{}", agent.log_tail());
        word(config)["protected"] == true
    });
}

/// A number of the source's plugin.
pub(crate) fn counter(server: &Mysqld, name: &str) -> u64 {
    let row = server.value(&format!("SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_source_{name}'"));
    row.split('\t').nth(1).and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no counter {name}: {row:?}"))
}

/// Clients that insert row after row, and write down each commit that returned, and when.
pub(crate) struct Clients {
    stop: Arc<AtomicBool>,
    /// Inserts that have not returned.
    pending: Arc<AtomicU64>,
    returned: Arc<Mutex<BTreeMap<(u64, u64), Returned>>>,
    threads: Vec<JoinHandle<()>>,
}

/// A commit that returned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Returned {
    pub(crate) at: Instant,
    pub(crate) took: Duration,
}

impl Clients {
    /// Starts them; each rests for `pause` behind each commit.
    pub(crate) fn start(server: &Mysqld, count: u64, pause: Duration) -> Self {
        let clients =
            Self { stop: Arc::default(), pending: Arc::default(), returned: Arc::default(), threads: Vec::new() };
        let threads = (0..count).map(|client| {
            let (stop, pending, returned) =
                (Arc::clone(&clients.stop), Arc::clone(&clients.pending), Arc::clone(&clients.returned));
            let socket = server.socket();
            std::thread::spawn(move || {
                let mut command = lab::tool("mysql");
                command.args(["-uroot", "--batch", "--skip-column-names", "--unbuffered", "t"]);
                command.arg(format!("--socket={}", socket.display()));
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
                let mut mysql = command.spawn().expect("start the mysql client");
                let (mut input, mut answers) =
                    (mysql.stdin.take().unwrap(), BufReader::new(mysql.stdout.take().unwrap()));
                let mut line = String::new();
                for n in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let begun = clock::monotonic();
                    pending.fetch_add(1, Ordering::SeqCst);
                    let sent = writeln!(input, "INSERT INTO t VALUES ({client}, {n}, 'x'); SELECT {n};");
                    line.clear();
                    let answered = sent.and_then(|()| input.flush()).and_then(|()| answers.read_line(&mut line));
                    if answered.is_err() || line.trim() != n.to_string() {
                        break; // the server is gone: nothing returned, and it stays pending
                    }
                    let at = clock::monotonic();
                    returned.lock().unwrap().insert((client, n), Returned { at, took: at - begun });
                    pending.fetch_sub(1, Ordering::SeqCst);
                    std::thread::sleep(pause);
                }
                drop(input);
                drop(mysql.wait());
            })
        });
        let threads = threads.collect();
        Self { threads, ..clients }
    }

    /// Commits that have not returned.
    pub(crate) fn pending(&self) -> u64 {
        self.pending.load(Ordering::SeqCst)
    }

    /// How many have returned.
    pub(crate) fn count(&self) -> usize {
        self.returned.lock().unwrap().len()
    }

    /// Waits until so many more have returned.
    pub(crate) fn wait_for(&self, more: usize) {
        let target = self.count() + more;
        wait_until("commits return", LONG, || self.count() >= target);
    }

    /// The end of it: what returned.
    pub(crate) fn stop(self) -> BTreeMap<(u64, u64), Returned> {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().unwrap();
        }
        std::mem::take(&mut *self.returned.lock().unwrap())
    }
}
