//! Whose turn it is where tenants ask for more connections than there are, and when a connection has lived its time. No test
//! waits for a clock: statements ask when they are looked at, and moments are arguments.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use super::super::server::Granted;
use super::*;

/// What is waited for comes well within this, or not at all.
const PATIENCE: Duration = Duration::from_secs(30);

type Statement = Pin<Box<dyn Future<Output = Result<Checkout, Refusal>> + Send>>;

/// A tenant's statements, each of which keeps the connection that it gets. They go on only when they are looked at.
struct Crowd {
    pool: Arc<TenantPool>,
    waiting: Vec<Statement>,
    has: Vec<Checkout>,
}

impl Crowd {
    /// One statement more than the tenant's plan has connections.
    async fn new(pools: &Pools, table: &RouteTable, number: u128, most: u32) -> Self {
        let served = table.get(tenant(number)).unwrap();
        let pool = pools.pool(&served, Duration::ZERO).await.unwrap();
        let statement = |_| {
            let entered = pool.enter(most).unwrap();
            Box::pin(async move { entered.checkout().await }) as Statement
        };
        let waiting = (0..=most).map(statement).collect();
        Self { pool, waiting, has: Vec::new() }
    }

    async fn look(&mut self) {
        for mut statement in std::mem::take(&mut self.waiting) {
            let looked_at = poll_fn(|context| Poll::Ready(statement.as_mut().poll(context))).await;
            match looked_at {
                Poll::Ready(checkout) => self.has.push(checkout.unwrap()),
                Poll::Pending => self.waiting.push(statement),
            }
        }
    }

    /// Gives one connection back that has served the tenant's statements in a row for long enough.
    async fn end_a_turn(&mut self) {
        let mut live = self.has.pop().unwrap().into_live().unwrap();
        live.in_row_since = live.opened.checked_sub(Duration::from_secs(1)).unwrap();
        self.pool.give_back(live);
        self.look().await;
    }
}

/// Pools of so many tenants, whose statements wait for as long as it takes.
async fn patient(folder: &Path, tenants: u128) -> (Pools, RouteTable) {
    let mut routes = Vec::new();
    for number in 1..=tenants {
        routes.push(route(number, 5, 1, &database(folder, number).await));
    }
    let mut pools = pools(10);
    pools.settings.wait = Duration::from_hours(1);
    (pools, table(routes))
}

/// One tenant has all four connections of its plan, and a statement that waits; another has one of two, and a third has none of four
/// yet. No connection is left.
async fn a_rich_a_small_and_a_late_one(folder: &Path, now: Instant) -> (Arc<ServerPool>, [Crowd; 3]) {
    let (pools, table) = patient(folder, 3).await;
    let server = pools.server("local", false);
    let mut rich = Crowd::new(&pools, &table, 1, 4).await;
    let mut small = Crowd::new(&pools, &table, 2, 2).await;
    let late = Crowd::new(&pools, &table, 3, 4).await;
    grant(&server, 4, now);
    until_they_have(&server, &mut [&mut rich], &[4]).await;
    grant(&server, 5, now);
    until_they_have(&server, &mut [&mut rich, &mut small], &[4, 1]).await;
    (server, [rich, small, late])
}

/// Allows so many connections for tenants from now on.
fn grant(server: &Arc<ServerPool>, connections: u32, now: Instant) {
    server.set_share(&Granted { connections: connections + 1, ..Granted::default() }, now);
    server.lifeline.prove(now + Duration::from_hours(1));
    server.dispatch(now);
}

/// Until each crowd has so many connections.
async fn until_they_have(server: &ServerPool, crowds: &mut [&mut Crowd], wanted: &[usize]) {
    let begun = Instant::now();
    loop {
        let mut have = Vec::new();
        for crowd in &mut *crowds {
            crowd.look().await;
            have.push(crowd.has.len());
        }
        if have == wanted {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "they have {have:?}, and not {wanted:?}: {:?}", server.counts());
        tokio::task::yield_now().await;
    }
}

