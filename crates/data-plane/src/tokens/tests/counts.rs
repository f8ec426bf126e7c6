//! For which tenants a proven token counts, by when it was issued.

use std::collections::BTreeMap;

use tenancy::route::Revision;
use tenancy::seal::Sealed;
use tenancy::{Plan, Status};

use super::*;

fn route() -> Route {
    Route {
        tenant: TenantId::generate(),
        revision: Revision(1),
        slug: "acme".parse().unwrap(),
        hosts: Vec::new(),
        status: Status::Active,
        plan: Plan::seeded().into_iter().next().unwrap(),
        config: BTreeMap::new(),
        keys: Vec::new(),
        issuers: Vec::new(),
        tokens_from: None,
        slug_since: None,
        schema_version: 1,
        server: "local".into(),
        generation: 1,
        reconnects: 0,
        sealed_url: Sealed::from_stored("fh1.k.x"),
    }
}

/// How far ahead an issuer's clock may be.
const LEEWAY: TimeDelta = TimeDelta::seconds(30);

/// Tokens of one issuer, issued at these seconds; none: they do not say when.
async fn issued_at(seconds: &[Option<i64>]) -> Vec<Arc<Proven>> {
    let key = Key::new("k1");
    let idp = TestIssuer::start([&key]).await;
    let tokens = tokens(true);
    let mut proven = Vec::new();
    for second in seconds {
        let token = key.sign(&claims(json!({ "iat": second.map(|second| at(second).timestamp()) })));
        proven.push(prove(&tokens, &idp.url, &token, at(100)).await.unwrap());
    }
    proven
}

#[tokio::test]
async fn a_token_that_names_a_slug_counts_for_the_tenant_that_had_the_slug_when_it_was_issued() {
    let issued = issued_at(&[Some(9), Some(10), Some(11), None]).await;
    let counts = |name: &str, route: &Route| {
        let name = Lookup::of_slug_or_id(name).unwrap();
        issued.iter().map(|proven| proven.counts_for(&name, route, LEEWAY)).collect::<Vec<_>>()
    };
    let mut route = route();
    // A control plane of an older version says nothing of it.
    assert_eq!(counts("acme", &route), [true; 4]);
    route.slug_since = Some(at(10) + TimeDelta::microseconds(999_999));
    assert_eq!(counts("acme", &route), [false, true, true, false]);
    assert_eq!(counts(&route.tenant.to_string(), &route), [true; 4], "an id goes to no other tenant");
}

#[tokio::test]
async fn no_token_survives_its_revocation_because_its_issuers_clock_is_ahead() {
    // Issued before the revocation at second 80, by clocks that are right, and ahead by up to the leeway; issued after it.
    let issued = issued_at(&[Some(79), Some(80), Some(81), Some(109), Some(110), Some(111), None]).await;
    let counts = |route: &Route, leeway: TimeDelta| {
        let names = [Lookup::Tenant(route.tenant), Lookup::Slug("acme".into())];
        let [by_id, by_slug] =
            names.map(|name| issued.iter().map(|proven| proven.counts_for(&name, route, leeway)).collect::<Vec<_>>());
        assert_eq!(by_id, by_slug);
        by_id
    };
    let mut route = route();
    assert_eq!(counts(&route, LEEWAY), [true; 7]);
    route.tokens_from = Some(at(80));
    assert_eq!(counts(&route, LEEWAY), [false, false, false, false, true, true, false]);
    assert_eq!(counts(&route, TimeDelta::zero()), [false, true, true, true, true, true, false]);
    // A revocation within a second: what was issued earlier in that second has its `iat`.
    route.tokens_from = Some(at(80) + TimeDelta::microseconds(1));
    assert_eq!(counts(&route, LEEWAY), [false, false, false, false, false, true, false]);
}
