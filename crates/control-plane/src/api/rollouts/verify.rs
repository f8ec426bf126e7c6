//! `POST /v1/fleet/verify`: whose schema is not what its version says, page by page.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use service::Problem;
use service::extract::Json;
use service::problem::ProblemBody;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::Api;
use crate::api::auth::Operator;
use crate::api::page;
use crate::audit::changes_nothing;
use crate::fleet::{self, Checked, Extent, From, Selection, Verified};

/// Whom to look at.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Verify {
    #[serde(default)]
    select: Selection,
    /// So many of the selected tenants, drawn at random: 1 to 10,000. All of them, unless told.
    sample: Option<u32>,
    /// The `next_cursor` of the page before, with the same `select`; a sample goes on by itself.
    cursor: Option<String>,
}

/// One page of what was found. Tenants whose schemas are as they should be are only counted.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Verification {
    found: Vec<Verified>,
    checked: Checked,
    /// Where the next page begins; null on the last.
    next_cursor: Option<String>,
}

/// Compares each tenant's schema with that of a database made at the same version on the same server. Follow `next_cursor` to
/// the end. No tenant's database is changed; a database that could not be looked at is `unverified`, and says why.
#[utoipa::path(
    post, path = "/v1/fleet/verify", tag = "fleet", request_body = Verify,
    responses((status = 200, body = Verification), (status = 422, body = ProblemBody))
)]
pub(crate) async fn verify(
    State(api): State<Api>,
    _: Operator,
    Json(body): Json<Verify>,
) -> Result<Json<Verification>, Problem> {
    changes_nothing();
    let from = match (body.cursor.as_deref(), body.sample) {
        (Some(cursor), _) => page::key(cursor)
            .ok_or_else(|| Problem::invalid_field("cursor", "is not a next_cursor of this call: begin without one"))?,
        (None, None) => From { extent: Extent::All, after: Uuid::nil() },
        (None, Some(size)) if (1..=Extent::LARGEST).contains(&size) => {
            From { extent: Extent::Sample { size, seed: rand::random() }, after: Uuid::nil() }
        }
        (None, Some(_)) => {
            let detail = format!("must be from 1 to {}: leave it out to look at all", Extent::LARGEST);
            return Err(Problem::invalid_field("sample", detail));
        }
    };
    let report = Box::pin(fleet::verify(&api.plane, &body.select, from)).await?;
    let next_cursor = report.next.map(|next| page::cursor(&next.to_string()));
    Ok(Json(Verification { found: report.found, checked: report.checked, next_cursor }))
}
