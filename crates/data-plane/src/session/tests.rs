//! What a session is not had without, and how configuration is read.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::routing::get;
use http::{Request, StatusCode};
use serde_json::json;
use tenancy::product::{ConfigKey, ValueType};
use tower::ServiceExt as _;

use super::*;

/// Invariant 1, at run time: a handler that nobody put behind admission gets no session. That no other code can make one
/// is shown at [`TenantSession`].
#[tokio::test]
async fn no_database_without_admission() {
    let router: axum::Router = axum::Router::new().route("/", get(async |_: TenantSession| "served"));
    let response = router.oneshot(Request::builder().uri("/").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
}

#[test]
fn configuration_is_what_was_set_or_else_declared() {
    let key = |name, value_type, default| ConfigKey { name, value_type, default, meaning: "" };
    let product = Product {
        name: "Test",
        mount: "/api",
        schema_version: 1,
        scopes: &[],
        config_keys: vec![key("colour", ValueType::Text, json!("blue")), key("count", ValueType::Integer, json!(3))],
    };
    let entries = BTreeMap::from([("colour".to_owned(), json!("red")), ("stray".to_owned(), json!(1))]);
    let view = ConfigView { entries: &entries, product: &product };
    assert_eq!(view.get::<String>("colour").unwrap(), "red");
    assert_eq!(view.get::<u8>("count").unwrap(), 3);
    for mistake in [view.get::<u8>("colour").unwrap_err(), view.get::<u8>("stray").unwrap_err()] {
        assert_eq!(mistake.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}
