//! `POST /v1/doctor`: what disagrees between the registry and the servers, page by page.

use std::time::Duration;

use axum::extract::State;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use service::Problem;
use service::extract::Json;
use service::problem::ProblemBody;
use utoipa::ToSchema;

use super::Api;
use super::auth::Operator;
use super::page;
use super::precondition::preferred_wait;
use crate::audit::changes_nothing;
use crate::doctor::{self, Checked, Doctor, Finding, Position};

/// How to look.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Examine {
    /// Orders what puts right what costs nobody any data: an operation of kind `fix` for each tenant, and for each server.
    #[serde(default)]
    fix: bool,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// One page of what was found.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Diagnosis {
    findings: Vec<Finding>,
    /// Where the next page begins; null on the last.
    next_cursor: Option<String>,
    /// How much this page looked at.
    checked: Checked,
}

/// How long an answer waits for fixes at most: with two looks, it is within the time of a request.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// Compares the registry with the servers. Follow `next_cursor` to the end: servers come first, then tenants. To repeat it
/// is to look again, and what is being fixed is not fixed twice, so no `Idempotency-Key` is kept. With `Prefer: wait=SECONDS`
/// the answer waits until the fixes have ended, 20 seconds at most.
#[utoipa::path(
    post, path = "/v1/doctor", tag = "doctor", request_body = Examine,
    params(("Prefer" = Option<String>, Header, description = "`wait=SECONDS`")),
    responses((status = 200, body = Diagnosis),
              (status = 202, description = "What was found is being fixed: see the findings' operations", body = Diagnosis),
              (status = 422, body = ProblemBody))
)]
pub(super) async fn examine(
    State(api): State<Api>,
    operator: Operator,
    headers: HeaderMap,
    Json(body): Json<Examine>,
) -> Result<(StatusCode, Json<Diagnosis>), Problem> {
    let from = match body.cursor.as_deref() {
        None => Position::default(),
        Some(cursor) => page::key(cursor)
            .ok_or_else(|| Problem::invalid_field("cursor", "is not a next_cursor of the doctor: begin without one"))?,
    };
    let report = Box::pin(Doctor::new(api.plane.clone()).look(from)).await?;
    let mut findings = report.findings;
    let mut is_settled = true;
    if body.fix {
        doctor::order(&api.plane, &mut findings, &operator.subject).await?;
        let patience = preferred_wait(&headers).unwrap_or_default().min(LONGEST_WAIT);
        is_settled = Box::pin(doctor::settle(&api.plane, &mut findings, patience)).await?;
    }
    // What it ordered is told where it was ordered.
    changes_nothing();
    let next_cursor = report.next.map(|next| page::cursor(&next.to_string()));
    let status = if is_settled { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(Diagnosis { findings, next_cursor, checked: report.checked })))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::api::Tokens;
    use crate::provision::tests::stage::Stage;

    async fn ask(stage: &Stage, body: Value) -> Result<Value, Problem> {
        let tokens = Tokens::new(&"operator-operator".into(), &"node-node-node-node".into());
        let api = Api { plane: stage.plane.clone(), tokens: Arc::new(tokens) };
        let body = Json(serde_json::from_value(body).unwrap());
        let operator = Operator { token: [0; 32], subject: "tester".to_owned(), is_bootstrap: false };
        let headers = HeaderMap::from_iter([(http::HeaderName::from_static("prefer"), "wait=20".parse().unwrap())]);
        let (_, answer) = examine(State(api), operator, headers, body).await?;
        Ok(serde_json::to_value(answer.0).unwrap())
    }

    #[tokio::test]
    async fn an_answer_has_its_findings_and_leads_to_the_next_page() {
        let stage = Stage::sqlite().await;
        let name = format!("fh_{}aaaaaaaaaaaaaaaaaa", stage.plane.registry.mark().as_str());
        let stray = stage.folder.path().join("databases").join(&name);
        std::fs::create_dir(&stray).unwrap();
        let first = ask(&stage, json!({})).await.unwrap();
        let finding = json!({
            "kind": "database_without_tenant",
            "server": "one",
            "database": name,
            "tenant": null,
            "detail": "It is no tenant's, has no stamp and was never seeded: it is half made.",
            "remedy": "Run the doctor with fix, which drops it.",
            "is_fixed": false,
            "operation": null,
        });
        assert_eq!(first["findings"], json!([finding]));
        assert_eq!(first["checked"], json!({ "servers": 1, "databases": 1, "tenants": 0 }));
        assert!(stray.exists());
        let last = ask(&stage, json!({ "cursor": first["next_cursor"] })).await.unwrap();
        let none = json!({ "servers": 0, "databases": 0, "tenants": 0 });
        assert_eq!(last, json!({ "findings": [], "next_cursor": null, "checked": none }));
        let runner = stage.running();
        let fixed = ask(&stage, json!({ "fix": true, "cursor": null })).await.unwrap();
        drop(runner);
        assert_eq!(fixed["findings"][0]["is_fixed"], true);
        let operation = fixed["findings"][0]["operation"].as_str().unwrap().parse().unwrap();
        let ordered = crate::provision::wait(&stage.plane, operation, Duration::ZERO).await.unwrap();
        assert_eq!((ordered.kind.as_str(), ordered.server_id), ("fix", Some(stage.server)));
        assert_eq!(ordered.requested_by.as_deref(), Some("tester"));
        assert!(!stray.exists());
    }

    #[tokio::test]
    async fn a_cursor_of_another_list_is_refused_by_its_field() {
        let stage = Stage::sqlite().await;
        for cursor in ["", "!", "b25l"] {
            let problem = ask(&stage, json!({ "cursor": cursor })).await.unwrap_err();
            assert_eq!((problem.status().as_u16(), problem.errors()[0].field.as_str()), (422, "cursor"));
        }
    }
}
