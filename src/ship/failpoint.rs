//! Fail points: places at which a test can make the agent die, to prove that it may die anywhere.
//!
//! Compiled in with the cargo feature `failpoints` only; without it every call is nothing. The environment variable
//! `BINVAULT_FAILPOINT` names the place and the passage, `seal:17`: at the 17th passage through it the process sends
//! itself SIGKILL. Places: `receive`, `cut`, `seal`, `upload` (object not yet stored), `uploaded` (stored, answer not
//! yet taken), `commit`, `acknowledge` (durable, the server not yet told).

/// Passes a place.
#[cfg(feature = "failpoints")]
pub(super) fn pass(place: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static PLAN: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let plan = PLAN.get_or_init(|| {
        let text = std::env::var("BINVAULT_FAILPOINT").ok()?;
        let (place, passage) = text.split_once(':')?;
        Some((place.to_owned(), passage.parse().ok()?))
    });
    if let Some((wanted, passage)) = plan
        && wanted == place
        && PASSED.fetch_add(1, Ordering::Relaxed).saturating_add(1) == *passage
    {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        // The signal ends every thread; this one must not get any further until it does.
        loop {
            std::thread::park();
        }
    }
}

/// Passes a place.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub(super) fn pass(_place: &str) {}
