//! The table against a registry that changes, is restored, and answers late, twice or never.

mod applied;
mod histories;

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use proptest::prelude::*;
use tenancy::Plan;
use tenancy::seal::Sealed;
use uuid::Uuid;

use super::*;

fn plan() -> Plan {
    Plan::seeded().into_iter().next().unwrap()
}

fn tenant(number: u8) -> TenantId {
    Uuid::from_u128(u128::from(number) + 1).into()
}

fn route(number: u8, revision: u64, generation: u64) -> Route {
    Route {
        tenant: tenant(number),
        revision: Revision(revision),
        slug: format!("tenant-{number}").parse().unwrap(),
        hosts: vec![],
        status: Status::Active,
        plan: plan(),
        config: BTreeMap::new(),
        issuers: Vec::new(),
        tokens_from: None,
        slug_since: None,
        keys: vec![],
        schema_version: 1,
        server: "local".into(),
        generation,
        reconnects: 0,
        sealed_url: Sealed::from_stored("fh1.k.x"),
    }
}

/// A registry in small: the tenants' newest routes, by revision.
#[derive(Clone)]
struct Registry {
    epoch: u128,
    /// Identities that were given out; a restore does not forget them.
    minted: u128,
    head: u64,
    tenants: BTreeMap<u8, (u64, Option<Route>)>,
}

impl Registry {
    fn new() -> Self {
        Self { epoch: 1, minted: 1, head: 0, tenants: BTreeMap::new() }
    }

    fn epoch(&self) -> Epoch {
        Epoch(Uuid::from_u128(self.epoch))
    }

    fn change(&mut self, number: u8, is_gone: bool) {
        self.head += 1;
        let route = (!is_gone).then(|| route(number, self.head, self.head));
        self.tenants.insert(number, (self.head, route));
    }

    fn begin_epoch(&mut self) {
        self.minted += 1;
        self.epoch = self.minted;
    }

    fn is_behind(&self, asked: Position) -> bool {
        asked.epoch == Some(self.epoch()) && asked.after.max(asked.heard).0 > self.head
    }

    fn feed(&self, table: &RouteTable, page: usize) -> (Position, FeedAnswer) {
        let asked = table.position();
        (asked, self.news(asked, page))
    }

    fn news(&self, asked: Position, page: usize) -> FeedAnswer {
        let answer = |position, reset, items| FeedAnswer {
            reset,
            items,
            head: Revision(self.head),
            ..FeedAnswer::without_news(self.epoch(), Revision(position), 60)
        };
        if asked.epoch != Some(self.epoch()) || self.is_behind(asked) {
            return answer(self.head, true, vec![]);
        }
        let after = asked.after;
        let mut news: Vec<_> = self.tenants.iter().filter(|(_, (revision, _))| *revision > after.0).collect();
        news.sort_by_key(|(_, (revision, _))| *revision);
        let is_full = news.len() > page;
        news.truncate(page);
        let last = news.last().map_or(self.head, |(_, (revision, _))| *revision);
        let items = news
            .into_iter()
            .map(|(number, (revision, route))| FeedItem {
                tenant: tenant(*number),
                revision: Revision(*revision),
                route: route.clone(),
            })
            .collect();
        answer(if is_full { last } else { self.head }, false, items)
    }

    fn route(&self, number: u8) -> RouteAnswer {
        let route = self.tenants.get(&number).and_then(|(_, route)| route.clone());
        RouteAnswer { epoch: self.epoch(), as_of: Revision(self.head), route }
    }
}

#[derive(Clone, Debug)]
enum Act {
    Change(u8, bool),
    /// Ask the feed, and keep the answer.
    Poll,
    /// Apply an answer that was kept, however old; keep it or not.
    Apply(usize, bool),
    /// Ask for a route, and keep the answer.
    Ask(u8),
    /// Take in a route that was kept, however old.
    Take(usize),
    Backup,
    /// The backup is all that is left, and its control plane knows.
    Restore,
    /// The same, and the control plane has died with the registry: nobody but the node can tell.
    Lose,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0u8..5, prop::bool::weighted(0.2)).prop_map(|(number, gone)| Act::Change(number, gone)),
        4 => Just(Act::Poll),
        5 => (any::<usize>(), any::<bool>()).prop_map(|(which, again)| Act::Apply(which, again)),
        3 => (0u8..5).prop_map(Act::Ask),
        3 => any::<usize>().prop_map(Act::Take),
        1 => Just(Act::Backup),
        1 => Just(Act::Restore),
        1 => Just(Act::Lose),
    ]
}

/// Answers on their way, which may be lost, late or repeated.
#[derive(Default)]
struct Line {
    answers: Vec<(Position, FeedAnswer)>,
    routes: Vec<(Position, RouteAnswer)>,
}

