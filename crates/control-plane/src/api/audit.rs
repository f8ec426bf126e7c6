//! `/v1/audit`: the trail as operators read it, and what it is verified with. Nobody writes to it by a call of its own.

pub(super) mod nodes;

use std::fmt;
use std::str::FromStr;

use axum::extract::State;
use chrono::{DateTime, Utc};
use http::StatusCode;
use sea_orm::{ColumnTrait, Condition, DbErr, EntityTrait, ExprTrait, QueryFilter, QueryOrder, QuerySelect};
use serde::{Deserialize, Serialize};
use service::Problem;
use service::extract::{Json, Query};
use service::problem::ProblemBody;
use tenancy::audit::{Chain, Checkpoint, Record};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Api;
use super::auth::Operator;
use super::page::{Page, after, limit};
use super::tenants;
use crate::audit::{checkpoint_of, record_of};
use crate::registry::entities::{audit_checkpoints, records};

/// Which records.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    /// That are about this tenant or aimed at it, by id or slug, whatever chain they are in.
    tenant: Option<String>,
    /// Of this chain: `platform` or a tenant's id.
    #[param(value_type = Option<String>)]
    chain: Option<String>,
    /// With this action; what ends in a dot is the beginning of several: `security.`.
    action: Option<String>,
    /// By this operator, or principal's subject.
    actor: Option<String>,
    /// Of this request.
    request_id: Option<String>,
    /// That happened then or later.
    since: Option<DateTime<Utc>>,
    /// That happened before.
    until: Option<DateTime<Utc>>,
    /// `newest` first, which is so unless told, or `chain`: by chain and number, as they are verified.
    #[serde(default)]
    order: Order,
    /// Items at most, 1 to 200; 50 unless told.
    limit: Option<u64>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// In which order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    #[default]
    Newest,
    Chain,
}

/// A place in the order of chains.
struct Place(String, i64);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0, self.1)
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (chain, seq) = text.split_once('/').ok_or(())?;
        let chain: Chain = chain.parse().map_err(|_| ())?;
        Ok(Self(chain.to_string(), seq.parse().map_err(|_| ())?))
    }
}

/// All that comes behind a place in the order of chains.
fn behind(place: Place, chain: impl ColumnTrait, seq: impl ColumnTrait) -> Condition {
    let further = Condition::all().add(chain.eq(place.0.as_str())).add(seq.gt(place.1));
    Condition::any().add(chain.gt(place.0)).add(further)
}

fn chain(text: &str) -> Result<Chain, Problem> {
    text.parse().map_err(|error: tenancy::audit::MalformedChain| {
        let detail = error.to_string();
        let whole = format!("The query string is not valid: `chain` is {detail}.");
        Problem::new(StatusCode::BAD_REQUEST, "invalid-query", whole).with_field("chain", detail)
    })
}

/// Lists what was done and noticed.
#[utoipa::path(
    get, path = "/v1/audit", tag = "audit", params(AuditQuery),
    responses((status = 200, body = Page<Record>), (status = 400, body = ProblemBody), (status = 404, body = ProblemBody))
)]
pub(super) async fn list(
    State(api): State<Api>,
    _: Operator,
    Query(query): Query<AuditQuery>,
) -> Result<Json<Page<Record>>, Problem> {
    let db = api.plane.registry.db();
    let mut select = records::Entity::find();
    if let Some(tenant) = &query.tenant {
        let id = tenants::find(db, tenant).await?.id;
        select = select.filter(records::Column::TenantId.eq(id).or(records::Column::TargetId.eq(id)));
    }
    if let Some(text) = &query.chain {
        select = select.filter(records::Column::Chain.eq(chain(text)?.to_string()));
    }
    if let Some(action) = &query.action {
        select = select.filter(if action.ends_with('.') {
            records::Column::Action.starts_with(action)
        } else {
            records::Column::Action.eq(action.as_str())
        });
    }
    if let Some(actor) = &query.actor {
        select = select.filter(records::Column::Actor.eq(actor.as_str()));
    }
    if let Some(request) = &query.request_id {
        select = select.filter(records::Column::RequestId.eq(request.as_str()));
    }
    if let Some(since) = query.since {
        select = select.filter(records::Column::At.gte(since));
    }
    if let Some(until) = query.until {
        select = select.filter(records::Column::At.lt(until));
    }
    Ok(Json(page(&api, select, query.order, query.limit, query.cursor.as_deref()).await?))
}

