//! One history, out of one seed: a server lives, agents archive it, and everything that can go wrong around them does.
//!
//! ```text
//!   seed ─► steps: commits, rotations, faults, kills … ─► all heals ─► the agents catch up ─► what must be true
//! ```

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use binvault::clock::{self, Instant};
use binvault::error::Error;
use binvault::simulation::{self, Bug};

use crate::agent::{Agent, Settings};
use crate::check;
use crate::dice::Dice;
use crate::semi_sync::Plugin;
use crate::server::Server;
use crate::store::{Counter, Shelf};
use crate::talk;
use crate::vigil::Vigil;
use crate::world::{Net, Sky, World, lock};

/// When histories begin.
const BEGIN_US: u64 = 1_795_000_000_000_000;
/// By then, of simulated time, an agent has caught up once nothing is in its way.
const CATCH_UP: Duration = Duration::from_secs(240);
/// So long, of simulated time, it is looked in the end whether all is quiet.
const QUIET: Duration = Duration::from_secs(5);

/// What came of a history.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// What is wrong, if something is.
    pub(crate) wrong: Option<String>,
    /// What happened, line by line.
    pub(crate) trace: Vec<String>,
    pub(crate) counts: check::Counts,
}

/// Lives through the history of a seed.
pub(crate) fn live(seed: u64, bug: Option<Bug>) -> Outcome {
    let vigil = Vigil::over(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let mut history = History::begin(seed, bug);
        history.steps().await;
        history.end().await;
        let counts = history.judge().await;
        simulation::enter(None);
        let wrong = vigil.panicked().or_else(|| history.world.first_wrong());
        Outcome { wrong, trace: history.world.trace(), counts }
    })
}

/// What happens next.
#[derive(Debug, Clone, Copy)]
enum Step {
    Commits,
    LargeCommit,
    Rotate,
    Purge,
    Restart,
    Crash,
    CrashAndLose,
    Reset,
    CloneAgain,
    CutLines,
    EndDumps,
    Freeze,
    Net(Net),
    Sky(Sky),
    Kill,
    KillSoon,
    Stop,
    Start,
    ClockJump,
    Base,
    Rest,
}

/// Steps with their weights; whether they break the server's history comes last.
const STEPS: &[(u64, Step)] = &[
    (300, Step::Commits),
    (25, Step::LargeCommit),
    (60, Step::Rotate),
    (15, Step::Purge),
    (12, Step::Restart),
    (12, Step::Crash),
    (20, Step::CutLines),
    (15, Step::EndDumps),
    (10, Step::Freeze),
    (12, Step::Net(Net::Slow)),
    (8, Step::Net(Net::Refused)),
    (8, Step::Net(Net::Silent)),
    (50, Step::Net(Net::Fair)),
    (12, Step::Sky(Sky::Slow)),
    (12, Step::Sky(Sky::Failing(40))),
    (6, Step::Sky(Sky::Failing(95))),
    (10, Step::Sky(Sky::Throttled)),
    (12, Step::Sky(Sky::Deaf)),
    (10, Step::Sky(Sky::Hanging)),
    (15, Step::Sky(Sky::LateListing)),
    (70, Step::Sky(Sky::Fair)),
    (20, Step::Kill),
    (40, Step::KillSoon),
    (12, Step::Stop),
    (90, Step::Start),
    (8, Step::ClockJump),
    (20, Step::Base),
    (80, Step::Rest),
];
const BREAKS: &[(u64, Step)] = &[(25, Step::Reset), (15, Step::CloneAgain), (25, Step::CrashAndLose)];

struct History {
    world: Arc<World>,
    dice: Dice,
    settings: Settings,
    steps: Vec<(u64, Step)>,
    agents: Vec<Agent>,
    shelf: Arc<Shelf>,
}

impl History {
    fn begin(seed: u64, bug: Option<Bug>) -> Self {
        let mut dice = Dice::new(seed);
        let semi_sync = dice.percent(40);
        let settings = Settings::draw(&mut dice, semi_sync);
        let mut steps = STEPS.to_vec();
        if dice.percent(40) {
            steps.extend(BREAKS);
        }
        let agents = if dice.percent(35) { vec![Agent::new("a"), Agent::new("b")] } else { vec![Agent::new("a")] };
        let (gtid_mode, checksums) = (dice.percent(85), dice.percent(90));
        let plugin = semi_sync.then(Plugin::default);
        let commit_limit = Duration::from_millis(dice.pick(&[2000, 10_000]));
        let server = Server::new(BEGIN_US, gtid_mode, checksums, plugin);
        let world = World::new(dice.fork(), server, commit_limit);
        let network = network(&world);
        simulation::enter(Some(simulation::World { wall_us: BEGIN_US, network, bug }));
        Self { world, dice, settings, steps, agents, shelf: Arc::default() }
    }

