//! A limit on the bytes taken of the donor: whoever reads slowly makes it send slowly.

use std::time::Duration;

use crate::clock::{self, Instant};

/// How far behind its rate it may catch up at once.
const BURST: Duration = Duration::from_secs(1);

/// Paces a flow.
#[derive(Debug)]
pub(super) struct Throttle {
    /// Bytes a second.
    rate: Option<u64>,
    /// When what has been taken so far would have been taken at the rate.
    due: Option<Instant>,
}

impl Throttle {
    /// At most so many bytes a second; `None`: no limit.
    pub(super) fn new(rate: Option<u64>) -> Self {
        Self { rate, due: None }
    }

    /// How long to wait after so many more bytes at this time.
    fn pause(&mut self, bytes: usize, now: Instant) -> Option<Duration> {
        let rate = self.rate?.max(1);
        let micros = (bytes as u64).saturating_mul(1_000_000) / rate;
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let due = self.due.map_or(now, |due| due.max(earliest)).checked_add(Duration::from_micros(micros))?;
        self.due = Some(due);
        due.checked_duration_since(now).filter(|pause| !pause.is_zero())
    }

    /// Waits as long as these bytes take at the rate.
    pub(super) async fn wait(&mut self, bytes: usize) {
        if let Some(pause) = self.pause(bytes, clock::monotonic()) {
            clock::sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_at_the_rate_and_lost_time_is_not_made_up_for() {
        let start = clock::monotonic();
        let mut throttle = Throttle::new(Some(1_000));
        assert_eq!(throttle.pause(500, start), Some(Duration::from_millis(500)));
        assert_eq!(throttle.pause(500, start), Some(Duration::from_secs(1)));
        // A minute of nothing: one second's worth comes at once, no more.
        let later = start + Duration::from_secs(60);
        assert_eq!(throttle.pause(1_000, later), None);
        assert_eq!(throttle.pause(1_000, later), Some(Duration::from_secs(1)));
        assert_eq!(Throttle::new(None).pause(usize::MAX, start), None);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_every_piece_takes_as_long_as_all_of_them_at_the_rate() {
        let start = clock::monotonic();
        let mut throttle = Throttle::new(Some(64 << 10));
        for _ in 0..640 {
            throttle.wait(1 << 10).await;
        }
        assert_eq!(start.elapsed().as_secs(), 10);
    }
}
