//! A tenant's whole life, over the API and through data planes.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use futures_util::future::join_all;

use crate::bed::{Bed, send};
use crate::on_both;

/// Requests that each data plane answers at any moment.
const AT_ONCE: usize = 4;

on_both!(twenty_rotations_in_a_row_fail_no_request, 1, 2);
async fn twenty_rotations_in_a_row_fail_no_request(bed: Bed) {
    let acme = bed.tenant_on("unlimited", "acme").await;
    bed.until(&acme, "/api/pets", 200).await;
    let (is_over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let load = join_all((0..2 * AT_ONCE).map(|client| {
        let (bed, acme, is_over, answered) = (&bed, &acme, &is_over, &answered);
        async move {
            let mut number = 0;
            while !is_over.load(SeqCst) {
                number += 1;
                let method = if number % 4 == 0 { "POST" } else { "GET" };
                let mut request = bed.request(client % 2, method, "/api/pets").bearer_auth(&acme.key);
                if method == "POST" {
                    request = request.json(&serde_json::json!({ "name": "Load", "species": "cat" }));
                }
                let answer = send(request).await;
                assert!(matches!(answer.status, 200 | 201), "{answer:?}");
                answered.fetch_add(1, SeqCst);
            }
        }
    }));
    let rotations = async {
        for generation in 2..=21 {
            let before = answered.load(SeqCst);
            let rotated = bed.operator("POST", "/v1/tenants/acme/rotate-credentials", None).await;
            assert_eq!(rotated.status, 200, "{rotated:?}");
            let (tenant, operation) = (&rotated.json()["tenant"], &rotated.json()["operation"]);
            assert_eq!(
                (&tenant["generation"], &operation["state"]),
                (&generation.into(), &"done".into()),
                "{rotated:?}"
            );
            assert!(answered.load(SeqCst) > before, "requests were answered meanwhile");
        }
        is_over.store(true, SeqCst);
    };
    futures_util::join!(load, rotations);
    for node in 0..2 {
        // One for each URL that was used at all; a request that was at work with an old one may dial that once more.
        let dials = bed.metric(node, "data_plane_pool_dials_total").await;
        assert!((2.0..=42.0).contains(&dials), "{dials}");
    }
}
