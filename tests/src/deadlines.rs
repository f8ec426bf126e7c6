//! How long a statement may take: what all have, and what a handler says.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sea_orm::{ConnectionTrait as _, Statement};

use crate::bed::{Bed, PATIENCE, Store, Tenant, Tuning};

/// Statements that are at work in the tenant's database.
async fn at_work(bed: &Bed, tenant: &Tenant) -> i64 {
    let (database, _) = bed.registry_row(tenant).await;
    let admin = service::pool::open(bed.superuser_url()).await.unwrap();
    let query = Statement::from_sql_and_values(
        admin.get_database_backend(),
        "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND state = 'active'",
        [database.into()],
    );
    let count = admin.query_one_raw(query).await.unwrap().unwrap().try_get_by_index(0).unwrap();
    admin.close().await.unwrap();
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handlers_own_deadline_holds_for_its_statements_alone() {
    let tuning = Tuning { data: "[pools]\nstatement_seconds = 2\n", ..Tuning::DEFAULT };
    let mut bed = Bed::start_with(Store::Postgres, 1, 0, tuning).await;
    let control = bed.control[0].url.clone();
    bed.add_node_of("night-shift", &control);
    let (acme, globex) = (bed.tenant("acme").await, bed.tenant("globex").await);
    bed.until(&acme, "/api/me", 200).await;
    bed.until(&globex, "/api/me", 200).await;

    // Shorter: it is given up, while those beside it go on, of this tenant and of another.
    let begun = Instant::now();
    let short = bed.get(0, &acme, "/api/sleep?millis=60000&within_millis=200");
    let beside = join_all([&acme, &globex].map(|tenant| bed.get(0, tenant, "/api/sleep?millis=700")));
    let (short, beside) = futures_util::join!(short, beside);
    assert_eq!((short.status, short.kind().as_str()), (503, "database-unavailable"), "{short:?}");
    assert!(short.text.contains("within 0.2 s"), "{short:?}");
    assert!(!short.header("retry-after").is_empty(), "{short:?}");
    assert!(beside.iter().all(|answer| answer.status == 200), "{beside:?}");
    assert!(begun.elapsed() < PATIENCE, "it is not waited for");
    // The server ends what nobody waits for.
    while at_work(&bed, &acme).await > 0 {
        assert!(begun.elapsed() < PATIENCE, "the server is still at it");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(bed.get(0, &acme, "/api/sleep?millis=1").await.status, 200);

    // Longer than what all have, and what all have.
    let long = bed.get(0, &acme, "/api/sleep?millis=2500&within_millis=30000");
    let usual = bed.get(0, &globex, "/api/sleep?millis=2500");
    let (long, usual) = futures_util::join!(long, usual);
    assert_eq!(long.status, 200, "{long:?}");
    assert_eq!((usual.status, usual.kind().as_str()), (503, "database-unavailable"), "{usual:?}");
    assert!(usual.text.contains("within 2 s"), "{usual:?}");
}
