//! What a caller sees of the edge.

use axum::{
    body::{Body, to_bytes},
    response::Response,
    routing::{get, post},
};
use http::{Request, StatusCode, header};
use serde_json::Value;

use super::*;
use crate::{Problem, config::TelemetryConfig, extract::Json};

fn api() -> (Edge<Router>, Telemetry) {
    let telemetry = Telemetry::metrics_only("test", &TelemetryConfig::default()).unwrap();
    let router = Router::new()
        .route("/pets/{id}", get(|| async { RequestContext::current(|context| context.set_tenant("acme")).unwrap() }))
        .route("/pets", post(|Json(pet): Json<Value>| async { Json(pet) }))
        .route("/raw", post(|_: axum::body::Bytes| async {}))
        .route("/panic", get(panics))
        .route("/slow", get(std::future::pending::<()>))
        .route("/lost", get(|| async { Problem::internal("secret text of the database") }))
        .route("/id", get(|id: RequestId| async move { id.as_str().to_owned() }));
    let config =
        EdgeConfig { telemetry: telemetry.clone(), timeout: Duration::from_mins(1), proxies: ProxiesConfig::default() };
    (edge(name_endpoints(router), config), telemetry)
}

async fn panics() {
    panic!("secret text of a panic");
}

async fn call(request: http::request::Builder, body: impl Into<Body>) -> Response {
    api().0.oneshot(request.body(body.into()).unwrap()).await.unwrap()
}

async fn text(response: Response) -> String {
    let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn problem(response: Response) -> Value {
    assert_eq!(response.headers()[header::CONTENT_TYPE], Problem::MEDIA_TYPE);
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let problem: Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(problem["request_id"], id.as_str());
    problem
}

#[tokio::test]
async fn a_sound_request_id_is_taken_and_any_other_replaced() {
    let response = call(Request::get("/id").header("x-request-id", "abc-1"), "").await;
    assert_eq!(response.headers()["x-request-id"], "abc-1");
    assert_eq!(text(response).await, "abc-1");

    let long = "x".repeat(129);
    for unsound in ["", "two words", long.as_str()] {
        let response = call(Request::get("/id").header("x-request-id", unsound), "").await;
        let made = response.headers()["x-request-id"].to_str().unwrap();
        assert_eq!(uuid::Uuid::parse_str(made).unwrap().get_version_num(), 7);
    }
    let bytes: &[u8] = b"\xff\xfe";
    let response = call(Request::get("/id").header("x-request-id", bytes), "").await;
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn an_unknown_path_is_a_problem_with_the_request_id() {
    let response = call(Request::get("/nowhere").header("x-request-id", "r1"), "").await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    insta::assert_json_snapshot!(problem(response).await, @r#"
    {
      "type": "urn:freehold:problem:not-found",
      "title": "Not found",
      "status": 404,
      "detail": "There is nothing here. Check the path against /openapi.json.",
      "request_id": "r1"
    }
    "#);
}

#[tokio::test]
async fn a_wrong_method_is_a_problem_that_keeps_allow() {
    let response = call(Request::delete("/pets/1"), "").await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(response.headers()[header::ALLOW], "GET,HEAD");
    assert_eq!(problem(response).await["type"], "urn:freehold:problem:method-not-allowed");
}

#[tokio::test]
async fn a_panic_is_500_without_its_text() {
    let response = call(Request::get("/panic"), "").await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let problem = problem(response).await;
    assert_eq!(problem["type"], "urn:freehold:problem:internal");
    assert!(!problem.to_string().contains("secret"));
}

#[tokio::test]
async fn a_private_source_is_never_sent() {
    let response = call(Request::get("/lost"), "").await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!problem(response).await.to_string().contains("secret"));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_takes_too_long_is_503_with_a_wait() {
    let response = call(Request::get("/slow"), "").await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    assert_eq!(problem(response).await["type"], "urn:freehold:problem:timed-out");
}

#[tokio::test]
async fn a_body_past_one_mebibyte_is_413_with_and_without_a_length() {
    let body = vec![b' '; BODY_LIMIT + 1];
    let json = |path: &str| Request::post(path).header(header::CONTENT_TYPE, "application/json");
    let unsized_body = |body: Vec<u8>| Body::from_stream(futures_util::stream::iter([Ok::<_, std::io::Error>(body)]));
    for path in ["/pets", "/raw"] {
        for body in [Body::from(body.clone()), unsized_body(body.clone())] {
            let response = call(json(path), body).await;
            assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE, "{path}");
            assert_eq!(problem(response).await["type"], "urn:freehold:problem:body-too-large");
        }
        let with_length = json(path).header(header::CONTENT_LENGTH, BODY_LIMIT + 1);
        let response = call(with_length, "").await;
        assert_eq!(problem(response).await["type"], "urn:freehold:problem:body-too-large");
    }
    let mut exact = vec![b' '; BODY_LIMIT - 2];
    exact.extend(b"{}");
    assert_eq!(call(json("/pets"), exact).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn refused_bodies_are_problems_with_the_request_id() {
    let json = || Request::post("/pets").header(header::CONTENT_TYPE, "application/json");
    let malformed = problem(call(json(), "{").await).await;
    assert_eq!(malformed["type"], "urn:freehold:problem:malformed-json");
    let wrong_type = problem(call(Request::post("/pets"), "{}").await).await;
    assert_eq!(wrong_type["type"], "urn:freehold:problem:unsupported-media-type");
}

#[tokio::test]
async fn requests_are_counted_by_the_routes_pattern_and_their_tenant() {
    let (api, telemetry) = api();
    for path in ["/pets/1", "/pets/2", "/nowhere", "/panic"] {
        api.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
    }
    let text = telemetry.render();
    let mut lines: Vec<&str> = text.lines().filter(|line| line.starts_with("api_requests_total{")).collect();
    lines.sort_unstable();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    api_requests_total{endpoint="/panic",method="GET",status="500",tenant="none"} 1
    api_requests_total{endpoint="/pets/{id}",method="GET",status="200",tenant="acme"} 2
    api_requests_total{endpoint="unmatched",method="GET",status="404",tenant="none"} 1
    "#);
}
