//! A store that fails while a clone is on its way: what passes is passed over, what stays ends the backup, and the donor
//! is free again.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use super::proxy::{FILE_COPY, PAGE_COPY, Proxy};
use super::{clones, donor};
use crate::clone::killed::all_is_well;
use crate::s3;
use crate::scene::{counts, some_data};
use crate::support::agent::{Agent, AgentConfig};
use crate::support::lab::Mysqld;
use crate::support::wait_until;

/// A donor behind a proxy, a store, and a configuration of each way to the donor; a PUT is tried for a second.
struct Scene {
    server: Mysqld,
    proxy: Proxy,
    store: s3::Server,
    /// Through the proxy; one try.
    through: AgentConfig,
    direct: AgentConfig,
}

impl Scene {
    fn new(hint: &str) -> Self {
        let (server, store) = (donor(hint, &[]), s3::Server::start());
        some_data(&server);
        let proxy = Proxy::start(&server);
        let settings = |patience: &str| {
            let base = format!("[base]\nengine = \"clone\"\npart_size = \"256KiB\"\ngive_up_after = \"{patience}\"\n");
            format!("{}give_up_after = \"1s\"\n{base}", store.settings())
        };
        let config = |patience| AgentConfig::with(&server, &format!("s3://{}/x", s3::BUCKET), &settings(patience));
        let (through, direct) = (config("0s"), config("120s"));
        proxy.before(&through, &server);
        Self { server, proxy, store, through, direct }
    }

    /// A clone whose store breaks in a state.
    fn broken_in(&self, state: u32, break_store: impl Fn(&s3::Switches)) -> Agent<'_> {
        self.proxy.hold_at(state);
        let agent = self.through.spawn_with(&["base"]);
        self.proxy.wait_held();
        self.server.sql("INSERT INTO d.t (v) SELECT v FROM d.t LIMIT 50");
        break_store(&self.store.switches);
        self.proxy.release();
        agent
    }

    /// Waits until the store has refused some requests more.
    fn wait_refused(&self) {
        let before = self.store.switches.requests.load(SeqCst);
        wait_until("the store is asked", Duration::from_secs(60), || {
            self.store.switches.requests.load(SeqCst) > before + 5
        });
    }
}

#[test]
fn a_store_that_comes_back_is_waited_for() {
    let scene = Scene::new("clone-store-back");
    // Longer than one PUT is tried would end this try.
    scene.through.edit("\ngive_up_after = \"1s\"", "\ngive_up_after = \"60s\"");
    let agent = scene.broken_in(FILE_COPY, |switches| switches.internal_error.store(u64::MAX, SeqCst));
    scene.wait_refused();
    scene.store.switches.internal_error.store(0, SeqCst);
    assert!(agent.wait(Duration::from_secs(60)).success());
    assert_eq!((counts(&scene.direct), clones(&scene.server)), ((1, 0), 0));
    scene.through.verify_deep();
}

#[test]
fn after_a_longer_outage_the_clone_is_taken_anew() {
    let scene = Scene::new("clone-store-anew");
    scene.through.edit("give_up_after = \"0s\"", "give_up_after = \"120s\"");
    let agent = scene.broken_in(FILE_COPY, |switches| switches.internal_error.store(u64::MAX, SeqCst));
    // The try ends, and the next one waits: meanwhile the donor has no clone.
    wait_until("the donor is free", Duration::from_secs(60), || clones(&scene.server) == 0);
    scene.store.switches.internal_error.store(0, SeqCst);
    assert!(agent.wait(Duration::from_secs(60)).success());
    assert_eq!(counts(&scene.direct).0, 1);
}

#[test]
fn a_store_that_stays_broken_ends_the_clone_and_frees_the_donor() {
    let scene = Scene::new("clone-store-broken");
    type Break = fn(&s3::Switches, bool);
    let refuses: Break = |switches, broken| switches.read_only.store(broken, SeqCst);
    let fails: Break = |switches, broken| switches.internal_error.store(if broken { u64::MAX } else { 0 }, SeqCst);
    let full: Break = |switches, broken| switches.full.store(broken, SeqCst);
    let troubles = [(FILE_COPY, refuses), (FILE_COPY, fails), (FILE_COPY, full), (PAGE_COPY, fails)];
    for (finished, (state, trouble)) in troubles.into_iter().enumerate() {
        let agent = scene.broken_in(state, |switches| trouble(switches, true));
        let log = agent.log_path();
        assert_eq!(agent.wait(Duration::from_secs(60)).code(), Some(9), "{finished}");
        let said = std::fs::read_to_string(log).unwrap();
        assert!(said.contains("store bases/"), "{said}");
        assert_eq!(clones(&scene.server), 0, "the donor was told before the agent left");
        trouble(&scene.store.switches, false);
        all_is_well(&scene.server, &scene.direct, finished, false);
    }
}
