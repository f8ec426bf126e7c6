//! Calls of the control plane that were refused: they are in the platform's trail, and a flood of them is a few records.

use serde_json::json;

use super::records;
use crate::bed::{Bed, NODE, send};
use crate::on_both;

on_both!(a_refused_call_is_in_the_platforms_trail_and_a_flood_is_two_records, 1, 0);
async fn a_refused_call_is_in_the_platforms_trail_and_a_flood_is_two_records(mut bed: Bed) {
    let viewer = bed.new_operator("vera", "viewer").await;
    let mut forged = viewer.clone();
    forged.replace_range(forged.len() - 1.., if forged.ends_with('A') { "B" } else { "A" });
    let call = |token: &str, number: usize| {
        let call = bed.client.post(format!("{}/v1/tenants/nobody/suspend", bed.control[0].url)).bearer_auth(token);
        call.header("x-request-id", format!("r-refused-{number}"))
    };
    for number in 0..40 {
        assert_eq!(send(call(&forged, number)).await.status, 401);
        assert_eq!(send(call("no token", number)).await.status, 401);
        assert_eq!(send(call(&viewer, number)).await.status, 403);
        // Who shows nothing tried nothing.
        let bare = bed.client.get(format!("{}/v1/tenants", bed.control[0].url));
        assert_eq!(send(bare).await.status, 401);
    }
    assert_eq!(send(call(NODE, 0)).await.status, 403);

    // The first of each is there once it was answered: nothing is waited for.
    let first = records(&bed, "action=security.&chain=platform", 0).await;
    let said = |at: usize| {
        let payload = &first[at]["payload"];
        ["action", "actor", "subject", "from", "request_id"].map(|field| payload[field].as_str().unwrap().to_owned())
    };
    assert_eq!(first.len(), 3, "{first:?}");
    let suspend = "POST /v1/tenants/{tenant}/suspend";
    assert_eq!(
        said(2),
        ["security.bad-token", "unknown", suspend, "127.0.0.1", "r-refused-0"],
        "the newest comes first"
    );
    assert_eq!(said(1), ["security.call-refused", "vera", suspend, "127.0.0.1", "r-refused-0"]);
    assert_eq!(said(0), ["security.call-refused", "node", suspend, "127.0.0.1", "r-refused-0"]);

    // What was only counted is told before the process ends.
    bed.control[0].stop();
    bed.control[0].restart();
    let all = records(&bed, "action=security.&chain=platform", 5).await;
    let mut counts: Vec<_> = all.iter().filter_map(|it| it["payload"]["count"].as_u64()).collect();
    counts.sort_unstable();
    assert_eq!((all.len(), counts), (5, vec![39, 79]), "{all:?}");
    assert!(all.iter().all(|it| it["chain"] == "platform" && !it.to_string().contains(&forged[4..])), "{all:?}");
    assert_eq!(all[0]["payload"]["request_id"], json!("r-refused-39"), "the last of them");
}
