//! What a rollout says of each tenant, held against what the tenant's own database says.

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait as _, Statement};
use serde_json::{Value, json};

use crate::bed::{Bed, Tenant};
use crate::cli::freehold;

/// How many migrations a tenant's database has; none where there is no such database.
pub(super) async fn version(bed: &Bed, tenant: &Tenant) -> Option<u64> {
    let database = service::pool::open(bed.database_url(tenant).await).await.ok()?;
    let count = "SELECT count(*) FROM freehold_migrations";
    let count = database.query_one_raw(Statement::from_string(database.get_database_backend(), count)).await.unwrap();
    let count: i64 = count.unwrap().try_get_by_index(0).unwrap();
    database.close().await.unwrap();
    Some(count.unsigned_abs())
}

/// The rollout's targets by slug. Each one's state and version, and the tenant's, are what its database says; and so are the
/// numbers of `freehold fleet status`. What has no database is not done, and has the version that it had.
pub(super) async fn told_truly(bed: &Bed, rollout: &Value, tenants: &[Tenant]) -> BTreeMap<String, Value> {
    let targets = bed.all(&format!("/v1/rollouts/{}/targets", rollout["id"].as_str().unwrap()), 200).await;
    let targets: BTreeMap<String, Value> =
        targets.into_iter().map(|it| (it["slug"].as_str().unwrap().to_owned(), it)).collect();
    let known = bed.all("/v1/tenants", 200).await;
    let mut versions = BTreeMap::<String, u64>::new();
    for tenant in tenants {
        let has = version(bed, tenant).await;
        // Who had the version already is no target.
        let had = json!({ "state": "done", "version_after": rollout["version"] });
        let target = targets.get(&tenant.slug).unwrap_or(&had);
        assert_eq!(target["state"] == "done", has.is_some_and(|has| rollout["version"] == has), "{has:?}: {target}");
        if let (Some(has), Some(seen)) = (has, target["version_after"].as_u64()) {
            assert_eq!(has, seen, "{target}");
        }
        let has = has.unwrap_or_else(|| target["version_before"].as_u64().unwrap());
        let known = known.iter().find(|it| it["slug"] == tenant.slug).unwrap();
        assert_eq!(known["schema_version"], has, "{known}");
        *versions.entry(has.to_string()).or_default() += 1;
    }
    let status = freehold(bed, &["fleet", "status", "--json"]).await;
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["fleet"]["tenants"], json!(versions), "{status}");
    targets
}
