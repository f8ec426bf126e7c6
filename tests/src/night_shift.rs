//! What the pet store has no need of: work that no request asked for, and answers that are streamed.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::audit::records;
use crate::bed::{Answer, Bed, PATIENCE, Tenant, send};
use crate::on_both;

/// A node of the product that has both, beside a control plane.
fn night_shift(mut bed: Bed) -> Bed {
    let control = bed.control[0].url.clone();
    bed.add_node_of("night-shift", &control);
    bed
}

async fn work(bed: &Bed, tenant: &str, purpose: &str) -> Answer {
    send(bed.request(0, "POST", &format!("/jobs/{tenant}/{purpose}"))).await
}

/// A tenant on a plan of its own.
async fn limited(bed: &Bed, slug: &str, plan: Value) -> Tenant {
    bed.done("PUT", &format!("/v1/plans/{slug}"), Some(plan)).await;
    bed.tenant_on(slug, slug).await
}

on_both!(a_job_is_limited_and_told_like_a_request_and_refused_where_one_is, 1, 0);
async fn a_job_is_limited_and_told_like_a_request_and_refused_where_one_is(bed: Bed) {
    let bed = night_shift(bed);
    let plan = json!({ "requests": 3, "window_seconds": 3600, "connections": 2, "concurrency": 8 });
    let (acme, globex) = (limited(&bed, "acme", plan).await, bed.tenant("globex").await);
    bed.until(&globex, "/api/me", 200).await;

    let done = work(&bed, &acme.id, "report").await;
    assert_eq!((done.status, done.text.as_str()), (200, "acme job:report"), "{done:?}");
    let told = records(&bed, "action=background.session", 1).await;
    let payload = &told[0]["payload"];
    assert_eq!((told.len(), &told[0]["chain"]), (1, &json!(acme.id)), "in the tenant's own trail");
    assert_eq!((&payload["actor"], &payload["tenant"]), (&json!("job:report"), &json!(acme.id)));

    // Its requests and its jobs have one plan: of three permits, the job took one.
    assert_eq!(bed.get(0, &acme, "/api/me").await.status, 200);
    assert_eq!(work(&bed, &acme.id, "mail").await.status, 200);
    let refused = work(&bed, &acme.id, "report").await;
    assert_eq!((refused.status, refused.kind().as_str()), (429, "rate-limited"), "{refused:?}");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() > 0);
    assert_eq!(bed.get(0, &acme, "/api/me").await.status, 429);
    let told = records(&bed, "action=security.limit-hit", 1).await;
    assert_eq!((&told[0]["chain"], &told[0]["payload"]["actor"]), (&json!(acme.id), &json!("job:report")));
    let sessions = records(&bed, "action=background.session", 2).await;
    assert_eq!(sessions.len(), 2, "what was refused took none: {sessions:?}");

    // A tenant that is suspended, and one that never was.
    assert_eq!(work(&bed, &globex.id, "report").await.status, 200);
    bed.done("POST", "/v1/tenants/globex/suspend", None).await;
    bed.until(&globex, "/api/me", 403).await;
    let refused = work(&bed, &globex.id, "report").await;
    assert_eq!((refused.status, refused.kind().as_str()), (403, "tenant-suspended"), "{refused:?}");
    let told = records(&bed, &format!("action=security.suspended-refused&tenant={}", globex.id), 2).await;
    assert!(told.iter().any(|it| it["payload"]["actor"] == "job:report"), "{told:?}");
    let never = work(&bed, &Uuid::now_v7().to_string(), "report").await;
    assert_eq!((never.status, never.kind().as_str()), (404, "tenant-not-found"));
}

on_both!(a_streamed_answer_keeps_its_permit_until_it_ends_or_is_dropped, 1, 0);
async fn a_streamed_answer_keeps_its_permit_until_it_ends_or_is_dropped(bed: Bed) {
    let bed = night_shift(bed);
    let acme = limited(&bed, "acme", json!({ "connections": 1, "concurrency": 2 })).await;
    bed.until(&acme, "/api/me", 200).await;
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut stream = bed.request(0, "GET", "/api/endless").bearer_auth(&acme.key).send().await.unwrap();
        assert_eq!(stream.chunk().await.unwrap().unwrap(), "a line\n");
        streams.push(stream);
    }
    for _ in 0..3 {
        let refused = bed.get(0, &acme, "/api/me").await;
        assert_eq!((refused.status, refused.kind().as_str()), (429, "too-many-at-once"), "two answers are at work");
    }
    // Nobody listens to one of them any more.
    streams.pop();
    bed.until(&acme, "/api/me", 200).await;
    // One that ends gives its permit back, each time.
    for _ in 0..5 {
        let whole = bed.get(0, &acme, "/api/short").await;
        assert_eq!((whole.status, whole.text.as_str()), (200, "one\ntwo\n"), "{whole:?}");
    }
    drop(streams);
    let both = || futures_util::future::join(bed.get(0, &acme, "/api/short"), bed.get(0, &acme, "/api/short"));
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let (one, other) = both().await;
        if (one.status, other.status) == (200, 200) {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{one:?} {other:?}");
    }
}
