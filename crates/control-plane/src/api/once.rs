//! `Idempotency-Key`: a POST that is sent twice takes effect once.
//!
//! The first request claims the key, records its answer in the transaction of its effect, and a repeat gets that answer.
//! An answer may hold a new key's secret, so that it is kept sealed. A claim without an answer is a request at work, or
//! one that ended without an effect; the latter gives the key back.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, MatchedPath, RawPathParams, Request};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode, header};
use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, ExprTrait, QueryFilter};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use service::Problem;
use service::extract::{Json, parse_json};
use sha2::{Digest, Sha256};
use tenancy::seal::{Purpose, Sealed, Subject};
use uuid::Uuid;

use super::Api;
use super::auth::Operator;
use super::tenants;
use crate::audit::changes_nothing;
use crate::plane::Plane;
use crate::registry::change::Change;
use crate::registry::entities::idempotency;

/// How long an answer is kept.
const KEPT: Duration = Duration::from_hours(24);
/// A claim without an answer that is older than any request may take belongs to a process that died.
const ABANDONED: Duration = Duration::from_mins(5);

/// A JSON body whose effect happens once. Rejects with the recorded answer when there is one.
pub(super) struct Once<T> {
    pub(super) body: T,
    pub(super) ticket: Ticket,
}

/// The right to record the answer. Dropped without a record, it gives the key back.
pub(super) struct Ticket(Option<Claim>);

struct Claim {
    plane: Plane,
    scope: String,
    id: Uuid,
    is_recorded: bool,
    /// Recorded for now: the request is still at work on a better one, and this holds should it break off.
    for_now: Option<Answer>,
}

/// An answer as it is sent and recorded.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Answer {
    status: u16,
    location: Option<String>,
    etag: Option<String>,
    body: serde_json::Value,
    /// The request is still at work on a better one.
    #[serde(default)]
    is_for_now: bool,
}

impl Answer {
    pub(super) fn new(status: StatusCode, body: &impl Serialize) -> Result<Self, Problem> {
        let body = serde_json::to_value(body).map_err(Problem::internal)?;
        Ok(Self { status: status.as_u16(), location: None, etag: None, body, is_for_now: false })
    }

    pub(super) fn at(mut self, location: String) -> Self {
        self.location = Some(location);
        self
    }

    pub(super) fn tagged(mut self, etag: &HeaderValue) -> Self {
        self.etag = etag.to_str().ok().map(str::to_owned);
        self
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK);
        let mut response = (status, Json(self.body)).into_response();
        let mut put = |name: HeaderName, value: Option<String>| {
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
                response.headers_mut().insert(name, value);
            }
        };
        put(header::LOCATION, self.location);
        put(header::ETAG, self.etag);
        response
    }
}

impl<T: DeserializeOwned + Send> FromRequest<Api> for Once<T> {
    type Rejection = Response;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let scope = scope(&mut parts, api).await.map_err(IntoResponse::into_response)?;
        let request = Request::from_parts(parts, body);
        // Validates the media type before the body is read.
        let RawJson(bytes) = RawJson::from_request(request, api).await.map_err(IntoResponse::into_response)?;
        let body = parse_json(&bytes).map_err(IntoResponse::into_response)?;
        let Some(scope) = scope else { return Ok(Self { body, ticket: Ticket(None) }) };
        let ticket = claim(&api.plane, scope, &bytes).await?;
        Ok(Self { body, ticket })
    }
}

/// For calls without a body. Rejects with the recorded answer when there is one.
impl FromRequest<Api> for Ticket {
    type Rejection = Response;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Response> {
        let (mut parts, _) = request.into_parts();
        match scope(&mut parts, api).await.map_err(IntoResponse::into_response)? {
            Some(scope) => claim(&api.plane, scope, b"").await,
            None => Ok(Self(None)),
        }
    }
}

/// What a key is one of: the operator, the call, and what it is about. A tenant counts as itself, whatever it is called: its
/// slug may be another's tomorrow.
struct Scope(Sha256);

