//! Shares in a model: a dealer and its nodes, sockets that come and go, messages that are lost, late, repeated and reordered,
//! nodes that die and others that take their place, nodes that are stopped or forgotten, anchors that end.
//!
//! The bound is on what the server has, not on what anybody believes: at no instant do all nodes together have more sessions
//! there than the budget. A session lives on for a moment after its node has closed it, or ends before its node hears of it.

mod model;

use proptest::prelude::*;

use super::*;
use model::{GRACE, Sessions, World};

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn a_budget_is_never_exceeded_and_is_dealt_out_in_the_end(seed: u64, budget in 1u32..120, nodes in 3usize..8) {
        let mut world = World::new(seed, budget, nodes);
        // A hundred runs of these are a million events.
        for event in 0..10_000 {
            world.step();
            let held: u64 = world.holdings.iter().map(|holding| u64::from(holding.held)).sum();
            prop_assert!(world.sessions() <= budget, "{} sessions of {budget} after {event} events", world.sessions());
            prop_assert!(held <= u64::from(budget), "{held} counted of {budget} after {event} events");
        }
        world.calm_down();
        let dealt: u32 = world.nodes.iter().map(|node| node.kept.connections).sum();
        let is_of_use = budget >= FLOOR && !world.nodes.is_empty();
        prop_assert!(!is_of_use || dealt == budget, "{dealt} of {budget} dealt to {} nodes", world.nodes.len());
    }
}

/// A model in which little happens would prove little.
#[test]
fn in_the_model_budgets_are_used_up_shares_are_freed_and_sessions_outlive_their_clients() {
    let (mut most, mut outlived, mut freed) = (0u32, 0u32, 0u32);
    for seed in 0..10 {
        let mut world = World::new(seed, 60, 4);
        for _ in 0..10_000 {
            world.step();
            most = most.max(world.sessions());
            outlived += u32::from(world.nodes.iter().any(|node| node.outlived() > 0));
        }
        freed += world.freed;
    }
    assert!(most > 55, "at most {most} sessions of 60");
    assert!(outlived > 2_000, "sessions outlived their clients in {outlived} moments of 100000");
    assert!(freed > 50, "{freed} shares of processes that live were freed");
}

/// A dealer and two holders of a budget of 10: the first has all of it and an anchor.
fn one_that_has_all() -> World {
    let mut world = World::new(1, 10, 2);
    for _ in 0..4 {
        let (holder, report) = (world.nodes[0].holder, world.nodes[0].report());
        world.dealer_hears(holder, &report);
        world.make_anchor(holder);
        for (_, share) in std::mem::take(&mut world.to_nodes) {
            world.nodes[0].hear(&share);
        }
    }
    let anchor = world.nodes[0].anchor;
    assert!(anchor.is_some() && world.nodes[0].kept.connections == 10);
    let node = &mut world.nodes[0];
    (node.moored, node.proven, node.open) = (anchor, Some(0), 3);
    node.sessions = Sessions { of_tenants: 3, is_anchored: true };
    world
}

#[test]
fn a_holder_that_is_not_heard_keeps_its_share_while_its_anchor_lives() {
    let mut world = one_that_has_all();
    for _ in 0..10 {
        world.now += GRACE;
        world.look(0);
    }
    let (holder, report) = (world.nodes[1].holder, world.nodes[1].report());
    world.dealer_hears(holder, &report);
    let held: Vec<u32> = world.holdings.iter().map(|holding| holding.held).collect();
    assert_eq!(held, [10, 0]);
}

#[test]
fn a_share_is_freed_when_the_anchor_is_gone_and_is_not_had_back_by_what_was_granted_before() {
    let mut world = one_that_has_all();
    // It ended on the server. The process has not heard of it.
    world.nodes[0].sessions.is_anchored = false;
    world.look(0);
    world.look(0);
    assert_eq!(world.holdings[0].held, 10, "a dial may go on");
    world.now += GRACE;
    world.look(0);
    assert_eq!(world.holdings[0].held, 3, "what the server shows is its own still");
    world.nodes[0].open = 0;
    world.look(0);
    assert_eq!(world.holdings[0].held, 3, "its own side is closed, and the server's is not");
    world.nodes[0].sessions.of_tenants = 0;
    world.look(0);
    let (holder, report) = (world.nodes[1].holder, world.nodes[1].report());
    world.dealer_hears(holder, &report);
    let other = world.holdings.iter().find(|holding| holding.holder == holder).unwrap();
    assert_eq!(other.share, 10);
    // It comes back, and says what it was granted.
    let (holder, report) = (world.nodes[0].holder, world.nodes[0].report());
    assert!(report.at_most == 10 && !world.nodes[0].may_dial(world.now));
    world.dealer_hears(holder, &report);
    let first = world.holdings.iter().find(|holding| holding.holder == holder).unwrap();
    assert_eq!((first.held, first.share), (0, 0));
    assert!(first.grant > report.grant);
}

#[test]
fn a_holder_that_was_forgotten_and_runs_on_has_nothing_back_that_was_dealt_to_others() {
    let mut world = one_that_has_all();
    world.let_go(0);
    world.look(0);
    assert_eq!(world.holdings[0].held, 10, "its anchor lives");
    (world.nodes[0].open, world.nodes[0].sessions) = (0, Sessions::default());
    world.look(0);
    world.now += GRACE;
    world.look(0);
    for at in [1, 0] {
        let (holder, report) = (world.nodes[at].holder, world.nodes[at].report());
        world.dealer_hears(holder, &report);
    }
    let held: Vec<u32> = world.holdings.iter().map(|holding| holding.held).collect();
    assert_eq!(held.iter().sum::<u32>(), 10, "{held:?}");
}
