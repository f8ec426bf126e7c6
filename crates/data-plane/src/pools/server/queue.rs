//! Who waits for a connection to be opened: tenants with the fewest connections for their plan first, then by arrival.
//!
//! A tenant that has some, and for which no other connection can be closed now, stands aside until it asks again, so that those
//! behind it are served. It may get a connection that has served a richer tenant for its turn.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::tenant::TenantPool;

/// Where a pool stands, in the queue or aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Connections that it has, or aside would have with one more, in thousandths of those that its plan gives it.
    filled: u32,
    ticket: u64,
}

impl Place {
    fn of(pool: &TenantPool, connections: u32, ticket: u64) -> Self {
        Self { filled: connections * 1_000 / pool.most(), ticket }
    }
}

/// The queue of one server.
#[derive(Default)]
pub(super) struct Queue {
    pools: BTreeMap<Place, Arc<TenantPool>>,
    aside: BTreeMap<Place, Arc<TenantPool>>,
    next_ticket: u64,
}

impl Queue {
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.pools.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn len_aside(&self) -> u32 {
        u32::try_from(self.aside.len()).unwrap_or(u32::MAX)
    }

    /// Puts a pool into the queue, or back into it from aside. Its place is noted in it.
    pub(super) fn take_in(&mut self, pool: &Arc<TenantPool>, place: &mut Option<Place>) {
        match *place {
            None => *place = Some(self.join(pool)),
            Some(aside) if self.aside.remove(&aside).is_some() => *place = Some(self.insert(pool, aside.ticket)),
            Some(_) => {}
        }
    }

    fn join(&mut self, pool: &Arc<TenantPool>) -> Place {
        self.next_ticket += 1;
        self.insert(pool, self.next_ticket)
    }

    fn insert(&mut self, pool: &Arc<TenantPool>, ticket: u64) -> Place {
        let place = Place::of(pool, pool.open(), ticket);
        self.pools.insert(place, Arc::clone(pool));
        place
    }

    /// Its place by what it has now, behind those that came before with as few.
    pub(super) fn stand_again(&mut self, pool: &Arc<TenantPool>) {
        let mut inner = pool.state();
        if let Some(place) = inner.place.take() {
            self.remove(&place);
            inner.place = Some(self.join(pool));
        }
    }

    /// Lets those behind it be served. Aside, those come first that would have the fewest with one more: if the first would have more
    /// than some other tenant, all would.
    pub(super) fn stand_aside(&mut self, pool: &TenantPool) {
        let mut inner = pool.state();
        if let Some(place) = inner.place
            && let Some(pool) = self.pools.remove(&place)
        {
            let aside = Place::of(&pool, pool.open() + 1, place.ticket);
            self.aside.insert(aside, pool);
            inner.place = Some(aside);
        }
    }

    fn remove(&mut self, place: &Place) {
        if self.pools.remove(place).is_none() {
            self.aside.remove(place);
        }
    }

    pub(super) fn first(&self) -> Option<Arc<TenantPool>> {
        self.pools.first_key_value().map(|(_, pool)| Arc::clone(pool))
    }

    pub(super) fn leave(&mut self, pool: &TenantPool) {
        if let Some(place) = pool.state().place.take() {
            self.remove(&place);
        }
    }

    /// The first in the queue that still wants a connection.
    pub(super) fn first_waiting(&mut self) -> Option<Arc<TenantPool>> {
        self.first_wanting(|queue| &queue.pools)
    }

    /// The first aside that still wants a connection.
    pub(super) fn first_aside(&mut self) -> Option<Arc<TenantPool>> {
        self.first_wanting(|queue| &queue.aside)
    }

    fn first_wanting(&mut self, of: fn(&Self) -> &BTreeMap<Place, Arc<TenantPool>>) -> Option<Arc<TenantPool>> {
        loop {
            let pool = Arc::clone(of(self).first_key_value()?.1);
            if pool.wants_more(&mut pool.state()) {
                return Some(pool);
            }
            self.leave(&pool);
        }
    }

    /// Those aside that want nothing any more leave.
    pub(super) fn tidy(&mut self) {
        for (_, pool) in self.aside.extract_if(.., |_, pool| !pool.wants_more(&mut pool.state())) {
            pool.state().place = None;
        }
    }

    /// Takes out all pools of one address.
    pub(super) fn take_all_of(&mut self, address: &str) -> Vec<Arc<TenantPool>> {
        let is_there = |_: &Place, pool: &mut Arc<TenantPool>| **pool.target.address() == *address;
        let taken = self.pools.extract_if(.., is_there).chain(self.aside.extract_if(.., is_there));
        taken
            .map(|(_, pool)| {
                pool.state().place = None;
                pool
            })
            .collect()
    }
}
