//! Who waits for a connection to be opened: tenants with the fewest connections for their plan first, then by arrival.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::tenant::TenantPool;

/// Where a pool stands in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Connections that it has, in thousandths of those that its plan gives it: all plans fill alike.
    filled: u32,
    ticket: u64,
}

/// The queue of one server.
#[derive(Default)]
pub(super) struct Queue {
    pools: BTreeMap<Place, Arc<TenantPool>>,
    next_ticket: u64,
}

impl Queue {
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.pools.len()).unwrap_or(u32::MAX)
    }

    /// Puts a pool into the queue that is not in it; the caller notes the place.
    pub(super) fn join(&mut self, pool: &Arc<TenantPool>) -> Place {
        let place = Place { filled: pool.open() * 1_000 / pool.most(), ticket: self.next_ticket };
        self.next_ticket += 1;
        self.pools.insert(place, Arc::clone(pool));
        place
    }

    /// Its place by what it has now, behind those that came before with as few.
    pub(super) fn stand_again(&mut self, pool: &Arc<TenantPool>) {
        let mut inner = pool.state();
        if let Some(place) = inner.place.take() {
            self.pools.remove(&place);
            inner.place = Some(self.join(pool));
        }
    }

    pub(super) fn first(&self) -> Option<Arc<TenantPool>> {
        self.pools.first_key_value().map(|(_, pool)| Arc::clone(pool))
    }

    pub(super) fn leave(&mut self, pool: &TenantPool) {
        if let Some(place) = pool.state().place.take() {
            self.pools.remove(&place);
        }
    }

    /// Takes out all pools of one address.
    pub(super) fn take_all_of(&mut self, address: &str) -> Vec<Arc<TenantPool>> {
        let taken: Vec<_> = self.pools.extract_if(.., |_, pool| **pool.target.address() == *address).collect();
        taken
            .into_iter()
            .map(|(_, pool)| {
                pool.state().place = None;
                pool
            })
            .collect()
    }
}
