//! Trying again: the schedule of delays, and the one loop that uses it.
//!
//! Owns: [`Schedule`] (exponential delays with jitter, which start over on progress) and [`retry`] (one loop for
//! every boundary). Does not own: what is worth a retry; the caller says it per error.
//!
//! Invariants: a delay is never longer than `max_ms`; an error that is not retryable is returned at once; whoever
//! cancels is obeyed at once, in the middle of a try or of a delay; a single failure is no news (debug), the second
//! in a row is (warn), and so is the recovery from it (info).

use std::fmt;
use std::future::Future;
use std::time::Duration;

use backoff::backoff::Backoff;
use tokio_util::sync::CancellationToken;

use crate::{clock, simulation};

/// How to try again. Times are milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryOptions {
    /// The first delay, in milliseconds (at least 1).
    pub first_ms: u64,
    /// No delay is longer than this, in milliseconds.
    pub max_ms: u64,
    /// Each delay is this many times the one before; at least 1.
    pub factor: f64,
    /// A delay is drawn from `delay ± jitter × delay`; 0 to 1.
    pub jitter: f64,
    /// Give up after so many tries; `None`: never for that reason.
    pub attempts_max: Option<u32>,
    /// Start no try later than this after the first one began, in milliseconds; `None`: never give up for that reason.
    pub elapsed_max_ms: Option<u64>,
}

impl Default for RetryOptions {
    fn default() -> Self {
        Self {
            first_ms: 200,
            max_ms: 15_000,
            factor: 2.0,
            jitter: 0.3,
            attempts_max: None,
            elapsed_max_ms: Some(300_000),
        }
    }
}

/// Delays that grow exponentially, with jitter, until [`Schedule::reset`] says that there was progress.
#[derive(Debug)]
pub struct Schedule {
    inner: backoff::ExponentialBackoff,
    max: Duration,
}

impl Schedule {
    /// A schedule at its start. Values out of range are brought into it.
    pub fn new(options: &RetryOptions) -> Self {
        let max = Duration::from_millis(options.max_ms.max(1));
        let first = Duration::from_millis(options.first_ms.max(1)).min(max);
        let inner = backoff::ExponentialBackoff {
            current_interval: first,
            initial_interval: first,
            // The crate draws from the system's chance, which no seed decides.
            randomization_factor: if simulation::is_on() { 0.0 } else { options.jitter.clamp(0.0, 1.0) },
            multiplier: options.factor.max(1.0),
            max_interval: max,
            // The limits are the loop's, on our own clock.
            max_elapsed_time: None,
            ..backoff::ExponentialBackoff::default()
        };
        Self { inner, max }
    }

    /// How long to wait before the next try.
    pub fn next_delay(&mut self) -> Duration {
        // Without a limit on the elapsed time the crate always has a next delay; its jitter may pass the maximum.
        self.inner.next_backoff().unwrap_or(self.max).min(self.max)
    }

    /// There was progress: the next delay is the first one again.
    pub fn reset(&mut self) {
        self.inner.reset();
    }
}

/// Why [`retry`] ended without a success.
#[derive(Debug)]
pub enum Stopped<E> {
    /// Somebody cancelled; the last failure, if there was one.
    Cancelled(Option<E>),
    /// The error is not worth a retry, or a limit was reached.
    Failed {
        /// The last error.
        error: E,
        /// How many tries were made.
        tries: u32,
    },
}

