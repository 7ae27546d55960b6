//! What all parts of a history share: the server, the weather, the dice, the trace, and what was found wrong.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use binvault::chunk::ChunkName;
use binvault::clock::{self, Instant};
use binvault::simulation;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::dice::Dice;
use crate::semi_sync::Outcome;
use crate::server::Server;
use crate::spool;
use crate::store::Shelf;

/// How the network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Net {
    #[default]
    Fair,
    /// Bytes come late and in pieces.
    Slow,
    /// Nobody gets through to the server, and is told so.
    Refused,
    /// Nobody gets through, and hears nothing.
    Silent,
}

/// How the store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Sky {
    #[default]
    Fair,
    Slow,
    /// Of a hundred calls so many fail before they are carried out.
    Failing(u64),
    Throttled,
    /// Calls are carried out, and their answers lost.
    Deaf,
    /// Calls are not answered, and perhaps carried out much later.
    Hanging,
    /// What is put is listed only after a while.
    LateListing,
}

/// One life of an agent, from its start to its end or its kill.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) name: String,
    /// The archive it writes to.
    pub(crate) shelf: Arc<Shelf>,
    /// The folder in front of it.
    pub(crate) spool: Option<PathBuf>,
    /// Killed: nothing that is left of it reaches the world any more.
    pub(crate) dead: CancellationToken,
    /// Calls of the store until it is killed in the middle of one.
    pub(crate) fuse: Mutex<Option<u64>>,
}

impl Life {
    /// What it has that is durable, and not known to be in the archive.
    pub(crate) fn spooled(&self) -> Vec<ChunkName> {
        self.spool.as_deref().map_or_else(Vec::new, spool::held)
    }
}

/// A connection to the server, as whoever spoils it sees it.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) life: String,
    /// It ends.
    pub(crate) cut: CancellationToken,
    /// Its thread ends with an EOF packet, as after KILL QUERY or before a shutdown.
    pub(crate) ended: CancellationToken,
    /// Nothing comes through any more, and neither side is told.
    pub(crate) frozen: CancellationToken,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) server: Mutex<Server>,
    /// The server's log or plugin has changed.
    pub(crate) stirred: Notify,
    pub(crate) dice: Mutex<Dice>,
    pub(crate) net: Mutex<Net>,
    pub(crate) sky: Mutex<Sky>,
    pub(crate) lives: Mutex<BTreeMap<String, Arc<Life>>>,
    pub(crate) lines: Mutex<BTreeMap<u32, Line>>,
    pub(crate) clock_went_back: AtomicBool,
    /// Longest wait of a commit.
    pub(crate) commit_limit: Duration,
    trace: Mutex<Vec<String>>,
    wrong: Mutex<Vec<String>>,
    begun: Instant,
}

/// A lock that a panic elsewhere does not spoil.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub(crate) fn new(dice: Dice, server: Server, commit_limit: Duration) -> Arc<Self> {
        Arc::new(Self {
            server: Mutex::new(server),
            stirred: Notify::new(),
            dice: Mutex::new(dice),
            net: Mutex::default(),
            sky: Mutex::default(),
            lives: Mutex::default(),
            lines: Mutex::default(),
            clock_went_back: AtomicBool::new(false),
            commit_limit,
            trace: Mutex::default(),
            wrong: Mutex::default(),
            begun: clock::monotonic(),
        })
    }

    /// The server's clock, and everybody's.
    pub(crate) fn now_us() -> u64 {
        simulation::now_us().expect("outside of a simulated world")
    }

    /// Writes down what happens. Only what the seed decides: no digests, no keys.
    pub(crate) fn note(&self, what: impl FnOnce() -> String) {
        let at = self.begun.elapsed().as_millis();
        lock(&self.trace).push(format!("{at:>7} {}", what()));
    }

    /// A promise is broken.
    pub(crate) fn wrong(&self, what: String) {
        self.note(|| format!("WRONG: {what}"));
        lock(&self.wrong).push(what);
    }

    pub(crate) fn trace(&self) -> Vec<String> {
        lock(&self.trace).clone()
    }

    pub(crate) fn first_wrong(&self) -> Option<String> {
        lock(&self.wrong).first().cloned()
    }

    /// The server's state has changed.
    pub(crate) fn stir(&self) {
        self.stirred.notify_waiters();
    }

    /// Throws the world's own dice.
    pub(crate) fn below(&self, sides: u64) -> u64 {
        lock(&self.dice).below(sides)
    }

    /// Cuts every line that is chosen.
    pub(crate) fn cut(&self, chosen: impl Fn(&Line) -> bool) {
        for line in lock(&self.lines).values().filter(|line| chosen(line)) {
            line.cut.cancel();
        }
    }

    /// Whether the server has been sending its log to an agent's life for some time.
    pub(crate) fn sends_to(&self, life: &str) -> bool {
        let lines = lock(&self.lines);
        let is_its = |id: &u32| lines.get(id).is_some_and(|line| line.life == life && !line.frozen.is_cancelled());
        let server = lock(&self.server);
        server.dumps.iter().any(|(id, dump)| is_its(id) && dump.begun.elapsed() > Duration::from_secs(1))
    }

    /// A client's transaction, until it is told that it is committed.
    pub(crate) async fn commit(self: Arc<Self>, rows: Vec<Vec<u8>>) {
        let (gtid, at, waits) = {
            let mut server = lock(&self.server);
            if !server.up {
                return;
            }
            let (gtid, file, end) = server.log(Self::now_us(), &rows);
            let waits = server.plugin.as_mut().is_some_and(|plugin| plugin.commit((file, end)));
            (gtid, (file, end), waits)
        };
        self.stir();
        if waits {
            let outcome = self.wait_for_replica(at).await;
            self.note(|| format!("commit {}:{} {outcome:?}", at.0, at.1));
        } else {
            // It is in the log, and so may reach a replica, a moment before it is executed.
            clock::sleep(Duration::from_millis(self.below(4))).await;
        }
        lock(&self.server).execute(gtid.as_ref(), at.0, at.1);
    }

    async fn wait_for_replica(&self, at: (usize, u64)) -> Outcome {
        let told = async {
            loop {
                let stirred = self.stirred.notified();
                let outcome = lock(&self.server).plugin.as_mut().and_then(|plugin| plugin.outcome(at));
                if let Some(outcome) = outcome {
                    return outcome;
                }
                stirred.await;
            }
        };
        if let Some(outcome) = clock::with_timeout(self.commit_limit, told).await {
            return outcome;
        }
        let mut server = lock(&self.server);
        let plugin = server.plugin.as_mut().expect("there was one");
        plugin.switch_off();
        let outcome = plugin.outcome(at).unwrap_or(Outcome::Alone);
        drop(server);
        self.stir();
        outcome
    }
}
