//! Authenticate: who calls? The credential alone decides; whatever tenant the request names, the answer is the same.

mod by_key;
mod by_token;

use std::sync::Arc;

use chrono::Utc;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use service::Problem;
use service::extract::bearer;
use tenancy::ApiKey;

use super::identify::{Identified, Name};
use crate::plane::Plane;
use crate::routes::InUse;
use crate::session::Principal;

/// A caller who is who it says.
pub(super) struct Authenticated {
    pub(super) names: Vec<Name>,
    pub(super) principal: Principal,
    /// The principal's own tenants, never one that the request named.
    pub(super) own: Own,
}

/// The tenants that a principal belongs to, as far as this node serves them.
pub(super) enum Own {
    One(InUse),
    Several(Vec<InUse>),
}

impl Authenticated {
    /// The slug of the principal's only tenant, for what is counted and logged.
    pub(super) fn label(&self) -> Option<Arc<str>> {
        match &self.own {
            Own::One(served) => Some(Arc::clone(&served.label)),
            Own::Several(_) => None,
        }
    }
}

pub(super) async fn authenticate(
    plane: &Plane,
    identified: Identified,
    headers: &HeaderMap,
) -> Result<Authenticated, Problem> {
    let credential = bearer(headers).ok_or_else(unauthorized)?;
    let now = Utc::now();
    let (principal, own) = match credential.parse::<ApiKey>() {
        Ok(key) => by_key::authenticate(plane, &key, now).await?,
        // In a box: its future is large, and would be part of every request's.
        Err(_) => Box::pin(by_token::authenticate(plane, credential, now)).await?,
    };
    Ok(Authenticated { names: identified.names, principal, own })
}

fn unauthorized() -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        "Send `Authorization: Bearer` with a valid credential: an API key, which has the form fh_<id>_<secret>, or a token \
         of an issuer that is trusted here.",
    )
    .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}
