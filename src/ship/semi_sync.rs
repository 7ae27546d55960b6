//! What the stages and those who watch tell one another about acknowledgements, in one generation.
//!
//! Owns: which positions the server waits for and since when, what is durable, what was acknowledged, which chunks are on
//! their way and when the next may be cut, and the order to end the generation in good order.
//! Does not own: the socket (`acknowledge`), the policy (`run`), what was not protected ([`super::ledger`]).
//!
//! Invariants: what is due to be acknowledged is a position that the commit stage has called durable, never one that was
//! only received; it is due only if the server asked for one at or before it. Memory is bounded whatever the server asks.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::changes::{Changes, Follower};
use super::ledger::Ledger;
use crate::chunk::ChunkMeta;
use crate::clock::{self, Instant};
use crate::position::Position;

/// Positions asked for that are remembered one by one; beyond them the newest stands for those that follow.
const ASKED_MAX: usize = 4096;
/// While chunks are on their way, the next cut keeps a distance from the last: a round trip divided by the number of places
/// that uploads have, and by this. A crowd of clients that was released comes back over some milliseconds; its first few
/// would take every place with a chunk of one commit each, for the rest to wait a whole round trip.
const SPACES_IN_A_PLACE: u32 = 4;
/// A shorter distance than this is none: the timer does not go finer.
const SPACE_MIN: Duration = Duration::from_millis(1);
/// A store whose round trip is shorter than this gets one chunk at a time: what commits meanwhile gathers. More at a time
/// would be smaller ones, and take processors and disk from the server, which is often beside.
const NEAR: Duration = Duration::from_millis(3);

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
    /// When each chunk was cut that is on its way.
    in_flight: VecDeque<Instant>,
    /// What a chunk takes from its cut until it is durable: the least of late.
    round_trip: Duration,
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
        self.lock().in_flight.push_back(clock::monotonic());
    }

    /// From when on another chunk may be cut for an acknowledgement; `None` while none may be on its way beside the others.
    pub(super) fn next_cut(&self) -> Option<Instant> {
        let state = self.lock();
        let Some(last) = state.in_flight.back() else { return Some(clock::monotonic()) };
        let near = !state.round_trip.is_zero() && state.round_trip < NEAR;
        let slots = if near { 1 } else { self.slots };
        if state.in_flight.len() >= slots {
            return None;
        }
        let places = u32::try_from(self.slots).unwrap_or(u32::MAX).saturating_mul(SPACES_IN_A_PLACE);
        let space = state.round_trip.checked_div(places).filter(|space| *space >= SPACE_MIN);
        Some(last.checked_add(space.unwrap_or_default()).unwrap_or(*last))
    }

    /// A chunk is durable, and all before it.
    pub(super) fn committed(&self, meta: &ChunkMeta) {
        self.ledger.committed(meta);
        let mut state = self.lock();
        if let Some(cut) = state.in_flight.pop_front() {
            let took = clock::monotonic().saturating_duration_since(cut);
            state.round_trip = least_of_late(state.round_trip, took);
        }
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

/// The least of what was measured; one that was never seen again is forgotten little by little.
fn least_of_late(known: Duration, measured: Duration) -> Duration {
    if known.is_zero() { measured } else { measured.min(known.saturating_add(known / 16)) }
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

    /// How long the next cut has to wait.
    fn next_cut(shared: &SemiSync) -> Option<Duration> {
        shared.next_cut().map(|at| at.saturating_duration_since(clock::monotonic()))
    }

    #[tokio::test(start_paused = true)]
    async fn chunks_on_their_way_take_slots() {
        let shared = semi_sync(None);
        assert_eq!(next_cut(&shared), Some(Duration::ZERO));
        shared.cut();
        assert_eq!(next_cut(&shared), Some(Duration::ZERO), "nothing is known of the store yet");
        shared.cut();
        assert_eq!(next_cut(&shared), None);
        clock::sleep(NEAR).await;
        shared.committed(&meta_for_tests("b.000001", 0, 4));
        assert_eq!(next_cut(&shared), Some(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_near_store_gets_one_chunk_at_a_time() {
        let shared = semi_sync(None);
        shared.cut();
        clock::sleep(NEAR / 2).await;
        shared.committed(&meta_for_tests("b.000001", 0, 4));
        shared.cut();
        assert_eq!(next_cut(&shared), None);
        clock::sleep(NEAR / 2).await;
        shared.committed(&meta_for_tests("b.000001", 4, 8));
        assert_eq!(next_cut(&shared), Some(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn cuts_keep_their_distance_while_chunks_are_on_their_way() {
        let shared = semi_sync(None);
        let round_trip = Duration::from_millis(120);
        let store = async || {
            clock::sleep(round_trip).await;
            shared.committed(&meta_for_tests("b.000001", 0, 4));
        };
        shared.cut();
        store().await;
        assert_eq!(next_cut(&shared), Some(Duration::ZERO), "nothing is on its way");
        shared.cut();
        let space = round_trip / 2 / SPACES_IN_A_PLACE;
        assert_eq!(next_cut(&shared), Some(space));
        clock::sleep(space).await;
        assert_eq!(next_cut(&shared), Some(Duration::ZERO));
        shared.cut();
        assert_eq!(next_cut(&shared), None, "both places are taken");
        store().await;
        assert_eq!(next_cut(&shared), Some(Duration::ZERO), "the last cut was long ago");
    }

    #[test]
    fn the_round_trip_is_the_least_of_late() {
        let ms = Duration::from_millis;
        let least = |times: &[u64]| times.iter().fold(Duration::ZERO, |known, time| least_of_late(known, ms(*time)));
        assert_eq!(least(&[100, 3000, 90]), ms(90), "one slow answer is no distance");
        assert!((ms(100)..=ms(200)).contains(&least(&[100, 200, 200, 200, 200])));
        assert_eq!(least(&[&[100_u64][..], &[200; 20]].concat()), ms(200), "the store has moved away");
    }
}
