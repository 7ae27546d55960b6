//! The agents of a history: the product's own `run`, started, stopped, killed, and started again.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use binvault::archive::Beacon;
use binvault::chunk::compress::CompressOptions;
use binvault::chunk::keys::{Identities, generate};
use binvault::clock::{self, Instant};
use binvault::config::{AgentOptions, SemiSyncMode, SemiSyncOptions, StartAt};
use binvault::error::{Error, Result};
use binvault::mysql::{Address, SourceOptions};
use binvault::retry::RetryOptions;
use binvault::run::{RunOptions, RunReport, STOP_LIMIT, UpkeepOptions, run};
use binvault::ship::ShipOptions;
use binvault::store::{Key, SharedStore, Store as _, StoreOptions, simulated};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::dice::Dice;
use crate::spool::Spools;
use crate::store::{Counter, Shelf};
use crate::world::{Life, World, lock};

/// The one key pair of all archives.
pub(crate) fn keys() -> Arc<Identities> {
    static KEYS: OnceLock<Arc<Identities>> = OnceLock::new();
    let made = KEYS.get_or_init(|| {
        let (secret, _) = generate();
        Arc::new(Identities::parse("simulated", &secret).unwrap())
    });
    Arc::clone(made)
}

/// Settings that the dice choose for a whole history.
#[derive(Debug)]
pub(crate) struct Settings {
    semi_sync: SemiSyncMode,
    ship: ShipOptions,
    spools: Option<Spools>,
}

impl Settings {
    pub(crate) fn draw(dice: &mut Dice, semi_sync: bool) -> Self {
        let uploads = usize::try_from(dice.between(1, 4)).unwrap();
        let ship = ShipOptions {
            chunk_bytes: 64 << 10,
            flush_interval: Duration::from_millis(dice.pick(&[20, 100, 400])),
            compress: CompressOptions { level: -5, long_window_log: None },
            sealers: usize::try_from(dice.between(1, 2)).unwrap(),
            uploads,
            heartbeat: Duration::from_secs(1),
        };
        let spools = dice.percent(30).then(|| Spools::new(dice.pick(&[64, 20_000])));
        let mode = if spools.is_some() { SemiSyncMode::Spool } else { SemiSyncMode::Store };
        Self { semi_sync: if semi_sync { mode } else { SemiSyncMode::Off }, ship, spools }
    }
}

/// One agent, over all its lives.
pub(crate) struct Agent {
    id: &'static str,
    lives: u32,
    started: Instant,
    epoch: usize,
    running: Option<Running>,
}

struct Running {
    life: Arc<Life>,
    stop: CancellationToken,
    task: JoinHandle<Result<RunReport>>,
}

impl Agent {
    pub(crate) fn new(id: &'static str) -> Self {
        Self { id, lives: 0, started: clock::monotonic(), epoch: 0, running: None }
    }

    /// When it was started, and in which of the server's epochs.
    pub(crate) fn began(&self) -> (Instant, usize) {
        (self.started, self.epoch)
    }

    pub(crate) fn runs(&self) -> bool {
        self.running.is_some()
    }

    /// Starts it; with a fuse it is killed within so many calls of the store.
    pub(crate) fn start(
        &mut self,
        world: &World,
        counter: impl Fn(Arc<Life>) -> Counter,
        settings: &Settings,
        shelf: &Arc<Shelf>,
        fuse: Option<u64>,
    ) {
        self.lives += 1;
        self.started = clock::monotonic();
        self.epoch = lock(&world.server).epochs.len();
        let name = format!("{}{}", self.id, self.lives);
        world.note(|| format!("{name} starts"));
        let dead = CancellationToken::new();
        let (shelf, fuse) = (Arc::clone(shelf), Mutex::new(fuse));
        let options = options(self.id, &name, settings);
        let spool = options.spool.as_ref().map(|spool| spool.dir.clone());
        let life = Arc::new(Life { name: name.clone(), shelf, spool, dead, fuse });
        lock(&world.lives).insert(name.clone(), Arc::clone(&life));
        let store: SharedStore = Arc::new(counter(Arc::clone(&life)));
        simulated::put(&name, Some(store));
        let stop = CancellationToken::new();
        let told = stop.clone();
        let task = tokio::task::spawn_local(async move {
            // What a former life had, its spool's lock too, is given back before time moves on.
            clock::sleep(Duration::from_millis(1)).await;
            run(options, told).await
        });
        self.running = Some(Running { life, stop, task });
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, world: &World) {
        if let Some(running) = self.running.take() {
            world.note(|| format!("{} is killed", running.life.name));
            running.life.dead.cancel();
            running.task.abort();
            world.cut(|line| line.life == running.life.name);
            simulated::put(&running.life.name, None);
        }
    }

