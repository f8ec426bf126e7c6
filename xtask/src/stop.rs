//! The wish to stop: Ctrl-C, SIGTERM or SIGHUP, as something that loops can ask and wait for.
//!
//! No signal ends xtask at once: each command lets go of what it started first, by returning.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Set once, by the first signal; clones share it.
#[derive(Clone, Default)]
pub(crate) struct Stop {
    shared: Arc<(Mutex<bool>, Condvar)>,
}

impl Stop {
    /// Takes over the signals for the rest of the process.
    pub(crate) fn on_signals() -> Result<Self> {
        let stop = Self::default();
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("could not listen for Ctrl-C")?;
        let setter = stop.clone();
        std::thread::spawn(move || {
            for _ in signals.forever() {
                setter.set();
            }
        });
        Ok(stop)
    }

    fn set(&self) {
        *self.shared.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.1.notify_all();
    }

    pub(crate) fn is_wanted(&self) -> bool {
        *self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps, but wakes up for a signal. Says whether to stop.
    pub(crate) fn wait(&self, at_most: Duration) -> bool {
        let wanted = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (wanted, _) = self
            .shared
            .1
            .wait_timeout_while(wanted, at_most, |wanted| !*wanted)
            .unwrap_or_else(PoisonError::into_inner);
        *wanted
    }

    /// The same as an error, for walks that cannot go on.
    pub(crate) fn pause(&self, at_most: Duration) -> Result<()> {
        if self.wait(at_most) {
            bail!("stopped on request");
        }
        Ok(())
    }
}
