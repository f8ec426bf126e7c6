//! The pet store as its users meet it: what they write they read again, and bad input changes nothing.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::bed::{Answer, Bed, Tenant, send};
use crate::on_both;

async fn call(bed: &Bed, tenant: &Tenant, method: &str, path: &str, body: Value) -> Answer {
    send(bed.request(0, method, path).bearer_auth(&tenant.key).json(&body)).await
}

on_both!(a_pet_is_made_changed_and_deleted_once, 1, 1);
async fn a_pet_is_made_changed_and_deleted_once(bed: Bed) {
    let acme = bed.tenant("acme").await;
    let body = json!({ "name": " Rex ", "species": "dog", "breed": "Collie" });
    let made = call(&bed, &acme, "POST", "/api/pets", body).await;
    assert_eq!(made.status, 201, "{made:?}");
    let pet = made.json();
    assert_eq!((pet["name"].as_str(), pet["breed"].as_str()), (Some("Rex"), Some("Collie")));
    let path = format!("/api/pets/{}", pet["id"].as_str().unwrap());
    assert_eq!(bed.get(0, &acme, &path).await.json(), pet, "what was answered is what is read again");
    let renamed = call(&bed, &acme, "PATCH", &path, json!({ "name": "Max" })).await;
    assert_eq!((renamed.status, renamed.json()["breed"].as_str()), (200, Some("Collie")), "what is left out stays");
    let plain = call(&bed, &acme, "PATCH", &path, json!({ "breed": null })).await;
    assert_eq!((plain.json()["name"].as_str(), &plain.json()["breed"]), (Some("Max"), &Value::Null));
    for (method, body) in [
        ("PATCH", json!({ "name": null })),
        ("PATCH", json!({ "name": "" })),
        ("PATCH", json!({ "species": "x".repeat(51) })),
        ("PATCH", json!({ "breed": "a\u{0}b" })),
        ("PATCH", json!({ "colour": "red" })),
    ] {
        let refused = call(&bed, &acme, method, &path, body.clone()).await;
        assert_eq!((refused.status, refused.kind().as_str()), (422, "invalid-body"), "{body}: {refused:?}");
        assert_eq!(
            refused.json()["errors"][0]["field"].as_str(),
            body.as_object().unwrap().keys().next().map(|it| &**it)
        );
    }
    assert_eq!(bed.get(0, &acme, &path).await.json(), plain.json());
    let deletions = join_all((0..8).map(|_| call(&bed, &acme, "DELETE", &path, json!({})))).await;
    let mut statuses: Vec<u16> = deletions.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 404, 404, 404, 404, 404, 404, 404], "one deletes it, the others are told");
    for (method, body) in [("GET", json!({})), ("PATCH", json!({ "name": "Max" })), ("DELETE", json!({}))] {
        let gone = call(&bed, &acme, method, &path, body).await;
        assert_eq!((gone.status, gone.kind().as_str()), (404, "pet-not-found"), "{method}: {gone:?}");
    }
}

on_both!(pets_come_in_pages_and_by_species, 1, 1);
async fn pets_come_in_pages_and_by_species(bed: Bed) {
    let acme = bed.tenant("acme").await;
    for number in 0..5 {
        let species = if number % 2 == 0 { "cat" } else { "parrot" };
        let made =
            call(&bed, &acme, "POST", "/api/pets", json!({ "name": format!("{number}"), "species": species })).await;
        assert_eq!(made.status, 201, "{made:?}");
    }
    let (mut names, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = bed.get(0, &acme, &format!("/api/pets?species=cat&limit=2{cursor}")).await.json();
        names.extend(page["items"].as_array().unwrap().iter().map(|pet| pet["name"].as_str().unwrap().to_owned()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(names, ["0", "2", "4"]);
    for (path, status, kind) in [
        ("/api/pets?limit=0", 400, "invalid-query"),
        ("/api/pets?limit=1000", 400, "invalid-query"),
        ("/api/pets?cursor=!", 400, "invalid-query"),
        ("/api/pets?colour=red", 400, "invalid-query"),
        ("/api/pets?species=%00", 400, "invalid-query"),
        ("/api/pets?species=a%00b", 400, "invalid-query"),
        ("/api/pets/%00", 404, "not-found"),
        ("/api/pets/nothing", 404, "not-found"),
        ("/api/nothing", 404, "not-found"),
    ] {
        let refused = bed.get(0, &acme, path).await;
        assert_eq!((refused.status, refused.kind().as_str()), (status, kind), "{path}: {refused:?}");
    }
    for (body, field) in [
        (json!({ "name": "x" }), "species"),
        (json!({ "name": "x\u{0}", "species": "cat" }), "name"),
        (json!({ "name": "x", "species": " " }), "species"),
        (json!({ "name": 1, "species": "cat" }), "name"),
        (json!({ "name": "x", "species": "cat", "id": "mine" }), "id"),
    ] {
        let refused = call(&bed, &acme, "POST", "/api/pets", body).await;
        assert_eq!((refused.status, refused.json()["errors"][0]["field"].as_str()), (422, Some(field)), "{refused:?}");
    }
    let strange = bed.get(0, &acme, "/api/pets?species=%FF%27%3B--").await;
    assert_eq!((strange.status, strange.json()["items"].as_array().map(Vec::len)), (200, Some(0)));
    assert_eq!(bed.get(0, &acme, "/api/pets").await.json()["items"].as_array().map(Vec::len), Some(6));
}
