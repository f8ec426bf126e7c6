//! Who holds what, and who waits for whom.

use std::time::Instant;

use sea_orm::TransactionTrait;

use super::*;

/// It holds the lock by a migration that waits for the test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_while_a_database_is_migrated_is_told_that_it_is_busy() {
    let waits = Told::new("m2", [effect("m2").as_str(), "SELECT pg_advisory_xact_lock(7)"]);
    let schema = Schema::of([waits]);
    let stage = Arc::new(Stage::on(EngineKind::Postgres, &schema).await);
    let gate = stage.other().await;
    gate.execute_unprepared("SELECT pg_advisory_lock(7)").await.unwrap();
    let patient = Patience { lock: Duration::from_mins(1), ..Patience::default() };
    let (first, of) = (Arc::clone(&stage), schema.clone());
    let first = tokio::spawn(async move { first.roll_with(&of, 2, &patient).await });
    until(&gate, "EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 7 AND NOT granted)").await;
    let error = stage.roll(&schema, 2).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Busy);
    assert!(error.to_string().contains("somebody else migrates the database now"), "{error}");
    gate.execute_unprepared("SELECT pg_advisory_unlock(7)").await.unwrap();
    assert_eq!(first.await.unwrap().unwrap(), Rolled { before: 1, after: 2 });
    assert_eq!(stage.roll(&schema, 2).await.unwrap(), Rolled { before: 2, after: 2 });
    assert_eq!(stage.effects().await, "m2");
    gate.close().await.unwrap();
    Arc::into_inner(stage).unwrap().end().await;
}

/// Its own isolation would have a message see nothing that was committed after its first statement. What is recorded meanwhile is
/// recorded by somebody who holds the table until then, so that the message waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_recorded_before_the_lock_was_ours_is_seen_in_every_isolation() {
    let schema = Schema::of([Told::new("m2", [effect("m2").as_str()])]);
    let stage = Arc::new(Stage::on(EngineKind::Postgres, &schema).await);
    let (somebody, gate) = (stage.other().await, stage.other().await);
    let isolation = format!("ALTER DATABASE \"{}\" SET default_transaction_isolation = 'repeatable read'", stage.name);
    gate.execute_unprepared(&isolation).await.unwrap();
    let recording = somebody.begin().await.unwrap();
    let record = "LOCK TABLE freehold_migrations; INSERT INTO freehold_migrations (position, name) VALUES (2, 'm2')";
    recording.execute_unprepared(record).await.unwrap();
    let patient = Patience { lock: Duration::from_mins(1), ..Patience::default() };
    let (rolling, of) = (Arc::clone(&stage), schema.clone());
    let rolling = tokio::spawn(async move { rolling.roll_with(&of, 2, &patient).await });
    until(&gate, "EXISTS (SELECT FROM pg_locks WHERE relation = 'freehold_migrations'::regclass AND NOT granted)")
        .await;
    recording.commit().await.unwrap();
    assert_eq!(rolling.await.unwrap().unwrap(), Rolled { before: 2, after: 2 });
    assert_eq!(stage.effects().await, "");
    somebody.close().await.unwrap();
    gate.close().await.unwrap();
    Arc::into_inner(stage).unwrap().end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sqlite_database_that_somebody_writes_to_is_busy() {
    let schema = Schema::of([Told::new("m2", [effect("m2").as_str()]).outside()]);
    let stage = Stage::on(EngineKind::Sqlite, &schema).await;
    let other = stage.other().await;
    other.execute_unprepared("BEGIN IMMEDIATE").await.unwrap();
    let patience = Patience { lock: Duration::from_millis(20), lock_attempts: 2, ..Patience::default() };
    let error = stage.roll_with(&schema, 2, &patience).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{error}");
    other.execute_unprepared("COMMIT").await.unwrap();
    assert_eq!(stage.roll_with(&schema, 2, &patience).await.unwrap(), Rolled { before: 1, after: 2 });
    assert_eq!(stage.effects().await, "m2");
    other.close().await.unwrap();
    stage.end().await;
}

