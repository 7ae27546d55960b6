//! Two agents on one archive, on two servers of one cluster: no harm, and either may die.

use crate::cluster::Cluster;
use crate::place::Restored;
use crate::support::agent::AgentConfig;
use crate::{QUICK, executed, gaps};

/// An agent on one member, with an archive that it shares.
fn on(cluster: &Cluster, server: usize, id: &str, shared: Option<&AgentConfig>) -> AgentConfig {
    let extra = format!(
        "{}[base]\nengine = \"mysqldump\"\nmysqldump = \"{}\"\n",
        QUICK.replace("[agent]\n", &format!("[agent]\nid = \"{id}\"\n")),
        crate::lab::bin().join("mysqldump").display()
    );
    match shared {
        None => AgentConfig::with_extra(&cluster.servers[server], &extra),
        Some(shared) => {
            let url = format!("file://{}", shared.archive().display());
            let config = AgentConfig::with(&cluster.servers[server], &url, &extra);
            config.edit(config.recipient(), shared.recipient());
            config
        }
    }
}

#[test]
fn agents_on_two_servers_of_a_cluster_share_an_archive_and_either_may_die() {
    let cluster = Cluster::start("pair", 2);
    let primary = cluster.primary();
    primary.sql("CREATE DATABASE t; CREATE TABLE t.t (n INT PRIMARY KEY)");
    let insert = |from: u32| {
        let rows: String = (from..from + 20).map(|n| format!("INSERT INTO t.t VALUES ({n});")).collect();
        primary.sql(&rows);
    };
    let one = on(&cluster, 0, "one", None);
    one.archive_now();
    one.ok(&["base"]);
    let two = on(&cluster, 1, "two", Some(&one));
    let mut first = one.spawn();
    insert(0);
    first.wait_caught_up(primary);
    let second = two.spawn();
    insert(100);
    let replica_has = |set: &binvault::position::GtidSet| {
        cluster.wait_executed(1, set);
    };
    replica_has(&executed(primary));
    first.kill();
    // The other one alone.
    insert(200);
    replica_has(&executed(primary));
    let all = executed(primary);
    let archived = || {
        let status = one.status().unwrap();
        let servers = status["servers"].as_array().unwrap().clone();
        servers.iter().any(|server| {
            server["ranges"]
                .as_array()
                .unwrap()
                .iter()
                .any(|range| range["executed"].as_str().is_some_and(|set| all.is_subset_of(&set.parse().unwrap())))
        })
    };
    crate::support::wait_until("the second has archived it", crate::LONG, archived);
    assert_eq!(gaps(&one).len(), 0, "{:?}", gaps(&one));
    let latest = Restored::to(&one, "latest", &[]);
    assert_eq!(latest.sql("SELECT COUNT(*) FROM t.t"), "60\n");
    drop(latest);
    // The first comes back, the second goes.
    let mut first = one.spawn();
    first.wait_caught_up(primary);
    second.kill();
    insert(300);
    first.wait_caught_up(primary);
    first.terminate();
    assert_eq!(gaps(&one).len(), 0, "{:?}", gaps(&one));
    let latest = Restored::to(&one, "latest", &[]);
    assert_eq!(
        latest.sql("SELECT COUNT(*), SUM(n) FROM t.t").trim(),
        primary.value("SELECT COUNT(*), SUM(n) FROM t.t")
    );
    one.verify_deep();
}
