//! On SQLite each migration is in a transaction of its own. What others do between two of them is planted by a migration.

use super::*;

async fn on_sqlite(schema: &Schema) -> Stage {
    Stage::on(EngineKind::Sqlite, schema).await
}

/// It is done by somebody else too, who goes further by as many migrations as the records say.
fn overtaken(records: &str) -> Told {
    Told::new("m2", [&effect("m2"), &format!("INSERT INTO freehold_migrations (position, name) VALUES {records}")])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_else_did_between_is_not_done_again() {
    let rest = ["m3", "m4"].map(|name| Told::new(name, [effect(name).as_str()]));
    let [m3, m4] = rest;
    let schema = Schema::of([overtaken("(3, 'm3')"), m3.clone(), m4.clone()]);
    let stage = on_sqlite(&schema).await;
    assert_eq!(stage.roll(&schema, 3).await.unwrap(), Rolled { before: 1, after: 3 });
    assert_eq!(stage.effects().await, "m2");
    stage.end().await;
    // Further than we would.
    let schema = Schema::of([overtaken("(3, 'm3'), (4, 'm4')"), m3, m4]);
    let stage = on_sqlite(&schema).await;
    let entered = stage.enter().await;
    let rolled = entered.roll(None, &schema, 3, Way::Up).await.unwrap();
    assert_eq!(rolled, Rolled { before: 1, after: 4 }, "what it has in the end");
    entered.leave().await.unwrap();
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_it_the_other_way_between_is_not_fought_with() {
    let schema = Schema::of(["m2", "m3"].map(|name| Told::new(name, [effect(name).as_str()])));
    let stage = on_sqlite(&schema).await;
    let other = stage.other().await;
    let taken_back = "CREATE TRIGGER taken_back AFTER INSERT ON freehold_migrations WHEN NEW.position = 2 \
                      BEGIN DELETE FROM freehold_migrations WHERE position = 2; END";
    other.execute_unprepared(taken_back).await.unwrap();
    let error = stage.roll(&schema, 3).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{error}");
    other.execute_unprepared("DROP TRIGGER taken_back").await.unwrap();
    other.close().await.unwrap();
    assert_eq!(stage.roll(&schema, 3).await.unwrap(), Rolled { before: 1, after: 3 });
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_asks_for_no_transaction_and_fails_leaves_nothing() {
    let fails = Told::new("m2", [effect("m2").as_str(), "INSERT INTO nowhere VALUES (1)"]).outside();
    let schema = Schema::of([fails]);
    let stage = on_sqlite(&schema).await;
    let error = stage.roll(&schema, 2).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Failed, "{error}");
    assert_eq!((stage.effects().await.as_str(), stage.version().await), ("", 1));
    stage.end().await;
}

/// As by a target's own time limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_dropped_on_its_way_leaves_nothing() {
    let begun = Arc::new(tokio::sync::Notify::new());
    let schema = Schema::of([Told::new("m2", [effect("m2").as_str()]).hangs(&begun)]);
    let stage = on_sqlite(&schema).await;
    let entered = stage.enter().await;
    tokio::select! {
        rolled = entered.roll(None, &schema, 2, Way::UpOrDown) => panic!("it does not end by itself: {rolled:?}"),
        () = begun.notified() => {}
    }
    let then = Schema::of([Told::new("m2", [effect("m2").as_str()])]);
    let rolled = entered.roll(None, &then, 2, Way::UpOrDown).await.unwrap();
    assert_eq!(rolled, Rolled { before: 1, after: 2 }, "the session holds nothing of it");
    entered.leave().await.unwrap();
    assert_eq!(stage.effects().await, "m2");
    stage.end().await;
}
