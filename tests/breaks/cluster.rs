//! Real servers that replicate from one another, and change places.

use std::time::Duration;

use binvault::position::GtidSet;

use crate::support::agent::PASSWORD;
use crate::support::lab::Mysqld;
use crate::support::wait_until;
use crate::{LONG, executed};

/// A primary and its replicas.
pub(crate) struct Cluster {
    pub(crate) servers: Vec<Mysqld>,
    pub(crate) primary: usize,
}

impl Cluster {
    /// Starts them, with the accounts of replicas and agents.
    pub(crate) fn start(hint: &str, count: usize) -> Self {
        let servers: Vec<Mysqld> = (0..count)
            .map(|number| {
                let id = format!("--server-id={}", number + 1);
                Mysqld::start(&format!("{hint}-{number}"), &[&id, "--relay-log=relay"])
            })
            .collect();
        for server in &servers {
            server.create_agent_user("binvault", PASSWORD);
            server.grant_base("binvault");
            server.sql("SET SESSION sql_log_bin = 0; CREATE USER repl@'%' IDENTIFIED BY 'r'; GRANT REPLICATION SLAVE ON *.* TO repl@'%'");
        }
        let cluster = Self { servers, primary: 0 };
        for replica in 1..count {
            cluster.follow(replica, 0);
        }
        cluster
    }

    pub(crate) fn primary(&self) -> &Mysqld {
        &self.servers[self.primary]
    }

    /// The URLs, as `source.urls` takes them.
    pub(crate) fn urls(&self) -> String {
        let urls = self.servers.iter().map(|server| format!("\"mysql://binvault@127.0.0.1:{}\"", server.port()));
        format!("[{}]", urls.collect::<Vec<_>>().join(", "))
    }

    /// Makes one follow another, read-only.
    pub(crate) fn follow(&self, replica: usize, source: usize) {
        let port = self.servers[source].port();
        self.servers[replica].sql(&format!(
            "SET GLOBAL super_read_only = ON; STOP REPLICA;
             CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={port}, SOURCE_USER='repl', SOURCE_PASSWORD='r',
               SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1, SOURCE_CONNECT_RETRY=1, SOURCE_RETRY_COUNT=100000;
             START REPLICA"
        ));
    }

    /// Waits until one has executed a set.
    pub(crate) fn wait_executed(&self, server: usize, set: &GtidSet) {
        wait_until("the replica has it", LONG, || set.is_subset_of(&executed(&self.servers[server])));
    }

    fn promote(&mut self, next: usize) {
        self.servers[next]
            .sql("STOP REPLICA; RESET REPLICA ALL; SET GLOBAL super_read_only = OFF; SET GLOBAL read_only = OFF");
        self.primary = next;
    }

    /// In good order: nothing is lost.
    pub(crate) fn switch_over(&mut self, next: usize) {
        let old = self.primary;
        self.servers[old].sql("SET GLOBAL super_read_only = ON");
        let all = executed(&self.servers[old]);
        self.wait_executed(next, &all);
        self.promote(next);
        for other in (0..self.servers.len()).filter(|other| *other != next && self.servers[*other].is_running()) {
            self.follow(other, next);
        }
    }

    /// The primary dies; another takes its place with what it has. Returns what only the dead one had.
    pub(crate) fn fail_over(&mut self) -> GtidSet {
        let old = self.primary;
        let before = executed(&self.servers[old]);
        self.servers[old].kill();
        let others: Vec<usize> =
            (0..self.servers.len()).filter(|other| *other != old && self.servers[*other].is_running()).collect();
        // What has arrived is applied first.
        std::thread::sleep(Duration::from_millis(300));
        let next = others.iter().copied().max_by_key(|other| executed(&self.servers[*other]).count()).unwrap();
        self.promote(next);
        for other in others.into_iter().filter(|other| *other != next) {
            self.follow(other, next);
        }
        before.minus(&executed(&self.servers[next]))
    }

    /// The dead one comes back as a replica, if it has nothing that the primary lacks. Returns whether it does.
    pub(crate) fn rejoin(&mut self, server: usize) -> bool {
        self.servers[server].start_again(&["--super-read-only=ON", "--skip-replica-start"]);
        let fits = executed(&self.servers[server]).is_subset_of(&executed(self.primary()));
        if fits {
            self.follow(server, self.primary);
        } else {
            self.servers[server].stop();
        }
        fits
    }
}
