//! Indexes that are made while the table is used: outside of a transaction, and found again when they were not made to the end.

use sea_orm::{IsolationLevel, TransactionTrait};

use super::*;

const INVALID: &str = "SELECT count(*) FROM pg_index WHERE NOT indisvalid";
const VALID: &str = "SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
                     WHERE c.relname = 'effects_by_name' AND i.indisvalid";

/// That the migration's statement has waited for others for so long.
fn waits(begins: &str, long: &str) -> String {
    format!(
        "EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '{begins} INDEX CONC%' \
         AND wait_event_type = 'Lock' AND clock_timestamp() - query_start > interval '{long}')"
    )
}

fn index() -> Told {
    let up = "CREATE INDEX CONCURRENTLY IF NOT EXISTS effects_by_name ON effects (migration)";
    Told::new("m2", [up]).outside().back(["DROP INDEX CONCURRENTLY IF EXISTS effects_by_name"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_waits_for_older_transactions_and_holds_nobody_up() {
    let schema = Schema::of([index()]);
    let stage = Arc::new(Stage::on(EngineKind::Postgres, &schema).await);
    let (writer, reader, other) = (stage.other().await, stage.other().await, stage.other().await);
    let old = writer.begin().await.unwrap();
    old.execute_unprepared("INSERT INTO effects VALUES ('old')").await.unwrap();
    let (rolling, of) = (Arc::clone(&stage), schema.clone());
    let rolling = tokio::spawn(async move { rolling.roll_with(&of, 2, &hasty()).await });
    // It did not get on in time, and takes back what it began, for which it waits as well.
    until(&other, &waits("DROP", "0 s")).await;
    // This one holds no lock on the table, but may see it as it was.
    let snapshot = reader.begin_with_config(Some(IsolationLevel::RepeatableRead), None).await.unwrap();
    snapshot.execute_unprepared("SELECT count(*) FROM pg_class").await.unwrap();
    old.commit().await.unwrap();
    // For longer than all its attempts for locks together.
    until(&other, &waits("CREATE", "1.5 s")).await;
    other.execute_unprepared("INSERT INTO effects VALUES ('meanwhile')").await.unwrap();
    snapshot.commit().await.unwrap();
    assert_eq!(rolling.await.unwrap().unwrap(), Rolled { before: 1, after: 2 });
    assert_eq!((number(&other, VALID).await, number(&other, INVALID).await), (1, 0));
    assert_eq!(stage.roll(&schema, 1).await.unwrap(), Rolled { before: 2, after: 1 });
    assert_eq!((number(&other, VALID).await, number(&other, INVALID).await), (0, 0));
    for db in [writer, reader, other] {
        db.close().await.unwrap();
    }
    Arc::into_inner(stage).unwrap().end().await;
}

/// As a `CREATE INDEX CONCURRENTLY IF NOT EXISTS` would take it for made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_was_not_made_to_its_end_is_made_anew() {
    let schema = Schema::of([index()]);
    let stage = Stage::on(EngineKind::Postgres, &schema).await;
    let other = stage.other().await;
    let broken_off = "CREATE INDEX effects_by_name ON effects (migration); \
                      UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'effects_by_name'::regclass; \
                      ALTER INDEX effects_by_name OWNER TO freehold_owner; \
                      INSERT INTO freehold_unfinished (position, name) VALUES (2, 'm2')";
    other.execute_unprepared(broken_off).await.unwrap();
    assert_eq!(number(&other, INVALID).await, 1);
    assert_eq!(stage.roll(&schema, 2).await.unwrap(), Rolled { before: 1, after: 2 });
    assert_eq!((number(&other, VALID).await, number(&other, INVALID).await), (1, 0));
    assert_eq!(number(&other, "SELECT count(*) FROM freehold_unfinished").await, 0);
    other.close().await.unwrap();
    stage.end().await;
}

/// A unique index that is not valid refuses rows all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_cannot_be_made_leaves_nothing_behind() {
    let unique = "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS effects_by_name ON effects (migration)";
    let schema = Schema::of([Told::new("m2", [unique]).outside()]);
    let stage = Stage::on(EngineKind::Postgres, &schema).await;
    let other = stage.other().await;
    other.execute_unprepared("INSERT INTO effects VALUES ('twice'), ('twice')").await.unwrap();
    let entered = stage.enter_with(&hasty()).await;
    let error = entered.roll(None, &schema, 2, Way::UpOrDown).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Failed, "{error}");
    assert!(error.to_string().contains("23505"), "{error}");
    entered.execute("INSERT INTO effects VALUES (current_setting('lock_timeout'))").await;
    entered.leave().await.unwrap();
    assert_eq!(stage.effects().await, "200ms twice twice", "a session that failed waits no longer than before");
    assert_eq!((number(&other, INVALID).await, stage.version().await), (0, 1));
    other.execute_unprepared("DELETE FROM effects").await.unwrap();
    assert_eq!(stage.roll(&schema, 2).await.unwrap(), Rolled { before: 1, after: 2 });
    assert_eq!((number(&other, VALID).await, number(&other, INVALID).await), (1, 0));
    other.close().await.unwrap();
    stage.end().await;
}
