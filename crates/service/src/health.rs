//! Whether the service is ready for requests: named checks, each with its own reason when it fails.
//!
//! Reasons are shown on the ops listener; they hold no secret and no URL of a database.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use serde::Serialize;

/// A check that takes longer has failed. Probes usually wait for a second or some.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

type Answer = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;
type Run = dyn Fn() -> Answer + Send + Sync;

/// The checks of one service; clones are the same.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<Vec<Check>>>);

#[derive(Clone)]
struct Check {
    name: &'static str,
    run: Arc<Run>,
}

/// A check that did not pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The check's name.
    pub name: &'static str,
    /// Why it failed.
    pub reason: String,
}

impl Health {
    /// No checks: ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check that runs at each probe; its error is the reason to show.
    pub fn register<F, A>(&self, name: &'static str, check: F)
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = Result<(), String>> + Send + 'static,
    {
        let run: Arc<Run> = Arc::new(move || Box::pin(check()));
        self.checks().push(Check { name, run });
    }

    /// Adds a check that is set from elsewhere; it fails with `reason` until it is set ready.
    pub fn flag(&self, name: &'static str, reason: impl Into<String>) -> Flag {
        let flag = Flag(Arc::new(Mutex::new(Some(reason.into()))));
        let shown = flag.clone();
        self.register(name, move || {
            let reason = shown.state().clone();
            async move { reason.map_or(Ok(()), Err) }
        });
        flag
    }

    /// Runs all checks at once; none failed means ready.
    pub async fn failures(&self) -> Vec<Failure> {
        let checks = self.checks().clone();
        let answers = checks.into_iter().map(|check| async move {
            let answer = tokio::time::timeout(CHECK_TIMEOUT, (check.run)()).await;
            let reason = match answer {
                Ok(Ok(())) => return None,
                Ok(Err(reason)) => reason,
                Err(_) => format!("did not answer within {} s", CHECK_TIMEOUT.as_secs()),
            };
            Some(Failure { name: check.name, reason })
        });
        join_all(answers).await.into_iter().flatten().collect()
    }

    fn checks(&self) -> std::sync::MutexGuard<'_, Vec<Check>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.checks().iter().map(|check| check.name)).finish()
    }
}

/// The switch of a check that was made by [`Health::flag`].
#[derive(Debug, Clone)]
pub struct Flag(Arc<Mutex<Option<String>>>);

impl Flag {
    /// The check passes from now on.
    pub fn set_ready(&self) {
        *self.state() = None;
    }

    /// The check fails from now on.
    pub fn set_failing(&self, reason: impl Into<String>) {
        *self.state() = Some(reason.into());
    }

    fn state(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_failing_check_is_named_with_its_reason() {
        let health = Health::new();
        assert!(health.failures().await.is_empty());
        let flag = health.flag("feed", "has not been heard yet");
        health.register("registry", || async { Ok(()) });
        health.register("stuck", std::future::pending);
        let names = |failures: Vec<Failure>| -> Vec<String> {
            failures.into_iter().map(|one| format!("{} {}", one.name, one.reason)).collect()
        };
        assert_eq!(names(health.failures().await), ["feed has not been heard yet", "stuck did not answer within 2 s"]);
        flag.set_ready();
        assert_eq!(names(health.failures().await), ["stuck did not answer within 2 s"]);
    }
}
