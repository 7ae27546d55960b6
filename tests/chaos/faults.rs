//! The faults, and what else happens: which there are, how often each comes, and what it does.
//!
//! What lasts is ended by the world at its time. Breaks of the history are made one at a time, and only while they may be.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use binvault::clock::{Instant, monotonic};
use rustix::process::Signal;

use crate::support::wait_until;
use crate::wire::{State, Wire};
use crate::world::{Ending, PATIENCE, World};

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    AgentKilled,
    AgentStopped,
    AgentTerminated,
    DumpKilled,
    ServerRestarted,
    ServerKilled,
    ServerFrozen,
    WireCut,
    WireTorn,
    WireSilent,
    WireSlow,
    WireRefuses,
    StoreCut,
    StoreTorn,
    StoreSilent,
    StoreSlow,
    StoreLosesAnswers,
    StoreSlowDown,
    StoreFails,
    StoreConflicts,
    StoreDown,
    StoreDelays,
    StoreCutsBodies,
    StoreListsLate,
    PurgedArchived,
    PurgedTooEarly,
    Reset,
    Base,
    Verify,
    Status,
    List,
}

/// Everything, each as often as it weighs.
pub(crate) const ALL: &[(u64, Fault)] = &[
    (5, Fault::AgentKilled),
    (4, Fault::AgentStopped),
    (1, Fault::AgentTerminated),
    (3, Fault::DumpKilled),
    (1, Fault::ServerRestarted),
    (2, Fault::ServerKilled),
    (2, Fault::ServerFrozen),
    (4, Fault::WireCut),
    (4, Fault::WireTorn),
    (3, Fault::WireSilent),
    (3, Fault::WireSlow),
    (2, Fault::WireRefuses),
    (3, Fault::StoreCut),
    (3, Fault::StoreTorn),
    (3, Fault::StoreSilent),
    (2, Fault::StoreSlow),
    (4, Fault::StoreLosesAnswers),
    (3, Fault::StoreSlowDown),
    (3, Fault::StoreFails),
    (2, Fault::StoreConflicts),
    (2, Fault::StoreDown),
    (4, Fault::StoreDelays),
    (2, Fault::StoreCutsBodies),
    (2, Fault::StoreListsLate),
    (4, Fault::PurgedArchived),
    (2, Fault::PurgedTooEarly),
    (1, Fault::Reset),
    (2, Fault::Base),
    (2, Fault::Verify),
    (4, Fault::Status),
    (2, Fault::List),
];

/// Between two lulls, in which the agent catches up: else one fault would meet it in the back-off behind another for ever.
const LULL_AFTER_MS: (u64, u64) = (15_000, 60_000);

/// The most that a listing lags behind.
const LAG_MAX_MS: u64 = 2_000;

