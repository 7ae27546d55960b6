//! Failover: the agent follows the one that takes writes, in good order and after a SIGKILL, and restores cross the seams.
//!
//! The oracle is the surviving primary: what is restored must have its GTIDs and its rows, none lost and none twice.
//! `BINVAULT_SWITCHOVERS` sets the number of changes (`make soak-failover`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::cluster::Cluster;
use crate::place::Restored;
use crate::support::agent::AgentConfig;
use crate::support::lab::{Mysqld, tool};
use crate::support::wait_until;
use crate::{LONG, QUICK, executed, gaps};

/// An agent that knows all members.
pub(crate) fn agent_of(cluster: &Cluster) -> AgentConfig {
    let extra = format!(
        "{QUICK}[base]\nengine = \"mysqldump\"\nmysqldump = \"{}\"\n",
        crate::lab::bin().join("mysqldump").display()
    );
    let config = AgentConfig::with_extra(&cluster.servers[0], &extra);
    config.edit(
        &format!("url = \"mysql://binvault@127.0.0.1:{}\"", cluster.servers[0].port()),
        &format!("urls = {}", cluster.urls()),
    );
    config
}

/// Clients that write to whoever takes it, each row with a number of its own.
struct Writers {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicUsize>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Writers {
    fn start(cluster: &Cluster, count: usize) -> Self {
        let (stop, written) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let sockets: Vec<_> = cluster.servers.iter().map(Mysqld::socket).collect();
        let threads = (0..count).map(|client| {
            let (stop, written, sockets) = (Arc::clone(&stop), Arc::clone(&written), sockets.clone());
            std::thread::spawn(move || {
                let mut n = 0;
                while !stop.load(Ordering::SeqCst) {
                    for socket in &sockets {
                        let rows: String =
                            (0..5).map(|row| format!("INSERT INTO t.t VALUES ({client}, {});", n + row)).collect();
                        let mut mysql = tool("mysql");
                        mysql.args([
                            "-ubinvault",
                            &format!("-p{}", crate::support::agent::PASSWORD),
                            "--connect-timeout=2",
                        ]);
                        mysql.arg(format!("--socket={}", socket.display())).args(["-e", &rows]);
                        let done = mysql.output().unwrap();
                        if done.status.success() {
                            written.fetch_add(5, Ordering::SeqCst);
                        }
                        n += 5;
                    }
                }
            })
        });
        let threads = threads.collect();
        Self { stop, written, threads }
    }

    fn wait_for(&self, more: usize) {
        let target = self.written.load(Ordering::SeqCst) + more;
        wait_until("rows are written", LONG, || self.written.load(Ordering::SeqCst) >= target);
    }

    fn stop(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().unwrap();
        }
        self.written.load(Ordering::SeqCst)
    }
}

/// What is restored is what the primary has.
fn held_against_the_primary(config: &AgentConfig, cluster: &Cluster) {
    let primary = cluster.primary();
    let restored = Restored::to(config, "latest", &[]);
    let have: binvault::position::GtidSet =
        restored.sql("SELECT REPLACE(@@GLOBAL.gtid_executed, '\n', '')").replace('\n', "").parse().unwrap();
    assert_eq!(have, executed(primary), "executed by the restored server (left), by the primary (right)");
    let rows = "CHECKSUM TABLE t.t; SELECT COUNT(*), SUM(n) FROM t.t";
    assert_eq!(restored.sql(rows), primary.sql(rows));
}

fn switchovers() -> usize {
    std::env::var("BINVAULT_SWITCHOVERS").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

#[test]
fn switchovers_under_load_lose_nothing_that_a_survivor_has() {
    let mut cluster = Cluster::start("cluster", 3);
    cluster.primary().sql("CREATE DATABASE t; CREATE TABLE t.t (client INT, n INT, PRIMARY KEY (client, n))");
    for server in &cluster.servers {
        server.sql("SET SESSION sql_log_bin = 0; SET GLOBAL super_read_only = OFF; GRANT INSERT, SELECT ON t.* TO binvault@'%'");
    }
    for replica in 1..3 {
        cluster.servers[replica].sql("SET GLOBAL super_read_only = ON");
    }
    let config = agent_of(&cluster);
    config.archive_now();
    config.ok(&["base"]);
    let mut agent = config.spawn();
    let writers = Writers::start(&cluster, 2);
    writers.wait_for(20);
    let mut lost_in_all = 0;
    for round in 0..switchovers() {
        // Where one stays away, the last two do not lose each other, too.
        if round % 3 == 1 && cluster.servers.iter().all(Mysqld::is_running) {
            let old = cluster.primary;
            let lost = cluster.fail_over();
            println!(
                "round {round}: {old} died, {} took over, {} transactions were lost",
                cluster.primary,
                lost.count()
            );
            lost_in_all += lost.count();
            writers.wait_for(20);
            if !cluster.rejoin(old) {
                // What it alone has stays with it.
                println!("round {round}: {old} stays away");
            }
        } else {
            let next = (cluster.primary + 1..cluster.primary + 3)
                .map(|next| next % 3)
                .find(|next| cluster.servers[*next].is_running())
                .unwrap();
            cluster.switch_over(next);
            println!("round {round}: {next} took over");
        }
        writers.wait_for(20);
        wait_until("the agent follows", LONG, || {
            assert!(agent.exited().is_none(), "the agent ended:\n{}", agent.log_tail());
            config.durable().is_some() && agent.log().contains(&format!("server={}", cluster.primary().uuid()))
        });
    }
    let written = writers.stop();
    std::thread::sleep(Duration::from_millis(500));
    agent.wait_caught_up(cluster.primary());
    agent.terminate();
    config.verify_deep();
    held_against_the_primary(&config, &cluster);
    let recorded = gaps(&config);
    println!(
        "{} changes, {written} rows, {lost_in_all} transactions lost by servers, {} breaks recorded",
        switchovers(),
        recorded.len()
    );
    for gap in &recorded {
        assert_eq!((&gap["kind"], &gap["missing"]), (&"failover".into(), &"".into()), "{gap}");
    }
}
