//! A server that moved: the URLs of all databases on it follow it to its new address, by an operation of the server.

use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use rand::seq::IndexedRandom as _;
use sea_orm::sea_query::Query;
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, PaginatorTrait, QueryFilter};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use service::Problem;
use tenancy::Status;
use tenancy::seal::Sealed;
use utoipa::ToSchema;
use uuid::Uuid;

use super::unusable;
use crate::api::auth::Operator;
use crate::engine::{DatabaseName, Engine, EngineError, Mark, Slot};
use crate::plane::Plane;
use crate::provision::{self, Kind, On, Order, in_the_way, is_held, password_in, url_subject};
use crate::registry::change::Change;
use crate::registry::entities::{databases, servers, tenants};

/// Databases that a server is asked for at once.
const ASKED_FOR: usize = 1_000;
/// Tenants whose databases are looked into, and as whom is logged in.
const SAMPLE: usize = 3;
/// Whose databases must be there: others may have none yet, or none any more.
const IN_USE: [Status; 2] = [Status::Active, Status::Suspended];

/// How far the tenants' URLs have followed their server to its address.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Move {
    /// The operation that does it.
    operation: Uuid,
    /// Tenants on the server.
    tenants: u64,
    /// Those whose URL names the address that the server has now.
    done: u64,
    /// Why it waits, and what to do.
    error: Option<String>,
    /// It was ordered before the registry's history got another identity: it goes on by the operation's `retry`.
    held: bool,
    created_at: DateTime<Utc>,
}

impl Move {
    /// For the audit trail.
    pub(super) fn in_words(&self) -> String {
        format!("the URLs of {} tenants follow it to another address by operation {}", self.tenants, self.operation)
    }
}

/// How far a server's move is; none if none is under way. `epoch` is the one that the registry's history is in.
pub(super) async fn of(db: &impl ConnectionTrait, epoch: Uuid, server: &servers::Model) -> Result<Option<Move>, DbErr> {
    let Some(open) = provision::open_in(db, On::Server(server.id), Kind::Move).await? else { return Ok(None) };
    let held = is_held(&open, epoch);
    let tenants = on_server(server).count(db).await?;
    let left = provision::count_left(db, server).await?;
    Ok(Some(Move {
        operation: open.id,
        tenants,
        done: tenants.saturating_sub(left),
        error: open.error,
        held,
        created_at: open.created_at,
    }))
}

fn on_server(server: &servers::Model) -> sea_orm::Select<databases::Entity> {
    databases::Entity::find().filter(databases::Column::ServerId.eq(server.id))
}

/// Whether tenants' URLs would be others than they were made until now.
pub(super) fn is_other_address(before: Result<&dyn Engine, &EngineError>, now: &dyn Engine, mark: &Mark) -> bool {
    let name = DatabaseName::generate(mark, &mut rand::rng());
    let url = |engine: &dyn Engine| engine.url(&name, Slot::A, &SecretString::default());
    // One that cannot be asked was another, as far as is known.
    before.map_or(true, |before| url(before).expose_secret() != url(now).expose_secret())
}

/// Refuses a server that is not the one that has the tenants' databases.
pub(super) async fn check(plane: &Plane, server: &servers::Model, engine: &dyn Engine) -> Result<(), Problem> {
    let rows = in_use(plane, server).await?;
    let mut missing: Vec<DatabaseName> = Vec::new();
    for slot in Slot::BOTH {
        let names = rows.iter().filter(|row| row.slot == slot.as_str()).map(|row| row.name.parse());
        let names: Vec<DatabaseName> = names.collect::<Result<_, _>>().map_err(Problem::internal)?;
        for some in names.chunks(ASKED_FOR) {
            missing.extend(engine.missing(some, Some(slot)).await.map_err(unusable)?);
        }
    }
    if !missing.is_empty() {
        // Of one that was deleted meanwhile nothing is missed.
        let now = in_use(plane, server).await?;
        missing.retain(|name| now.iter().any(|row| row.name == name.as_str()));
    }
    if let Some(first) = missing.first() {
        return Err(mismatch(format!(
            "the server at this URL lacks the databases of {} of {} tenants, or their login roles ({first} is one): move the \
             databases there first, or name the server that has them",
            missing.len(),
            rows.len()
        )));
    }
    let sample: Vec<&databases::Model> = rows.choose_multiple(&mut rand::rng(), SAMPLE).collect();
    for row in sample {
        look_into(plane, engine, row).await?;
    }
    Ok(())
}

