//! Drift: what somebody changed by hand in a tenant's database is found and named, and whoever cannot be looked at is counted.

use super::super::verify::{Checked, Extent, From, Verified, verify};
use super::*;

on_both! {
    a_schema_that_somebody_changed_is_told_line_by_line,
    a_sample_is_the_same_on_every_page,
    what_cannot_be_looked_at_is_said_and_counted,
}

const ALL: From = From { extent: Extent::All, after: Uuid::nil() };

async fn look(fleet: &Fleet<'_>) -> (Vec<Verified>, Checked) {
    let report = verify(&fleet.plane, &Selection::default(), ALL).await.unwrap();
    assert_eq!(report.next, None, "they fit on one page");
    (report.found, report.checked)
}

async fn a_schema_that_somebody_changed_is_told_line_by_line(stage: &Stage) {
    let fleet = Fleet::of(stage, 3).await;
    let rollout = Order {
        selection: Selection { tenants: Some(vec!["tenant-2".to_owned()]), ..Selection::default() },
        ..Fleet::order()
    };
    assert_eq!(fleet.roll(&rollout).await.state, "done");
    // Two versions at once, each compared with its own.
    let (found, checked) = look(&fleet).await;
    assert_eq!((found.len(), checked), (0, Checked { same: 3, ..Checked::default() }), "{found:?}");
    fleet.execute(&fleet.tenants[0], "CREATE INDEX by_author ON notes (author)").await;
    fleet.execute(&fleet.tenants[2], "ALTER TABLE notes ADD COLUMN colour TEXT").await;
    fleet.execute(&fleet.tenants[2], "ALTER TABLE notes DROP COLUMN likes").await;
    let (found, checked) = look(&fleet).await;
    assert_eq!(checked, Checked { same: 1, differs: 2, unverified: 0 }, "{found:?}");
    let told: Vec<(&str, Option<u32>, String)> = found
        .iter()
        .map(|it| (it.slug.as_str(), it.version, it.diff.join("\n").replace("public.", "").to_lowercase()))
        .collect();
    assert_eq!((told[0].0, told[0].1, told[1].0, told[1].1), ("tenant-0", Some(2), "tenant-2", Some(4)));
    assert!(told[0].2.starts_with("+ index") && told[0].2.contains("by_author"), "{told:?}");
    let lines = "- column notes.likes integer\n+ column notes.colour text";
    assert!(told[1].2 == lines || told[1].2 == "+ column notes.colour text\n- column notes.likes integer", "{told:?}");
    assert!(
        found.iter().all(|it| it.state == "differs" && it.fingerprint.is_some() && it.server.as_deref() == Some("one"))
    );
    // Nothing is left of what was made to compare with.
    assert!(stage.stock().await.is_empty(), "{:?}", stage.stock().await);
}

async fn a_sample_is_the_same_on_every_page(stage: &Stage) {
    let fleet = Fleet::of(stage, 4).await;
    for tenant in &fleet.tenants {
        fleet.execute(tenant, "CREATE TABLE more (id INTEGER)").await;
    }
    for seed in 0..4 {
        let mut from = From { extent: Extent::Sample { size: 3, seed }, after: Uuid::nil() };
        let whole = verify(&fleet.plane, &Selection::default(), from).await.unwrap();
        let ids: Vec<Uuid> = whole.found.iter().map(|it| it.tenant).collect();
        assert_eq!((ids.len(), whole.next), (3, None));
        // As the next page goes on after the first of them.
        from.after = ids[0];
        let rest = verify(&fleet.plane, &Selection::default(), from).await.unwrap();
        assert_eq!(rest.found.iter().map(|it| it.tenant).collect::<Vec<_>>(), ids[1..]);
    }
}

async fn what_cannot_be_looked_at_is_said_and_counted(stage: &Stage) {
    let fleet = Fleet::of(stage, 3).await;
    let (engine, name) = fleet.database(&fleet.tenants[0]).await;
    engine.drop_database(&name).await.unwrap();
    // One whose database another program brought further than this one knows.
    fleet
        .execute(
            &fleet.tenants[1],
            "INSERT INTO freehold_migrations (position, name) VALUES (3, 'x'), (4, 'y'), (5, 'z')",
        )
        .await;
    let (found, checked) = look(&fleet).await;
    assert_eq!(checked, Checked { same: 1, differs: 0, unverified: 2 }, "{found:?}");
    let why: Vec<&str> = found.iter().filter_map(|it| it.detail.as_deref()).collect();
    assert!(found.iter().all(|it| it.state == "unverified" && it.diff.is_empty()));
    assert!(why[1].contains("has version 5, and this control plane contains 4 migrations"), "{why:?}");
    // What the registry says is compared too.
    fleet.execute(&fleet.tenants[1], "DELETE FROM freehold_migrations WHERE position > 2").await;
    rows(&fleet, of(&fleet.tenants[1]), 1).await;
    let (found, checked) = look(&fleet).await;
    assert_eq!((checked.differs, checked.unverified), (1, 1), "{found:?}");
    assert_eq!(found[1].diff, ["- schema version 1, as the registry says", "+ schema version 2, as the database says"]);
}

async fn rows(fleet: &Fleet<'_>, tenant: Uuid, version: i32) {
    tenants::Entity::update_many()
        .col_expr(tenants::Column::SchemaVersion, Expr::value(version))
        .filter(tenants::Column::Id.eq(tenant))
        .exec(fleet.plane.registry.db())
        .await
        .unwrap();
}
