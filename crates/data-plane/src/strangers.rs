//! What is not known here is asked for, and whoever sends invented credentials and names makes this node ask in vain. Each
//! client address may do so at a small rate; what turns out to be somebody's is not counted.
//!
//! Whether a thing is refused for this depends on where it comes from alone, so that it tells nobody what exists.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use opentelemetry::metrics::{Counter, Meter};
use service::Problem;
use service::telemetry::RequestContext;
use tokio::time::Instant;

use crate::config::StrangersConfig;

/// Addresses that are counted at most; the one not seen for longest gives way.
const MOST_ADDRESSES: u64 = 100_000;

/// How much is asked in vain, by client address. Clones count together.
#[derive(Clone)]
pub(crate) struct Strangers {
    counts: Cache<IpAddr, Arc<Count>>,
    /// Nanoseconds for which one question in vain is held against its address.
    interval: u64,
    /// Nanoseconds of them that may be held against one at once.
    most: u64,
    began: Instant,
    refused: Counter<u64>,
}

/// When all that was asked in vain will be forgiven (the generic cell rate algorithm), in nanoseconds.
#[derive(Debug, Default)]
struct Count(AtomicU64);

/// A question that is held against its address, unless it turns out to be somebody's.
#[derive(Debug)]
pub(crate) struct Knock {
    count: Option<Arc<Count>>,
    interval: u64,
}

impl Strangers {
    pub(crate) fn new(config: &StrangersConfig, meter: &Meter) -> Self {
        let interval = 1_000_000_000 / u64::from(config.per_second.get());
        Self {
            counts: Cache::builder().max_capacity(MOST_ADDRESSES).eviction_policy(EvictionPolicy::lru()).build(),
            interval,
            most: interval.saturating_mul(config.burst.get().into()),
            began: Instant::now(),
            refused: meter
                .u64_counter("data_plane_strangers_refused")
                .with_description("Requests refused since too much that is nobody's came from their address.")
                .build(),
        }
    }

    /// Leave for the request at hand to ask for something that is not known here. Work of one's own always has it.
    pub(crate) fn knock(&self) -> Result<Knock, Problem> {
        let client = RequestContext::current(RequestContext::client).flatten();
        self.knock_of(client, Instant::now())
    }

    fn knock_of(&self, client: Option<IpAddr>, now: Instant) -> Result<Knock, Problem> {
        let Some(client) = client else { return Ok(Knock { count: None, interval: 0 }) };
        let count = self.counts.get_with(household(client), Arc::default);
        let now = u64::try_from(now.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX);
        let after = |forgiven: u64| forgiven.max(now).saturating_add(self.interval);
        let counted = count.0.try_update(Ordering::Relaxed, Ordering::Relaxed, |forgiven| {
            (after(forgiven) - now <= self.most).then(|| after(forgiven))
        });
        match counted {
            Ok(_) => Ok(Knock { count: Some(count), interval: self.interval }),
            Err(forgiven) => {
                self.refused.add(1, &[]);
                Err(too_many(Duration::from_nanos(after(forgiven) - now - self.most)))
            }
        }
    }
}

impl Knock {
    /// It was somebody's: nothing is held against anybody.
    pub(crate) fn welcome(self) {
        if let Some(count) = &self.count {
            count.0.fetch_sub(self.interval, Ordering::Relaxed);
        }
    }
}

/// A household has a whole /64 of IPv6.
fn household(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(whole) => Ipv6Addr::from_bits(whole.to_bits() & (u128::MAX << 64)).into(),
    }
}

fn too_many(wait: Duration) -> Problem {
    let detail = "Too many credentials and names that are nobody's came from your address. Check yours, and send it again after \
                  the time in Retry-After.";
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-unknown", detail)
        .with_retry_after(Duration::from_secs(wait.as_secs() + 1))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use opentelemetry::metrics::{MeterProvider as _, noop::NoopMeterProvider};

    use super::*;

    fn strangers() -> Strangers {
        let config = StrangersConfig { per_second: NonZeroU32::new(10).unwrap(), burst: NonZeroU32::new(50).unwrap() };
        Strangers::new(&config, &NoopMeterProvider::new().meter("test"))
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_asks_in_vain_at_a_small_rate_and_harms_no_other() {
        let (strangers, one) = (strangers(), Some(address("192.0.2.1")));
        let after = |millis| strangers.began + Duration::from_millis(millis);
        let asked = |millis| (0..1_000).filter(|_| strangers.knock_of(one, after(millis)).is_ok()).count();
        assert_eq!(asked(0), 50);
        let refused = strangers.knock_of(one, after(0)).unwrap_err();
        assert_eq!((refused.status(), refused.kind()), (StatusCode::TOO_MANY_REQUESTS, "too-many-unknown"));
        assert!(strangers.knock_of(Some(address("192.0.2.2")), after(0)).is_ok());
        assert!(strangers.knock_of(None, after(0)).is_ok(), "work of one's own");
        assert_eq!(asked(1_000), 10);
        assert_eq!(asked(60_000), 50);
    }

    #[test]
    fn what_is_somebodys_is_held_against_nobody() {
        let (strangers, one) = (strangers(), Some(address("192.0.2.1")));
        for _ in 0..1_000 {
            strangers.knock_of(one, strangers.began).unwrap().welcome();
        }
        let asked = (0..1_000).filter(|_| strangers.knock_of(one, strangers.began).is_ok()).count();
        assert_eq!(asked, 50);
    }

    #[test]
    fn a_household_is_one_address() {
        let strangers = strangers();
        let asked = (0..1_000).filter(|number| {
            strangers.knock_of(Some(address(&format!("2001:db8:0:1::{number:x}"))), strangers.began).is_ok()
        });
        assert_eq!(asked.count(), 50);
        assert!(strangers.knock_of(Some(address("2001:db8:0:2::1")), strangers.began).is_ok());
    }
}
