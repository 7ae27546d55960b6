//! What is in the spool, in which order it is drained, and whether there is room for more. Pure.
//!
//! Invariants: an entry is counted from before its bytes are written until they are gone; turns are given in the order
//! in which entries became durable, and [`Index::stored`] moves over contiguous turns only.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use serde::{Deserialize, Serialize};

use crate::store::disk::SpareOptions;
use crate::store::{Key, ObjectMeta};

/// The part of the room that pieces may take, files of removed ones that are kept included.
const PIECES_SHARE: u64 = 8;
/// The part of that for what is kept of removed ones.
const SPARES_SHARE: u64 = 4;

/// A budget of bytes and entries.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Room {
    bytes: u64,
    entries: usize,
    bytes_max: u64,
    entries_max: usize,
}

impl Room {
    fn new(bytes_max: u64, entries_max: usize) -> Self {
        Self { bytes: 0, entries: 0, bytes_max, entries_max: entries_max.max(1) }
    }

    /// Takes room for an entry. One that is larger than all the room is taken alone.
    fn take(&mut self, bytes: u64) -> bool {
        let fits = self.entries == 0 || self.bytes.saturating_add(bytes) <= self.bytes_max;
        if fits && self.entries < self.entries_max {
            self.take_anyway(bytes);
            return true;
        }
        false
    }

    fn take_anyway(&mut self, bytes: u64) {
        (self.bytes, self.entries) = (self.bytes.saturating_add(bytes), self.entries.saturating_add(1));
    }

    fn give(&mut self, bytes: u64) {
        (self.bytes, self.entries) = (self.bytes.saturating_sub(bytes), self.entries.saturating_sub(1));
    }

    fn is_half_full(&self) -> bool {
        self.bytes >= self.bytes_max / 2 || self.entries >= self.entries_max / 2
    }
}

/// Where an entry belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// It goes to the store.
    Whole,
    /// It is held until what covers it is here, or until pieces of that generation are released.
    Piece(u64),
}

#[derive(Debug)]
struct Entry {
    size: u64,
    since_us: u64,
    /// When it is drained; `None` for a piece that is held.
    turn: Option<u64>,
}

/// An entry that is to go to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) turn: u64,
    pub(super) key: Key,
    pub(super) size: u64,
}

/// What the spool holds, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SpoolState {
    /// Objects that are in the spool and not known to be in the store.
    pub objects: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Since when the oldest has been there, microseconds since 1970.
    pub oldest_us: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Index {
    entries: BTreeMap<Key, Entry>,
    /// Waiting to be drained.
    waiting: BTreeMap<u64, Key>,
    /// Turns given and not yet stored: those waiting and those on their way.
    open: BTreeSet<u64>,
    next_turn: u64,
    whole: Room,
    pieces: Room,
    spares: SpareOptions,
    generation: u64,
}

impl Index {
    pub(super) fn new(bytes_max: u64, entries_max: usize) -> Self {
        let part = |of: usize, share: u64| of / usize::try_from(share).unwrap_or(1);
        let (bytes, entries) = (bytes_max / PIECES_SHARE, part(entries_max, PIECES_SHARE));
        let spares = SpareOptions { files: part(entries, SPARES_SHARE), bytes: bytes / SPARES_SHARE };
        Self {
            entries: BTreeMap::new(),
            waiting: BTreeMap::new(),
            open: BTreeSet::new(),
            next_turn: 0,
            whole: Room::new(bytes_max.saturating_sub(bytes), entries_max.saturating_sub(entries)),
            pieces: Room::new(bytes.saturating_sub(spares.bytes), entries.saturating_sub(spares.files)),
            spares,
            generation: 0,
        }
    }

    /// What may be kept of removed entries, beside the rooms.
    pub(super) fn spares(&self) -> SpareOptions {
        self.spares
    }

    fn room(&mut self, lane: Lane) -> &mut Room {
        if lane == Lane::Whole { &mut self.whole } else { &mut self.pieces }
    }

