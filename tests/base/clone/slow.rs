//! A slow store: the donor is not kept waiting while it archives redo, and memory has a limit.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::proxy::{PAGE_COPY, Proxy};
use super::{archived_redo, bulk, clones, donor};
use crate::s3;
use crate::support::agent::{AgentConfig, BASE_RESIDENT_MAX, peak_rss};
use crate::support::wait_until;

#[test]
fn pages_are_spooled_while_the_store_is_slow_and_memory_has_a_limit() {
    let options = ["--innodb-buffer-pool-size=256M", "--innodb-redo-log-capacity=512M"];
    let server = donor("clone-slow", &options);
    // 100 MiB.
    bulk(&server, 13_000);
    let (proxy, store) = (Proxy::start(&server), s3::Server::start());
    let settings = format!("{}[base]\nengine = \"clone\"\n", store.settings());
    let mut config = AgentConfig::with(&server, &format!("s3://{}/x", s3::BUCKET), &settings);
    config.as_a_service();
    proxy.before(&config, &server);
    proxy.hold_at(super::proxy::FILE_COPY);
    let mut agent = config.spawn_with(&["-v", "base"]);
    proxy.wait_held();
    // Every page changes while files are copied, so all of them come again.
    server.sql("UPDATE d.t SET n = n + 1");
    proxy.hold_at(PAGE_COPY);
    proxy.wait_held();
    store.switches.delay_ms.store(5_000, Ordering::SeqCst);
    proxy.release();
    wait_until("the donor is through with it", Duration::from_secs(90), || clones(&server) == 0);
    assert!(agent.log().contains("spool file"), "{}", agent.log());
    assert_eq!((agent.exited(), archived_redo(&server)), (None, 0), "the donor did not wait for the store");
    store.switches.delay_ms.store(0, Ordering::SeqCst);
    let mut most = 0;
    wait_until("the backup is taken", Duration::from_secs(120), || {
        most = peak_rss(agent.pid()).unwrap_or(0).max(most);
        agent.exited().is_some()
    });
    println!("peak memory: {:.1} MiB", most as f64 / f64::from(1 << 20));
    assert!(agent.exited().unwrap().success(), "{}", agent.log());
    assert!(most <= BASE_RESIDENT_MAX, "{most} bytes resident at the peak, {BASE_RESIDENT_MAX} allowed");
}
