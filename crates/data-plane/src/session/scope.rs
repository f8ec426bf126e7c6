//! What a handler needs of its caller, stated in the handler's signature.

use std::marker::PhantomData;
use std::ops::Deref;

use axum::extract::FromRequestParts;
use http::StatusCode;
use http::request::Parts;
use service::Problem;

use super::TenantSession;

/// What a principal may be allowed to do. A product has a type for each of its scopes.
pub trait Scope: Send + Sync + 'static {
    /// As the product declares it: `pets:read`.
    const NAME: &'static str;
}

/// A session whose principal has the scope. An extractor for the product's handlers:
///
/// ```
/// use data_plane::{Scope, Scoped};
///
/// struct ReadNotes;
///
/// impl Scope for ReadNotes {
///     const NAME: &'static str = "notes:read";
/// }
///
/// async fn handler(session: Scoped<ReadNotes>) -> String {
///     session.slug().to_string()
/// }
/// ```
///
/// A caller without it is answered 403.
pub struct Scoped<S>(TenantSession, PhantomData<S>);

impl<S> Deref for Scoped<S> {
    type Target = TenantSession;

    fn deref(&self) -> &TenantSession {
        &self.0
    }
}

impl<S> std::fmt::Debug for Scoped<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Scoped").field(&self.0).finish()
    }
}

impl<S: Scope, T: Sync> FromRequestParts<T> for Scoped<S> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &T) -> Result<Self, Problem> {
        let session = TenantSession::from_request_parts(parts, state).await?;
        if session.principal().scopes().iter().any(|scope| scope == S::NAME) {
            return Ok(Self(session, PhantomData));
        }
        let detail = format!("This needs the scope {}. Use a credential that has it.", S::NAME);
        Err(Problem::new(StatusCode::FORBIDDEN, "scope-missing", detail))
    }
}
