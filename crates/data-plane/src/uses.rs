//! Who uses a thing, counted apart from who merely holds it: a cache lets go of what it dropped only some time later.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The uses of one thing.
#[derive(Debug, Default)]
pub(crate) struct Uses(AtomicUsize);

/// One use; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Use(Arc<Uses>);

/// Leave for one request; it lasts until the last clone is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Permit(#[allow(dead_code, reason = "held for its end alone")] Arc<Use>);

impl Uses {
    pub(crate) fn begin(self: &Arc<Self>) -> Use {
        self.enter();
        Use(Arc::clone(self))
    }

    /// A use of one request, unless there are as many already.
    pub(crate) fn begin_below(self: &Arc<Self>, most: usize) -> Option<Permit> {
        let entered = |uses| (uses < most).then_some(uses + 1);
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, entered).ok()?;
        Some(Permit(Arc::new(Use(Arc::clone(self)))))
    }

    /// One use more, whose holder sees to it that it leaves.
    pub(crate) fn enter(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn leave(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    pub(crate) fn is_in_use(&self) -> bool {
        self.count() > 0
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        self.0.leave();
    }
}
