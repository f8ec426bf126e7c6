//! Work on servers: a task for each that has something to do, and a pause after a failure. So no server holds up another.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use service::problem::BoxError;
use tokio::task::{Id, JoinSet};
use uuid::Uuid;

/// The first pause after a server failed, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// Servers that are worked at the same time.
const AT_ONCE: usize = 64;

/// Tasks on servers, each of which hands something on to the next on its server.
pub(super) struct Tasks<T> {
    /// Servers that failed: until when they are left alone, and the pause.
    failed: HashMap<Uuid, (Instant, Duration)>,
    /// Servers by the tasks that work on them.
    at_work: HashMap<Id, Uuid>,
    running: JoinSet<(T, Result<(), BoxError>)>,
}

impl<T> Default for Tasks<T> {
    fn default() -> Self {
        Self { failed: HashMap::new(), at_work: HashMap::new(), running: JoinSet::new() }
    }
}

impl<T: Send + 'static> Tasks<T> {
    /// Whether work on a server may begin now.
    pub(super) fn is_due(&self, server: Uuid) -> bool {
        let is_put_off = self.failed.get(&server).is_some_and(|(until, _)| Instant::now() < *until);
        !is_put_off && self.at_work.len() < AT_ONCE && self.at_work.values().all(|at_work| *at_work != server)
    }

    pub(super) fn begin(
        &mut self,
        server: Uuid,
        work: impl Future<Output = (T, Result<(), BoxError>)> + Send + 'static,
    ) {
        let task = self.running.spawn(work);
        self.at_work.insert(task.id(), server);
    }

    /// What came of the next one that ends; nothing if none is at work. What a task that panicked had is lost.
    pub(super) async fn next(&mut self) -> Option<(Uuid, Option<T>, Result<(), BoxError>)> {
        let ended = self.running.join_next_with_id().await?;
        let (task, kept, done) = match ended {
            Ok((task, (kept, done))) => (task, Some(kept), done),
            Err(panicked) => (panicked.id(), None, Err(panicked.into())),
        };
        let server = self.at_work.remove(&task)?;
        if done.is_ok() {
            self.failed.remove(&server);
        } else {
            let pause = self.failed.get(&server).map_or(PAUSES.0, |(_, pause)| (*pause * 2).min(PAUSES.1));
            self.failed.insert(server, (Instant::now() + pause, pause));
        }
        Some((server, kept, done))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_is_worked_by_one_task_at_a_time_and_left_alone_after_a_failure() {
        let (mut tasks, server) = (Tasks::default(), Uuid::from_u128(1));
        assert!(tasks.next().await.is_none());
        tasks.begin(server, async { (7, Ok(())) });
        assert!(!tasks.is_due(server) && tasks.is_due(Uuid::from_u128(2)));
        let (of, kept, done) = tasks.next().await.unwrap();
        assert!((of, kept) == (server, Some(7)) && done.is_ok() && tasks.is_due(server));
        tasks.begin(server, async { (7, Err("it is away".into())) });
        assert!(tasks.next().await.unwrap().2.is_err() && !tasks.is_due(server));
        let broken = Uuid::from_u128(3);
        tasks.begin(broken, async { panic!("on purpose") });
        let (of, kept, done) = tasks.next().await.unwrap();
        assert!((of, kept) == (broken, None) && done.is_err() && !tasks.is_due(broken));
    }
}
