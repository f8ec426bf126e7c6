//! A history that another one follows, and one that lost its newest part.

use super::*;

#[test]
fn a_node_tells_of_the_newest_revision_that_any_answer_told_it() {
    let mut registry = Registry::new();
    let table = RouteTable::new(100);
    let (asked, answer) = registry.feed(&table, 10);
    table.apply(asked, answer, Instant::now());
    let backup = registry.clone();
    registry.change(0, false);
    assert!(table.take(table.position(), &registry.route(0)).is_some());
    // The control plane died with the registry, and nobody saw the head go back; only this node knows better.
    registry = backup.clone();
    let (asked, answer) = registry.feed(&table, 10);
    assert!(answer.reset, "the node's word is what tells");
    table.apply(asked, answer, Instant::now());
    assert_eq!(table.position().epoch, Some(backup.epoch()));
    reload(&table, &registry);
    assert!(table.get(tenant(0)).is_none());
    // A page that is not the last tells how far the registry has come all the same.
    registry.change(0, false);
    registry.change(1, false);
    let (asked, answer) = registry.feed(&table, 1);
    table.apply(asked, answer, Instant::now());
    let Position { after, heard, .. } = table.position();
    assert_eq!((after, heard), (Revision(1), Revision(2)));
}

#[test]
fn a_restored_history_is_followed_whatever_its_numbers_and_applied_never_runs_ahead() {
    let (table, _) = table_with(route(0, 100, 1));
    let in_use = table.get(tenant(0)).unwrap();
    let epoch = Epoch(Uuid::from_u128(8));
    table.apply(table.position(), reset(epoch, Revision(50)), Instant::now());
    assert_eq!(table.awaited(), [tenant(0)]);
    assert_eq!(table.applied(), Revision(0), "what is held is of another history");
    // News comes before the route was asked for again; its number is smaller than the one that is held.
    table.apply(table.position(), news(epoch, route(0, 51, 2)), Instant::now());
    assert_eq!(table.get(tenant(0)).unwrap().route.revision, Revision(51));
    assert!(table.awaited().is_empty());
    assert!(table.applied() < Revision(51), "a request is at work with the old route");
    drop(in_use);
    assert_eq!(table.applied(), Revision(51));
}

#[test]
fn a_reset_that_goes_back_in_the_same_history_is_followed_and_what_was_lost_is_replaced() {
    let (table, epoch) = table_with(route(0, 100, 9));
    table.take(table.position(), &RouteAnswer { epoch, as_of: Revision(100), route: Some(route(1, 90, 9)) });
    let absence = table.names.absent(Revision(100));
    let in_use = table.get(tenant(0)).unwrap();
    table.apply(table.position(), reset(epoch, Revision(50)), Instant::now());
    let Position { after, heard, .. } = table.position();
    assert_eq!((after, heard), (Revision(50), Revision(50)), "what it tells next is nothing that was lost");
    assert_eq!(table.awaited().len(), 2);
    assert_eq!(table.applied(), Revision(0), "what is held may be of what was lost");
    assert!(!table.is_absent(&Lookup::Tenant(tenant(7)), absence), "that nobody had it was lost too");
    // One is asked for again; of the other there is news first. Both have smaller numbers than what is held.
    let reloaded = RouteAnswer { epoch, as_of: Revision(50), route: Some(route(0, 40, 2)) };
    assert!(table.take(table.position(), &reloaded).is_some());
    table.apply(table.position(), news(epoch, route(1, 51, 2)), Instant::now());
    let held = [0, 1].map(|number| table.get(tenant(number)).unwrap().route.revision);
    assert_eq!(held, [Revision(40), Revision(51)]);
    assert!(table.awaited().is_empty());
    assert!(table.applied() < Revision(40), "a request is at work with the route that was lost");
    drop(in_use);
    assert_eq!(table.applied(), Revision(51));
}

#[test]
fn what_was_answered_before_a_reset_does_no_harm_after_it() {
    let (table, epoch) = table_with(route(0, 100, 9));
    let (asked, lost) = (table.position(), reset(epoch, Revision(50)));
    table.apply(asked, lost.clone(), Instant::now());
    let reloaded = RouteAnswer { epoch, as_of: Revision(50), route: Some(route(0, 40, 2)) };
    table.take(table.position(), &reloaded);
    // The registry comes to the numbers that it lost, and the node with it.
    table.apply(table.position(), news(epoch, route(1, 120, 1)), Instant::now());
    let caught_up = table.position();
    table.apply(asked, lost, Instant::now());
    assert_eq!(table.position(), caught_up, "the reset once more");
    table.apply(asked, news(epoch, route(0, 130, 9)), Instant::now());
    assert_eq!(table.position(), caught_up, "news of what was lost");
    assert!(table.take(asked, &RouteAnswer { epoch, as_of: Revision(130), route: Some(route(0, 130, 9)) }).is_none());
    assert_eq!(table.position(), caught_up, "a route of what was lost");
    assert_eq!(table.get(tenant(0)).unwrap().route.revision, Revision(40));
    assert!(table.awaited().is_empty());
    // Nor does one of another history that came too late.
    table.apply(asked, reset(Epoch(Uuid::from_u128(6)), Revision(1)), Instant::now());
    assert_eq!(table.position(), caught_up);
}