/// It reads the table, as a report does for long, and the migration needs it for itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_query_waits_behind_a_migration_for_longer_than_the_lock_timeout() {
    let alters = Told::new("m2", [effect("m2").as_str(), "ALTER TABLE effects ADD COLUMN more INTEGER"]);
    let schema = Schema::of([alters]);
    let stage = Arc::new(Stage::on(EngineKind::Postgres, &schema).await);
    let (report, reader) = (stage.other().await, stage.other().await);
    let long = report.begin().await.unwrap();
    long.execute_unprepared("SELECT count(*) FROM effects").await.unwrap();
    let ended = tokio_util::sync::CancellationToken::new();
    let reads = tokio::spawn({
        let ended = ended.clone();
        async move {
            let mut longest = Duration::ZERO;
            while !ended.is_cancelled() {
                let begun = Instant::now();
                reader.execute_unprepared("SELECT count(*) FROM effects").await.unwrap();
                longest = longest.max(begun.elapsed());
            }
            reader.close().await.unwrap();
            longest
        }
    });
    let patience = Patience { lock: Duration::from_millis(300), lock_attempts: 4, ..Patience::default() };
    let error = stage.roll_with(&schema, 2, &patience).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Busy);
    assert!(error.to_string().contains("others hold what it needs"), "{error}");
    assert_eq!((stage.effects().await.as_str(), stage.version().await), ("", 1));
    // It goes on by itself when the table is free at last.
    let (rolling, of) = (Arc::clone(&stage), schema.clone());
    let patience = Patience { lock_attempts: 100, ..patience };
    let rolling = tokio::spawn(async move { rolling.roll_with(&of, 2, &patience).await });
    let other = stage.other().await;
    until(&other, "EXISTS (SELECT FROM pg_locks WHERE relation = 'effects'::regclass AND NOT granted)").await;
    long.rollback().await.unwrap();
    assert_eq!(rolling.await.unwrap().unwrap(), Rolled { before: 1, after: 2 });
    ended.cancel();
    let longest = reads.await.unwrap();
    assert!(longest > Duration::from_millis(100), "somebody did wait: {longest:?}");
    assert!(longest < patience.lock + Duration::from_millis(900), "and not for long: {longest:?}");
    assert_eq!(stage.effects().await, "m2", "tried often, done once");
    for db in [report, other] {
        db.close().await.unwrap();
    }
    Arc::into_inner(stage).unwrap().end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_those_of_the_session_and_the_lock_is_the_migrations_alone() {
    let told =
        "INSERT INTO effects VALUES (current_setting('lock_timeout') || ' ' || current_setting('statement_timeout'))";
    let index = "CREATE INDEX CONCURRENTLY IF NOT EXISTS effects_by_name ON effects (migration)";
    let outside = Told::new("m2", [index]).outside();
    let schema = Schema::of([outside, Told::new("m3", [told]), Told::new("m4", ["SELECT pg_sleep(60)"])]);
    let stage = Stage::on(EngineKind::Postgres, &schema).await;
    let other = stage.other().await;
    other.execute_unprepared(&format!("ALTER DATABASE \"{}\" SET lock_timeout = 0", stage.name)).await.unwrap();
    let patience = Patience { statement: Duration::from_millis(1500), ..hasty() };
    let among_others = stage.enter_with(&patience).await;
    let error = among_others.roll(None, &schema, 4, Way::UpOrDown).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Failed);
    assert!(error.to_string().contains("ran for longer than a statement may"), "{error}");
    assert_eq!(stage.effects().await, "200ms 1500ms");
    let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database \
                WHERE datname = current_database())";
    assert_eq!(number(&other, held).await, 0, "it is free though the session goes on");
    let by_itself = stage.enter().await;
    by_itself.execute(told).await;
    assert_eq!(stage.effects().await, "10s 1min 200ms 1500ms");
    for entered in [among_others, by_itself] {
        entered.leave().await.unwrap();
    }
    other.close().await.unwrap();
    stage.end().await;
}
