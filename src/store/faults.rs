//! A store that misbehaves on command: slow, failing, half-answering, hanging. For tests of everything above a store.
//!
//! It wraps a real store and does to it what networks and object stores do: an error before the call, an error after
//! the call was carried out (a lost answer), a delay, half of the bytes asked for, no answer at all.
//!
//! Invariants: driven by the plan and its seed alone, so a run can be repeated; all can be changed while calls are on
//! their way; without a plan it changes nothing.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use super::{Key, ListDepth, ListPage, ObjectMeta, Put, SharedStore, Store, StoreError, StoreErrorKind};
use crate::clock;

/// How many distinct operations are counted; past it, counting starts over.
const DISTINCT_MAX: usize = 100_000;

/// The calls of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// `put_new`.
    PutNew,
    /// `put_over`.
    PutOver,
    /// `get_range`.
    GetRange,
    /// `head`.
    Head,
    /// `list_page`.
    ListPage,
    /// `delete`.
    Delete,
}

/// What goes wrong. "Distinct operation" means the call and its object (or prefix and page).
#[derive(Debug, Clone)]
pub struct FaultPlan {
    /// Which calls are hit; empty means all.
    pub ops: Vec<Op>,
    /// Chooses what is random: latencies and the calls that fail.
    pub seed: u64,
    /// The first so many tries of each distinct operation fail before they reach the store.
    pub fail_first: u32,
    /// Besides, of a thousand tries so many fail.
    pub fail_per_thousand: u16,
    /// The class of the errors.
    pub kind: StoreErrorKind,
    /// The first so many tries of each distinct operation are carried out, but their answer is lost: an error.
    /// Counted after `fail_first`.
    pub lose_first: u32,
    /// The first so many `get_range` of each distinct range give half of the bytes. Counted after `fail_first`.
    pub halve_first: u32,
    /// Every try takes at least this longer, in milliseconds.
    pub latency_ms_min: u64,
    /// Every try takes at most this longer, in milliseconds.
    pub latency_ms_max: u64,
}

impl Default for FaultPlan {
    fn default() -> Self {
        Self {
            ops: Vec::new(),
            seed: 1,
            fail_first: 0,
            fail_per_thousand: 0,
            kind: StoreErrorKind::Transient,
            lose_first: 0,
            halve_first: 0,
            latency_ms_min: 0,
            latency_ms_max: 0,
        }
    }
}

/// How often what was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Calls that came in, hit or not.
    pub calls: u64,
    /// Errors made up before the call.
    pub failed: u64,
    /// Answers lost after the call.
    pub lost: u64,
    /// Answers cut.
    pub halved: u64,
}

/// The wrapper.
#[derive(Debug)]
pub struct Faults {
    inner: SharedStore,
    state: Mutex<State>,
    hang: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    plan: FaultPlan,
    tries: HashMap<(Op, String), u32>,
    counts: FaultCounts,
}

/// What one try is to suffer.
#[derive(Debug, Clone, Copy)]
struct Verdict {
    delay: Duration,
    fail: Option<StoreErrorKind>,
    lose: Option<StoreErrorKind>,
    halve: bool,
}

impl Faults {
    /// Wraps a store. With the default plan nothing goes wrong.
    pub fn new(inner: SharedStore, plan: FaultPlan) -> Self {
        Self { inner, state: Mutex::new(State { plan, ..State::default() }), hang: watch::Sender::new(false) }
    }

    /// Puts another plan into force; counting of tries starts over.
    pub fn set_plan(&self, plan: FaultPlan) {
        let mut state = self.lock();
        state.plan = plan;
        state.tries.clear();
    }

    /// From now on every call that the plan hits hangs, before it reaches the store, until [`Faults::release`].
    pub fn hang(&self) {
        self.hang.send_replace(true);
    }

    /// Lets go on what hangs.
    pub fn release(&self) {
        self.hang.send_replace(false);
    }

