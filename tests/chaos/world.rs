//! The world in which faults happen: a server, an agent, the wires between, and what is to end when.
//!
//! Owns: the agent's lives, what has been begun and has to end, commands that run beside, the bounds that are looked at.
//! Does not own: which fault comes next and what it does (`faults`), breaks of the history (`breaks`).
//!
//! Invariants: an agent ends only when it is ended here; every fault but those of an instant ends by itself.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use binvault::clock::{Instant, monotonic};
use rustix::process::Signal;

use crate::breaks::Breaks;
use crate::kept::Kept;
use crate::s3;
use crate::support::agent::{Agent, AgentConfig, BASE_RESIDENT_MAX};
use crate::support::dice::Dice;
use crate::support::lab::Mysqld;
use crate::support::load::Load;
use crate::wire::{State, Wire};

/// No recovery takes longer, whatever happens to it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// No command through the wires takes longer: it may have to read all of the archive, over and over.
const COMMAND_LIMIT: Duration = Duration::from_secs(1_200);

/// Descriptors that an agent may have open: some thirty at work, and connections to a store and a server that hang.
pub(crate) const DESCRIPTORS_MAX: usize = 96;

/// How a command that meets faults may end: done, failed, server away, store away, a clash of base backups, and a gap where
/// chunks are on their way. Never with damage or a panic.
const FIT_TO_END: &[i32] = &[0, 1, 3, 8, 9, 12];

/// What stays the same through a run.
pub(crate) struct Scene<'a> {
    /// Through the wires.
    pub(crate) config: &'a AgentConfig,
    /// The same archive and server, without anything between.
    pub(crate) direct: &'a AgentConfig,
    pub(crate) s3: &'a s3::Server,
    pub(crate) to_server: &'a Wire,
    pub(crate) to_store: &'a Wire,
    pub(crate) load: &'a Load,
}

/// What has been begun, and ends at its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    ServerWire,
    StoreWire,
    Delay,
    Down,
    CutBodies,
    Lag,
    AgentIsAway,
    AgentIsStopped,
    ServerIsFrozen,
}

/// The most that was seen of what is bounded.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) resident: u64,
    pub(crate) descriptors: usize,
    pub(crate) lives: u32,
}

pub(crate) struct World<'a> {
    pub(crate) scene: &'a Scene<'a>,
    pub(crate) server: &'a mut Mysqld,
    pub(crate) dice: Dice,
    pub(crate) kept: Kept,
    pub(crate) breaks: Breaks,
    pub(crate) bounds: Bounds,
    /// What was thrown, and how often.
    pub(crate) thrown: BTreeMap<String, u32>,
    agent: Option<Agent<'a>>,
    helpers: Vec<(&'static str, Agent<'a>, Instant)>,
    due: Vec<(Instant, Ending)>,
    begun: Instant,
}

impl<'a> World<'a> {
    pub(crate) fn new(scene: &'a Scene<'a>, server: &'a mut Mysqld, dice: Dice) -> Self {
        let kept = Kept::new(server);
        let agent = scene.config.spawn();
        Self {
            scene,
            server,
            dice,
            kept,
            breaks: Breaks::default(),
            bounds: Bounds { lives: 1, ..Bounds::default() },
            thrown: BTreeMap::new(),
            agent: Some(agent),
            helpers: Vec::new(),
            due: Vec::new(),
            begun: monotonic(),
        }
    }

    /// Says something, with its time.
    pub(crate) fn say(&self, text: &str) {
        println!("{:8.2} s  {text}", self.begun.elapsed().as_secs_f64());
    }

    /// Something ends after a while; what has been planned for it until now is forgotten.
    pub(crate) fn ends_after(&mut self, ending: Ending, after: Duration) {
        self.due.retain(|(_, planned)| *planned != ending);
        self.due.push((monotonic() + after, ending));
    }

    pub(crate) fn is_on(&self, ending: Ending) -> bool {
        self.due.iter().any(|(_, planned)| *planned == ending)
    }

    /// Ends what is due, and looks whether all is as it should be.
    pub(crate) fn tick(&mut self) {
        let now = monotonic();
        let due: Vec<Ending> = self.due.iter().filter(|(at, _)| *at <= now).map(|(_, ending)| *ending).collect();
        self.due.retain(|(at, _)| *at > now);
        for ending in due {
            self.end(ending);
        }
        if let Some(agent) = &mut self.agent
            && let Some(status) = agent.exited()
        {
            panic!("the agent gave up ({status}); its log ends:\n{}", agent.log_tail());
        }
        self.look_after_helpers(now);
        let (direct, breaks) = (self.scene.direct, &mut self.breaks);
        if let Some(news) = breaks.look(direct, now) {
            self.say(&news);
        }
    }