/// Whether a database is its tenant's there, and lets its login role in by the password that the registry has.
async fn look_into(plane: &Plane, engine: &dyn Engine, row: &databases::Model) -> Result<(), Problem> {
    let (name, slot) = (row.name.parse().map_err(unusable)?, row.slot.parse().map_err(unusable)?);
    let identity = engine.identify(&name).await.map_err(unusable)?;
    let stamp = identity.and_then(|identity| identity.stamp);
    if stamp != Some(row.tenant_id.to_string()) {
        return Err(mismatch(format!(
            "the database {name} on the server at this URL is not stamped for its tenant {}: it is another server's",
            row.tenant_id
        )));
    }
    let subject = url_subject(row.tenant_id, row.generation.unsigned_abs());
    // A URL that does not open is a finding of the doctor's, and not the server's fault.
    let Ok(url) = plane.tenants_ring.open(subject, &Sealed::from_stored(row.sealed_url.as_str())) else {
        return Ok(());
    };
    let Ok(password) = password_in(&url) else { return Ok(()) };
    if !engine.admits(&engine.url(&name, slot, &password)).await.map_err(unusable)? {
        // Its credentials may have been rotated meanwhile.
        let now = databases::Entity::find_by_id(row.name.as_str()).one(plane.registry.db()).await?;
        if now.is_none_or(|now| now.generation != row.generation) {
            return Ok(());
        }
        return Err(mismatch(format!(
            "the server at this URL does not let {} in by the password that the server had for it: copy the login roles with \
             their passwords too",
            name.role(slot)
        )));
    }
    Ok(())
}

fn mismatch(detail: String) -> Problem {
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "server-mismatch",
        format!("This is not the server that was registered: {detail}."),
    )
    .with_field("admin_url", detail)
}

async fn in_use(plane: &Plane, server: &servers::Model) -> Result<Vec<databases::Model>, DbErr> {
    let in_use = Query::select()
        .column(tenants::Column::Id)
        .from(tenants::Entity)
        .and_where(tenants::Column::Status.is_in(IN_USE.map(Status::as_str)))
        .to_owned();
    on_server(server).filter(databases::Column::TenantId.in_subquery(in_use)).all(plane.registry.db()).await
}

/// Has the URLs of all databases on a server follow it to the address of its row, which the caller has just changed under its
/// lock; answers how many do. Ring the plane's [`crate::provision::Wake`] after the commit.
pub(super) async fn order(change: &Change, server: &servers::Model, by: &Operator) -> Result<Option<Move>, Problem> {
    let (on, epoch) = (On::Server(server.id), change.epoch().await?);
    match provision::open(change, on, Kind::Move).await? {
        // It goes on to the newest address.
        Some(open) if !is_held(&open, epoch) => {}
        // What is ordered now was ordered in another epoch too.
        Some(held) => drop(provision::go_on(change, held, epoch).await?),
        None if on_server(server).count(change.db()).await? == 0 => return Ok(None),
        None => {
            if let Some(held) = provision::begun_on(change.db(), on, epoch).await? {
                return Err(in_the_way(&held));
            }
            let (run_after, requested_by) = (change.now(), by.subject.clone());
            let order = Order { kind: Kind::Move, on, run_after, is_forced: false, requested_by };
            provision::enqueue(change, order).await?;
        }
    }
    Ok(of(change.db(), epoch, server).await?)
}