/// Throws faults until a time; `purges` says whether binlogs may go meanwhile.
pub(crate) fn throw_until(world: &mut World<'_>, end: Instant, pause_ms: (u64, u64), purges: bool) {
    let mut next = monotonic();
    let mut lull = next + world.dice.millis(LULL_AFTER_MS.0, LULL_AFTER_MS.1);
    while monotonic() < end {
        world.tick();
        if monotonic() >= lull {
            catch_up(world);
            lull = monotonic() + world.dice.millis(LULL_AFTER_MS.0, LULL_AFTER_MS.1);
        }
        if monotonic() >= next {
            let fault = world.dice.weighted(ALL);
            if may_be(world, fault, purges) {
                throw(world, fault);
                *world.thrown.entry(format!("{fault:?}")).or_default() += 1;
                next = monotonic() + world.dice.millis(pause_ms.0, pause_ms.1);
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Nothing stands in the way, until the agent has everything.
pub(crate) fn catch_up(world: &mut World<'_>) {
    world.calm();
    world.wait("the last break is recorded and gone on behind", |world| world.breaks.are_settled());
    let target = world.server.position();
    world.agent().expect("it was started again").wait_archived(&target, PATIENCE);
    world.say(&format!("caught up, at {}:{}", target.0, target.1));
}

/// Whether a fault makes sense now. Listings lag only where nothing is purged: an agent that does not see all that it has
/// archived would find more missing than is, and a store with late listings is asked for no more than that nothing is lost.
fn may_be(world: &mut World<'_>, fault: Fault, purges: bool) -> bool {
    let settled = world.breaks.are_settled();
    match fault {
        Fault::AgentKilled | Fault::AgentStopped => world.agent().is_some(),
        Fault::AgentTerminated => world.agent().is_some() && settled,
        Fault::PurgedArchived | Fault::Reset => purges && settled,
        Fault::PurgedTooEarly => purges && settled && world.is_alone(),
        Fault::StoreListsLate => !purges,
        Fault::Base => !world.is_at_work("base"),
        Fault::Verify => !world.is_at_work("verify"),
        Fault::Status => !world.is_at_work("status"),
        Fault::List => !world.is_at_work("list"),
        _ => true,
    }
}

fn throw(world: &mut World<'_>, fault: Fault) {
    let scene = world.scene;
    match fault {
        Fault::AgentKilled | Fault::AgentStopped | Fault::AgentTerminated => on_the_agent(world, fault),
        Fault::DumpKilled | Fault::ServerRestarted | Fault::ServerKilled | Fault::ServerFrozen => {
            on_the_server(world, fault);
        }
        Fault::WireCut | Fault::WireTorn | Fault::WireSilent | Fault::WireSlow | Fault::WireRefuses => {
            on_a_wire(world, fault, scene.to_server, Ending::ServerWire);
        }
        Fault::StoreCut | Fault::StoreTorn | Fault::StoreSilent | Fault::StoreSlow | Fault::StoreLosesAnswers => {
            on_a_wire(world, fault, scene.to_store, Ending::StoreWire);
        }
        Fault::PurgedArchived => purge_what_is_archived(world),
        Fault::PurgedTooEarly => purge_too_early(world),
        Fault::Reset => reset(world),
        Fault::Base => {
            world.say("a base backup beside the agent");
            world.help("base", &["base", "--engine", "clone"]);
        }
        Fault::Verify => world.help("verify", &["verify"]),
        Fault::Status => world.help("status", &["status"]),
        Fault::List => world.help("list", &["list"]),
        _ => in_the_store(world, fault),
    }
}

fn on_the_agent(world: &mut World<'_>, fault: Fault) {
    let away = world.dice.millis(0, 2_000);
    match fault {
        Fault::AgentKilled => {
            world.say(&format!("the agent is killed, for {away:?}"));
            world.take_agent().expect("is there").kill();
            world.ends_after(Ending::AgentIsAway, away);
        }
        Fault::AgentStopped => {
            let stopped = world.dice.millis(300, 8_000);
            world.say(&format!("the agent reads nothing for {stopped:?}"));
            world.signal_agent(Signal::STOP);
            world.ends_after(Ending::AgentIsStopped, stopped);
        }
        _ => {
            // It must end in good order and in time where nothing stands in its way.
            catch_up(world);
            let took = world.take_agent().expect("is there").terminate();
            world.say(&format!("the agent is terminated, in {took:?}, for {away:?}"));
            world.ends_after(Ending::AgentIsAway, away);
        }
    }
}

fn on_the_server(world: &mut World<'_>, fault: Fault) {
    world.wake_server();
    match fault {
        Fault::DumpKilled => {
            let dumps = "SELECT id FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'";
            let ids = world.server.sql(dumps);
            world.say(&format!("KILL of the dump: {:?}", ids.lines().collect::<Vec<_>>()));
            for id in ids.lines() {
                // It may have ended by itself.
                drop(world.server.try_sql(&format!("KILL {id}")));
            }
        }
        Fault::ServerFrozen => {
            let frozen = world.dice.millis(300, 6_000);
            world.say(&format!("the server is frozen for {frozen:?}"));
            world.server.freeze();
            world.ends_after(Ending::ServerIsFrozen, frozen);
        }
        _ => {
            world.say(&format!("{fault:?}"));
            if fault == Fault::ServerKilled {
                world.server.kill()
            } else {
                world.server.stop()
            }
            world.server.start_again(&[]);
            world.say("the server is back");
        }
    }
}

fn on_a_wire(world: &mut World<'_>, fault: Fault, wire: &Wire, ending: Ending) {
    let lasts = world.dice.millis(300, 8_000);
    let state = match fault {
        Fault::WireCut | Fault::StoreCut => return cut(world, fault, wire),
        Fault::WireTorn | Fault::StoreTorn => {
            let at = world.dice.between(1, 6_000);
            world.say(&format!("{fault:?} behind {at} bytes of an answer"));
            return wire.tear(at);
        }
        Fault::StoreLosesAnswers => {
            let answers = world.dice.between(1, 4);
            world.say(&format!("{answers} answers of the store get lost"));
            return wire.lose(answers);
        }
        Fault::WireRefuses => {
            cut(world, fault, wire);
            State::Refuses
        }
        Fault::WireSilent | Fault::StoreSilent => State::Silent,
        _ => State::Slow(world.dice.between(20, 300) << 10),
    };
    world.say(&format!("{fault:?}: {state:?} for {lasts:?}"));
    wire.set(state);
    world.ends_after(ending, lasts);
}

fn cut(world: &mut World<'_>, fault: Fault, wire: &Wire) {
    let by_reset = world.dice.percent(50);
    world.say(&format!("{fault:?}, by {}", if by_reset { "RST" } else { "FIN" }));
    wire.cut(by_reset);
}

fn in_the_store(world: &mut World<'_>, fault: Fault) {
    let switches = &world.scene.s3.switches;
    let (requests, lasts) = (world.dice.between(1, 12), world.dice.millis(300, 6_000));
    let (ending, what) = match fault {
        Fault::StoreSlowDown | Fault::StoreFails | Fault::StoreConflicts => {
            let left = match fault {
                Fault::StoreSlowDown => &switches.slow_down,
                Fault::StoreFails => &switches.internal_error,
                _ => &switches.conflict,
            };
            left.store(requests, SeqCst);
            return world.say(&format!("{fault:?}: {requests} requests"));
        }
        Fault::StoreDown => {
            switches.down.store(true, SeqCst);
            (Ending::Down, String::new())
        }
        Fault::StoreCutsBodies => {
            switches.cut_bodies.store(true, SeqCst);
            (Ending::CutBodies, String::new())
        }
        Fault::StoreListsLate => {
            let lag = world.dice.between(200, LAG_MAX_MS);
            switches.list_lag_ms.store(lag, SeqCst);
            (Ending::Lag, format!(" by {lag} ms"))
        }
        _ => {
            let delay = world.dice.between(20, 900);
            switches.delay_ms.store(delay, SeqCst);
            (Ending::Delay, format!(" by {delay} ms"))
        }
    };
    world.say(&format!("{fault:?}{what} for {lasts:?}"));
    world.ends_after(ending, lasts);
}

/// What an operator does who trusts the archive. No break.
fn purge_what_is_archived(world: &mut World<'_>) {
    world.wake_server();
    let Some((file, _)) = world.scene.direct.durable() else { return };
    world.kept.link(world.server);
    world.say(&format!("what is archived is purged, to {file}"));
    world.server.sql(&format!("PURGE BINARY LOGS TO '{file}'"));
}

/// The agent is away, and what it has not archived is purged: a gap.
fn purge_too_early(world: &mut World<'_>) {
    world.wake_server();
    if let Some(agent) = world.take_agent() {
        agent.kill();
    }
    // A dump that nobody reads would hold its file, and what is still on its way to the store would arrive behind the record.
    let scene = world.scene;
    for wire in [scene.to_server, scene.to_store] {
        wire.mend();
        wire.cut(true);
    }
    wait_until("the store is idle", PATIENCE, || scene.s3.switches.connections.load(SeqCst) == 0);
    for _ in 0..world.dice.between(1, 3) {
        world.scene.load.wait_for(20);
        world.server.sql("FLUSH BINARY LOGS");
    }
    let (newest, _) = world.server.position();
    world.kept.link(world.server);
    let server = &*world.server;
    wait_until("the binlogs are purged", PATIENCE, || {
        server.sql(&format!("PURGE BINARY LOGS TO '{newest}'"));
        server.binlogs().first().is_some_and(|file| file.ends_with(&newest))
    });
    world.say(&format!("what is not archived is purged too, to {newest}"));
    world.breaks.made("purged", world.kept.epoch());
    let away = world.dice.millis(0, 2_000);
    world.ends_after(Ending::AgentIsAway, away);
}

/// The server begins another history, under the agent's feet or while it is away.
fn reset(world: &mut World<'_>) {
    world.wake_server();
    let (load, server, kept) = (world.scene.load, &*world.server, &mut world.kept);
    load.gate().held(|| {
        kept.link(server);
        // Files tell when they begin in whole seconds.
        let second = || binvault::clock::now_us() / 1_000_000;
        let now = second();
        wait_until("the next second", PATIENCE, || second() > now);
        server.sql("RESET BINARY LOGS AND GTIDS");
        kept.next_epoch();
        kept.link(server);
    });
    world.say("RESET BINARY LOGS AND GTIDS");
    world.breaks.made("reset", world.kept.epoch() - 1);
}
