//! Whose turn it is when a connection has served one tenant's statements for long enough.

use std::sync::Arc;
use std::time::Instant;

use super::super::metrics::Closed;
use super::super::tenant::{Live, TenantPool};
use super::{ServerPool, State};

impl ServerPool {
    /// A connection that served a tenant's statements for its turn goes to a tenant that has none, or fewer for its plan, if one waits
    /// and may be served now.
    pub(in super::super) fn pass_on(self: &Arc<Self>, from: &Arc<TenantPool>, live: Live, now: Instant) {
        let mut live = Some(live);
        let grant = {
            let mut state = self.state();
            let next = state.heir(from, now);
            let has_turn = state.opening < self.settings.openings && self.lifeline.is_alive();
            let may_open = has_turn && next.is_some() && state.may_open().is_ok();
            let grant = next.filter(|_| may_open).map(|next| {
                state.release(from);
                state.grant_to(next, live.take())
            });
            self.settle(&mut state);
            grant
        };
        if let Some(live) = live {
            from.keep(live, now);
        }
        if let Some(grant) = grant {
            self.metrics.closed(Closed::Replaced);
            self.open_all(vec![grant]);
            // Its own statements that wait get their turn again, if that was its last.
            let _ = self.ask(from, now);
        }
    }
}

impl State {
    /// Which tenant gets this pool's connection: one that has none; else, where no permit is free, one that has fewer for its plan.
    fn heir(&mut self, from: &Arc<TenantPool>, now: Instant) -> Option<Arc<TenantPool>> {
        let is_full = self.held + self.closing >= self.share;
        let without = self.queue.first_waiting().filter(|next| next.open() == 0);
        let next = without.or_else(|| self.queue.first_aside().filter(|next| is_full && next.is_poorer_than(from)))?;
        let address = next.target.address();
        // Others would take the place of a connection that is closed here.
        let is_refused = self.away.refuses(address, now).or_else(|| self.contended.refuses(address, now)).is_some();
        (!is_refused && !Arc::ptr_eq(&next, from)).then_some(next)
    }
}