impl Scope {
    fn name(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0.clone().finalize())
    }

    /// Tells bodies apart, and nobody who has the digest alone can try out what the body was.
    fn digest(&self, body: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(self.0.clone().chain_update(b"\nbody\n").chain_update(body).finalize())
    }
}

/// Checks who calls. None: the request carries no key.
async fn scope(parts: &mut Parts, api: &Api) -> Result<Option<Scope>, Problem> {
    let operator = Operator::from_request_parts(parts, api).await?;
    let Some(key) = key(&parts.headers)? else { return Ok(None) };
    let pattern = parts.extensions.get::<MatchedPath>().map(|path| path.as_str().to_owned()).unwrap_or_default();
    let mut scope = Sha256::new_with_prefix(operator.token).chain_update(pattern);
    let named = RawPathParams::from_request_parts(parts, api).await;
    // Bytes that are no text name nothing.
    let named = named.map_err(|error| Problem::of_status(StatusCode::NOT_FOUND).with_source(error))?;
    for (name, value) in &named {
        let tenant = match name {
            "tenant" => Some(tenants::find(api.plane.registry.db(), value).await?.id.to_string()),
            _ => None,
        };
        scope.update(b"\n");
        scope.update(tenant.as_deref().unwrap_or(value));
    }
    Ok(Some(Scope(scope.chain_update(b"\n").chain_update(key))))
}

/// The bytes of a body that says to be JSON.
struct RawJson(Bytes);

impl FromRequest<Api> for RawJson {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let Json(value) = Json::<Box<serde_json::value::RawValue>>::from_request(request, api).await?;
        Ok(Self(Bytes::from(String::from(Box::<str>::from(value)))))
    }
}

fn key(headers: &http::HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    match value.to_str() {
        Ok(key) if (1..=255).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "invalid-idempotency-key",
            "Idempotency-Key has 1 to 255 visible ASCII characters. Send a UUID, for instance.",
        )),
    }
}

async fn claim(plane: &Plane, scope: Scope, body: &[u8]) -> Result<Ticket, Response> {
    let failed = |error: DbErr| Problem::from(error).into_response();
    let (scope, body_digest) = (scope.name(), scope.digest(body));
    let now = plane.registry.now();
    forget_old(plane).await.map_err(failed)?;
    let mine = Uuid::new_v4();
    let row = idempotency::ActiveModel {
        scope: Set(scope.clone()),
        claim: Set(mine),
        body_digest: Set(body_digest.clone()),
        sealed_answer: Set(None),
        created_at: Set(now),
    };
    let first_come = OnConflict::column(idempotency::Column::Scope).do_nothing().to_owned();
    idempotency::Entity::insert(row)
        .on_conflict(first_come)
        .exec_without_returning(plane.registry.db())
        .await
        .map_err(failed)?;
    let found = idempotency::Entity::find_by_id(scope.clone()).one(plane.registry.db()).await.map_err(failed)?;
    match found {
        Some(row) if row.claim == mine => {
            Ok(Ticket(Some(Claim { plane: plane.clone(), scope, id: mine, is_recorded: false, for_now: None })))
        }
        Some(row) if row.body_digest != body_digest => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "idempotency-key-reused",
            "This Idempotency-Key came with another body before. Use a new key for a new request.",
        )
        .into_response()),
        Some(idempotency::Model { sealed_answer: Some(sealed), claim, created_at, .. }) => {
            let answer = open(plane, claim, sealed).map_err(IntoResponse::into_response)?;
            // It was told when it took effect.
            changes_nothing();
            // Its process died while it waited, and nothing better comes.
            let is_abandoned = created_at < now - ABANDONED;
            Err(if answer.is_for_now && !is_abandoned { in_progress() } else { answer.into_response() })
        }
        _ => Err(in_progress()),
    }
}

fn in_progress() -> Response {
    Problem::new(
        StatusCode::CONFLICT,
        "request-in-progress",
        "A request with this Idempotency-Key is still at work. Send it again in a moment for its answer.",
    )
    .with_retry_after(Duration::from_secs(1))
    .into_response()
}