    async fn steps(&mut self) {
        self.start_all();
        for _ in 0..self.dice.between(20, 60) {
            let step = self.dice.weighted(&self.steps.clone());
            self.take(step).await;
            let wait = self.dice.weighted(&[(50, 30), (35, 400), (15, 3000)]);
            let wait = Duration::from_millis(self.dice.below(wait));
            self.pass(wait).await;
        }
    }

    /// Lets time pass, and looks after the agents.
    async fn pass(&mut self, time: Duration) {
        clock::sleep(time).await;
        for index in 0..self.agents.len() {
            let world = Arc::clone(&self.world);
            if let Some(error) = self.agents[index].look(&world).await {
                self.ended(&error, self.agents[index].began());
            }
        }
    }

    /// An agent has ended by itself: only in the middle of a break, or if the archive was not shown to it as a whole.
    fn ended(&self, error: &Error, (since, epoch): (Instant, usize)) {
        let broke = epoch != lock(&self.world.server).epochs.len();
        if !broke && !self.shelf.hid_since(since) {
            self.world.wrong(format!("an agent gave up for no reason: {:?}: {}", error.kind(), error.chain()));
        }
    }

    fn start_all(&mut self) {
        let shelf = Arc::clone(&self.shelf);
        let world = &self.world;
        for agent in self.agents.iter_mut().filter(|agent| !agent.runs()) {
            agent.start(world, counter(world), &self.settings, &shelf, None);
        }
    }

    async fn take(&mut self, step: Step) {
        self.world.note(|| format!("step {step:?}"));
        match step {
            Step::Commits => self.commits(),
            Step::LargeCommit => self.commit(1, 60_000, 400_000),
            Step::Rotate => self.with_server(Server::rotate),
            Step::Purge => {
                let files = usize::try_from(self.dice.between(1, 3)).unwrap();
                self.with_server(|server, _| server.purge(files));
            }
            Step::Restart => {
                self.end_lines();
                self.pass(Duration::from_millis(20)).await;
                self.down(Server::shut_down).await;
            }
            Step::Crash => self.down(|server, _| server.crash(0)).await,
            Step::CrashAndLose => {
                let lost = usize::try_from(self.dice.between(1, 6)).unwrap();
                self.down(|server, _| server.crash(lost)).await;
            }
            Step::Reset => self.with_server(Server::reset),
            Step::CloneAgain => {
                let lacks = usize::try_from(self.dice.below(8)).unwrap();
                self.down(|server, _| server.up = false).await;
                self.with_server(|server, now| server.clone_again(lacks, now));
            }
            Step::CutLines => {
                let chosen = self.dice.below(2);
                self.world.cut(|line| chosen == 0 || line.life.starts_with('a'));
            }
            Step::EndDumps => self.end_lines(),
            Step::Freeze => lock(&self.world.lines).values().for_each(|line| line.frozen.cancel()),
            Step::Net(net) => *lock(&self.world.net) = net,
            Step::Sky(sky) => *lock(&self.world.sky) = sky,
            Step::Kill | Step::KillSoon | Step::Stop | Step::Start => self.agents(step).await,
            Step::ClockJump => {
                let by_us = self.dice.pick(&[-3_700_000_000, -2_000_000, 2_000_000, 90_000_000]);
                self.world.clock_went_back.fetch_or(by_us < 0, Ordering::Relaxed);
                simulation::jump(by_us);
            }
            Step::Base => check::take_base(&self.world, &self.shelf).await,
            Step::Rest => {
                let rest = Duration::from_secs(self.dice.between(1, 6));
                self.pass(rest).await;
            }
        }
    }

    async fn agents(&mut self, step: Step) {
        let chosen = usize::try_from(self.dice.below(self.agents.len() as u64)).unwrap();
        let (world, shelf) = (Arc::clone(&self.world), Arc::clone(&self.shelf));
        let fuse = self.dice.between(1, 25);
        let agent = &mut self.agents[chosen];
        match step {
            Step::Kill => agent.kill(&world),
            Step::KillSoon => {
                agent.kill(&world);
                agent.start(&world, counter(&world), &self.settings, &shelf, Some(fuse));
            }
            Step::Stop => _ = agent.stop(&world).await,
            _ => self.start_all(),
        }
    }

    fn commits(&mut self) {
        let count = self.dice.weighted(&[(60, 1), (30, 4), (10, 20)]);
        self.commit(count, 10, 3000);
    }