/// Has each crowd ask, one after the other, and then allows so many connections for tenants; how many each crowd has then.
async fn dealt(server: &Arc<ServerPool>, crowds: &mut [Crowd; 2], connections: u32) -> [usize; 2] {
    // While there is no anchor, they stand in the queue, whether there is room or not.
    for crowd in &mut *crowds {
        crowd.look().await;
        server.ask(&crowd.pool, Instant::now()).unwrap();
    }
    let now = Instant::now();
    server.set_share(&Granted { connections: connections + 1, ..Granted::default() }, now);
    server.lifeline.prove(now + Duration::from_hours(1));
    server.dispatch(now);
    while crowds.iter().map(|crowd| crowd.has.len()).sum::<usize>() < connections as usize {
        assert!(now.elapsed() < PATIENCE, "no crowd gets the connection: {:?}", server.counts());
        for crowd in &mut *crowds {
            crowd.look().await;
        }
        tokio::task::yield_now().await;
    }
    server.lifeline.cut();
    crowds.each_ref().map(|crowd| crowd.has.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_goes_to_the_tenant_that_has_none_and_then_to_the_one_with_the_fewest_for_its_plan() {
    let folder = tempfile::tempdir().unwrap();
    let (pools, table) = patient(folder.path(), 2).await;
    // It keeps its connections as those to a Postgres, though they are to files.
    let server = pools.server("local", false);
    // The plan of the first has two connections, and that of the second has four. The first always asks before the second.
    let mut crowds = [Crowd::new(&pools, &table, 1, 2).await, Crowd::new(&pools, &table, 2, 4).await];
    let mut have = Vec::new();
    for connections in 1..=6 {
        have.push(dealt(&server, &mut crowds, connections).await);
    }
    assert_eq!(have, [[1, 0], [1, 1], [1, 2], [2, 2], [2, 3], [2, 4]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_had_its_turn_goes_to_a_tenant_without_and_then_to_one_that_has_fewer_for_its_plan() {
    let (folder, now) = (tempfile::tempdir().unwrap(), Instant::now());
    let (server, [mut rich, mut small, mut late]) = a_rich_a_small_and_a_late_one(folder.path(), now).await;
    late.look().await;
    server.ask(&small.pool, now).unwrap();
    rich.end_a_turn().await;
    until_they_have(&server, &mut [&mut rich, &mut small, &mut late], &[3, 1, 1]).await;
    // The third has a quarter of its plan. The second has half of its plan, and with one more would have more than the first.
    server.ask(&small.pool, now).unwrap();
    server.ask(&late.pool, now).unwrap();
    rich.end_a_turn().await;
    until_they_have(&server, &mut [&mut rich, &mut small, &mut late], &[2, 1, 2]).await;
    // No richer one is left: the connection serves its own tenant on.
    server.ask(&late.pool, now).unwrap();
    rich.end_a_turn().await;
    assert_eq!(rich.has.len(), 2, "{:?}", server.counts());
    until_they_have(&server, &mut [&mut rich, &mut small, &mut late], &[2, 1, 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_that_would_have_more_than_the_richer_one_keeps_no_other_from_its_connection() {
    let (folder, now) = (tempfile::tempdir().unwrap(), Instant::now());
    let (server, [mut rich, mut small, mut late]) = a_rich_a_small_and_a_late_one(folder.path(), now).await;
    grant(&server, 6, now);
    until_they_have(&server, &mut [&mut late], &[1]).await;
    // Both have half of their plans, and the small one came first.
    server.ask(&small.pool, now).unwrap();
    grant(&server, 7, now);
    server.ask(&late.pool, now).unwrap();
    until_they_have(&server, &mut [&mut late], &[2]).await;
    server.ask(&small.pool, now).unwrap();
    server.ask(&late.pool, now).unwrap();
    rich.end_a_turn().await;
    until_they_have(&server, &mut [&mut rich, &mut small, &mut late], &[3, 1, 3]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_gives_way_when_it_has_served_and_is_old_enough() {
    let folder = tempfile::tempdir().unwrap();
    let (_pools, pool) = alone(folder.path()).await;
    let now = Instant::now();
    let mut live = pool.0.take_idle(now, None).unwrap();
    assert!(live.is_new, "it was opened for a statement that has not come yet");
    live.opened = now;
    pool.0.give_back(live);
    let gives_way = |millis, youngest| pool.0.idle_value(now + Duration::from_millis(millis), youngest).is_some();
    assert!(!gives_way(49, Some(Duration::ZERO)) && gives_way(50, Some(Duration::ZERO)));
    assert!(gives_way(0, None), "where the share shrinks, any gives way");
    let statement = sea_orm::Statement::from_string(sea_orm::DbBackend::Sqlite, tenancy::stamp::SELECT);
    let Ok(found) = pool.checkout().await.unwrap().send(&QueryOne(&statement)).await else { panic!("no answer") };
    assert!(found.is_some() && gives_way(0, Some(Duration::ZERO)));
    assert!(!gives_way(500, Some(Duration::from_secs(1))));
    assert!(gives_way(60_000, Some(Duration::from_secs(1))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_were_opened_together_do_not_end_together() {
    let folder = tempfile::tempdir().unwrap();
    let table = table(vec![route(1, 5, 1, &database(folder.path(), 1).await)]);
    let mut pools = pools(10);
    // None is closed for being idle.
    (pools.settings.lifetime, pools.settings.idle) = (Duration::from_secs(1_000), Duration::from_hours(1));
    let pool = pools.of(&table.get(tenant(1)).unwrap()).await.unwrap();
    let server = pools.server("local", true);
    let mut early = 0;
    for _ in 0..40 {
        assert!(works(&pool).await);
        let live = pool.0.take_idle(Instant::now(), None).unwrap();
        let opened = live.opened;
        pool.0.give_back(live);
        let held_after = |seconds| {
            server.reap(opened + Duration::from_secs(seconds));
            server.counts().held
        };
        assert_eq!(held_after(799), 1, "it ended before the last fifth of its lifetime");
        early += 1 - held_after(900);
        assert_eq!(held_after(1_001), 0, "it has lived its time");
    }
    assert!((1..40).contains(&early), "{early} of 40 ended in the first half of the last fifth");
}
