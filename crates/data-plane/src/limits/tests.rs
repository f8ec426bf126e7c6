//! Several nodes' meters over a real Redis, on a clock that the tests set.

mod fleet;

use std::num::NonZeroU32;

use super::meter::Left;
use super::*;
use fleet::{Fleet, MILLISECOND, SECOND, plan, rate};

#[tokio::test]
async fn three_nodes_together_pass_what_the_plan_allows() {
    for (requests, burst, window) in [(1_000, 1_000, 1), (1_000, 200, 1), (500, 5_000, 1), (600, 30, 60)] {
        let plan = plan(requests, burst, window);
        let mut fleet = Fleet::of(3, LimitsMode::Lease).await;
        // Idle, then little, then ten times too much, then nothing for a moment, then too much again.
        fleet.run(&plan, 400, rate(&plan) / 2.0).await;
        fleet.run(&plan, 700, rate(&plan) * 10.0).await;
        fleet.run(&plan, 400, 0.0).await;
        fleet.run(&plan, 300, rate(&plan) * 10.0).await;
        fleet.assert_never_more(&plan);

        let mut flooded = Fleet::of(3, LimitsMode::Lease).await;
        flooded.run(&plan, 1_000, (rate(&plan) * 10.0).max(f64::from(burst) * 3.0)).await;
        flooded.assert_never_more(&plan);
        flooded.assert_never_less(&plan);
    }
}

#[tokio::test]
async fn a_thousand_requests_a_second_are_a_few_questions() {
    for (requests, burst) in [(1_000, 1_000), (100_000, 100_000)] {
        let plan = plan(requests, burst, 1);
        let mut fleet = Fleet::of(3, LimitsMode::Lease).await;
        fleet.run(&plan, 3_000, 1_000.0).await;
        let (asked, demanded) = (fleet.questions(), fleet.demanded());
        assert!(demanded > 2_500, "{demanded}");
        let each = asked as f64 / demanded as f64;
        assert!(each <= 0.05, "{asked} questions for {demanded} requests, {each:.4} for each");
    }
}

#[tokio::test]
async fn strict_asks_on_every_request_and_is_exact() {
    let plan = plan(100, 50, 1);
    let mut fleet = Fleet::of(3, LimitsMode::Strict).await;
    fleet.run(&plan, 2_000, 1_000.0).await;
    assert_eq!(fleet.questions(), fleet.demanded());
    let passed = fleet.passed();
    assert!((248..=250).contains(&passed), "{passed} passed of 50 and 100 a second for 2 s");
}

#[tokio::test]
async fn a_memory_that_was_lost_is_told_what_the_nodes_know() {
    let plan = plan(600, 600, 60);
    let mut fleet = Fleet::of(3, LimitsMode::Lease).await;
    fleet.run(&plan, 2_000, 1_000.0).await;
    assert!(fleet.passed() >= 570);
    // The first node knows nothing of this tenant any more, the memory neither.
    fleet.renew(0);
    fleet.lose_memory().await;
    fleet.run(&plan, 100, 1_000.0).await;
    assert!((0..3).all(|node| !fleet.nodes[node].is_shared()), "a memory that was lost was taken for one that is full");
    fleet.raise_all().await;
    fleet.run_at(0, &plan, 500, 1_000.0).await;
    // A node that starts anew while the memory is away has its share, and no more.
    let passed = fleet.passed();
    assert!(passed <= 600 + 200 + 60, "{passed} passed of 600 and 10 a second");
}

#[tokio::test]
async fn a_memory_that_is_new_or_was_left_is_believed_once_all_had_time_to_tell_it() {
    let fleet = Fleet::of(2, LimitsMode::Lease).await;
    for lost in [true, false] {
        if lost {
            fleet.lose_memory().await;
        }
        fleet.drop_links();
        // The first is back at once; the other may know what the memory does not.
        assert!(!fleet.is_raised(0).await, "believed at once, lost: {lost}");
        fleet.pass_time(2 * SECOND);
        assert!(!fleet.is_raised(1).await);
        fleet.pass_time(SECOND);
        assert!(
            fleet.is_raised(0).await && fleet.is_raised(1).await,
            "who comes later waits with the first, and not anew"
        );
    }
}

#[tokio::test]
async fn what_was_used_while_the_memory_was_away_is_owed_when_it_is_back() {
    let plan = plan(600, 600, 60);
    let mut fleet = Fleet::of(3, LimitsMode::Lease).await;
    fleet.run(&plan, 200, 1_000.0).await;
    fleet.drop_links();
    fleet.run(&plan, 2_000, 1_000.0).await;
    let while_away = fleet.passed();
    assert!((540..=630).contains(&while_away), "{while_away} passed of 600");
    fleet.raise_all().await;
    fleet.run(&plan, 500, 1_000.0).await;
    // In 5.7 s the plan allows 657.
    assert!(fleet.passed() <= 660, "{} after {while_away}", fleet.passed());
    fleet.assert_never_more(&plan);
}

#[tokio::test]
async fn a_plan_that_changes_under_way_is_no_refill() {
    let (small, large) = (plan(60, 60, 3_600), plan(600, 600, 3_600));
    let mut fleet = Fleet::of(3, LimitsMode::Lease).await;
    fleet.run(&small, 500, 1_000.0).await;
    assert_eq!(fleet.passed(), 60);
    fleet.run(&large, 2_000, 2_000.0).await;
    let passed = fleet.passed();
    assert!((570..=601).contains(&passed), "{passed} passed, of which the new plan allows 600");
    // A smaller one is none either; what it cannot hold is forgiven.
    fleet.run(&small, 500, 1_000.0).await;
    assert!(fleet.passed() <= passed + 1, "{} passed, and {passed} before", fleet.passed());
}