impl Line {
    /// Whether the node was told of a revision that the registry lost, or may yet be. A registry that comes to the same number
    /// meanwhile cannot see it any more: that is why it is started with `--restored`.
    fn may_tell_of_what_was_lost(&self, table: &RouteTable, registry: &Registry) -> bool {
        let now = table.position();
        let is_lost = |asked: &Position, epoch, newest: Revision| {
            asked.resets == now.resets && epoch == registry.epoch() && newest.0 > registry.head
        };
        registry.is_behind(now)
            || self.answers.iter().any(|(asked, answer)| is_lost(asked, answer.epoch, answer.head))
            || self.routes.iter().any(|(asked, answer)| is_lost(asked, answer.epoch, answer.as_of))
    }
}

fn reload(table: &RouteTable, registry: &Registry) {
    for number in 0..5 {
        if table.awaited().contains(&tenant(number)) {
            let answer = registry.route(number);
            if table.take(table.position(), &answer).is_some() && answer.route.is_none() {
                table.remove(tenant(number));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Invariant 6: whatever was lost, late or repeated, one undisturbed round of the feed ends at the registry's state.
    #[test]
    fn a_node_that_missed_any_number_of_messages_converges(acts in prop::collection::vec(act(), 0..80), page in 1usize..4, reloads: bool) {
        let mut registry = Registry::new();
        let mut backup = registry.clone();
        let table = RouteTable::new(100);
        let mut line = Line::default();
        let now = Instant::now();
        for act in acts {
            match act {
                Act::Change(..) if line.may_tell_of_what_was_lost(&table, &registry) => {}
                Act::Change(number, is_gone) => registry.change(number, is_gone),
                Act::Poll => line.answers.push(registry.feed(&table, page)),
                Act::Apply(which, again) if !line.answers.is_empty() => {
                    let which = which % line.answers.len();
                    let (asked, answer) =
                        if again { line.answers[which].clone() } else { line.answers.remove(which) };
                    table.apply(asked, answer, now);
                    if reloads {
                        reload(&table, &registry);
                    }
                }
                Act::Ask(number) => line.routes.push((table.position(), registry.route(number))),
                Act::Take(which) if !line.routes.is_empty() => {
                    let (asked, answer) = &line.routes[which % line.routes.len()];
                    table.take(*asked, answer);
                }
                Act::Backup => backup = registry.clone(),
                Act::Restore => {
                    // A control plane that outlived it sees the head go back, or an identity that the history had before.
                    let minted = registry.minted;
                    let is_seen = registry.head > backup.head || registry.epoch != backup.epoch;
                    registry = Registry { minted, ..backup.clone() };
                    if is_seen {
                        registry.begin_epoch();
                    }
                }
                // A backup of another epoch has a name that no node follows any more, or one that was given up.
                Act::Lose if registry.epoch == backup.epoch => registry = backup.clone(),
                _ => {}
            }
        }
        for _ in 0..20 {
            let (asked, answer) = registry.feed(&table, page);
            table.apply(asked, answer, now);
            reload(&table, &registry);
        }
        let (Position { epoch, after, heard, .. }, head) = (table.position(), Revision(registry.head));
        prop_assert_eq!((epoch, after, heard), (Some(registry.epoch()), head, head));
        for number in 0..5 {
            if let Some(served) = table.get(tenant(number)) {
                let truth = registry.tenants.get(&number).and_then(|(_, route)| route.clone());
                prop_assert_eq!(Some(&served.route), truth.as_ref());
            }
        }
        prop_assert_eq!(table.applied(), Revision(registry.head));
    }
}

fn table_with(first: Route) -> (RouteTable, Epoch) {
    let table = RouteTable::new(100);
    let epoch = Epoch(Uuid::from_u128(7));
    let head = first.revision;
    table.apply(table.position(), reset(epoch, head), Instant::now());
    assert!(table.take(table.position(), &RouteAnswer { epoch, as_of: head, route: Some(first) }).is_some());
    (table, epoch)
}

fn news(epoch: Epoch, route: Route) -> FeedAnswer {
    let (tenant, revision) = (route.tenant, route.revision);
    let items = vec![FeedItem { tenant, revision, route: Some(route) }];
    FeedAnswer { items, ..FeedAnswer::without_news(epoch, revision, 60) }
}

fn reset(epoch: Epoch, position: Revision) -> FeedAnswer {
    FeedAnswer { reset: true, ..FeedAnswer::without_news(epoch, position, 60) }
}

#[test]
fn nothing_counts_as_applied_while_an_older_route_or_url_is_in_use() {
    let (table, epoch) = table_with(route(0, 5, 1));
    let in_use = table.get(tenant(0)).unwrap();
    let pool = in_use.dialled.begin();
    table.apply(table.position(), news(epoch, route(0, 6, 2)), Instant::now());
    let close: Vec<_> = table.to_close().iter().map(|url| (url.dial.tenant, url.dial.generation)).collect();
    assert_eq!(close, [(tenant(0), 1)]);
    assert_eq!(table.applied(), Revision(5), "a request is at work with the old route");
    drop(in_use);
    assert_eq!(table.applied(), Revision(5), "a pool is open with the old URL");
    drop(pool);
    assert_eq!(table.applied(), Revision(6));
}

#[test]
fn what_gave_way_to_others_is_not_used_by_who_kept_it_and_holds_back_what_it_missed() {
    let (epoch, kept, now) = (Epoch(Uuid::from_u128(7)), Kept::default(), Instant::now());
    let table = RouteTable::new(1);
    let position = Revision(5);
    table.apply(table.position(), reset(epoch, position), now);
    let answer = |number| RouteAnswer { epoch, as_of: position, route: Some(route(number, 5, 1)) };
    let take = |number| table.take(table.position(), &answer(number)).unwrap();
    take(0);
    let in_use = table.get_by(tenant(0), &kept, now).unwrap();
    assert!(table.get_by(tenant(0), &kept, now).is_some());
    for number in 1..4 {
        take(number);
        table.served.run_pending_tasks();
    }
    assert!(!table.served.contains_key(&tenant(0)), "it gave way");
    assert!(table.get_by(tenant(0), &kept, now).is_none(), "no news of it would be heard");
    table.apply(table.position(), news(epoch, route(0, 6, 2)), now);
    assert_eq!(table.applied(), position, "a request is at work with what missed the news");
    drop(in_use);
    assert_eq!(table.applied(), Revision(6));
}

#[test]
fn a_route_that_was_replaced_is_not_used_by_who_kept_it() {
    let (table, epoch) = table_with(route(0, 5, 1));
    let (kept, now) = (Kept::default(), Instant::now());
    let revision = || table.get_by(tenant(0), &kept, now).map(|served| served.route.revision.0);
    assert_eq!([revision(), revision()], [Some(5); 2]);
    table.apply(table.position(), news(epoch, route(0, 6, 1)), now);
    assert_eq!([revision(), revision()], [Some(6); 2]);
    let gone = FeedItem { tenant: tenant(0), revision: Revision(7), route: None };
    table.apply(table.position(), FeedAnswer { items: vec![gone], ..news(epoch, route(0, 7, 1)) }, now);
    assert_eq!(revision(), None);
}

#[test]
fn an_answer_that_the_feed_overtook_is_thrown_away() {
    let (table, epoch) = table_with(route(0, 5, 1));
    table.apply(table.position(), news(epoch, route(0, 6, 1)), Instant::now());
    let old = RouteAnswer { epoch, as_of: Revision(5), route: Some(route(0, 5, 1)) };
    assert!(table.take(table.position(), &old).is_none());
    assert_eq!(table.get(tenant(0)).unwrap().route.revision, Revision(6));
}

#[test]
fn a_changed_route_keeps_its_permits_unless_the_plan_changed_them() {
    let (table, epoch) = table_with(route(0, 5, 1));
    let limit = plan().concurrency.get();
    let held: Vec<_> = (0..limit).map(|_| table.get(tenant(0)).unwrap().permit().unwrap()).collect();
    table.apply(table.position(), news(epoch, route(0, 6, 1)), Instant::now());
    assert!(table.get(tenant(0)).unwrap().permit().is_none(), "a change of the route is no refill");
    let mut wider = route(0, 7, 1);
    wider.plan.concurrency = NonZeroU32::new(limit + 1).unwrap();
    table.apply(table.position(), news(epoch, wider), Instant::now());
    assert!(table.get(tenant(0)).unwrap().permit().is_some());
    drop(held);
}

#[tokio::test]
async fn a_node_that_hears_nothing_for_too_long_is_stale() {
    let (table, _) = table_with(route(0, 5, 1));
    assert!(!RouteTable::new(1).is_stale(Instant::now() + Duration::from_hours(1)), "what was never heard is not old");
    assert!(!table.is_stale(Instant::now()));
    assert!(table.is_stale(Instant::now() + Duration::from_secs(61)));
}

#[test]
fn an_older_answer_never_replaces_a_newer_route() {
    let (table, epoch) = table_with(route(0, 5, 1));
    table.take(table.position(), &RouteAnswer { epoch, as_of: Revision(9), route: Some(route(0, 8, 1)) });
    table.take(table.position(), &RouteAnswer { epoch, as_of: Revision(6), route: Some(route(0, 6, 1)) });
    assert_eq!(table.get(tenant(0)).unwrap().route.revision, Revision(8));
}
