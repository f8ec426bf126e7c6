//! The ops listener: `/healthz`, `/readyz`, `/metrics`. No token is asked for, so it belongs on a
//! private network; it shows no tenant's data.

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};
use serde_json::json;

use crate::{Problem, extract::Json, health::Health, telemetry::Telemetry};

/// The routes of the ops listener.
pub fn router(health: Health, telemetry: Telemetry) -> Router {
    Router::new()
        .route("/healthz", get(alive))
        .route("/readyz", get(ready).with_state(health))
        .route("/metrics", get(metrics).with_state(telemetry))
        .fallback(async || Problem::of_status(StatusCode::NOT_FOUND))
}

/// The process runs and answers; nothing is checked, so that a sick database restarts no one.
async fn alive() -> Response {
    Json(json!({ "status": "alive" })).into_response()
}

async fn ready(State(health): State<Health>) -> Response {
    let failing = health.failures().await;
    let (status, word) =
        if failing.is_empty() { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "unready") };
    (status, Json(json!({ "status": word, "failing": failing }))).into_response()
}

async fn metrics(State(telemetry): State<Telemetry>) -> Response {
    ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], telemetry.render()).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use http::Request;
    use tower::ServiceExt;

    use super::*;
    use crate::config::TelemetryConfig;

    async fn get(router: &Router, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn ready_says_what_fails_and_alive_does_not_care() {
        let health = Health::new();
        let telemetry = Telemetry::metrics_only("test", &TelemetryConfig::default()).unwrap();
        let router = router(health.clone(), telemetry);
        let flag = health.flag("feed", "is behind");
        let unready = r#"{"status":"unready","failing":[{"name":"feed","reason":"is behind"}]}"#;
        assert_eq!(get(&router, "/readyz").await, (StatusCode::SERVICE_UNAVAILABLE, unready.to_owned()));
        assert_eq!(get(&router, "/healthz").await.0, StatusCode::OK);
        flag.set_ready();
        assert_eq!(get(&router, "/readyz").await, (StatusCode::OK, r#"{"status":"ready","failing":[]}"#.to_owned()));
        assert_eq!(get(&router, "/metrics").await.0, StatusCode::OK);
        assert_eq!(get(&router, "/elsewhere").await.0, StatusCode::NOT_FOUND);
    }
}
