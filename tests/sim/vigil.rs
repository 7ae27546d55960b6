//! What a history cannot say of itself: that a task of the product panicked, and that time stands still.

use std::cell::RefCell;
use std::panic;
use std::sync::Once;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use crate::command;

/// Of real time. A history takes some milliseconds.
const LIMIT: Duration = Duration::from_secs(60);

thread_local! {
    static PANICKED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps watch over one history on this thread, until it is dropped.
pub(crate) struct Vigil {
    _over: Sender<()>,
}

impl Vigil {
    pub(crate) fn over(seed: u64) -> Self {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let usual = panic::take_hook();
            panic::set_hook(Box::new(move |panic| {
                PANICKED.with_borrow_mut(|first| {
                    first.get_or_insert_with(|| panic.to_string());
                });
                usual(panic);
            }));
        });
        PANICKED.set(None);
        let (over, waiting) = mpsc::channel();
        thread::spawn(move || {
            if waiting.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
                eprintln!("seed {seed} has not ended within {} s: {}", LIMIT.as_secs(), command(seed));
                std::process::abort();
            }
        });
        Self { _over: over }
    }

    /// The first panic on this thread. The product makes an error of it and tries again: none shall be.
    pub(crate) fn panicked(&self) -> Option<String> {
        PANICKED.take()
    }
}