/// A page of records, in their order.
async fn page(
    api: &Api,
    select: sea_orm::Select<records::Entity>,
    order: Order,
    asked: Option<u64>,
    cursor: Option<&str>,
) -> Result<Page<Record>, Problem> {
    let limit = limit(asked)?;
    let select = match order {
        Order::Newest => {
            let select = select.order_by_desc(records::Column::Id);
            match after::<Uuid>(cursor)? {
                Some(before) => select.filter(records::Column::Id.lt(before)),
                None => select,
            }
        }
        Order::Chain => {
            let select = select.order_by_asc(records::Column::Chain).order_by_asc(records::Column::Seq);
            match after::<Place>(cursor)? {
                Some(place) => select.filter(behind(place, records::Column::Chain, records::Column::Seq)),
                None => select,
            }
        }
    };
    let rows = select.limit(limit + 1).all(api.plane.registry.db()).await?;
    let rows = rows.into_iter().map(|row| Ok((row.id, record_of(row)?))).collect::<Result<Vec<_>, DbErr>>()?;
    let key = |(id, record): &(Uuid, Record)| match order {
        Order::Newest => id.to_string(),
        Order::Chain => Place(record.chain.to_string(), record.seq.cast_signed()).to_string(),
    };
    Ok(Page::of(rows, limit, key, |(_, record)| record))
}

/// Which checkpoints.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckpointsQuery {
    /// Of this chain: `platform` or a tenant's id.
    #[param(value_type = Option<String>)]
    chain: Option<String>,
    /// Items at most, 1 to 200; 50 unless told.
    limit: Option<u64>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Lists checkpoints by chain and number. Keep some elsewhere: what they vouch for cannot be altered unseen any more.
#[utoipa::path(
    get, path = "/v1/audit/checkpoints", tag = "audit", params(CheckpointsQuery),
    responses((status = 200, body = Page<Checkpoint>), (status = 400, body = ProblemBody))
)]
pub(super) async fn checkpoints(
    State(api): State<Api>,
    _: Operator,
    Query(query): Query<CheckpointsQuery>,
) -> Result<Json<Page<Checkpoint>>, Problem> {
    let limit = limit(query.limit)?;
    let mut select = audit_checkpoints::Entity::find()
        .order_by_asc(audit_checkpoints::Column::Chain)
        .order_by_asc(audit_checkpoints::Column::Seq);
    if let Some(text) = &query.chain {
        select = select.filter(audit_checkpoints::Column::Chain.eq(chain(text)?.to_string()));
    }
    if let Some(place) = after::<Place>(query.cursor.as_deref())? {
        select = select.filter(behind(place, audit_checkpoints::Column::Chain, audit_checkpoints::Column::Seq));
    }
    let rows = select.limit(limit + 1).all(api.plane.registry.db()).await?;
    let rows = rows.into_iter().map(checkpoint_of).collect::<Result<Vec<_>, DbErr>>()?;
    let key = |it: &Checkpoint| Place(it.chain.to_string(), it.seq.cast_signed()).to_string();
    Ok(Json(Page::of(rows, limit, key, |it| it)))
}

/// What a checkpoint's signature is checked with.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct VerifyingKey {
    /// As checkpoints name it.
    id: String,
    /// Ed25519, 32 bytes in base64.
    public_key: String,
}

/// All keys that checkpoints are or were signed with.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct VerifyingKeys {
    items: Vec<VerifyingKey>,
}

/// Lists the public keys of checkpoints. Keep them elsewhere: a key that comes with what it is to prove proves nothing.
#[utoipa::path(get, path = "/v1/audit/keys", tag = "audit", responses((status = 200, body = VerifyingKeys)))]
pub(super) async fn keys(State(api): State<Api>, _: Operator) -> Json<VerifyingKeys> {
    let keys = api.plane.signing.public().iter();
    Json(VerifyingKeys { items: keys.map(|key| VerifyingKey { id: key.id(), public_key: key.to_string() }).collect() })
}