    fn end(&mut self, ending: Ending) {
        let switches = &self.scene.s3.switches;
        match ending {
            Ending::ServerWire => self.heal(self.scene.to_server),
            Ending::StoreWire => self.heal(self.scene.to_store),
            Ending::Delay => switches.delay_ms.store(0, SeqCst),
            Ending::Down => switches.down.store(false, SeqCst),
            Ending::CutBodies => switches.cut_bodies.store(false, SeqCst),
            Ending::Lag => switches.list_lag_ms.store(0, SeqCst),
            Ending::AgentIsAway => self.start_agent(),
            Ending::AgentIsStopped => self.signal_agent(Signal::CONT),
            Ending::ServerIsFrozen => self.server.thaw(),
        }
    }

    /// A wire is whole again; what was on it may go on, or be gone.
    fn heal(&self, wire: &Wire) {
        wire.mend();
        // Chance that no dice need: whether the millisecond is an even one.
        if self.begun.elapsed().as_millis().is_multiple_of(2) {
            wire.cut(true);
        }
    }

    /// Ends everything that is going on; the agent and the server run.
    pub(crate) fn calm(&mut self) {
        for (_, ending) in std::mem::take(&mut self.due) {
            self.end(ending);
        }
        for wire in [self.scene.to_server, self.scene.to_store] {
            wire.mend();
            wire.set(State::Passes);
        }
        let switches = &self.scene.s3.switches;
        for left in [&switches.slow_down, &switches.internal_error, &switches.conflict] {
            left.store(0, SeqCst);
        }
    }

    /// The server answers: nobody has it frozen, and what it sends is read. While it sends a clone, DDL waits for the piece on
    /// its way, and a look at its threads for the DDL: nobody would end what is due meanwhile.
    pub(crate) fn wake_server(&mut self) {
        for ending in [Ending::ServerIsFrozen, Ending::AgentIsStopped, Ending::ServerWire] {
            if self.is_on(ending) {
                self.due.retain(|(_, planned)| *planned != ending);
                self.end(ending);
            }
        }
    }

    fn start_agent(&mut self) {
        assert!(self.agent.is_none(), "an agent runs already");
        self.agent = Some(self.scene.config.spawn());
        self.bounds.lives += 1;
    }

    /// The running agent, if it is not away.
    pub(crate) fn agent(&mut self) -> Option<&mut Agent<'a>> {
        self.agent.as_mut()
    }

    pub(crate) fn signal_agent(&self, signal: Signal) {
        if let Some(agent) = &self.agent {
            agent.signal(signal);
        }
    }

    /// The agent leaves the stage, in its own way or not. `None`: it is away already.
    pub(crate) fn take_agent(&mut self) -> Option<Agent<'a>> {
        self.measure();
        self.due.retain(|(_, ending)| *ending != Ending::AgentIsStopped);
        self.agent.take()
    }

    /// Looks at what is bounded.
    pub(crate) fn measure(&mut self) {
        if let Some(agent) = &self.agent {
            let descriptors = std::fs::read_dir(format!("/proc/{}/fd", agent.pid())).map_or(0, Iterator::count);
            self.bounds.resident = self.bounds.resident.max(agent.peak_rss_bytes());
            self.bounds.descriptors = self.bounds.descriptors.max(descriptors);
            assert!(self.bounds.resident <= BASE_RESIDENT_MAX, "{:?}: the agent is too large", self.bounds);
            assert!(self.bounds.descriptors <= DESCRIPTORS_MAX, "{:?}: too many descriptors", self.bounds);
        }
    }

    /// A command through the wires, beside the agent.
    pub(crate) fn help(&mut self, what: &'static str, arguments: &[&str]) {
        let helper = self.scene.config.spawn_with(arguments);
        self.helpers.push((what, helper, monotonic()));
    }

    /// Whether a command of this kind is at work.
    pub(crate) fn is_at_work(&self, what: &str) -> bool {
        self.helpers.iter().any(|(other, ..)| *other == what)
    }

    /// Whether nothing runs beside the agent.
    pub(crate) fn is_alone(&self) -> bool {
        self.helpers.is_empty()
    }

    fn look_after_helpers(&mut self, now: Instant) {
        let mut said = Vec::new();
        self.helpers.retain_mut(|(what, helper, since)| {
            let Some(status) = helper.exited() else {
                assert!(now - *since < COMMAND_LIMIT, "{what} does not end:\n{}", helper.log_tail());
                return true;
            };
            let fit = status.code().is_some_and(|code| FIT_TO_END.contains(&code));
            assert!(fit && !helper.log().contains("panicked"), "{what} ended with {status}:\n{}", helper.log_tail());
            said.push(format!("{what} ended with {}", status.code().unwrap()));
            false
        });
        for text in said {
            self.say(&text);
            *self.thrown.entry(text).or_default() += 1;
        }
    }

    /// Lets time pass until something is so.
    pub(crate) fn wait(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let since = monotonic();
        while !done(self) {
            self.tick();
            if since.elapsed() > PATIENCE {
                let log = self.agent.as_ref().map(Agent::log_tail).unwrap_or_default();
                panic!("not within {PATIENCE:?}: {what}; the agent's log ends:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until nothing runs beside the agent.
    pub(crate) fn wait_for_helpers(&mut self) {
        self.wait("the commands beside the agent end", |world| world.is_alone());
    }
}