    fn commit(&mut self, count: u64, least: u64, most: u64) {
        for _ in 0..count {
            let rows = self.dice.between(1, 2);
            let row = |dice: &mut Dice| {
                let length = dice.between(least, most);
                dice.bytes(usize::try_from(length).unwrap())
            };
            let rows = (0..rows).map(|_| row(&mut self.dice)).collect();
            tokio::spawn(Arc::clone(&self.world).commit(rows));
        }
    }

    fn end_lines(&self) {
        lock(&self.world.lines).values().for_each(|line| line.ended.cancel());
    }

    /// Something happens in a server that runs.
    fn with_server(&mut self, happens: impl FnOnce(&mut Server, u64)) {
        let mut server = lock(&self.world.server);
        if server.up {
            happens(&mut server, World::now_us());
            let listed = server.listed.clone();
            if let Some(plugin) = server.plugin.as_mut().filter(|_| listed.len() == 1) {
                plugin.forget();
            }
        }
        drop(server);
        self.world.stir();
    }

    /// The server goes down, and comes up again.
    async fn down(&mut self, goes: impl FnOnce(&mut Server, u64)) {
        self.with_server(goes);
        if let Some(plugin) = &mut lock(&self.world.server).plugin {
            plugin.forget();
        }
        self.world.cut(|_| true);
        self.world.stir();
        let away = self.dice.between(10, 4000);
        self.pass(Duration::from_millis(away)).await;
        lock(&self.world.server).start(World::now_us());
        self.world.stir();
    }

    /// All heals, and whoever can catches up.
    async fn end(&mut self) {
        self.world.note(|| "all heals".to_owned());
        *lock(&self.world.net) = Net::Fair;
        *lock(&self.world.sky) = Sky::Fair;
        let may_break = self.steps.len() > STEPS.len();
        if may_break {
            if self.dice.percent(40) {
                // Upon an idle agent, whose stream stays silent then.
                self.start_all();
                self.pass(Duration::from_secs(8)).await;
                self.take(Step::Reset).await;
            }
            // Of an empty file in the place of another, nobody can tell until something is written.
            self.commit(1, 10, 3000);
        }
        let deadline = clock::monotonic() + CATCH_UP;
        loop {
            self.start_all();
            self.pass(Duration::from_millis(500)).await;
            let lacking = check::lacking(&lock(&self.world.server), &self.shelf);
            let Some(lacking) = lacking else { break };
            if self.world.first_wrong().is_some() {
                return;
            }
            if clock::monotonic() > deadline {
                self.world.wrong(format!("nothing is in the way, and yet the archive does not catch up: {lacking}"));
                return;
            }
        }
        self.pass(Duration::from_secs(2)).await;
        self.settled().await;
        // Also in the middle of a question.
        let pause = Duration::from_millis(self.dice.below(1000));
        self.pass(pause).await;
        for agent in &mut self.agents {
            let told_us = clock::now_us();
            if agent.stop(&self.world).await {
                agent.has_said_its_last_word(&self.world, &self.shelf, told_us).await;
            }
        }
    }

    /// Where nothing happens any more, nobody begins again and again.
    async fn settled(&mut self) {
        let begun = |world: &World| lock(&world.server).dumps_begun;
        let before = begun(&self.world);
        self.pass(QUIET).await;
        let more = begun(&self.world) - before;
        // Each beginning takes two or three, and an agent that had left the source may come back to it.
        if more > 10 * self.agents.len() as u64 {
            self.world.wrong(format!("nothing happens, and {more} dumps were begun within {} s", QUIET.as_secs()));
        }
    }

    async fn judge(&mut self) -> check::Counts {
        let mut counts = check::Counts::default();
        if self.world.first_wrong().is_none() {
            let done = check::archive(&self.world, &self.shelf, &mut self.dice, &mut counts).await;
            if let Err(wrong) = done {
                self.world.wrong(wrong);
            }
        }
        counts
    }
}

fn counter(world: &Arc<World>) -> impl Fn(Arc<crate::world::Life>) -> Counter + use<> {
    let world = Arc::clone(world);
    move |life| Counter { world: Arc::clone(&world), life }
}

/// Who connects is told by the address.
fn network(world: &Arc<World>) -> Rc<dyn Fn(&std::path::Path) -> simulation::Connecting> {
    let world = Arc::clone(world);
    Rc::new(move |path| {
        let life = lock(&world.lives).get(&*path.to_string_lossy()).cloned();
        talk::connect(&world, life.expect("a life"))
    })
}