async fn forget_old(plane: &Plane) -> Result<(), DbErr> {
    let now = plane.registry.now();
    let is_old = idempotency::Column::CreatedAt.lt(now - KEPT);
    let is_abandoned =
        idempotency::Column::SealedAnswer.is_null().and(idempotency::Column::CreatedAt.lt(now - ABANDONED));
    idempotency::Entity::delete_many().filter(is_old.or(is_abandoned)).exec(plane.registry.db()).await?;
    Ok(())
}

const fn subject(claim: Uuid) -> Subject {
    Subject { purpose: Purpose::RecordedAnswer, id: claim, generation: 0 }
}

fn open(plane: &Plane, claim: Uuid, sealed: String) -> Result<Answer, Problem> {
    let text = plane.servers_ring.open(subject(claim), &Sealed::from_stored(sealed)).map_err(Problem::internal)?;
    serde_json::from_str(text.expose_secret()).map_err(Problem::internal)
}

impl Ticket {
    /// Records the answer together with its effect.
    pub(super) async fn record(&mut self, change: &Change, answer: &Answer) -> Result<(), Problem> {
        self.write(change.db(), answer).await
    }

    /// Records an answer together with its effect, while the request goes on for a better one. Repeats wait for that.
    async fn record_for_now(&mut self, change: &Change, answer: &Answer) -> Result<(), Problem> {
        self.write(change.db(), &Answer { is_for_now: true, ..answer.clone() }).await?;
        if let Some(claim) = &mut self.0 {
            claim.for_now = Some(answer.clone());
        }
        Ok(())
    }

    /// Records that something was begun; `goes_on`: the request waits for it to end.
    pub(super) async fn record_begun(
        &mut self,
        change: &Change,
        answer: &Answer,
        goes_on: bool,
    ) -> Result<(), Problem> {
        if goes_on { self.record_for_now(change, answer).await } else { self.record(change, answer).await }
    }

    /// Replaces the recorded answer by the better one: what was waited for has come.
    pub(super) async fn amend(&mut self, plane: &Plane, answer: &Answer) -> Result<(), Problem> {
        self.write(plane.registry.db(), answer).await?;
        if let Some(claim) = &mut self.0 {
            claim.for_now = None;
        }
        Ok(())
    }

    async fn write(&mut self, db: &impl ConnectionTrait, answer: &Answer) -> Result<(), Problem> {
        let Some(claim) = &mut self.0 else { return Ok(()) };
        let text: SecretString = serde_json::to_string(answer).map_err(Problem::internal)?.into();
        let sealed = claim.plane.servers_ring.seal(subject(claim.id), &text, &mut rand::rng());
        let written = idempotency::Entity::update_many()
            .col_expr(idempotency::Column::SealedAnswer, Expr::value(sealed.as_stored()))
            .filter(idempotency::Column::Scope.eq(claim.scope.as_str()))
            .filter(idempotency::Column::Claim.eq(claim.id))
            .exec(db)
            .await?;
        if written.rows_affected == 0 {
            return Err(Problem::of_status(StatusCode::SERVICE_UNAVAILABLE).with_retry_after(Duration::from_secs(1)));
        }
        claim.is_recorded = true;
        Ok(())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some(mut claim) = self.0.take() else { return };
        if let Some(answer) = claim.for_now.take() {
            // The caller went away while it waited; what was recorded for now is its answer.
            let mut ticket = Self(Some(claim));
            tokio::spawn(async move {
                let plane = ticket.0.as_ref().map(|claim| claim.plane.clone());
                if let Some(plane) = plane
                    && let Err(problem) = ticket.amend(&plane, &answer).await
                {
                    tracing::warn!(%problem, "an Idempotency-Key stays in progress until it is abandoned");
                }
            });
            return;
        }
        if claim.is_recorded {
            return;
        }
        tokio::spawn(async move {
            let given_back = idempotency::Entity::delete_many()
                .filter(idempotency::Column::Scope.eq(claim.scope))
                .filter(idempotency::Column::Claim.eq(claim.id))
                .filter(idempotency::Column::SealedAnswer.is_null())
                .exec(claim.plane.registry.db())
                .await;
            if let Err(error) = given_back {
                tracing::warn!(%error, "an Idempotency-Key stays claimed until it is abandoned");
            }
        });
    }
}
