//! Shares in a model: a dealer and its nodes, sockets that come and go, messages that are lost, late, repeated and reordered,
//! nodes that die and others that take their place, nodes that are stopped, anchors that end.
//!
//! The bound is on sockets, not on what anybody believes: at no instant do all nodes together have more than the budget.

mod model;

use proptest::prelude::*;

use super::*;
use model::{GRACE, World};

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn a_budget_is_never_exceeded_and_is_dealt_out_in_the_end(seed: u64, budget in 1u32..120, nodes in 3usize..8) {
        let mut world = World::new(seed, budget, nodes);
        // A hundred runs of these are a million events.
        for event in 0..10_000 {
            world.step();
            let held: u64 = world.holdings.iter().map(|holding| u64::from(holding.held)).sum();
            prop_assert!(world.open() <= budget, "{} sockets of {budget} after {event} events", world.open());
            prop_assert!(held <= u64::from(budget), "{held} counted of {budget} after {event} events");
        }
        prop_assert!(budget < 40 || world.freed > 0, "no share of a process that lives was ever freed");
        world.calm_down();
        let dealt: u32 = world.nodes.iter().map(|node| node.kept.connections).sum();
        let is_of_use = budget >= FLOOR && !world.nodes.is_empty();
        prop_assert!(!is_of_use || dealt == budget, "{dealt} of {budget} dealt to {} nodes", world.nodes.len());
    }
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
    world.nodes[0].moored = None;
    world.look(0);
    world.look(0);
    assert_eq!(world.holdings[0].held, 10, "a dial may go on");
    world.now += GRACE;
    world.look(0);
    assert_eq!(world.holdings[0].held, 3, "what the server shows is its own still");
    world.nodes[0].open = 0;
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
