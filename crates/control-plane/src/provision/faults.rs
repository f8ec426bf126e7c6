//! How a test breaks the work: at a point of its choice a step fails, panics or never goes on. Not part of any program.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::steps::StepError;

/// Where in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    /// Nothing of it was done.
    Before,
    /// Its effect is there, and nobody knows.
    Effect,
    /// It is written down.
    Committed,
}

/// A place at which the work can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Point {
    pub(super) step: &'static str,
    pub(super) is_undo: bool,
    pub(super) side: Side,
}

/// What happens there.
pub(super) enum Fault {
    None,
    /// The step fails for good.
    Refuse,
    /// The step fails, and may succeed later.
    Unavailable,
    Panic,
    /// The work never goes on: whoever holds it is about to be killed.
    Stall,
    /// The work goes on when it is told to.
    Pause(Arc<Notify>),
}

type Hook = dyn Fn(Point) -> Fault + Send + Sync;

/// The faults of one test, and what was passed.
#[derive(Clone, Default)]
pub(super) struct Faults {
    hook: Option<Arc<Hook>>,
    passed: Arc<Mutex<BTreeMap<Point, usize>>>,
}

impl Faults {
    pub(super) fn new(hook: impl Fn(Point) -> Fault + Send + Sync + 'static) -> Self {
        Self { hook: Some(Arc::new(hook)), passed: Arc::default() }
    }

    /// How often each point was passed.
    pub(super) fn passed(&self) -> BTreeMap<Point, usize> {
        self.passed.lock().expect("no test panics while it counts").clone()
    }

    pub(super) async fn meet(&self, step: &'static str, is_undo: bool, side: Side) -> Result<(), StepError> {
        let point = Point { step, is_undo, side };
        *self.passed.lock().expect("no test panics while it counts").entry(point).or_default() += 1;
        match self.hook.as_ref().map_or(Fault::None, |hook| hook(point)) {
            Fault::None => Ok(()),
            Fault::Refuse => Err(StepError::refused("a fault of the test")),
            Fault::Unavailable => Err(StepError::unavailable("a passing fault of the test")),
            Fault::Panic => panic!("a panic of the test"),
            Fault::Stall => std::future::pending().await,
            Fault::Pause(until) => {
                until.notified().await;
                Ok(())
            }
        }
    }

    pub(super) async fn committed(&self, step: &'static str, is_undo: bool) {
        // It is too late to fail: only stalling means anything here.
        let _ = self.meet(step, is_undo, Side::Committed).await;
    }
}
