//! What is refused when it is ordered, and what is planned.

use super::*;

on_both! {
    a_plan_says_who_is_behind_by_what_and_changes_nothing,
    what_cannot_be_done_is_refused_by_its_field,
    a_tenant_is_in_one_open_rollout_at_a_time,
    a_program_that_lacks_what_a_database_has_is_refused,
    of_two_orders_at_once_one_is_told_that_the_other_is_at_work,
}

async fn a_plan_says_who_is_behind_by_what_and_changes_nothing(stage: &Stage) {
    let fleet = Fleet::of(stage, 3).await;
    let planned = plan(&fleet.plane, fleet.plane.registry.db(), &Fleet::order()).await.unwrap();
    assert_eq!((planned.already, planned.found), (0, BTreeMap::from([(2, 3)])));
    assert_eq!(planned.waves, [("canary", 1), ("wave", 1), ("wave", 1)]);
    let rows = rollouts::Entity::find().all(fleet.plane.registry.db()).await.unwrap();
    assert_eq!(rows, []);
}

async fn what_cannot_be_done_is_refused_by_its_field(stage: &Stage) {
    let fleet = Fleet::of(stage, 2).await;
    let named = |names: &[&str]| Some(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
    let select = |selection: Selection| Order { selection, ..Fleet::order() };
    let settings = |settings: Settings| Order { settings, ..Fleet::order() };
    let nobody = Selection { tenants: named(&["tenant-0", "nobody"]), ..Selection::default() };
    let refused = [
        (Order { version: 5, ..Fleet::order() }, "version"),
        (Order { version: 1, is_down: true, ..Fleet::order() }, "version"),
        (select(nobody), "select.tenants"),
        (select(Selection { tenants: named(&[]), ..Selection::default() }), "select.tenants"),
        (select(Selection { plan: Some("gold".to_owned()), ..Selection::default() }), "select.plan"),
        (select(Selection { region: Some("mars".to_owned()), ..Selection::default() }), "select.region"),
        (select(Selection { server: Some("none".to_owned()), ..Selection::default() }), "select.server"),
        (settings(Settings { concurrency: 0, ..Settings::default() }), "settings.concurrency"),
        (settings(Settings { waves: vec![50.0, 10.0], ..Settings::default() }), "settings.waves"),
        (settings(Settings { waves: vec![f64::NAN], ..Settings::default() }), "settings.waves"),
        (
            Order {
                selection: Selection {
                    region: Some("eu".to_owned()),
                    tenants: named(&["tenant-0"]),
                    ..Selection::default()
                },
                ..settings(Settings { canary: Canary::Tenants(vec!["tenant-1".to_owned()]), ..Settings::default() })
            },
            "settings.canary",
        ),
        (
            settings(Settings { canary: Canary::Tenants(vec!["nobody".to_owned()]), ..Settings::default() }),
            "settings.canary",
        ),
    ];
    for (order, field) in refused {
        let problem = fleet.start(&order).await.unwrap_err();
        assert_eq!((problem.status().as_u16(), problem.errors()[0].field.as_str()), (422, field), "{problem:?}");
    }
}

async fn a_tenant_is_in_one_open_rollout_at_a_time(stage: &Stage) {
    let fleet = Fleet::of(stage, 2).await;
    // Two operators at the same moment.
    let order = Fleet::order();
    let (one, other) = tokio::join!(fleet.start(&order), fleet.start(&order));
    let (begun, refused) = match (one, other) {
        (Ok(begun), Err(refused)) | (Err(refused), Ok(begun)) => (begun, refused),
        both => panic!("one of both begins: {both:?}"),
    };
    assert_eq!((refused.status().as_u16(), refused.kind()), (409, "rollout-at-work"));
    let refused = fleet.start(&order).await.unwrap_err();
    assert!(refused.to_string().contains(&begun.id.to_string()), "{refused}");
    let change = fleet.plane.registry.change().await.unwrap();
    abort(&change, begun.id).await.unwrap();
    change.commit().await.unwrap();
    assert_eq!(fleet.roll(&order).await.state, "done");
}

async fn a_program_that_lacks_what_a_database_has_is_refused(stage: &Stage) {
    let fleet = Fleet::of(stage, 1).await;
    assert_eq!(fleet.roll(&Fleet::order()).await.state, "done");
    // The older program, of two migrations.
    let order = Order { version: 2, is_down: true, ..Fleet::order() };
    let refused = start_on(&stage.plane, &order).await.unwrap_err();
    assert_eq!((refused.status().as_u16(), refused.kind()), (409, "migrations-missing"));
}

async fn of_two_orders_at_once_one_is_told_that_the_other_is_at_work(stage: &Stage) {
    let fleet = Fleet::of(stage, 4).await;
    let first = |names: [&str; 2]| {
        let canary = Canary::Tenants(names.map(str::to_owned).to_vec());
        Order { settings: Settings { canary, ..Settings::default() }, ..Fleet::order() }
    };
    // Each inserts its canaries before the other's, so that each may hold what the other waits for.
    let (one, other) = (first(["tenant-2", "tenant-3"]), first(["tenant-0", "tenant-1"]));
    for _ in 0..20 {
        let told = tokio::join!(fleet.start(&one), fleet.start(&other));
        let (won, lost) = match told {
            (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
            both => panic!("one of two: {both:?}"),
        };
        assert_eq!((lost.status().as_u16(), lost.kind()), (409, "rollout-at-work"));
        let change = fleet.plane.registry.change().await.unwrap();
        abort(&change, won.id).await.unwrap();
        change.commit().await.unwrap();
    }
}
