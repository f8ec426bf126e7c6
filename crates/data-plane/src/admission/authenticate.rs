//! Authenticate: who calls? The credential alone decides; whatever tenant the request names, the answer is the same.

use std::sync::Arc;

use chrono::Utc;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use service::Problem;
use service::extract::bearer;
use tenancy::ApiKey;

use super::identify::{Identified, Name};
use crate::routes::{InUse, Routes};
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
    #[allow(dead_code)]
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
    routes: &Routes,
    identified: Identified,
    headers: &HeaderMap,
) -> Result<Authenticated, Problem> {
    let key: ApiKey = bearer(headers).and_then(|token| token.parse().ok()).ok_or_else(unauthorized)?;
    let served = routes.of_key(key.id()).await?.ok_or_else(unauthorized)?;
    let mut keys = served.route.keys.iter().zip(&served.principals);
    let (known, principal) = keys.find(|(known, _)| known.id == *key.id()).ok_or_else(unauthorized)?;
    // Compared in constant time; an expired key is refused only after it was.
    let is_proven = known.digest == key.digest();
    let is_expired = known.expires_at.is_some_and(|expiry| expiry <= Utc::now());
    if !is_proven || is_expired {
        return Err(unauthorized());
    }
    Ok(Authenticated { names: identified.names, principal: principal.clone(), own: Own::One(served) })
}

fn unauthorized() -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        "Send `Authorization: Bearer` with a valid API key, which has the form fh_<id>_<secret>.",
    )
    .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}
