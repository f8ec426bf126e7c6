//! `POST /v1/doctor`: what disagrees between the registry and the servers, page by page.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use service::Problem;
use service::extract::Json;
use service::problem::ProblemBody;
use utoipa::ToSchema;

use super::Api;
use super::auth::Operator;
use super::page;
use crate::doctor::{Checked, Doctor, Finding, Position};

/// How to look.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Examine {
    /// Puts right what costs nobody any data.
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

/// Compares the registry with the servers. Follow `next_cursor` to the end: servers come first, then tenants. To repeat it
/// is to look again, so no `Idempotency-Key` is kept.
#[utoipa::path(
    post, path = "/v1/doctor", tag = "doctor", request_body = Examine,
    responses((status = 200, body = Diagnosis), (status = 422, body = ProblemBody))
)]
pub(super) async fn examine(
    State(api): State<Api>,
    _: Operator,
    Json(body): Json<Examine>,
) -> Result<Json<Diagnosis>, Problem> {
    let from = match body.cursor.as_deref() {
        None => Position::default(),
        Some(cursor) => page::key(cursor)
            .ok_or_else(|| Problem::invalid_field("cursor", "is not a next_cursor of the doctor: begin without one"))?,
    };
    let report = Doctor::new(api.plane.clone(), body.fix).look(from).await?;
    let next_cursor = report.next.map(|next| page::cursor(&next.to_string()));
    Ok(Json(Diagnosis { findings: report.findings, next_cursor, checked: report.checked }))
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
        let answer =
            examine(State(api), Operator { token: [0; 32], subject: "tester".to_owned(), is_bootstrap: false }, body)
                .await?;
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
        });
        assert_eq!(first["findings"], json!([finding]));
        assert_eq!(first["checked"], json!({ "servers": 1, "databases": 1, "tenants": 0 }));
        assert!(stray.exists());
        let last = ask(&stage, json!({ "cursor": first["next_cursor"] })).await.unwrap();
        let none = json!({ "servers": 0, "databases": 0, "tenants": 0 });
        assert_eq!(last, json!({ "findings": [], "next_cursor": null, "checked": none }));
        let fixed = ask(&stage, json!({ "fix": true, "cursor": null })).await.unwrap();
        assert_eq!(fixed["findings"][0]["is_fixed"], true);
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