    /// How often what was done.
    pub fn counts(&self) -> FaultCounts {
        self.lock().counts
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides on a try, waits as long as it must, and fails if it must.
    async fn before(&self, op: Op, name: &str) -> Result<Verdict, StoreError> {
        let Some(verdict) = self.lock().judge(op, name) else {
            return Ok(Verdict { delay: Duration::ZERO, fail: None, lose: None, halve: false });
        };
        // The sender lives as long as we do: waiting cannot fail.
        drop(self.hang.subscribe().wait_for(|hangs| !hangs).await);
        if !verdict.delay.is_zero() {
            clock::sleep(verdict.delay).await;
        }
        match verdict.fail {
            Some(kind) => Err(StoreError::new(kind, format!("{op:?} {name}: a fault was planned"))),
            None => Ok(verdict),
        }
    }

    fn after<T>(verdict: Verdict, op: Op, name: &str, answer: T) -> Result<T, StoreError> {
        match verdict.lose {
            Some(kind) => Err(StoreError::new(kind, format!("{op:?} {name}: the answer was lost, as planned"))),
            None => Ok(answer),
        }
    }
}

impl State {
    fn judge(&mut self, op: Op, name: &str) -> Option<Verdict> {
        self.counts.calls = self.counts.calls.wrapping_add(1);
        let plan = &self.plan;
        if !plan.ops.is_empty() && !plan.ops.contains(&op) {
            return None;
        }
        if self.tries.len() >= DISTINCT_MAX {
            self.tries.clear();
        }
        let tries = self.tries.entry((op, name.to_owned())).or_insert(0);
        let earlier = *tries;
        *tries = tries.saturating_add(1);
        let random = scramble(plan.seed ^ scramble(self.counts.calls));
        let spread = plan.latency_ms_max.saturating_sub(plan.latency_ms_min).saturating_add(1);
        let delay = Duration::from_millis(plan.latency_ms_min.saturating_add((random >> 16) % spread.max(1)));
        let fail = earlier < plan.fail_first || random % 1000 < u64::from(plan.fail_per_thousand);
        let passed = earlier.saturating_sub(plan.fail_first);
        let lose = !fail && passed < plan.lose_first;
        let halve = !fail && op == Op::GetRange && passed < plan.halve_first;
        self.counts.failed = self.counts.failed.wrapping_add(u64::from(fail));
        self.counts.lost = self.counts.lost.wrapping_add(u64::from(lose));
        self.counts.halved = self.counts.halved.wrapping_add(u64::from(halve));
        Some(Verdict { delay, fail: fail.then_some(plan.kind), lose: lose.then_some(plan.kind), halve })
    }
}

/// The finalizer of splitmix64: every bit of the input moves every bit of the output.
fn scramble(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[async_trait]
impl Store for Faults {
    fn url(&self) -> String {
        self.inner.url()
    }

    async fn put_new(&self, key: &Key, body: Bytes) -> Result<Put, StoreError> {
        let verdict = self.before(Op::PutNew, key.as_str()).await?;
        let answer = self.inner.put_new(key, body).await?;
        Self::after(verdict, Op::PutNew, key.as_str(), answer)
    }

    async fn put_over(&self, key: &Key, body: Bytes) -> Result<(), StoreError> {
        let verdict = self.before(Op::PutOver, key.as_str()).await?;
        self.inner.put_over(key, body).await?;
        Self::after(verdict, Op::PutOver, key.as_str(), ())
    }

    async fn get_range(&self, key: &Key, start: u64, length: u64) -> Result<Bytes, StoreError> {
        let name = format!("{key} {start}+{length}");
        let verdict = self.before(Op::GetRange, &name).await?;
        let mut body = self.inner.get_range(key, start, length).await?;
        if verdict.halve {
            body.truncate(body.len() / 2);
        }
        Self::after(verdict, Op::GetRange, &name, body)
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        let verdict = self.before(Op::Head, key.as_str()).await?;
        let answer = self.inner.head(key).await?;
        Self::after(verdict, Op::Head, key.as_str(), answer)
    }

    async fn list_page(&self, prefix: &str, depth: ListDepth, after: Option<&str>) -> Result<ListPage, StoreError> {
        let name = format!("{prefix} {depth:?} {}", after.unwrap_or_default());
        let verdict = self.before(Op::ListPage, &name).await?;
        let answer = self.inner.list_page(prefix, depth, after).await?;
        Self::after(verdict, Op::ListPage, &name, answer)
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let verdict = self.before(Op::Delete, key.as_str()).await?;
        self.inner.delete(key).await?;
        Self::after(verdict, Op::Delete, key.as_str(), ())
    }

    async fn sweep(&self, age_seconds: u64) -> Result<u64, StoreError> {
        self.inner.sweep(age_seconds).await
    }

    fn put_new_is_atomic(&self) -> bool {
        self.inner.put_new_is_atomic()
    }
}
