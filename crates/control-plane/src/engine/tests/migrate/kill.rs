//! The session is ended at every point of a roll, by the server itself. What is left is gone on with, and nothing is done twice.

use super::*;

/// Ends the session that comes to its point number so and so. Every look at it counts, rolled back or not.
const POINTS: &str = "
    CREATE SEQUENCE points;
    CREATE TABLE kill (at BIGINT NOT NULL);
    CREATE FUNCTION point() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
      IF nextval('public.points') = (SELECT at FROM public.kill) THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;
    END $$;
    CREATE FUNCTION point_of_row() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
      PERFORM public.point(); RETURN coalesce(NEW, OLD);
    END $$;
    CREATE FUNCTION pointed(name TEXT) RETURNS TEXT LANGUAGE plpgsql IMMUTABLE SECURITY DEFINER AS $$ BEGIN
      PERFORM public.point(); RETURN name;
    END $$;
    INSERT INTO effects VALUES ('m1');
";

/// Before and after each record, and in its commit.
fn triggers(table: &str) -> String {
    let trigger = |kind: &str, name: &str, when: &str, rest: &str| {
        format!(
            "CREATE {kind} {table}_{name} {when} INSERT OR DELETE ON {table} {rest} FOR EACH ROW \
             EXECUTE FUNCTION point_of_row();"
        )
    };
    [
        trigger("TRIGGER", "before", "BEFORE", ""),
        trigger("TRIGGER", "after", "AFTER", ""),
        trigger("CONSTRAINT TRIGGER", "commit", "AFTER", "DEFERRABLE INITIALLY DEFERRED"),
    ]
    .concat()
}

fn schema() -> Schema {
    let around = |name: &'static str| {
        let (up, down) = (effect(name), no_effect(name));
        Told::new(name, ["SELECT point()", &up, "SELECT point()"]).back(["SELECT point()", &down, "SELECT point()"])
    };
    let index = "CREATE INDEX CONCURRENTLY IF NOT EXISTS effects_by_name ON effects (pointed(migration))";
    let no_index = "DROP INDEX CONCURRENTLY IF EXISTS effects_by_name";
    let outside = Told::new("m3", ["SELECT point()", index, "SELECT point()"]).outside();
    Schema::of([around("m2"), outside.back(["SELECT point()", no_index, "SELECT point()"]), around("m4")])
}

const STATE: &str = "SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
                     WHERE c.relname LIKE 'effects_by_name%' AND i.indisvalid";
const LEFT: &str =
    "SELECT (SELECT count(*) FROM pg_index WHERE NOT indisvalid) + (SELECT count(*) FROM freehold_unfinished)";

/// Rolls until it is done; answers how often the session was ended meanwhile, and whether an index was left half-made then.
async fn roll(stage: &Stage, schema: &Schema, to: u32) -> (u32, bool) {
    let other = stage.other().await;
    let (mut killed, mut was_half_made) = (0, false);
    loop {
        let entered = stage.enter_with(&Patience::default()).await;
        let rolled = entered.roll(None, schema, to, Way::UpOrDown).await;
        let _ = entered.leave().await;
        match rolled {
            Ok(rolled) => {
                assert_eq!(rolled.after, to);
                other.close().await.unwrap();
                return (killed, was_half_made);
            }
            // The server has not let go yet of what the session held.
            Err(error) if error.kind() == Kind::Busy => {}
            Err(error) => {
                assert_eq!(error.kind(), Kind::Unavailable, "{error}");
                killed += 1;
                was_half_made |= number(&other, "SELECT count(*) FROM pg_index WHERE NOT indisvalid").await > 0;
            }
        }
    }
}

/// Both ways, one kill for each way and database, until there is no further point to kill it at.
async fn at_every_point(from: u32, to: u32, least: u32) {
    let schema = schema();
    let (mut at, mut half_made) = (1, 0);
    loop {
        let stage = Stage::on(EngineKind::Postgres, &schema).await;
        let other = stage.other().await;
        let planted = format!("{POINTS} {} {}", triggers("freehold_migrations"), triggers("freehold_unfinished"));
        other.execute_unprepared(&planted).await.unwrap();
        roll(&stage, &schema, from).await;
        other
            .execute_unprepared(&format!("SELECT setval('points', 1, false); INSERT INTO kill VALUES ({at})"))
            .await
            .unwrap();
        let (killed, was_half_made) = roll(&stage, &schema, to).await;
        half_made += u32::from(was_half_made);
        other.execute_unprepared("DELETE FROM kill").await.unwrap();
        let (effects, indexes) = if to == 4 { ("m1 m2 m4", 1) } else { ("m1", 0) };
        assert_eq!(stage.effects().await, effects, "ended at point {at}");
        assert_eq!((number(&other, STATE).await, number(&other, LEFT).await), (indexes, 0), "ended at point {at}");
        assert_eq!(stage.version().await, to);
        other.close().await.unwrap();
        stage.end().await;
        if killed == 0 {
            break;
        }
        at += 1;
    }
    assert!(at > least, "only {} points were found", at - 1);
    assert!(half_made > 0 || to < from, "no index was ever left half-made");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_at_any_point_on_the_way_up_loses_and_doubles_nothing() {
    at_every_point(1, 4, 18).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_at_any_point_on_the_way_down_loses_and_doubles_nothing() {
    at_every_point(4, 1, 18).await;
}