#[tokio::test]
async fn a_client_has_its_part_and_what_it_is_refused_costs_its_tenant_nothing() {
    let number = NonZeroU32::new;
    for mode in [LimitsMode::Lease, LimitsMode::Strict] {
        let plan = Plan { client_requests: number(10), client_burst: number(10), ..plan(100, 100, 3_600) };
        let fleet = Fleet::of(1, mode).await;
        let mut passed = 0;
        for _ in 0..200 {
            passed += u32::from(fleet.take(0, &plan, "greedy").await.is_ok());
        }
        assert_eq!(passed, 10, "{mode:?}");
        let refused = fleet.take(0, &plan, "greedy").await.unwrap_err();
        assert!(refused.is_held_by_client());
        let other = fleet.take(0, &plan, "modest").await.unwrap();
        let left = other.tenant.unwrap().requests;
        assert!((85..=89).contains(&left), "{mode:?}: {left} left of 100, and 11 were used");
    }
}

#[tokio::test]
async fn a_meter_that_was_thrown_out_comes_back_with_its_debt() {
    let now = Arc::new(std::sync::atomic::AtomicU64::new(SECOND));
    let clock = Arc::clone(&now);
    let limits = Limits::over(Arc::new(move || clock.load(Ordering::Relaxed)), None, false, 100);
    let (plan, mine) = (plan(10, 10, 3_600), TenantId::generate());
    let flood = async || {
        for _ in 0..20 {
            let _ = limits.take(mine, &plan, "").await;
        }
    };
    flood().await;
    for _ in 0..1_000 {
        let _ = limits.take(TenantId::generate(), &plan, "").await;
        limits.0.meters.run_pending_tasks();
    }
    assert!(limits.0.meters.entry_count() <= 100);
    assert!(!limits.0.meters.iter().any(|(key, _)| key.tenant == mine), "it was thrown out");
    assert!(limits.take(mine, &plan, "").await.is_err(), "thrown out, it came back full");
    // What time has paid is paid.
    now.fetch_add(360 * SECOND + MILLISECOND, Ordering::Relaxed);
    assert!(limits.take(mine, &plan, "").await.is_ok());
    assert!(limits.take(mine, &plan, "").await.is_err());
}

#[tokio::test]
async fn a_meter_that_is_kept_is_the_one_that_all_use() {
    let limits = Limits::over(Arc::new(|| SECOND), None, false, 100);
    let client_requests = NonZeroU32::new(6);
    let (plan, mine, other) =
        (Plan { client_requests, ..plan(10, 10, 3_600) }, TenantId::generate(), TenantId::generate());
    let kept: [Kept<Limiter>; 3] = Default::default();
    let by = async |tenant, of_tenant: &Kept<Limiter>| {
        limits.take_by(tenant, &plan, "me", Some([of_tenant, &kept[2]])).await.is_ok()
    };
    for _ in 0..4 {
        assert!(by(mine, &kept[0]).await);
    }
    // Thrown out, they go on with what they owe, and nobody takes of the old ones, which requests at work still have.
    let _old: Vec<_> = limits.0.meters.iter().map(|(_, limiter)| limiter).collect();
    for _ in 0..1_000 {
        let _ = limits.take(TenantId::generate(), &plan, "").await;
        limits.0.meters.run_pending_tasks();
    }
    assert!(limits.take(mine, &plan, "me").await.is_ok());
    assert!(by(mine, &kept[0]).await, "the sixth of six");
    assert!(!by(mine, &kept[0]).await, "the seventh");
    assert!(limits.take(mine, &plan, "me").await.is_err());
    // A caller who belongs to two tenants has a meter in each.
    for _ in 0..6 {
        assert!(by(other, &kept[1]).await);
    }
    assert!(!by(other, &kept[1]).await);
    assert!(!by(mine, &kept[0]).await);
}

#[test]
fn a_caller_reads_what_is_left() {
    let number = NonZeroU32::new;
    let plan = Plan { client_requests: number(10), ..plan(100, 100, 3_600) };
    let both = |plan: &Plan| (Quota::of_tenant(plan).unwrap(), Quota::of_client(plan).unwrap());
    let (tenant, client) = both(&plan);
    let left = |quota, requests, until_next| Left { quota, requests, until_full: 61 * SECOND + 1, until_next };
    let mut headers = http::HeaderMap::new();
    let allowance = Allowance { tenant: Some(left(tenant, 40, 0)), client: Some(left(client, 0, 36 * SECOND)) };
    allowance.tell(&mut headers);
    let told: Vec<String> =
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    x-ratelimit-limit: 10
    x-ratelimit-remaining: 0
    x-ratelimit-reset: 62
    ratelimit-policy: "tenant";q=100;w=3600, "client";q=10;w=3600
    ratelimit: "tenant";r=40;t=62, "client";r=0;t=62
    "#);
    assert_eq!(allowance.retry_after(), 36);
    headers.clear();
    Allowance::default().tell(&mut headers);
    assert!(headers.is_empty(), "nothing is limited, and nothing told");
}
