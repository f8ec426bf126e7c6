//! `GET /about`: what anybody may know of a tenant's pet store. Public, as a shop's window is.

use data_plane::PublicSession;
use serde::Serialize;
use service::extract::Json;
use utoipa::ToSchema;

/// The store.
#[derive(Serialize, ToSchema)]
pub(crate) struct About {
    store: String,
    product: &'static str,
}

/// Tells whose store this is. Needs no credential; the tenant must be named.
#[utoipa::path(get, path = "/about", tag = "about", responses((status = 200, body = About)))]
pub(crate) async fn about(session: PublicSession) -> Json<About> {
    Json(About { store: session.for_anybody().slug().to_string(), product: crate::product::NAME })
}
