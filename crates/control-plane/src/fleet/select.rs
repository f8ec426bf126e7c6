//! Which tenants a rollout is for, and which of them are not at the version.

use sea_orm::sea_query::{Query, SelectStatement};
use sea_orm::{ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter, QuerySelect};
use serde::{Deserialize, Serialize};
use service::Problem;
use tenancy::Status;
use utoipa::ToSchema;
use uuid::Uuid;

use super::TargetState;
use crate::registry::entities::{plans, rollout_targets, servers, tenants};

/// Tenants that may be named.
const MOST_NAMED: usize = 1_000;

/// Which tenants: all of those that meet each of these; all there are, where none is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Selection {
    /// On this plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) plan: Option<String>,
    /// On a server in this region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) region: Option<String>,
    /// On this server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<String>,
    /// These, by slug or id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tenants: Option<Vec<String>>,
}

/// A selection whose names were found, and the version that its tenants are to have.
pub(super) struct Selected {
    condition: Condition,
    version: i32,
    is_down: bool,
}

impl Selection {
    /// Finds what it names.
    pub(super) async fn find(
        &self,
        db: &impl ConnectionTrait,
        version: i32,
        is_down: bool,
    ) -> Result<Selected, Problem> {
        let mut condition = Condition::all().add(tenants::Column::Status.is_in(statuses()));
        if let Some(plan) = &self.plan {
            if plans::Entity::find_by_id(plan.as_str()).one(db).await?.is_none() {
                return Err(missing("plan", "there is no such plan: GET /v1/plans lists those there are"));
            }
            condition = condition.add(tenants::Column::Plan.eq(plan.as_str()));
        }
        if self.region.is_some() || self.server.is_some() {
            let mut on = servers::Entity::find();
            if let Some(region) = &self.region {
                on = on.filter(servers::Column::Region.eq(region.as_str()));
            }
            if let Some(server) = &self.server {
                on = on.filter(servers::Column::Name.eq(server.as_str()));
            }
            let ids: Vec<Uuid> = on.select_only().column(servers::Column::Id).into_tuple().all(db).await?;
            if ids.is_empty() {
                let (field, detail) = match self.server {
                    Some(_) => ("server", "there is no such server there: GET /v1/servers lists those there are"),
                    None => ("region", "no server is in this region: GET /v1/servers lists those there are"),
                };
                return Err(missing(field, detail));
            }
            condition = condition.add(tenants::Column::ServerId.is_in(ids));
        }
        if let Some(named) = &self.tenants {
            let ids = named_tenants(db, "select.tenants", named).await?;
            condition = condition.add(tenants::Column::Id.is_in(ids));
        }
        Ok(Selected { condition, version, is_down })
    }
}

/// In which a tenant's database is part of the fleet. A suspended one's is, so that it is served at once when it is resumed, and one's that may be
/// restored.
pub(crate) fn statuses() -> impl Iterator<Item = &'static str> {
    Status::ALL.into_iter().filter(|status| status.is_visible()).map(Status::as_str)
}

impl Selected {
    /// Those that are selected, whatever they have.
    pub(super) fn all(&self) -> sea_orm::Select<tenants::Entity> {
        tenants::Entity::find().filter(self.condition.clone())
    }

    /// Those whose databases are to be changed.
    pub(super) fn to_change(&self) -> sea_orm::Select<tenants::Entity> {
        let version = tenants::Column::SchemaVersion;
        self.all().filter(if self.is_down { version.gt(self.version) } else { version.lt(self.version) })
    }

    /// As [`Self::to_change`], but for those that are targets of the rollout already.
    pub(super) fn yet_to_target(&self, rollout: Uuid) -> sea_orm::Select<tenants::Entity> {
        self.to_change().filter(tenants::Column::Id.not_in_subquery(targets_of(rollout)))
    }

    /// Without those that another rollout is at work on.
    pub(super) fn without_targets_of_others(mut self) -> Self {
        let open = Query::select()
            .column(rollout_targets::Column::TenantId)
            .from(rollout_targets::Entity)
            .and_where(rollout_targets::Column::State.is_in(TargetState::OPEN.map(TargetState::as_str)))
            .to_owned();
        self.condition = self.condition.add(tenants::Column::Id.not_in_subquery(open));
        self
    }
}

fn targets_of(rollout: Uuid) -> SelectStatement {
    Query::select()
        .column(rollout_targets::Column::TenantId)
        .from(rollout_targets::Entity)
        .and_where(rollout_targets::Column::RolloutId.eq(rollout))
        .to_owned()
}

/// The ids of tenants that are named by slug or id.
pub(super) async fn named_tenants(
    db: &impl ConnectionTrait,
    field: &str,
    named: &[String],
) -> Result<Vec<Uuid>, Problem> {
    if named.is_empty() || named.len() > MOST_NAMED {
        return Err(Problem::invalid_field(field, format!("must name 1 to {MOST_NAMED} tenants")));
    }
    let ids: Vec<Uuid> = named.iter().filter_map(|name| name.parse().ok()).collect();
    let found: Vec<(Uuid, String)> = tenants::Entity::find()
        .select_only()
        .column(tenants::Column::Id)
        .column(tenants::Column::Slug)
        .filter(tenants::Column::Status.ne(Status::Deleted.as_str()))
        .filter(
            Condition::any()
                .add(tenants::Column::Slug.is_in(named.iter().map(String::as_str)))
                .add(tenants::Column::Id.is_in(ids)),
        )
        .into_tuple()
        .all(db)
        .await?;
    let is_found = |name: &&String| found.iter().any(|(id, slug)| slug == *name || id.to_string() == **name);
    let lost: Vec<&str> = named.iter().filter(|name| !is_found(name)).map(String::as_str).take(5).collect();
    if lost.is_empty() {
        return Ok(found.into_iter().map(|(id, _)| id).collect());
    }
    let detail = format!("there is no tenant {}: GET /v1/tenants lists those there are", lost.join(", "));
    Err(Problem::invalid_field(field, detail))
}

fn missing(field: &str, detail: &str) -> Problem {
    Problem::invalid_field(format!("select.{field}"), detail)
}
