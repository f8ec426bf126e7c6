//! Seal keys: what an old key sealed is sealed anew, and nobody notices.

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use tenancy::seal::Sealed;

use super::stage::{Stage, on_both};
use crate::provision::faults::Faults;
use crate::registry::entities::{databases, servers, tenants, warm_databases};
use crate::rewrap::{check_keys, replace, rewrap};

on_both! {
    everything_is_sealed_anew_and_no_number_rises,
    a_text_that_was_replaced_meanwhile_is_left_alone,
    a_text_that_no_key_opens_is_told_and_left,
    a_ring_that_lacks_a_key_in_use_is_refused_by_name,
}

/// Two tenants, one of them in the middle of a rotation, and a database that is ready.
async fn filled(stage: &Stage) {
    stage.keep(1).await;
    for slug in ["acme", "globex"] {
        let operation = stage.create(slug, None).await;
        assert_eq!(stage.work_until_ended(&operation, &Faults::default()).await.state, "done");
    }
    stage.keep(1).await;
    databases::Entity::update_many()
        .col_expr(databases::Column::NextGeneration, Expr::value(1))
        .col_expr(databases::Column::NextSealedUrl, Expr::col(databases::Column::SealedUrl))
        .exec(stage.plane.registry.db())
        .await
        .unwrap();
}

async fn texts(stage: &Stage) -> Vec<String> {
    let db = stage.plane.registry.db();
    let tenants = tenants::Entity::find().all(db).await.unwrap().into_iter().filter_map(|row| row.sealed_url);
    let rows = databases::Entity::find().all(db).await.unwrap();
    let databases = rows.into_iter().flat_map(|row| [Some(row.sealed_url), row.next_sealed_url]).flatten();
    let warm = warm_databases::Entity::find().all(db).await.unwrap().into_iter().map(|row| row.sealed_url);
    let servers = servers::Entity::find().all(db).await.unwrap().into_iter().map(|row| row.sealed_admin_url);
    tenants.chain(databases).chain(warm).chain(servers).collect()
}

async fn everything_is_sealed_anew_and_no_number_rises(stage: &Stage) {
    filled(stage).await;
    let numbers = async || {
        let rows = tenants::Entity::find().all(stage.plane.registry.db()).await.unwrap();
        rows.into_iter().map(|row| (row.generation, row.revision, row.version)).collect::<Vec<_>>()
    };
    let before = (numbers().await, texts(stage).await.len());
    let both = stage.plane_with_keys("k_2", &["k", "k_2"]);
    let done = rewrap(&both).await.unwrap();
    assert_eq!((done.rewrapped, done.remaining, done.unopened), (before.1 as u64, 0, 0));
    assert!(texts(stage).await.iter().all(|text| text.starts_with("fh1.k_2.")));
    assert_eq!((numbers().await, texts(stage).await.len()), before);
    assert_eq!(rewrap(&both).await.unwrap().rewrapped, 0, "a second run finds nothing to do");
    // The old key is taken away, and everything still opens.
    let new = stage.plane_with_keys("k_2", &["k_2"]);
    check_keys(&new).await.unwrap();
    let server = servers::Entity::find_by_id(stage.server).one(new.registry.db()).await.unwrap().unwrap();
    new.engine(&server).unwrap().answers().await.unwrap();
    // A key whose id only looks alike, to whom takes a wildcard for a letter.
    assert!(check_keys(&stage.plane_with_keys("kx2", &["kx2"])).await.is_err());
}

async fn a_text_that_was_replaced_meanwhile_is_left_alone(stage: &Stage) {
    filled(stage).await;
    let db = stage.plane.registry.db();
    let rows = tenants::Entity::find().all(db).await.unwrap();
    let sealed = |text: &str| Sealed::from_stored(format!("fh1.k2.{text}"));
    let anew = rows.iter().map(|row| (row.id, row.sealed_url.clone().unwrap(), sealed("anew"))).collect();
    tenants::Entity::update_many()
        .col_expr(tenants::Column::SealedUrl, Expr::value(sealed("replaced").as_stored()))
        .filter(tenants::Column::Id.eq(rows[0].id))
        .exec(db)
        .await
        .unwrap();
    let replaced = replace::<tenants::Entity>(db, tenants::Column::Id, tenants::Column::SealedUrl, anew).await;
    assert_eq!(replaced.unwrap(), 1);
    let now = async |id| tenants::Entity::find_by_id(id).one(db).await.unwrap().unwrap().sealed_url.unwrap();
    assert_eq!(now(rows[0].id).await, sealed("replaced").as_stored());
    assert_eq!(now(rows[1].id).await, sealed("anew").as_stored());
}

async fn a_text_that_no_key_opens_is_told_and_left(stage: &Stage) {
    filled(stage).await;
    tenants::Entity::update_many()
        .col_expr(tenants::Column::SealedUrl, Expr::value("fh1.k.bm90IHNlYWxlZCBieSBhbnlib2R5"))
        .filter(tenants::Column::Slug.eq("acme"))
        .exec(stage.plane.registry.db())
        .await
        .unwrap();
    let all = texts(stage).await.len() as u64;
    let done = rewrap(&stage.plane_with_keys("k2", &["k", "k2"])).await.unwrap();
    assert_eq!((done.rewrapped, done.remaining, done.unopened), (all - 1, 0, 1));
    assert_eq!(texts(stage).await.iter().filter(|text| !text.starts_with("fh1.k2.")).count(), 1);
}

async fn a_ring_that_lacks_a_key_in_use_is_refused_by_name(stage: &Stage) {
    filled(stage).await;
    let refused = check_keys(&stage.plane_with_keys("k2", &["k2"])).await.unwrap_err().to_string();
    assert!(refused.contains("key \"k\"") && refused.contains("seal.tenants.keys"), "{refused}");
    assert!(refused.contains("add the key to the configuration"), "{refused}");
}
