//! API keys as their tenants' operators see them.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::bed::{Bed, NODE, PATIENCE, send};
use crate::on_both;

on_both!(an_operator_sees_when_a_key_was_last_used, 1, 2);
async fn an_operator_sees_when_a_key_was_last_used(bed: Bed) {
    let acme = bed.tenant("acme").await;
    let unused = bed.done("POST", "/v1/tenants/acme/keys", Some(json!({ "name": "unused" }))).await;
    let before = Utc::now() - chrono::Duration::minutes(1);
    bed.until(&acme, "/api/me", 200).await;
    let used = acme.key.split('_').nth(1).unwrap();
    let last =
        async |id: &str| bed.done("GET", &format!("/v1/tenants/acme/keys/{id}"), None).await["last_used_at"].clone();
    let deadline = std::time::Instant::now() + PATIENCE;
    let mut at = last(used).await;
    while at.is_null() {
        assert!(std::time::Instant::now() < deadline, "nobody told");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        at = last(used).await;
    }
    let seen: DateTime<Utc> = at.as_str().unwrap().parse().unwrap();
    assert!((before..=Utc::now()).contains(&seen), "{seen}");
    assert_eq!(last(unused["id"].as_str().unwrap()).await, Value::Null);

    // An older word does not take its place, and none is of the future.
    let tell = async |at: &str| {
        let call = bed.client.post(format!("{}/v1/key-uses", bed.control[0].url)).bearer_auth(NODE);
        send(call.json(&json!({ "uses": [{ "key": used, "at": at }] }))).await.status
    };
    assert_eq!(tell("2001-01-01T00:00:00Z").await, 204);
    let after = last(used).await.as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
    assert!(after >= seen);
    assert_eq!(tell("2999-01-01T00:00:00Z").await, 204);
    assert!(last(used).await.as_str().unwrap().parse::<DateTime<Utc>>().unwrap() <= Utc::now());
}

on_both!(the_product_says_what_may_be_configured, 1, 0);
async fn the_product_says_what_may_be_configured(bed: Bed) {
    let keys = bed.done("GET", "/v1/config-keys", None).await;
    let key = &keys["items"][0];
    assert_eq!((key["name"].as_str(), key["value_type"].as_str()), (Some("include_deleted_pets"), Some("boolean")));
    assert_eq!(key["default"], json!(false));
    assert!(!key["meaning"].as_str().unwrap().is_empty());
}
