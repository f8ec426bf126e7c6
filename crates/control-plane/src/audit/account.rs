//! The account that an operator's call gives of itself: who makes it, and whether it said what it did. It goes with the
//! call's task, so that every change that the call makes knows whom to name, and refuses to be silent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

tokio::task_local! {
    static CURRENT: Account;
}

/// Who makes a call that may change something; clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Account(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    subject: String,
    is_settled: AtomicBool,
}

impl Account {
    pub(crate) fn new(subject: String) -> Self {
        Self(Arc::new(Inner { subject, is_settled: AtomicBool::new(false) }))
    }

    /// Runs a call. What it spawns is not part of it.
    pub(crate) async fn scope<T>(self, call: impl Future<Output = T>) -> T {
        CURRENT.scope(self, call).await
    }

    /// Who makes the call that this task is at work for, if it may change something.
    pub(crate) fn current() -> Option<Self> {
        CURRENT.try_with(Self::clone).ok()
    }

    /// The operator's name.
    pub(crate) fn subject(&self) -> &str {
        &self.0.subject
    }

    /// A deed of the call was written, or there is none.
    pub(crate) fn settle(&self) {
        self.0.is_settled.store(true, Ordering::Relaxed);
    }

    /// Whether it is known what the call did.
    pub(crate) fn is_settled(&self) -> bool {
        self.0.is_settled.load(Ordering::Relaxed)
    }
}

/// The call at hand succeeds and changes nothing: it repeats an answer, or only looked.
pub(crate) fn changes_nothing() {
    if let Some(account) = Account::current() {
        account.settle();
    }
}
