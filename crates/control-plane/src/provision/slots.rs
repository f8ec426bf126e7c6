//! The slots of one runner, and whose work goes into them: whatever is due on one server, the others' is done too.

use std::collections::{BTreeSet, HashMap, HashSet};

use sea_orm::sea_query::Query;
use sea_orm::{
    ColumnTrait, Condition, DbErr, EntityTrait, ExprTrait, JoinType, QueryFilter, QueryOrder, QuerySelect, RelationDef,
};
use uuid::Uuid;

use super::breakers::Breakers;
use super::lease::{Lease, is_free};
use super::pace::Pace;
use super::{Kind, On, State};
use crate::registry::Registry;
use crate::registry::entities::{operations, tenants};

/// Where an operation's work is done. Those that have no server yet count together: they may all get the same.
type Place = Option<Uuid>;

/// How many slots one server's operations may have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Share {
    /// While others wait.
    Half,
    /// When nobody does; one is left for whoever comes.
    Rest,
}

/// The slots of one runner.
pub(super) struct Slots {
    all: usize,
    free: usize,
    taken: HashMap<Place, usize>,
    silent: HashSet<Uuid>,
}

impl Slots {
    /// So many, all of them free.
    #[cfg(test)]
    pub(super) fn new(all: usize) -> Self {
        Self { all, free: all, taken: HashMap::new(), silent: HashSet::new() }
    }

    /// So many, in which operations on these are at work.
    pub(super) async fn of(
        registry: &Registry,
        breakers: &Breakers,
        all: usize,
        at_work: impl ExactSizeIterator<Item = On>,
    ) -> Result<Self, DbErr> {
        let free = all.saturating_sub(at_work.len());
        let mut taken: HashMap<Place, usize> = HashMap::new();
        if free > 0 && at_work.len() > 0 {
            let mut tenants = Vec::new();
            for on in at_work {
                match on {
                    On::Tenant(tenant) => tenants.push(tenant),
                    On::Server(server) => *taken.entry(Some(server)).or_default() += 1,
                }
            }
            let rows = tenants::Entity::find().filter(tenants::Column::Id.is_in(tenants)).all(registry.db()).await?;
            for row in rows {
                *taken.entry(row.server_id).or_default() += 1;
            }
        }
        Ok(Self { all, free, taken, silent: breakers.all() })
    }

    fn is_full(&self, place: Place, share: Share) -> bool {
        let most = match share {
            _ if place.is_some_and(|server| self.silent.contains(&server)) => 1,
            Share::Half => self.all / 2,
            Share::Rest => self.all.saturating_sub(1),
        };
        self.taken.get(&place).is_some_and(|taken| *taken >= most.max(1))
    }

    fn full(&self, share: Share) -> BTreeSet<Place> {
        self.taken.keys().copied().filter(|place| self.is_full(*place, share)).collect()
    }

    fn fill(&mut self, place: Place) {
        self.free -= 1;
        *self.taken.entry(place).or_default() += 1;
    }
}

/// Takes operations that are due and nobody works on, the longest due first, for the slots that are free.
pub(super) async fn take(
    registry: &Registry,
    holder: Uuid,
    pace: &Pace,
    mut slots: Slots,
) -> Result<Vec<Lease>, DbErr> {
    let mut leases = Vec::new();
    for share in [Share::Half, Share::Rest] {
        // Each round fills somebody's share, or is the last.
        loop {
            let full = slots.full(share);
            if slots.free == 0 || share == Share::Rest && slots.full(Share::Half).is_empty() {
                return Ok(leases);
            }
            // Others may be faster with some.
            for (seen, place) in due(registry, &full, 4 * slots.free as u64).await? {
                let is_move = seen.kind == Kind::Move.as_str();
                if slots.free > 0
                    && (is_move || !slots.is_full(place, share))
                    && let Some(lease) = Lease::take(registry, holder, pace, &seen).await?
                {
                    slots.fill(place);
                    leases.push(lease);
                }
            }
            if slots.full(share) == full {
                break;
            }
        }
    }
    Ok(leases)
}

/// Operations that are due, but for those of these places.
async fn due(
    registry: &Registry,
    full: &BTreeSet<Place>,
    at_most: u64,
) -> Result<Vec<(operations::Model, Place)>, DbErr> {
    // One at a time for a tenant, and for a server; indexes hold those to it who look at the same moment.
    let at_work = |column: operations::Column| {
        Query::select()
            .column(column)
            .from(operations::Entity)
            .and_where(operations::Column::State.is_in([State::Running.as_str(), State::Undoing.as_str()]))
            .and_where(column.is_not_null())
            .to_owned()
    };
    let is_next = |column: operations::Column| column.is_null().or(column.not_in_subquery(at_work(column)));
    let full_servers: Vec<Uuid> = full.iter().flatten().copied().collect();
    let tenants_elsewhere = tenants::Column::ServerId.is_not_in(full_servers.iter().copied());
    let servers_elsewhere = operations::Column::ServerId.is_not_in(full_servers);
    // A move works on no server, and is what others may wait for.
    let is_move = operations::Column::Kind.eq(Kind::Move.as_str());
    let mut elsewhere = Condition::any().add(is_move).add(tenants_elsewhere).add(servers_elsewhere);
    if !full.contains(&None) {
        elsewhere = elsewhere.add(tenants::Column::ServerId.is_null().and(operations::Column::ServerId.is_null()));
    }
    let tenant: RelationDef = operations::Entity::belongs_to(tenants::Entity)
        .from(operations::Column::TenantId)
        .to(tenants::Column::Id)
        .into();
    let rows = operations::Entity::find()
        .join(JoinType::LeftJoin, tenant)
        .select_also(tenants::Entity)
        .filter(is_free(registry))
        .filter(operations::Column::RunAfter.into_expr().lte(registry.present()))
        // What a newer version brought is left to those who know it.
        .filter(operations::Column::Kind.is_in(Kind::ALL.map(Kind::as_str)))
        .filter(
            operations::Column::State
                .ne(State::Pending.as_str())
                .or(is_next(operations::Column::TenantId).and(is_next(operations::Column::ServerId))),
        )
        .filter(elsewhere)
        .order_by_asc(operations::Column::RunAfter)
        .order_by_asc(operations::Column::Id)
        .limit(at_most)
        .all(registry.db())
        .await?;
    let place = |operation: &operations::Model, tenant: Option<tenants::Model>| {
        operation.server_id.or_else(|| tenant.and_then(|tenant| tenant.server_id))
    };
    Ok(rows
        .into_iter()
        .map(|(operation, tenant)| (place(&operation, tenant), operation))
        .map(|(at, it)| (it, at))
        .collect())
}
