//! `POST /v1/rollouts/rehearse`: what a rollout's migrations do, and what of that holds others up.

use axum::extract::State;
use serde::Serialize;
use service::Problem;
use service::extract::Json;
use service::problem::ProblemBody;
use utoipa::ToSchema;

use super::start::NewRollout;
use crate::api::Api;
use crate::api::auth::Operator;
use crate::audit::changes_nothing;
use crate::engine::Rehearsed;
use crate::fleet;

/// Statements that are shown of one migration, and how long each may be.
const MOST_STATEMENTS: usize = 200;
const LONGEST_STATEMENT: usize = 2_000;

/// All that is pending for databases of one version, on one kind of server.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Rehearsal {
    /// The version that they have now.
    version: u32,
    /// `postgres` or `sqlite`.
    engine: &'static str,
    /// Where the scratch database was, which is gone again.
    server: String,
    /// In the order in which they are applied.
    migrations: Vec<Migration>,
    /// Why they were not rehearsed, and what to do.
    error: Option<String>,
}

/// What one migration did to an empty database.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Migration {
    name: String,
    /// Whether it ran in a transaction.
    transaction: bool,
    statements: Vec<String>,
    /// The locks that it held on tables that were there before, just before its commit.
    locks: Vec<Lock>,
    /// Tables that were there before, and were written anew.
    rewrites: Vec<String>,
    findings: Vec<Found>,
}

/// A lock on a table.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Lock {
    table: String,
    /// As Postgres calls it, as `AccessExclusiveLock`.
    mode: String,
}

/// Something that holds others up where a table is in use.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Found {
    /// `access_exclusive`, `rewrite`, `index`, `not_null`, `type_change` or `unbounded`.
    kind: &'static str,
    /// What it is, and what to do instead.
    detail: String,
}

/// All rehearsals of an order.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Rehearsals {
    /// One for each version and kind of server that is found; none of what is taken back.
    rehearsals: Vec<Rehearsal>,
}

/// Applies the pending migrations to a scratch database at each version that is found in the fleet, and tells what each did:
/// statements, locks before its commit, tables that were written anew, and what of that holds others up. No tenant's database
/// is touched, and nothing is left.
#[utoipa::path(
    post, path = "/v1/rollouts/rehearse", tag = "fleet", request_body = NewRollout,
    responses((status = 200, body = Rehearsals), (status = 409, body = ProblemBody), (status = 422, body = ProblemBody))
)]
pub(crate) async fn rehearse(
    State(api): State<Api>,
    _: Operator,
    Json(body): Json<NewRollout>,
) -> Result<Json<Rehearsals>, Problem> {
    changes_nothing();
    let order = body.order(&api.plane);
    let rehearsals = Box::pin(fleet::rehearse(&api.plane, &order)).await?.into_iter().map(|it| Rehearsal {
        version: it.version,
        engine: it.engine.as_str(),
        server: it.server,
        migrations: it.migrations.into_iter().map(migration).collect(),
        error: it.error,
    });
    Ok(Json(Rehearsals { rehearsals: rehearsals.collect() }))
}

fn migration(rehearsed: Rehearsed) -> Migration {
    Migration {
        name: rehearsed.migration,
        transaction: rehearsed.transaction,
        statements: fleet::shortened(rehearsed.statements, MOST_STATEMENTS, LONGEST_STATEMENT),
        locks: rehearsed.locks.into_iter().map(|(table, mode)| Lock { table, mode }).collect(),
        rewrites: rehearsed.rewrites,
        findings: rehearsed
            .findings
            .into_iter()
            .map(|found| Found { kind: found.kind.as_str(), detail: found.detail })
            .collect(),
    }
}
