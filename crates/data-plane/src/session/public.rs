//! A session for anybody, on a route that the product made public.

use axum::extract::FromRequestParts;
use http::request::Parts;
use service::Problem;

use super::TenantSession;

/// A tenant that a request names and nobody proved to belong to. An extractor for handlers of public routes: the type says
/// that whoever calls is nobody, and what is answered is told to everybody.
///
/// That there is an answer at all tells that the tenant exists.
#[derive(Clone, Debug)]
pub struct PublicSession(TenantSession);

impl PublicSession {
    pub(crate) const fn new(session: TenantSession) -> Self {
        Self(session)
    }

    /// The tenant's session. Its principal is `public`, and has no scope.
    pub const fn for_anybody(&self) -> &TenantSession {
        &self.0
    }
}

impl<S: Sync> FromRequestParts<S> for PublicSession {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let admitted = parts.extensions.get::<Self>().cloned();
        admitted.ok_or_else(|| Problem::internal("the handler asks for a public session and its route is not public"))
    }
}
