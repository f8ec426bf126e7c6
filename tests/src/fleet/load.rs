//! What the tenants of a fleet notice of a rollout.

use crate::under_load;

use super::rows;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_in_a_rollout_and_whose_database_is_behind_is_told_to_come_again() {
    let (bed, tenants) = under_load::fleet(24).await;
    let loaded = under_load::roll(&bed, &tenants).await;
    assert_eq!((loaded.every.behind, &loaded.every.failures), (0, &Vec::new()));
    assert_eq!(loaded.newest.failures, [""; 0]);
    // Before it began, each was refused what it asked for.
    assert!(loaded.newest.behind >= 2 * tenants.len(), "{} were refused", loaded.newest.behind);
    // A sample pet is there from the start; of what was acknowledged, nothing is lost.
    for (tenant, created) in loaded.created {
        assert_eq!(rows(&bed, &tenant, "pets").await, created + 1, "{}", tenant.slug);
    }
}
