//! The same on S3 as in a folder.

use crate::check::{self, Overlaps};
use crate::s3;
use crate::support::agent::AgentConfig;
use crate::support::lab::Mysqld;
use crate::support::load::{Load, Pace};
use crate::support::workload::named;
use std::sync::atomic::Ordering;

/// An agent's configuration with its archive in the bucket of a store of the tests' own.
pub(crate) fn s3_config(server: &Mysqld, store: &s3::Server, prefix: &str, extra: &str) -> AgentConfig {
    let settings = store.settings() + extra;
    AgentConfig::with(server, &format!("s3://{}/{prefix}", s3::BUCKET), &settings)
}

#[test]
fn the_round_trip_on_s3() {
    let mut server = Mysqld::start("s3", &[]);
    let store = s3::Server::start();
    let config =
        s3_config(&server, &store, "a/deep/prefix", "[agent]\nchunk_size = \"64KiB\"\nflush_interval = \"100ms\"");
    let mut agent = config.spawn();
    for name in ["row", "types", "xa", "compressed", "tagged", "anonymous", "rotation", "no_checksum", "load_data"] {
        named(name).run(&server);
    }
    server.sql("SET GLOBAL gtid_mode = ON_PERMISSIVE");
    agent.wait_caught_up(&server);
    server.sql("SET GLOBAL gtid_mode = ON");
    agent.kill();
    let mut agent = config.spawn();
    let load = Load::start(&server, 2, Pace::Full);
    load.wait_for(500);
    store.switches.slow_down.store(5, Ordering::SeqCst);
    store.switches.internal_error.store(3, Ordering::SeqCst);
    load.wait_for(500);
    server.stop();
    server.start_again(&[]);
    load.wait_for(300);
    load.stop();
    agent.wait_caught_up(&server);
    agent.terminate();
    check::whole(&config, &server, Overlaps::Allowed);
    println!("{} objects in the bucket", check::objects(&config).len());
}
