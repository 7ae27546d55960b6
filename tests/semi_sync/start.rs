//! What the start of a dump says by itself: on a semi-synchronous source it acknowledges everything before it. That is
//! why the agent starts only where the archive ends.

use crate::s3;
use crate::scene::{Clients, LONG, PLUGIN, counter, on_s3, wait_protected};
use crate::support::agent::PASSWORD;
use crate::support::lab::Mysqld;
use crate::support::wait_until;
use binvault::mysql::replica::{DumpRequest, start_dump};
use binvault::mysql::{Address, Connection, RawStream, SourceOptions};
use std::sync::atomic::Ordering;
use std::time::Duration;
use uuid::Uuid;

/// A semi-synchronous replica from elsewhere, that never acknowledges anything by a packet.
pub(crate) struct Replica {
    _stream: RawStream,
    _runtime: tokio::runtime::Runtime,
}

impl Replica {
    /// Starts at the server's end.
    pub(crate) fn start(server: &Mysqld, number: u32, by_gtid: bool) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let address = Address::Tcp { host: "127.0.0.1".into(), port: server.port() };
        let options = SourceOptions::new(address, "binvault", Some(PASSWORD.into()));
        let (file, position) = server.position();
        let request = DumpRequest {
            server_id: 5_000 + number,
            replica_uuid: Uuid::from_u128(u128::from(number)),
            report_host: "elsewhere".into(),
            report_port: 0,
            heartbeat: Duration::from_secs(1),
            net_write_timeout_s: 60,
            file,
            position,
            by_gtid,
            non_block: false,
            register: true,
            semi_sync: true,
        };
        let stream = runtime.block_on(async {
            let connection = Connection::connect(&options, "elsewhere").await.unwrap();
            start_dump(connection, &request).await.unwrap()
        });
        Self { _stream: stream, _runtime: runtime }
    }
}

/// The fact that the agent's rule rests on, tested on both commands.
#[test]
fn the_start_of_a_dump_acknowledges_everything_before_it() {
    for by_gtid in [true, false] {
        let server = Mysqld::start("implicit", PLUGIN);
        server.create_agent_user("binvault", PASSWORD);
        server.sql("CREATE DATABASE t; CREATE TABLE t.t (client INT, n INT, pad LONGBLOB)");
        let first = Replica::start(&server, 1, by_gtid);
        wait_until("the source counts it", LONG, || counter(&server, "clients") == 1);
        let released_otherwise = counter(&server, "no_tx");
        let clients = Clients::start(&server, 1, Duration::from_secs(60));
        wait_until("a commit waits", LONG, || counter(&server, "wait_sessions") == 1);
        let second = Replica::start(&server, 2, by_gtid);
        wait_until("it returns, though nobody has received it", Duration::from_secs(30), || clients.pending() == 0);
        assert_eq!(
            counter(&server, "no_tx"),
            released_otherwise,
            "it was released by an acknowledgement, not otherwise"
        );
        drop((first, second));
    }
}

/// An agent that dies while commits wait, and the one that comes after it: its start releases nothing.
#[test]
fn an_agent_that_comes_back_acknowledges_only_what_is_archived() {
    let server = crate::scene::source("come-back", &[]);
    let store = s3::Server::start();
    let config = on_s3(&server, &store, "mode = \"store\"\nwait_limit = \"50s\"", "");
    let mut agent = config.spawn();
    wait_protected(&config, &mut agent);
    // From here on the source waits also when no replica is there: for a minute, then the test has failed.
    server.sql("SET GLOBAL rpl_semi_sync_source_wait_no_replica = ON");
    let released_otherwise = counter(&server, "no_tx");
    store.switches.delay_ms.store(60_000, Ordering::SeqCst);
    let clients = Clients::start(&server, 1, Duration::from_secs(60));
    wait_until("a commit waits", LONG, || counter(&server, "wait_sessions") == 1);
    agent.kill();
    store.switches.delay_ms.store(100, Ordering::SeqCst);
    store.switches.read_only.store(true, Ordering::SeqCst);
    let agent = config.spawn();
    wait_until("it follows again", LONG, || agent.log().contains("archiving goes on"));
    // It has received the commit, and cannot store it.
    wait_until("it tries", LONG, || agent.log().contains("AccessDenied") || agent.log().contains("refuses"));
    assert_eq!(clients.pending(), 1, "it returned, and is not archived");
    drop(agent);
    store.switches.read_only.store(false, Ordering::SeqCst);
    let mut agent = config.spawn();
    wait_until("it returns when it is archived", LONG, || clients.pending() == 0);
    assert_eq!(counter(&server, "no_tx"), released_otherwise, "it was released by an acknowledgement, not otherwise");
    assert_eq!(config.durable(), Some(server.position()));
    wait_protected(&config, &mut agent);
    agent.terminate();
}
