//! The simulator's hand on the doors: time, threads, chance, the network, and bugs planted on purpose.
//!
//! The product asks the world through few doors: `clock` for time, `threads` for work that computes or blocks, `retry` for
//! jitter, `mysql::stream` for connections, `store::open` for stores. With the cargo feature `simulation` a test can put a
//! `World` behind them, and a history with its faults becomes a function of one seed (`tests/sim`). Without the feature,
//! which no release has, what is asked here is a constant, and nothing is left of it.
//!
//! Invariant: a world is its thread's alone, so several can be simulated at once; where there is none, the doors lead
//! outside, feature or not.

/// A bug that can be planted, to prove that the simulator would see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// What is only on its way is called durable, and acknowledged to the server.
    AckBeforeDurable,
    /// Of two chunks that overlap, each gives all of its bytes.
    OverlapTwice,
    /// A server that went back behind the archive is taken for one that has nothing new.
    ResetUnnoticed,
}

#[cfg(feature = "simulation")]
pub use on::{Connecting, World, connect, enter, is_on, jump, now_us, planted};

#[cfg(feature = "simulation")]
mod on {
    use std::cell::RefCell;
    use std::future::Future;
    use std::io;
    use std::path::Path;
    use std::pin::Pin;
    use std::rc::Rc;

    use tokio::io::DuplexStream;

    use super::Bug;
    use crate::clock::{self, Instant};

    /// A connection being opened.
    pub type Connecting = Pin<Box<dyn Future<Output = io::Result<DuplexStream>> + Send>>;

    /// What stands behind the doors.
    pub struct World {
        /// The wall clock when the world is entered, microseconds since 1970. It goes on with the monotonic clock.
        pub wall_us: u64,
        /// Opens a connection to what is named like a unix socket.
        pub network: Rc<dyn Fn(&Path) -> Connecting>,
        /// The bug that is planted.
        pub bug: Option<Bug>,
    }

    struct Entered {
        world: World,
        since: Instant,
    }

    thread_local! {
        static ENTERED: RefCell<Option<Entered>> = const { RefCell::new(None) };
    }

    /// Puts a world behind the doors of this thread, or the real one again. On a runtime with its time paused.
    pub fn enter(world: Option<World>) {
        ENTERED.set(world.map(|world| Entered { world, since: clock::monotonic() }));
    }

    fn here<T>(ask: impl FnOnce(&Entered) -> T) -> Option<T> {
        ENTERED.with_borrow(|entered| entered.as_ref().map(ask))
    }

    /// Whether this thread is in a simulated world.
    pub fn is_on() -> bool {
        here(|_| ()).is_some()
    }

    /// The wall clock.
    pub fn now_us() -> Option<u64> {
        here(|Entered { world, since }| {
            world.wall_us.saturating_add(u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX))
        })
    }

    /// Sets the wall clock forward, or back.
    pub fn jump(by_us: i64) {
        ENTERED.with_borrow_mut(|entered| {
            if let Some(Entered { world, .. }) = entered {
                world.wall_us = world.wall_us.saturating_add_signed(by_us);
            }
        });
    }

    /// Opens a connection.
    pub fn connect(path: &Path) -> Option<Connecting> {
        let network = here(|entered| Rc::clone(&entered.world.network))?;
        Some(network(path))
    }

    /// Whether a bug is planted.
    pub fn planted(bug: Bug) -> bool {
        here(|entered| entered.world.bug) == Some(Some(bug))
    }
}

/// Whether this thread is in a simulated world.
#[cfg(not(feature = "simulation"))]
#[inline(always)]
pub const fn is_on() -> bool {
    false
}

/// The wall clock of the simulated world.
#[cfg(not(feature = "simulation"))]
#[inline(always)]
pub const fn now_us() -> Option<u64> {
    None
}

/// Whether a bug is planted.
#[cfg(not(feature = "simulation"))]
#[inline(always)]
pub const fn planted(_bug: Bug) -> bool {
    false
}
