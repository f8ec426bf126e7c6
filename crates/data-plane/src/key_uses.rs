//! When API keys were last used: noted at most once a minute for each, and told to the control plane in batches. What a node
//! that is killed had not told yet is not told; a key is shown as unused for longer than it is then.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::BackoffBuilder as _;
use chrono::{DateTime, Utc};
use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use tenancy::KeyId;
use tenancy::feed::{KeyUse, KeyUses, MAX_KEY_USES};
use tokio_util::sync::CancellationToken;

use crate::routes::Control;

/// Keys at most whose use is noted and not told yet; further ones are noted at a later use.
const MOST: usize = 100_000;

/// The minute in which a key was last noted.
pub(crate) type NotedMinute = AtomicI64;

/// Uses that are to be told; clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyUsesToTell(Arc<Mutex<HashMap<KeyId, DateTime<Utc>>>>);

impl KeyUsesToTell {
    /// Notes a use. Without a lock if the key was noted in this minute.
    pub(crate) fn note(&self, noted: &NotedMinute, key: &KeyId, now: DateTime<Utc>) {
        let minute = now.timestamp() / 60;
        if noted.load(Ordering::Relaxed) == minute {
            return;
        }
        let mut uses = self.uses();
        if uses.len() < MOST {
            uses.insert(key.clone(), now);
            noted.store(minute, Ordering::Relaxed);
        }
    }

    fn take(&self) -> Vec<KeyUse> {
        let mut uses = self.uses();
        let some: Vec<KeyId> = uses.keys().take(MAX_KEY_USES).cloned().collect();
        some.into_iter().filter_map(|key| uses.remove(&key).map(|at| KeyUse { key, at })).collect()
    }

    /// They could not be told. What was noted since is newer.
    fn put_back(&self, untold: Vec<KeyUse>) {
        let mut uses = self.uses();
        for KeyUse { key, at } in untold {
            uses.entry(key).or_insert(at);
        }
    }

    fn uses(&self) -> MutexGuard<'_, HashMap<KeyId, DateTime<Utc>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells them every so often, and once more when no request is at work any more.
pub(crate) async fn tell(
    uses: KeyUsesToTell,
    control: Control,
    every: Duration,
    drained: CancellationToken,
    meter: Meter,
) {
    let counter =
        meter.u64_counter("data_plane_key_uses_told").with_description("Batches of uses of keys, by outcome.");
    let counter = counter.build();
    let backoff = backon::ExponentialBuilder::default().with_jitter().with_min_delay(every).with_max_delay(every * 16);
    let mut delays = backoff.without_max_times().build();
    let mut delay = every;
    loop {
        let is_last = drained.run_until_cancelled(tokio::time::sleep(delay)).await.is_none();
        delay = every;
        loop {
            let batch = uses.take();
            if batch.is_empty() {
                break;
            }
            let body = KeyUses { uses: batch };
            let told = control.tell_key_uses(&body).await;
            counter.add(1, &[KeyValue::new("outcome", if told.is_ok() { "ok" } else { "failed" })]);
            if let Err(error) = told {
                tracing::debug!(%error, "could not tell which keys were used; they are told later");
                uses.put_back(body.uses);
                delay = delays.next().unwrap_or(every * 16);
                break;
            }
            delays = backoff.without_max_times().build();
        }
        if is_last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_noted_once_a_minute_and_untold_uses_come_back() {
        let (uses, noted, key) = (KeyUsesToTell::default(), NotedMinute::default(), "a".repeat(20).parse().unwrap());
        let at = |second: i64| DateTime::from_timestamp(6_000_000 + second, 0).unwrap();
        for second in [5, 20, 59] {
            uses.note(&noted, &key, at(second));
        }
        let told = uses.take();
        assert_eq!(told, [KeyUse { key: key.clone(), at: at(5) }]);
        uses.note(&noted, &key, at(30));
        assert_eq!(uses.take(), [], "it was told for this minute");
        uses.note(&noted, &key, at(61));
        uses.put_back(told);
        assert_eq!(uses.take(), [KeyUse { key, at: at(61) }], "the newer one stays");
    }
}
