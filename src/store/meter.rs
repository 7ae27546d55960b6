//! What calls to a store take, and how they fail: counted for who watches the agent.
//!
//! Owns: the counts, try by try. Does not own: their names (`observe`), the tries (`retry`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use super::{StoreError, StoreErrorKind};

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// An object is written.
    Put,
    /// A range of one is read.
    Get,
    /// It is asked whether there is one.
    Head,
    /// A page of names.
    List,
    /// An object is removed.
    Delete,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Put, Self::Get, Self::Head, Self::List, Self::Delete];

    /// As metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Head => "head",
            Self::List => "list",
            Self::Delete => "delete",
        }
    }
}

/// Counts of all calls, shared by whoever opens the store with it.
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<[Calls; Operation::ALL.len()]>);

/// Calls of one kind.
#[derive(Debug)]
pub struct Calls {
    /// What each try took, seconds.
    pub took: Histogram,
    tries: AtomicU64,
    retries: AtomicU64,
    errors: Mutex<BTreeMap<StoreErrorKind, u64>>,
}

impl Default for Calls {
    fn default() -> Self {
        // A local disk's half millisecond to a slow store's half minute.
        let took = Histogram::new(exponential_buckets(0.0005, 2.0, 17));
        Self { took, tries: AtomicU64::new(0), retries: AtomicU64::new(0), errors: Mutex::default() }
    }
}

impl Calls {
    /// All tries.
    pub fn tries(&self) -> u64 {
        self.tries.load(Ordering::Relaxed)
    }

    /// Tries that were not the first of their call.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Tries that failed, by kind. That an object is not there is an answer, no failure.
    pub fn errors(&self) -> BTreeMap<StoreErrorKind, u64> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Meter {
    /// The calls of a kind.
    pub fn calls(&self, operation: Operation) -> &Calls {
        let [put, get, head, list, delete] = &*self.0;
        match operation {
            Operation::Put => put,
            Operation::Get => get,
            Operation::Head => head,
            Operation::List => list,
            Operation::Delete => delete,
        }
    }

    /// A try has ended.
    pub fn tried(&self, operation: Operation, took: Duration, again: bool, error: Option<&StoreError>) {
        let calls = self.calls(operation);
        calls.took.observe(took.as_secs_f64());
        calls.tries.fetch_add(1, Ordering::Relaxed);
        if again {
            calls.retries.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(error) = error.filter(|error| !error.is_not_found()) {
            let mut errors = calls.errors.lock().unwrap_or_else(PoisonError::into_inner);
            let count = errors.entry(error.kind).or_default();
            *count = count.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_try_is_counted_and_an_object_that_is_not_there_is_no_failure() {
        let meter = Meter::default();
        let error = |kind| StoreError::new(kind, "a test");
        let second = Duration::from_secs(1);
        meter.tried(Operation::Put, second, false, Some(&error(StoreErrorKind::Throttled)));
        meter.tried(Operation::Put, second, true, None);
        meter.tried(Operation::Head, second, false, Some(&error(StoreErrorKind::NotFound)));
        let put = meter.calls(Operation::Put);
        assert_eq!((put.tries(), put.retries()), (2, 1));
        assert_eq!(put.errors(), BTreeMap::from([(StoreErrorKind::Throttled, 1)]));
        assert_eq!((meter.calls(Operation::Head).tries(), meter.calls(Operation::Head).errors().len()), (1, 0));
        assert_eq!(meter.calls(Operation::List).tries(), 0);
    }
}
