//! Servers of a test's own, and the tenants on them.

use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use super::{Bed, Tenant};

/// Tenants that are made at once.
const AT_ONCE: usize = 4;

impl Bed {
    /// Registers a Postgres under this name, which is its region's too, with more fields or other ones; what the call answered.
    pub async fn register(&self, name: &str, admin_url: &str, fields: &Value) -> Value {
        let mut wanted = json!({ "name": name, "engine": "postgres", "region": name, "admin_url": admin_url,
            "capacity": 1_000, "warm": 0 });
        for (field, value) in fields.as_object().into_iter().flatten() {
            wanted[field] = value.clone();
        }
        self.done("POST", "/v1/servers", Some(wanted)).await
    }

    /// A new active tenant with a key, on this plan, and in this region if it is named.
    pub async fn tenant_of(&self, plan: &str, region: Option<&str>, slug: &str) -> Tenant {
        let mut wanted = json!({ "slug": slug, "name": slug, "plan": plan });
        if let Some(region) = region {
            wanted["region"] = region.into();
        }
        let made = self.done("POST", "/v1/tenants", Some(wanted)).await;
        assert_eq!(made["tenant"]["status"], "active", "{made}");
        let key = self.done("POST", &format!("/v1/tenants/{slug}/keys"), Some(json!({ "name": "test" }))).await;
        let [id, key] = [&made["tenant"]["id"], &key["api_key"]].map(|it| it.as_str().unwrap().to_owned());
        Tenant { id, slug: slug.to_owned(), key }
    }

    /// So many new tenants of a region, on a plan whose few connections leave room for others: `REGION-0` and on.
    pub async fn tenants_in(&self, region: &str, count: usize) -> Vec<Tenant> {
        let one = async |number: usize| self.tenant_of("test", Some(region), &format!("{region}-{number}")).await;
        stream::iter(0..count).map(one).buffered(AT_ONCE).collect().await
    }
}
