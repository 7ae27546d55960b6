//! Breaks in the history that the test makes: binlogs purged before they are archived, and RESETs. Each must be recorded, as
//! what it is and once; nothing else may be.
//!
//! The oracle is stock `mysqlbinlog` over the server's own files: what is in them and not in the exported ones is missing.

use std::time::Duration;

use binvault::clock::Instant;
use serde_json::Value;

use crate::kept::{Compared, Short};
use crate::oracle::transactions;
use crate::support::agent::AgentConfig;
use crate::support::lab::Mysqld;

/// Pause between two looks into the archive.
const PAUSE: Duration = Duration::from_millis(500);

/// A break that was made: what a record must call it, and in which epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) kind: &'static str,
    pub(crate) epoch: usize,
}

/// All breaks of a run, in order.
#[derive(Debug, Default)]
pub(crate) struct Breaks {
    made: Vec<Made>,
    /// The last one is recorded, and something is archived behind it.
    settled: usize,
    looked: Option<Instant>,
}

impl Breaks {
    /// One was made. Only one at a time: what is never archived between two of them cannot be told apart.
    pub(crate) fn made(&mut self, kind: &'static str, epoch: usize) {
        assert!(self.are_settled(), "a break before the last one is settled");
        self.made.push(Made { kind, epoch });
    }

    pub(crate) fn are_settled(&self) -> bool {
        self.settled == self.made.len()
    }

    pub(crate) fn count(&self) -> usize {
        self.made.len()
    }

    /// Looks whether the last break is recorded, and gone on behind. Tells it once.
    pub(crate) fn look(&mut self, config: &AgentConfig, now: Instant) -> Option<String> {
        if self.are_settled() || self.looked.is_some_and(|last| now - last < PAUSE) {
            return None;
        }
        self.looked = Some(now);
        let status = config.status()?;
        let recorded = recorded(&status);
        assert!(recorded.len() <= self.made.len(), "made: {:?}, recorded: {recorded:#?}", self.made);
        let last = recorded.last().filter(|_| recorded.len() == self.made.len())?;
        // Each break begins another range.
        let ranges = status["servers"][0]["ranges"].as_array()?;
        if ranges.len() <= self.made.len() || ranges.last()?["from"]["file"] != last["goes_on_at"]["file"] {
            return None;
        }
        self.settled = self.made.len();
        Some(format!("recorded: {}, missing {}, lost {}", last["problem"], last["missing"], last["lost"]))
    }

    /// Every break that was made is recorded, nothing else is, and the missing transactions are those that are missing.
    pub(crate) fn judge(&self, status: &Value, compared: &Compared, server: &Mysqld) {
        let recorded = recorded(status);
        let kinds: Vec<&str> = recorded.iter().map(|gap| gap["kind"].as_str().unwrap()).collect();
        let made: Vec<&str> = self.made.iter().map(|made| made.kind).collect();
        assert_eq!(kinds, made, "recorded (left), made (right): {recorded:#?}");
        for gap in &recorded {
            assert_eq!(gap["is_loss"], true, "a break that nobody is told of: {gap}");
        }
        let breaks: Vec<Break> =
            self.made.iter().zip(&recorded).map(|(made, gap)| Break { made: *made, gap: gap.clone() }).collect();
        for short in &compared.short {
            let at = place(&short.file.name, short.end);
            let explained = breaks.iter().any(|one| one.has_in_it(short.file.epoch, at));
            assert!(explained, "{short:?} is in no recorded gap: {recorded:#?}");
        }
        let last = self.made.iter().map(|made| made.epoch + 1).max().unwrap_or(0);
        for epoch in 0..last {
            let told: Vec<&str> = breaks
                .iter()
                .filter(|one| one.made.epoch == epoch && !one.is_reset())
                .map(|one| one.gap["missing"].as_str().unwrap())
                .collect();
            let missing = missing(epoch, &compared.short, &breaks);
            let (told, missing) = (told.join(","), missing.join(","));
            let row = server
                .value(&format!("SELECT GTID_SUBTRACT('{told}', '{missing}'), GTID_SUBTRACT('{missing}', '{told}')"));
            assert_eq!(row, "\t", "epoch {epoch}: left, told to be missing and archived; right, missing and not told");
        }
    }
}

/// A break with its record.
struct Break {
    made: Made,
    gap: Value,
}

impl Break {
    fn is_reset(&self) -> bool {
        self.made.kind == "reset"
    }

    fn place(&self, field: &str) -> (u64, u64) {
        place(self.gap[field]["file"].as_str().unwrap(), self.gap[field]["offset"].as_u64().unwrap())
    }

    /// Whether what stands at a place is behind the archived end, and before where archiving went on.
    fn has_in_it(&self, epoch: usize, at: (u64, u64)) -> bool {
        let before = self.is_reset() || at < self.place("goes_on_at");
        epoch == self.made.epoch && at >= self.place("ends") && before
    }
}

/// A place in the files of one epoch.
fn place(file: &str, offset: u64) -> (u64, u64) {
    (file.rsplit('.').next().unwrap().parse().unwrap(), offset)
}

/// Transactions of an epoch that are not archived as a whole, but for those that a RESET took: nobody can tell them.
fn missing(epoch: usize, short: &[Short], breaks: &[Break]) -> Vec<String> {
    let reset = breaks.iter().find(|one| one.made.epoch == epoch && one.is_reset());
    let mut missing = Vec::new();
    for short in short.iter().filter(|short| short.file.epoch == epoch) {
        for seen in transactions(&short.file.path).into_iter().filter(|seen| seen.end > short.end) {
            let end = place(&short.file.name, seen.end);
            if reset.is_none_or(|reset| end <= reset.place("ends")) {
                missing.extend(seen.gtid);
            }
        }
    }
    missing
}

/// The records, each break once: an agent that dies right behind writing one may find another set lost the next time.
fn recorded(status: &Value) -> Vec<Value> {
    let mut all: Vec<Value> = status["recorded_gaps"].as_array().cloned().unwrap_or_default();
    all.dedup_by(|next, before| ["kind", "ends", "goes_on_at"].iter().all(|field| next[*field] == before[*field]));
    all
}
