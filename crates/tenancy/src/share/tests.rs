//! Shares in a model: a dealer and its nodes, sockets that come and go, messages that are lost, late, repeated and reordered,
//! nodes that die and others that take their place.
//!
//! The bound is on sockets, not on what anybody believes: at no instant do all nodes together have more than the budget.

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;

const SERVER: &str = "local";

/// One process, and its sockets on the server.
struct Node {
    holder: Uuid,
    kept: Kept,
    open: u32,
    wanted: u32,
    is_alive: bool,
}

/// The world of one run.
struct World {
    random: StdRng,
    budget: u32,
    nodes: Vec<Node>,
    holdings: Vec<Holding>,
    to_dealer: Vec<(Uuid, ShareReport)>,
    to_nodes: Vec<(Uuid, Share)>,
    born: u128,
    now: u64,
}

impl World {
    fn new(seed: u64, budget: u32, nodes: usize) -> Self {
        let random = StdRng::seed_from_u64(seed);
        let (holdings, to_dealer, to_nodes) = (Vec::new(), Vec::new(), Vec::new());
        let mut world = Self { random, budget, nodes: Vec::new(), holdings, to_dealer, to_nodes, born: 0, now: 0 };
        for _ in 0..nodes {
            world.join();
        }
        world
    }

    fn join(&mut self) {
        self.born += 1;
        let holder = Uuid::from_u128(self.born);
        self.nodes.push(Node { holder, kept: Kept::default(), open: 0, wanted: 1, is_alive: true });
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    /// One event: any message, any socket, any death.
    fn step(&mut self) {
        let at = self.random.random_range(0..self.nodes.len());
        match self.random.random_range(0..100) {
            // A node says where it is; a message may be there twice.
            0..=19 if self.nodes[at].is_alive => {
                let node = &self.nodes[at];
                let report = (node.holder, node.kept.report(SERVER, node.open, node.wanted));
                if self.chance(20) {
                    self.to_dealer.push(report.clone());
                }
                self.to_dealer.push(report);
            }
            // Any message arrives, in any order, or is lost.
            20..=44 if !self.to_dealer.is_empty() => {
                let message = self.random.random_range(0..self.to_dealer.len());
                let (holder, report) = self.to_dealer.swap_remove(message);
                if !self.chance(15) {
                    self.dealer_hears(holder, &report);
                }
            }
            45..=64 if !self.to_nodes.is_empty() => {
                let message = self.random.random_range(0..self.to_nodes.len());
                let (holder, share) = self.to_nodes.swap_remove(message);
                if !self.chance(15)
                    && let Some(node) = self.nodes.iter_mut().find(|node| node.holder == holder && node.is_alive)
                {
                    node.kept.hear(&share);
                }
            }
            // A socket opens, if the node's share allows it, or one closes.
            65..=84 => {
                let node = &mut self.nodes[at];
                if node.is_alive && node.open < node.kept.connections {
                    node.open += 1;
                }
            }
            85..=92 => self.nodes[at].open = self.nodes[at].open.saturating_sub(1),
            93..=95 => self.nodes[at].wanted = self.random.random_range(0..=self.budget),
            // A process dies; the server ends its sockets one by one, and another takes its place.
            96 => {
                self.nodes[at].is_alive = false;
                if self.nodes.iter().filter(|node| node.is_alive).count() < 3 {
                    self.join();
                }
            }
            // The dealer looks at the server: of a process that died and has no socket left, nothing is held.
            97 => {
                let gone: Vec<Uuid> =
                    self.nodes.iter().filter(|node| !node.is_alive && node.open == 0).map(|node| node.holder).collect();
                self.holdings.retain(|holding| !gone.contains(&holding.holder));
                self.nodes.retain(|node| node.is_alive || node.open > 0);
                self.to_dealer.retain(|(holder, _)| !gone.contains(holder));
                self.deal();
            }
            _ => {}
        }
    }

    fn dealer_hears(&mut self, holder: Uuid, report: &ShareReport) {
        match self.holdings.iter_mut().find(|holding| holding.holder == holder) {
            Some(holding) => {
                holding.hear(report);
            }
            None => self.holdings.push(Holding::new(holder, report)),
        }
        self.deal();
    }

    fn deal(&mut self) {
        self.now += 1;
        deal(self.budget, &mut self.holdings, self.now);
        for holding in &self.holdings {
            let (server, connect_rate) = (SERVER.to_owned(), 200);
            let share = Share { server, grant: holding.grant, connections: holding.share, connect_rate };
            self.to_nodes.push((holding.holder, share));
        }
        // What is never delivered is lost.
        while self.to_nodes.len() > 50 {
            let lost = self.random.random_range(0..self.to_nodes.len());
            self.to_nodes.swap_remove(lost);
        }
    }

    fn open(&self) -> u32 {
        self.nodes.iter().map(|node| node.open).sum()
    }

    /// Nothing is lost any more, and all that is over a share is closed.
    fn calm_down(&mut self) {
        self.to_dealer.clear();
        self.to_nodes.clear();
        for node in &mut self.nodes {
            node.wanted = self.budget;
            if !node.is_alive {
                node.open = 0;
            }
        }
        let alive: Vec<Uuid> = self.nodes.iter().filter(|node| node.is_alive).map(|node| node.holder).collect();
        self.holdings.retain(|holding| alive.contains(&holding.holder));
        for _ in 0..10 {
            for at in 0..self.nodes.len() {
                let node = &mut self.nodes[at];
                node.open = node.open.min(node.kept.connections);
                let (holder, report) = (node.holder, node.kept.report(SERVER, node.open, node.wanted));
                self.dealer_hears(holder, &report);
                for (holder, share) in std::mem::take(&mut self.to_nodes) {
                    if let Some(node) = self.nodes.iter_mut().find(|node| node.holder == holder) {
                        node.kept.hear(&share);
                    }
                }
            }
        }
    }
}

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
        world.calm_down();
        let dealt: u32 = world.nodes.iter().map(|node| node.kept.connections).sum();
        let alive = world.nodes.iter().filter(|node| node.is_alive).count();
        prop_assert!(alive == 0 || dealt == budget, "{dealt} of {budget} dealt to {alive} nodes");
    }
}