    /// Buries it if it has died over a call of the store; takes the error if it has ended by itself.
    pub(crate) async fn look(&mut self, world: &World) -> Option<Error> {
        let running = self.running.as_ref()?;
        if running.life.dead.is_cancelled() {
            self.kill(world);
            return None;
        }
        if !running.task.is_finished() {
            return None;
        }
        let running = self.running.take()?;
        simulated::put(&running.life.name, None);
        match running.task.await {
            Ok(Ok(_)) => {
                world.wrong(format!("{} ended as if it had been told to", running.life.name));
                None
            }
            Ok(Err(error)) => {
                world.note(|| format!("{} ends: {:?}: {}", running.life.name, error.kind(), error.chain()));
                Some(error)
            }
            Err(panic) => {
                world.wrong(format!("{} broke down: {panic}", running.life.name));
                None
            }
        }
    }

    /// SIGTERM, and what the agent promises about it. Whether it was streaming, and has ended in good order.
    pub(crate) async fn stop(&mut self, world: &World) -> bool {
        let Some(running) = self.running.take() else { return false };
        let (streamed, mut in_order) = (world.sends_to(&running.life.name), false);
        let (name, mut task) = (running.life.name.clone(), running.task);
        world.note(|| format!("{name} is told to stop"));
        running.stop.cancel();
        let limit = STOP_LIMIT + Duration::from_secs(2);
        match clock::with_timeout(limit, &mut task).await {
            None if running.life.dead.is_cancelled() => {}
            None => world.wrong(format!("{name} has not stopped within {} s", limit.as_secs())),
            Some(Ok(Ok(report))) => {
                in_order = streamed && !running.life.dead.is_cancelled();
                world.note(|| format!("{name} has stopped at {:?}", report.durable.position));
                if let Some(durable) = report.durable.position {
                    let held = running.life.spooled();
                    let covered = running.life.shelf.covered_by_name(durable.file.as_str(), &held);
                    if covered < durable.offset {
                        world.wrong(format!("{name} reports {durable} durable, {covered} is"));
                    }
                }
            }
            Some(Ok(Err(error))) => world.note(|| format!("{name} stops with {:?}: {}", error.kind(), error.chain())),
            Some(Err(panic)) => world.wrong(format!("{name} broke down: {panic}")),
        }
        running.life.dead.cancel();
        task.abort();
        world.cut(|line| line.life == name);
        simulated::put(&name, None);
        in_order
    }

    /// Its beacon tells what the server said behind the word to stop.
    pub(crate) async fn has_said_its_last_word(&self, world: &World, shelf: &Shelf, told_us: u64) {
        let key = Key::new(format!("agents/{}.json", self.id)).unwrap();
        let body = shelf.objects.get_range(&key, 0, u64::MAX).await;
        let beacon: Option<Beacon> = body.ok().and_then(|body| serde_json::from_slice(&body).ok());
        let said = |beacon: &Beacon| beacon.stopped && beacon.server_position.is_some() && beacon.as_of_us >= told_us;
        if !beacon.as_ref().is_some_and(said) {
            world.wrong(format!("{} has stopped in good order without a last word: {beacon:?}", self.id));
        }
    }
}

fn options(id: &str, life: &str, settings: &Settings) -> RunOptions {
    let mut source = SourceOptions::new(Address::Socket(life.into()), "binvault", None);
    source.connect_timeout = Duration::from_secs(3);
    source.query_timeout = Duration::from_secs(5);
    let retry = RetryOptions { first_ms: 50, max_ms: 2000, elapsed_max_ms: Some(10_000), ..RetryOptions::default() };
    RunOptions {
        source,
        agent: AgentOptions {
            id: id.to_owned(),
            start: StartAt::Oldest,
            server_id: None,
            report_host: id.to_owned(),
            report_port: 0,
            net_write_timeout_s: 60,
            beacon_interval: Duration::from_secs(5),
            poll_interval: Duration::from_secs(1),
            adopt: false,
            failover: false,
        },
        ship: settings.ship.clone(),
        semi_sync: SemiSyncOptions {
            mode: settings.semi_sync,
            wait_limit: Duration::from_secs(1),
            return_after: Duration::from_secs(2),
        },
        store: StoreOptions {
            url: format!("simulated:{life}"),
            retry,
            call_timeout_ms: 3000,
            ..StoreOptions::default()
        },
        recipients: keys().recipients(),
        spool: settings.spools.as_ref().map(|spools| spools.of(id)),
        once: false,
        base: None,
        upkeep: UpkeepOptions::default(),
    }
}