    /// Counts an entry that is about to be written. `false`: there is no room.
    pub(super) fn reserve(&mut self, lane: Lane, size: u64) -> bool {
        self.room(lane).take(size)
    }

    /// What was reserved was not written.
    pub(super) fn unreserve(&mut self, lane: Lane, size: u64) {
        self.room(lane).give(size);
    }

    /// An entry whose room is reserved is durable in the folder now.
    pub(super) fn written(&mut self, lane: Lane, key: &Key, size: u64, since_us: u64) {
        if self.entries.contains_key(key) {
            // The same name is the same bytes: a call that was repeated.
            self.unreserve(lane, size);
            return;
        }
        let held = lane == Lane::Piece(self.generation);
        if !held && lane != Lane::Whole {
            // Its generation ended while it was being written.
            self.pieces.give(size);
            self.whole.take_anyway(size);
        }
        let turn = (!held).then(|| self.turn(key));
        self.entries.insert(key.clone(), Entry { size, since_us, turn });
    }

    /// An entry that an earlier run has left.
    pub(super) fn found(&mut self, key: &Key, size: u64, since_us: u64) {
        self.whole.take_anyway(size);
        self.written(Lane::Whole, key, size, since_us);
    }

    fn turn(&mut self, key: &Key) -> u64 {
        let turn = self.next_turn;
        self.next_turn = turn.saturating_add(1);
        self.waiting.insert(turn, key.clone());
        self.open.insert(turn);
        turn
    }

    /// The next entry for the store; it is on its way from now on.
    pub(super) fn take_due(&mut self) -> Option<Due> {
        let (turn, key) = self.waiting.pop_first()?;
        let size = self.entries.get(&key).map_or(0, |entry| entry.size);
        Some(Due { turn, key, size })
    }

    /// An entry on its way did not arrive.
    pub(super) fn put_back(&mut self, due: Due) {
        self.waiting.insert(due.turn, due.key);
    }

    /// An entry is out of the folder.
    pub(super) fn gone(&mut self, key: &Key) {
        let Some(entry) = self.entries.remove(key) else { return };
        match entry.turn {
            None => self.pieces.give(entry.size),
            Some(turn) => {
                self.open.remove(&turn);
                self.waiting.remove(&turn);
                self.whole.give(entry.size);
            }
        }
    }