/// Calls `op` until it succeeds, fails for good, a limit is reached or somebody cancels.
///
/// `describe` names, in the log, what is being done on which object (`put chunks/…`).
///
/// # Errors
/// [`Stopped`] with the last error.
pub async fn retry<T, E, F, Fut>(
    mut op: F,
    options: &RetryOptions,
    is_retryable: impl Fn(&E) -> bool,
    describe: impl Fn() -> String,
    cancel: &CancellationToken,
) -> Result<T, Stopped<E>>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
    E: fmt::Display,
{
    let started = clock::monotonic();
    let mut schedule: Option<Schedule> = None;
    let mut tries = 0_u32;
    let mut last = None;
    loop {
        tries = tries.saturating_add(1);
        let Some(result) = cancel.run_until_cancelled(op()).await else { return Err(Stopped::Cancelled(last)) };
        let error = match result {
            Ok(value) => {
                if tries > 2 {
                    tracing::info!("{}: recovered after {tries} tries", describe());
                }
                return Ok(value);
            }
            Err(error) => error,
        };
        let delay = schedule.get_or_insert_with(|| Schedule::new(options)).next_delay();
        let late = options
            .elapsed_max_ms
            .is_some_and(|max| started.elapsed().checked_add(delay).is_none_or(|at| at > Duration::from_millis(max)));
        let used_up = options.attempts_max.is_some_and(|max| tries >= max);
        if late || used_up || !is_retryable(&error) {
            return Err(Stopped::Failed { error, tries });
        }
        let delay_ms = delay.as_millis();
        if tries == 1 {
            tracing::debug!("{} failed, trying again in {delay_ms} ms: {error}", describe());
        } else {
            tracing::warn!("{} failed {tries} times, trying again in {delay_ms} ms: {error}", describe());
        }
        last = Some(error);
        if cancel.run_until_cancelled(clock::sleep(delay)).await.is_none() {
            return Err(Stopped::Cancelled(last));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn options() -> RetryOptions {
        RetryOptions { first_ms: 100, max_ms: 1000, factor: 2.0, jitter: 0.0, attempts_max: None, elapsed_max_ms: None }
    }

    #[test]
    fn delays_grow_to_the_maximum_and_start_over_on_progress() {
        let mut schedule = Schedule::new(&options());
        let mut ms = || u64::try_from(schedule.next_delay().as_millis()).unwrap();
        assert_eq!([ms(), ms(), ms(), ms(), ms(), ms()], [100, 200, 400, 800, 1000, 1000]);
        schedule.reset();
        assert_eq!(schedule.next_delay(), Duration::from_millis(100));
    }

    #[test]
    fn jitter_spreads_and_never_passes_the_maximum() {
        let mut schedule = Schedule::new(&RetryOptions { first_ms: 1000, jitter: 0.5, ..options() });
        let delays: Vec<Duration> = (0..200).map(|_| schedule.next_delay()).collect();
        assert!(delays.iter().all(|delay| (500..=1000).contains(&delay.as_millis())), "{delays:?}");
        assert!(delays.iter().any(|delay| delay.as_millis() < 900), "no jitter at all");
    }

    #[test]
    fn values_out_of_range_are_brought_into_it() {
        let mut schedule =
            Schedule::new(&RetryOptions { first_ms: 0, max_ms: 0, factor: 0.0, jitter: 9.0, ..options() });
        assert!(schedule.next_delay() <= Duration::from_millis(1));
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_on_until_the_call_succeeds() {
        let tries = Cell::new(0);
        let op = || {
            tries.set(tries.get() + 1);
            let good = tries.get() == 4;
            async move { if good { Ok(7) } else { Err("no") } }
        };
        let started = clock::monotonic();
        let value = retry(op, &options(), |_| true, || "try".into(), &CancellationToken::new()).await.unwrap();
        assert_eq!((value, tries.get()), (7, 4));
        assert_eq!(started.elapsed().as_millis(), 100 + 200 + 400);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_retry_cannot_help_is_returned_at_once() {
        let result: Result<(), _> =
            retry(|| async { Err("never") }, &options(), |_| false, || "try".into(), &CancellationToken::new()).await;
        assert!(matches!(result, Err(Stopped::Failed { error: "never", tries: 1 })));
    }

    #[tokio::test(start_paused = true)]
    async fn tries_are_limited_by_count_and_by_time() {
        let count = RetryOptions { attempts_max: Some(3), ..options() };
        let cancel = CancellationToken::new();
        let result: Result<(), _> = retry(|| async { Err("no") }, &count, |_| true, || "try".into(), &cancel).await;
        assert!(matches!(result, Err(Stopped::Failed { tries: 3, .. })));

        // Tries begin at 0, 100, 300, 700 and would begin at 1500 ms.
        let time = RetryOptions { elapsed_max_ms: Some(1000), ..options() };
        let result: Result<(), _> = retry(|| async { Err("no") }, &time, |_| true, || "try".into(), &cancel).await;
        assert!(matches!(result, Err(Stopped::Failed { tries: 4, .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_cancels_is_obeyed_during_a_delay_and_during_a_try() {
        let cancel = CancellationToken::new();
        let later = cancel.clone();
        tokio::spawn(async move {
            clock::sleep(Duration::from_millis(50)).await;
            later.cancel();
        });
        let started = clock::monotonic();
        let result: Result<(), _> = retry(|| async { Err("no") }, &options(), |_| true, || "try".into(), &cancel).await;
        assert!(matches!(result, Err(Stopped::Cancelled(Some("no")))));
        assert_eq!(started.elapsed().as_millis(), 50);

        let hang = std::future::pending::<Result<(), &str>>;
        let result = retry(hang, &options(), |_| true, || "try".into(), &cancel).await;
        assert!(matches!(result, Err(Stopped::Cancelled(None))));
    }
}
