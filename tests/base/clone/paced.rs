//! `base.max_rate`: kept while files are copied, and not while pages are, when the donor archives redo.

use super::proxy::{FILE_COPY, PAGE_COPY, Proxy, REDO_COPY};
use super::{bulk, config, donor, stream};
use crate::scene::list;
use std::time::Duration;

const RATE: u64 = 8 << 20;

#[test]
fn the_rate_is_kept_for_files_and_not_for_pages() {
    let server = donor("clone-paced", &["--innodb-redo-log-capacity=256M"]);
    // 32 MiB.
    bulk(&server, 4_000);
    let proxy = Proxy::start(&server);
    let config = config(&server, &format!("engine = \"clone\"\nmax_rate = {RATE}"));
    proxy.before(&config, &server);
    proxy.hold_at(FILE_COPY);
    let agent = config.spawn_with(&["base"]);
    proxy.wait_held();
    // Every page changes, so all of them come again.
    server.sql("UPDATE d.t SET n = n + 1");
    // The donor goes on to a state when the one before it was acknowledged: that is when all of it has been taken.
    let [files, pages] = [PAGE_COPY, REDO_COPY].map(|next| {
        let start = binvault::clock::monotonic();
        proxy.hold_at(next);
        proxy.wait_held();
        start.elapsed()
    });
    proxy.release();
    assert!(agent.wait(Duration::from_secs(60)).success());
    let id = list(&config)["bases"][0]["id"].as_str().unwrap().to_owned();
    let data = stream(&config, &id).data;
    let at_the_rate = |state| Duration::from_secs_f64(data[&state] as f64 / RATE as f64);
    println!("files {files:?} of {:?}, pages {pages:?} of {:?}", at_the_rate(FILE_COPY), at_the_rate(PAGE_COPY));
    assert!(data[&PAGE_COPY] >= 30 << 20, "{data:?}");
    // It may catch up with a second, in which it was held here.
    assert!(files + Duration::from_secs(1) >= at_the_rate(FILE_COPY), "{files:?} for {data:?}");
    // Some twenty times as long as it takes.
    assert!(pages < at_the_rate(PAGE_COPY), "{pages:?} for {data:?}");
}
