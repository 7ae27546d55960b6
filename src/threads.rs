//! The only door to threads for work on the way of a byte that computes or blocks: a simulation can keep all on one.

use tokio::task::JoinHandle;

use crate::simulation;

/// Does work on a thread where it may take its time.
pub fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    if simulation::is_on() { tokio::spawn(async move { work() }) } else { tokio::task::spawn_blocking(work) }
}
