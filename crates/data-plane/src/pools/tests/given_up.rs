//! Statements on files that were given up.

use super::super::checkout::Failed;
use super::super::connection::FirstOf;
use super::*;

/// What is waited for comes well within this, or not at all.
const PATIENCE: Duration = Duration::from_secs(30);
/// It never ends by itself.
const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

/// How often this process has a file open.
fn descriptors(path: &Path) -> usize {
    let own = std::fs::read_dir("/proc/self/fd").unwrap();
    own.filter(|entry| std::fs::read_link(entry.as_ref().unwrap().path()).is_ok_and(|it| it == path)).count()
}

#[tokio::test]
async fn a_statement_that_was_given_up_ends_and_only_then_its_permit_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap().join("1.db");
    let table = table(vec![route(1, 5, 1, &database(folder.path(), 1).await)]);
    let pools = pools(10);
    let pool = pools.of(&table.get(tenant(1)).unwrap()).await.unwrap();
    let server = pools.server("local", true);
    let mut checkout = pool.checkout().await.unwrap().within(Some(Duration::from_millis(20)));
    assert!(descriptors(&path) > 0);
    let sent = checkout.send(&FirstOf(ENDLESS)).await;
    assert!(matches!(sent, Err(Failed::Silent(_))), "it does not end by itself");
    drop(checkout);
    let deadline = Instant::now() + PATIENCE;
    while server.counts().held + server.counts().closing > 0 {
        assert!(Instant::now() < deadline, "its permit does not come back: {:?}", server.counts());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(descriptors(&path), 0, "its thread is at work");
    assert!(works(&pool).await, "there is room for another connection");
}
