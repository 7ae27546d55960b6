//! The ledger: whether commits are protected, since when, and which were not.
//!
//! Owns: the state over all generations of a run, the bounded list of lapses with their transactions.
//! Does not own: the judgement that commits are protected (`run`, from the server's own word), the log's words.
//!
//! A transaction counts as not covered if its chunk became durable while commits were not known to be protected. What
//! became durable since the server last said that they are is kept apart, and is charged to a lapse if the server's next
//! word is another: so a lapse may list transactions of up to one question's interval too many, and never too few.
//!
//! Invariant: before protection was reached for the first time nothing is a lapse; memory is bounded, whatever is listed.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::archive::{Lapse, SemiSyncWord};
use crate::chunk::ChunkMeta;
use crate::clock;
use crate::position::GtidSet;

/// Lapses listed; the oldest go first.
const LAPSES_MAX: usize = 16;
/// Bytes of a lapse's GTID set; a longer one is not listed.
const GTIDS_BYTES_MAX: usize = 2048;

/// Shared by the agent's generations, its guard and its watch.
#[derive(Debug, Default)]
pub struct Ledger {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    word: SemiSyncWord,
    /// Durable since the server last said that commits are protected.
    tentative: Bucket,
}

#[derive(Debug, Default)]
struct Bucket {
    commits: u64,
    gtids: GtidSet,
}

impl Ledger {
    /// Goes on from what an earlier run of this agent wrote down. While there was no agent, there was no protection.
    pub fn resume(&self, mode: &str, earlier: Option<SemiSyncWord>) {
        let mut state = self.lock();
        let now = clock::now_us();
        state.word = SemiSyncWord { mode: mode.to_owned(), ..earlier.unwrap_or_default() };
        if state.word.protected {
            lapse(&mut state.word, now, "the agent was not running");
        } else if !state.word.ever {
            state.word.since_us = now;
        }
    }

    /// The word for the beacon.
    pub fn word(&self) -> SemiSyncWord {
        self.lock().word.clone()
    }

    /// Follows changes between protected and not.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The server says that commits wait, and that it has not been otherwise since it was last asked.
    /// Returns whether that is news.
    pub fn protected(&self) -> bool {
        let mut state = self.lock();
        state.tentative = Bucket::default();
        if state.word.protected {
            return false;
        }
        let now = clock::now_us();
        let word = &mut state.word;
        (word.protected, word.ever, word.since_us, word.reason) = (true, true, now, None);
        if let Some(last) = word.lapses.last_mut().filter(|lapse| lapse.to_us.is_none()) {
            last.to_us = Some(now);
        }
        drop(state);
        self.changed.send_replace(());
        true
    }

    /// Commits are not protected any more, or still not. Returns whether they were until now.
    pub fn unprotected(&self, reason: &str) -> bool {
        let mut state = self.lock();
        let was = state.word.protected;
        if !was {
            state.word.reason = Some(reason.to_owned());
            return false;
        }
        let tentative = std::mem::take(&mut state.tentative);
        lapse(&mut state.word, clock::now_us(), reason);
        charge(&mut state.word, tentative.commits, &tentative.gtids);
        drop(state);
        self.changed.send_replace(());
        true
    }

    pub(super) fn acknowledged(&self) {
        self.lock().word.last_ack_us = Some(clock::now_us());
    }

    pub(super) fn committed(&self, meta: &ChunkMeta) {
        let mut state = self.lock();
        if state.word.protected {
            state.tentative.commits = state.tentative.commits.saturating_add(meta.transactions);
            state.tentative.gtids.union_with(&meta.gtids);
        } else if state.word.ever {
            charge(&mut state.word, meta.transactions, &meta.gtids);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Protection ends.
fn lapse(word: &mut SemiSyncWord, now_us: u64, reason: &str) {
    (word.protected, word.since_us, word.reason) = (false, now_us, Some(reason.to_owned()));
    let gtids = Some(GtidSet::new());
    word.lapses.push(Lapse { from_us: now_us, to_us: None, reason: reason.to_owned(), commits: 0, gtids });
    if word.lapses.len() > LAPSES_MAX {
        word.lapses.remove(0);
    }
}

/// Writes transactions down as not covered.
fn charge(word: &mut SemiSyncWord, commits: u64, gtids: &GtidSet) {
    word.uncovered = word.uncovered.saturating_add(commits);
    let Some(lapse) = word.lapses.last_mut() else { return };
    lapse.commits = lapse.commits.saturating_add(commits);
    if let Some(listed) = lapse.gtids.as_mut() {
        listed.union_with(gtids);
        if listed.to_string().len() > GTIDS_BYTES_MAX {
            lapse.gtids = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ship::cut::meta_for_tests;

    const U: &str = "00000000-0000-0000-0000-00000000000a";

    fn chunk(first: u64, last: u64) -> ChunkMeta {
        let gtids = format!("{U}:{first}-{last}").parse().unwrap();
        ChunkMeta { transactions: last - first + 1, gtids, ..meta_for_tests("b.000001", 0, 4) }
    }

    #[test]
    fn nothing_is_a_lapse_before_the_first_protection() {
        let ledger = Ledger::default();
        ledger.resume("store", None);
        ledger.committed(&chunk(1, 1000));
        assert!(!ledger.unprotected("behind"));
        let word = ledger.word();
        assert_eq!((word.uncovered, word.lapses.len(), word.reason.as_deref()), (0, 0, Some("behind")));
    }

    #[test]
    fn a_lapse_lists_what_was_not_covered_and_no_more_than_one_interval_before() {
        let ledger = Ledger::default();
        assert!(ledger.protected());
        ledger.committed(&chunk(1, 5));
        assert!(!ledger.protected(), "no news, and 1-5 are covered for good");
        ledger.committed(&chunk(6, 7));
        assert!(ledger.unprotected("slow"));
        ledger.committed(&chunk(8, 10));
        assert!(ledger.protected());
        ledger.committed(&chunk(11, 12));
        let word = ledger.word();
        assert_eq!((word.protected, word.uncovered, word.lapses.len()), (true, 5, 1));
        let lapse = &word.lapses[0];
        assert_eq!((lapse.commits, lapse.reason.as_str(), lapse.to_us.is_some()), (5, "slow", true));
        assert_eq!(lapse.gtids, Some(format!("{U}:6-10").parse().unwrap()));
    }

    #[test]
    fn the_time_without_an_agent_is_a_lapse() {
        let first = Ledger::default();
        first.protected();
        let second = Ledger::default();
        second.resume("store", Some(first.word()));
        second.committed(&chunk(1, 3));
        let word = second.word();
        assert_eq!((word.protected, word.uncovered), (false, 3));
        assert_eq!(word.lapses[0].reason, "the agent was not running");
    }

    #[test]
    fn the_list_and_each_set_are_bounded() {
        let ledger = Ledger::default();
        for round in 0..40 {
            ledger.protected();
            ledger.unprotected("again");
            for odd in 0..500 {
                ledger.committed(&chunk(1000 * round + 2 * odd + 1, 1000 * round + 2 * odd + 1));
            }
        }
        let word = ledger.word();
        assert_eq!((word.lapses.len(), word.uncovered), (LAPSES_MAX, 40 * 500));
        assert!(word.lapses.iter().all(|lapse| lapse.gtids.is_none() && lapse.commits == 500));
    }
}