    /// The generation that pieces belong to from now on. What is held goes to the store like everything else.
    pub(super) fn release_pieces(&mut self) -> u64 {
        self.generation = self.generation.saturating_add(1);
        let held = |(key, entry): (&Key, &Entry)| entry.turn.is_none().then(|| key.clone());
        let keys: Vec<Key> = self.entries.iter().filter_map(held).collect();
        for key in keys {
            let turn = self.turn(&key);
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.turn = Some(turn);
                self.pieces.give(entry.size);
                self.whole.take_anyway(entry.size);
            }
        }
        self.generation
    }

    /// How many entries have been given a turn so far.
    pub(super) fn taken(&self) -> u64 {
        self.next_turn
    }

    /// How many of them, counted from the first without a break, are in the store.
    pub(super) fn stored(&self) -> u64 {
        self.open.first().copied().unwrap_or(self.next_turn)
    }

    /// Whether pieces take so much room that what covers them should come soon.
    pub(super) fn has_many_pieces(&self) -> bool {
        self.pieces.is_half_full()
    }

    pub(super) fn holds(&self, key: &Key) -> bool {
        self.entries.contains_key(key)
    }

    /// The objects under a prefix from `from` on, in the order of their names.
    pub(super) fn objects<'a>(&'a self, prefix: &'a str, from: &str) -> impl Iterator<Item = ObjectMeta> + 'a {
        let from = (Bound::Included(from.max(prefix)), Bound::Unbounded);
        let under = self.entries.range::<str, _>(from).take_while(move |(key, _)| key.as_str().starts_with(prefix));
        under.map(|(key, entry)| ObjectMeta { key: key.clone(), size: entry.size, modified_us: Some(entry.since_us) })
    }

    pub(super) fn state(&self) -> SpoolState {
        SpoolState {
            objects: self.entries.len(),
            bytes: self.whole.bytes.saturating_add(self.pieces.bytes),
            oldest_us: self.entries.values().map(|entry| entry.since_us).min(),
        }
    }

    /// Whether everything is in the store.
    pub(super) fn is_drained(&self) -> bool {
        self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new(format!("chunks/{name}")).unwrap()
    }

    fn put(index: &mut Index, lane: Lane, name: &str, size: u64) -> bool {
        let fits = index.reserve(lane, size);
        if fits {
            index.written(lane, &key(name), size, 7);
        }
        fits
    }

    #[test]
    fn entries_are_drained_in_turn_and_counted_without_a_break() {
        let mut index = Index::new(1 << 20, 100);
        for name in ["c", "a", "b"] {
            assert!(put(&mut index, Lane::Whole, name, 10));
        }
        let (first, second) = (index.take_due().unwrap(), index.take_due().unwrap());
        assert_eq!((first.key.as_str(), second.key.as_str()), ("chunks/c", "chunks/a"));
        index.gone(&second.key);
        assert_eq!((index.taken(), index.stored()), (3, 0), "the first is still on its way");
        index.put_back(first.clone());
        assert_eq!(index.take_due().unwrap(), first, "what did not arrive goes first");
        index.gone(&first.key);
        assert_eq!((index.stored(), index.state().objects, index.state().bytes), (2, 1, 10));
        index.gone(&key("b"));
        assert_eq!((index.stored(), index.is_drained(), index.state()), (3, true, SpoolState::default()));
    }

    #[test]
    fn room_is_bounded_in_bytes_and_in_entries_and_pieces_have_their_own() {
        let mut index = Index::new(800, 80);
        assert!(put(&mut index, Lane::Whole, "large", 650));
        assert!(!put(&mut index, Lane::Whole, "more", 100), "700 of 800 bytes are for whole chunks");
        assert!(put(&mut index, Lane::Piece(0), "piece", 60), "and 100 for pieces");
        assert!(index.has_many_pieces());
        assert!(!put(&mut index, Lane::Piece(0), "another", 60));
        let mut index = Index::new(1 << 20, 16);
        assert_eq!((0..20).filter(|n| put(&mut index, Lane::Whole, &n.to_string(), 1)).count(), 14);
        let mut index = Index::new(80, 80);
        assert!(put(&mut index, Lane::Whole, "larger than all", 1000), "alone it goes");
    }

    #[test]
    fn pieces_are_held_until_they_are_covered_or_released() {
        let mut index = Index::new(1 << 20, 100);
        let generation = index.release_pieces();
        put(&mut index, Lane::Piece(generation), "1", 10);
        put(&mut index, Lane::Piece(generation), "2", 10);
        assert_eq!((index.take_due(), index.is_drained(), index.state().objects), (None, true, 2));
        index.gone(&key("1"));
        index.release_pieces();
        put(&mut index, Lane::Piece(generation), "3", 10);
        let due: Vec<String> = std::iter::from_fn(|| index.take_due()).map(|due| due.key.to_string()).collect();
        assert_eq!(due, ["chunks/2", "chunks/3"], "one that was late is not held either");
        index.gone(&key("2"));
        index.gone(&key("3"));
        assert_eq!((index.pieces.bytes, index.whole.bytes, index.whole.entries), (0, 0, 0));
    }

    #[test]
    fn a_name_twice_is_counted_once() {
        let mut index = Index::new(1 << 20, 100);
        put(&mut index, Lane::Whole, "a", 10);
        put(&mut index, Lane::Whole, "a", 10);
        assert_eq!((index.state().bytes, index.taken()), (10, 1));
        assert_eq!(index.objects("chunks/", "").count(), 1);
        assert_eq!(index.objects("chunks/", "chunks/b").count(), 0);
        assert_eq!(index.objects("chunks/b", "").count(), 0);
    }
}
