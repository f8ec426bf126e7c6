//! Which tenants are asked for, one after the other; and which connections a replacement policy would open for them.

use std::collections::{BTreeSet, HashMap};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// How often each tenant is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Popularity {
    /// All alike: the worst case for whoever keeps connections.
    Uniform,
    /// The k-th as often as 1/k: as it is where many share one thing (Zipf, exponent 1).
    Zipf,
}

/// So many requests, each for one of so many tenants.
pub(super) fn trace(popularity: Popularity, tenants: usize, requests: usize, seed: u64) -> Vec<usize> {
    let mut random = StdRng::seed_from_u64(seed);
    if popularity == Popularity::Uniform {
        return (0..requests).map(|_| random.random_range(0..tenants)).collect();
    }
    let mut sum = 0.0;
    #[allow(clippy::cast_precision_loss, reason = "a few thousand tenants")]
    let below: Vec<f64> = (1..=tenants)
        .map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        })
        .collect();
    let draw = |_| {
        let drawn = random.random_range(0.0..sum);
        below.partition_point(|below| *below <= drawn).min(tenants - 1)
    };
    (0..requests).map(draw).collect()
}

/// Which connection gives way when all are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    /// The one that is needed again last: nobody who cannot see the future does better with one connection for each tenant
    /// (Belady, "A study of replacement algorithms for a virtual-storage computer", 1966).
    Belady,
    /// The one that was needed longest ago.
    Lru,
}

/// One request of a trace, as one connection serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Its place in the trace.
    pub(super) at: usize,
    pub(super) tenant: usize,
    /// Whether the connection must first be opened for this tenant.
    pub(super) opens: bool,
}

/// Deals a trace to so many connections: what each has to do, in its order.
pub(super) fn deal(trace: &[usize], connections: usize, policy: Policy) -> Vec<Vec<Step>> {
    let next = next_uses(trace);
    let mut steps = vec![Vec::new(); connections];
    let mut open: HashMap<usize, (usize, usize)> = HashMap::new();
    // By what decides who gives way.
    let mut ranked: BTreeSet<(usize, usize)> = BTreeSet::new();
    for (at, tenant) in trace.iter().copied().enumerate() {
        let rank = if policy == Policy::Belady { next[at] } else { at };
        let (slot, opens) = if let Some((slot, before)) = open.get(&tenant).copied() {
            ranked.remove(&(before, tenant));
            (slot, false)
        } else if open.len() < connections {
            (open.len(), true)
        } else {
            let gone = if policy == Policy::Belady { ranked.pop_last() } else { ranked.pop_first() };
            let slot = gone.and_then(|(_, gone)| open.remove(&gone)).map_or(0, |(slot, _)| slot);
            (slot, true)
        };
        open.insert(tenant, (slot, rank));
        ranked.insert((rank, tenant));
        steps[slot].push(Step { at, tenant, opens });
    }
    steps
}

/// Of each request, when its tenant is asked for again. Those that never are differ, so that none is taken for another.
fn next_uses(trace: &[usize]) -> Vec<usize> {
    let mut next = vec![0; trace.len()];
    let mut seen: HashMap<usize, usize> = HashMap::new();
    for (at, tenant) in trace.iter().enumerate().rev() {
        next[at] = seen.insert(*tenant, at).unwrap_or(trace.len() + tenant);
    }
    next
}

/// How many of the requests of this part of the trace open a connection.
pub(super) fn opens(steps: &[Vec<Step>], part: std::ops::Range<usize>) -> usize {
    steps.iter().flatten().filter(|step| step.opens && part.contains(&step.at)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sees_the_future_opens_least() {
        let trace = trace(Popularity::Zipf, 1_000, 100_000, 1);
        let part = |policy| {
            let steps = deal(&trace, 90, policy);
            #[allow(clippy::cast_precision_loss, reason = "a count of requests")]
            let part = opens(&steps, 10_000..100_000) as f64 / 90_000.0;
            part
        };
        let (belady, lru) = (part(Policy::Belady), part(Policy::Lru));
        assert!((0.24..0.28).contains(&belady), "{belady}");
        assert!((0.42..0.46).contains(&lru), "{lru}");
    }

    #[test]
    fn every_request_is_served_once_and_by_a_connection_of_its_tenant() {
        let trace = trace(Popularity::Uniform, 50, 5_000, 2);
        let steps = deal(&trace, 7, Policy::Belady);
        let mut served: Vec<usize> = steps.iter().flatten().map(|step| step.at).collect();
        served.sort_unstable();
        assert_eq!(served, (0..5_000).collect::<Vec<_>>());
        for steps in steps {
            let mut open = None;
            for step in steps {
                assert_eq!(step.opens, open != Some(step.tenant), "{step:?}");
                assert_eq!(step.tenant, trace[step.at]);
                open = Some(step.tenant);
            }
        }
    }

    #[test]
    fn what_is_used_longest_ago_gives_way() {
        let steps = deal(&[1, 2, 1, 3, 2], 2, Policy::Lru);
        let tenants: Vec<Vec<usize>> =
            steps.iter().map(|steps| steps.iter().map(|step| step.tenant).collect()).collect();
        assert_eq!(tenants, [vec![1, 1, 2], vec![2, 3]]);
    }
}
