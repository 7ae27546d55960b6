//! What the stages and those who watch tell one another about acknowledgements, in one generation.
//!
//! Owns: which positions the server waits for and since when, what is durable, what was acknowledged, how many chunks are
//! on their way, and the order to end the generation in good order.
//! Does not own: the socket (`acknowledge`), the policy (`run`), what was not protected ([`super::ledger`]).
//!
//! Invariants: what is due to be acknowledged is a position that the commit stage has called durable, never one that was
//! only received; it is due only if the server asked for one at or before it. Memory is bounded whatever the server asks.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::changes::{Changes, Follower};
use super::ledger::Ledger;
use crate::chunk::ChunkMeta;
use crate::clock::{self, Instant};
use crate::position::Position;

/// Positions asked for that are remembered one by one; beyond them the newest stands for those that follow.
const ASKED_MAX: usize = 4096;

/// Shared by the stages of one generation and its guard.
#[derive(Debug)]
pub struct SemiSync {
    /// Whether the dump was asked for as a semi-synchronous replica.
    pub is_replica: bool,
    /// What is not protected, over all generations.
    pub ledger: Arc<Ledger>,
    /// The order to end this generation in good order, so that another kind may begin.
    pub turn: CancellationToken,
    slots: usize,
    state: Mutex<State>,
    changed: Changes,
}

#[derive(Debug, Default)]
struct State {
    /// What the server waits for, the oldest first, each with the time when it was asked.
    asked: VecDeque<(Position, Instant)>,
    durable: Option<Position>,
    acknowledged: Option<Position>,
    in_flight: usize,
    flush: bool,
}

impl SemiSync {
    /// For a generation; `durable` is where the archive ends, `slots` how many chunks may be on their way when another is
    /// cut for an acknowledgement.
    pub fn new(is_replica: bool, ledger: Arc<Ledger>, durable: Option<Position>, slots: usize) -> Arc<Self> {
        let state = Mutex::new(State { durable, ..State::default() });
        let turn = CancellationToken::new();
        Arc::new(Self { is_replica, ledger, turn, slots: slots.max(1), state, changed: Changes::default() })
    }

    /// Follows every change.
    pub fn changes(&self) -> Follower {
        self.changed.follow()
    }

    /// Since when the server has been waiting for its oldest acknowledgement.
    pub fn waiting_since(&self) -> Option<Instant> {
        self.lock().asked.front().map(|(_, since)| *since)
    }

    /// The newest position acknowledged.
    pub fn acknowledged(&self) -> Option<Position> {
        self.lock().acknowledged.clone()
    }

    /// Asks for the open chunk to be cut now.
    pub fn flush(&self) {
        self.lock().flush = true;
        self.changed.tell();
    }

    /// Whether that was asked; the asking is over then.
    pub(super) fn take_flush(&self) -> bool {
        std::mem::take(&mut self.lock().flush)
    }

    /// The server asks for the acknowledgement of everything before a position.
    pub(super) fn asked(&self, position: Position) {
        let mut state = self.lock();
        if state.acknowledged.as_ref().is_some_and(|acknowledged| *acknowledged >= position) {
            return;
        }
        let full = state.asked.len() >= ASKED_MAX;
        match state.asked.back_mut() {
            // The server repeats itself, or asks too much: the older time stands.
            Some((newest, _)) if full || *newest >= position => *newest = position.max(newest.clone()),
            _ => state.asked.push_back((position, clock::monotonic())),
        }
        drop(state);
        self.changed.tell();
    }

    /// A chunk was cut.
    pub(super) fn cut(&self) {
        let mut state = self.lock();
        state.in_flight = state.in_flight.saturating_add(1);
    }

    /// Whether another chunk may be cut for an acknowledgement.
    pub(super) fn has_slot(&self) -> bool {
        self.lock().in_flight < self.slots
    }

    /// A chunk is durable, and all before it.
    pub(super) fn committed(&self, meta: &ChunkMeta) {
        self.ledger.committed(meta);
        let mut state = self.lock();
        state.in_flight = state.in_flight.saturating_sub(1);
        state.durable = Some(Position { file: meta.file.clone(), offset: meta.end });
        drop(state);
        self.changed.tell();
    }

    /// What is to be acknowledged now: the durable position, if the server waits for one up to there.
    pub(super) fn due(&self) -> Option<Position> {
        let state = self.lock();
        let (oldest, _) = state.asked.front()?;
        state.durable.clone().filter(|durable| durable >= oldest)
    }

    /// Everything before a position has been acknowledged.
    pub(super) fn sent(&self, position: Position) {
        let mut state = self.lock();
        while state.asked.front().is_some_and(|(asked, _)| *asked <= position) {
            state.asked.pop_front();
        }
        state.acknowledged = Some(position);
        drop(state);
        self.ledger.acknowledged();
        self.changed.tell();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::BinlogFile;
    use crate::ship::cut::meta_for_tests;

    fn at(number: u64, offset: u64) -> Position {
        Position { file: BinlogFile::new(&format!("b.{number:06}")).unwrap(), offset }
    }

    fn semi_sync(durable: Option<Position>) -> Arc<SemiSync> {
        SemiSync::new(true, Arc::new(Ledger::default()), durable, 2)
    }

    #[test]
    fn only_what_is_durable_is_acknowledged_and_only_when_asked() {
        let shared = semi_sync(Some(at(1, 100)));
        assert_eq!(shared.due(), None, "nobody asked");
        shared.asked(at(1, 200));
        assert_eq!(shared.due(), None, "received is not durable");
        shared.committed(&meta_for_tests("b.000001", 100, 199));
        assert_eq!(shared.due(), None, "one byte is missing");
        shared.committed(&meta_for_tests("b.000001", 199, 260));
        assert_eq!(shared.due(), Some(at(1, 260)), "the durable position, not what was asked for");
        shared.sent(at(1, 260));
        assert_eq!((shared.due(), shared.waiting_since()), (None, None));
        // Asked again for what was acknowledged: nothing new.
        shared.asked(at(1, 200));
        assert_eq!(shared.waiting_since(), None);
        shared.asked(at(2, 4));
        assert_eq!(shared.due(), None, "another file");
        shared.committed(&meta_for_tests("b.000002", 0, 4));
        assert_eq!(shared.due(), Some(at(2, 4)));
    }

    #[test]
    fn one_acknowledgement_covers_several_and_the_oldest_wait_counts() {
        let shared = semi_sync(None);
        for offset in [10, 20, 30] {
            shared.asked(at(1, offset));
        }
        let first = shared.waiting_since();
        shared.committed(&meta_for_tests("b.000001", 0, 20));
        shared.sent(shared.due().unwrap());
        assert!(shared.waiting_since() >= first && shared.waiting_since().is_some());
        assert_eq!(shared.acknowledged(), Some(at(1, 20)));
    }

    #[test]
    fn a_server_that_asks_without_end_is_remembered_in_bounded_memory() {
        let shared = semi_sync(None);
        for offset in 0..3 * ASKED_MAX as u64 {
            shared.asked(at(1, offset));
        }
        assert_eq!(shared.lock().asked.len(), ASKED_MAX);
        shared.sent(at(1, ASKED_MAX as u64));
        assert_eq!(shared.lock().asked.back().unwrap().0, at(1, 3 * ASKED_MAX as u64 - 1));
    }

    #[test]
    fn chunks_on_their_way_take_slots() {
        let shared = semi_sync(None);
        shared.cut();
        assert!(shared.has_slot());
        shared.cut();
        assert!(!shared.has_slot());
        shared.committed(&meta_for_tests("b.000001", 0, 4));
        assert!(shared.has_slot());
    }
}
