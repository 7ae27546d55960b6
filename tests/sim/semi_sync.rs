//! The model of the source's plugin for semi-synchronous replication: who waits, until when, and who is acknowledged.
//!
//! As tested on 9.7, with AFTER_SYNC, one replica to wait for, and no waiting without replicas. Places are pairs of a
//! file's index and an offset, and so compare.

/// A place in the log.
pub(crate) type At = (usize, u64);

/// How a commit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A replica has acknowledged it: whoever made it was told that it is safe.
    Acknowledged,
    /// Nobody waited for it, or no longer.
    Alone,
}

/// The plugin, enabled.
#[derive(Debug, Default)]
pub(crate) struct Plugin {
    /// Whether commits wait.
    pub(crate) is_on: bool,
    pub(crate) times_off: u64,
    pub(crate) acknowledged: u64,
    pub(crate) unacknowledged: u64,
    /// Commits that wait, and those whose wait has ended and who do not know it yet.
    waiting: Vec<(At, Option<Outcome>)>,
    newest: Option<At>,
}

impl Plugin {
    /// A commit stands in the log; whether it has to wait.
    pub(crate) fn commit(&mut self, at: At) -> bool {
        self.newest = Some(at);
        if self.is_on {
            self.waiting.push((at, None));
        } else {
            self.unacknowledged += 1;
        }
        self.is_on
    }

    pub(crate) fn waits(&self) -> u64 {
        self.waiting.iter().filter(|(_, outcome)| outcome.is_none()).count() as u64
    }

    /// Those that wait for a word up to a place.
    pub(crate) fn waiting_until(&self, at: At) -> Vec<At> {
        self.waiting.iter().filter(|(end, outcome)| *end <= at && outcome.is_none()).map(|(end, _)| *end).collect()
    }

    /// A replica has everything before a place.
    pub(crate) fn acknowledge(&mut self, at: At) {
        for (_, outcome) in self.waiting.iter_mut().filter(|(end, outcome)| *end <= at && outcome.is_none()) {
            *outcome = Some(Outcome::Acknowledged);
            self.acknowledged += 1;
        }
        if self.newest.is_none_or(|newest| newest <= at) {
            self.is_on = true;
        }
    }

    /// Nobody waits any more: a commit has waited too long, or the last replica has gone.
    pub(crate) fn switch_off(&mut self) {
        if self.is_on {
            self.is_on = false;
            self.times_off += 1;
        }
        for (_, outcome) in self.waiting.iter_mut().filter(|(_, outcome)| outcome.is_none()) {
            *outcome = Some(Outcome::Alone);
            self.unacknowledged += 1;
        }
    }

    /// How a commit's wait has ended, if it has.
    pub(crate) fn outcome(&mut self, at: At) -> Option<Outcome> {
        let index = self.waiting.iter().position(|(end, outcome)| *end == at && outcome.is_some())?;
        self.waiting.remove(index).1
    }

    /// The log begins anew.
    pub(crate) fn forget(&mut self) {
        self.switch_off();
        self.newest = None;
    }
}
