//! The model: a dealer, a server, and processes that come, are stopped, go on and die.
//!
//! A socket has two sides. The server's side lives on for a moment after the node has closed its own, and the budget bounds
//! what the server has. So a node counts a socket until the server's side is gone for sure, and not only while it uses it.
//! The server's side may also end first, and the node hears of it later. A network that swallows packets is not in the model:
//! there a node counts what it closed until an anchor has answered since.

mod node;

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::super::*;
pub(super) use node::Sessions;
use node::{Node, SECOND, SERVER};

/// How long after it has barred an anchor the dealer waits, in ticks: longer than a node opens connections without one.
pub(super) const GRACE: u64 = SECOND + 1;
/// How long after a node has closed a socket the server's side may be there, in ticks: after a goodbye, and after a statement
/// that was left in the middle.
const LAGS: [u64; 2] = [1, SECOND + 1];

/// What the dealer knows of a holder besides its holding.
#[derive(Default)]
pub(super) struct Watched {
    /// Its anchor, once there is one.
    anchor: Option<Uuid>,
    /// There was one at any time.
    was_named: bool,
    /// When all of its anchors were barred.
    barred: Option<u64>,
}

/// The world of one run.
pub(super) struct World {
    random: StdRng,
    budget: u32,
    pub(super) nodes: Vec<Node>,
    pub(super) holdings: Vec<Holding>,
    watched: BTreeMap<Uuid, Watched>,
    /// Anchors that the server lets in.
    roles: BTreeSet<Uuid>,
    to_dealer: Vec<(Uuid, ShareReport)>,
    pub(super) to_nodes: Vec<(Uuid, Share)>,
    born: u128,
    pub(super) now: u64,
    /// How often a share was freed of a process that was still there.
    pub(super) freed: u32,
}

impl World {
    pub(super) fn new(seed: u64, budget: u32, nodes: usize) -> Self {
        let mut world = Self {
            random: StdRng::seed_from_u64(seed),
            budget,
            nodes: Vec::new(),
            holdings: Vec::new(),
            watched: BTreeMap::new(),
            roles: BTreeSet::new(),
            to_dealer: Vec::new(),
            to_nodes: Vec::new(),
            born: 0,
            now: 0,
            freed: 0,
        };
        for _ in 0..nodes {
            world.join();
        }
        world
    }

    fn join(&mut self) {
        self.born += 1;
        self.nodes.push(Node::new(Uuid::from_u128(self.born)));
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    /// Any number up to this one.
    fn up_to(&mut self, most: u32) -> u32 {
        self.random.random_range(0..=most)
    }

    /// One event: any message, any socket, any death.
    pub(super) fn step(&mut self) {
        self.now += u64::from(self.chance(30));
        let now = self.now;
        let until = now + LAGS[usize::from(self.chance(20))];
        for node in &mut self.nodes {
            node.pass(now);
        }
        let at = self.random.random_range(0..self.nodes.len());
        match self.random.random_range(0..139) {
            // A node says where it is; a message may be there twice.
            0..=19 if self.nodes[at].is_at_work() => {
                let report = (self.nodes[at].holder, self.nodes[at].report());
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
                    && let Some(node) = self.nodes.iter_mut().find(|node| node.holder == holder && node.is_at_work())
                {
                    node.hear(&share);
                }
            }
            // Sockets open, if the node's share and its anchor allow it, or some close.
            65..=84 if self.nodes[at].is_at_work() && self.nodes[at].may_dial(now) => {
                let room = self.nodes[at].room();
                let sockets = self.up_to(room);
                self.nodes[at].dial(sockets);
            }
            85..=92 if self.nodes[at].is_at_work() => {
                let open = self.nodes[at].open;
                let sockets = if self.chance(25) { self.up_to(open) } else { open.min(1) };
                self.nodes[at].close(sockets, until);
            }
            93..=95 => self.nodes[at].wanted = self.up_to(self.budget),
            // A process dies, and another takes its place. The server ends its sessions by and by.
            96 if self.chance(30) => {
                self.nodes[at].is_alive = false;
                if self.nodes.iter().filter(|node| node.is_alive).count() < 3 {
                    self.join();
                }
            }
            97 => self.nodes[at].is_stopped = self.chance(30),
            // Anchors begin, are heard from, or end, for whatever reason and on either side first.
            98..=103 => self.nodes.iter_mut().for_each(|node| node.moor(&self.roles)),
            104..=117 => self.nodes.iter_mut().for_each(|node| node.prove(now, until)),
            118..=119 if self.chance(50) && self.nodes[at].is_at_work() => self.nodes[at].unmoor(until),
            118..=119 => self.nodes[at].sessions.is_anchored = false,
            // The dealer looks at the server. Whether it has heard the holder of late makes no difference to the bound.
            120..=128 => self.look_at_some(at),
            // The server ends sessions: it noticed that their clients are gone, or for reasons of its own.
            129..=137 => {
                let there_are = self.nodes[at].sessions.of_tenants;
                let ended = if self.nodes[at].is_at_work() { there_are.min(1) } else { self.up_to(there_are) };
                self.nodes[at].sessions.of_tenants -= ended;
            }
            138 if self.chance(50) => self.let_go(at),
            _ => {}
        }
    }

    /// The dealer looks at all holders whose anchors it has barred, and maybe at one more.
    fn look_at_some(&mut self, at: usize) {
        let is_fenced = |holding: &&Holding| holding.is_fenced;
        let mut holders: Vec<Uuid> = self.holdings.iter().filter(is_fenced).map(|holding| holding.holder).collect();
        if self.chance(40) {
            holders.push(self.nodes[at].holder);
        }
        for holder in holders {
            // Another one took its place.
            if let Some(at) = self.nodes.iter().position(|node| node.holder == holder) {
                self.look(at);
            }
        }
    }

    /// The dealer looks at what the server has of a holder.
    pub(super) fn look(&mut self, at: usize) {
        let node = &self.nodes[at];
        let (holder, sessions) = (node.holder, node.sessions.of_tenants);
        if node.sessions.is_anchored {
            return;
        }
        let watched = self.watched.entry(holder).or_default();
        let Some(holding) = self.holdings.iter_mut().find(|holding| holding.holder == holder) else { return };
        if !holding.is_fenced || watched.barred.is_none() {
            holding.is_fenced = true;
            if let Some(anchor) = watched.anchor.take() {
                self.roles.remove(&anchor);
            }
            watched.barred = Some(self.now);
        } else if watched.barred.is_some_and(|barred| self.now >= barred + GRACE) {
            self.freed += u32::from(node.is_alive && holding.held > sessions);
            holding.shrink(sessions);
            if sessions == 0 && !node.is_alive {
                self.forget(holder);
            }
            self.deal();
        }
    }

    /// An operator has the dealer forget a process, which may run on.
    pub(super) fn let_go(&mut self, at: usize) {
        let holder = self.nodes[at].holder;
        let watched = self.watched.entry(holder).or_default();
        if !watched.was_named {
            // It has opened nothing.
            self.holdings.retain(|holding| holding.holder != holder);
        } else if let Some(holding) = self.holdings.iter_mut().find(|holding| holding.holder == holder) {
            holding.is_fenced = true;
            watched.barred = None;
            if let Some(anchor) = watched.anchor.take() {
                self.roles.remove(&anchor);
            }
        }
        self.deal();
    }

    fn forget(&mut self, holder: Uuid) {
        self.holdings.retain(|holding| holding.holder != holder);
        self.nodes.retain(|node| node.holder != holder);
        self.to_dealer.retain(|(from, _)| *from != holder);
        if self.nodes.is_empty() {
            self.join();
        }
        self.deal();
    }

    pub(super) fn dealer_hears(&mut self, holder: Uuid, report: &ShareReport) {
        let watched = self.watched.entry(holder).or_default();
        let known = self.holdings.iter_mut().find(|holding| holding.holder == holder);
        if known.as_ref().is_some_and(|holding| holding.is_fenced) {
            watched.barred = None;
        }
        match known {
            Some(holding) => {
                holding.hear(report);
            }
            None => self.holdings.push(Holding::new(holder, report)),
        }
        self.deal();
        // Later than its share, as a control plane makes it.
        if self.chance(50) {
            self.make_anchor(holder);
        }
    }

    pub(super) fn make_anchor(&mut self, holder: Uuid) {
        let Some(holding) = self.holdings.iter_mut().find(|holding| holding.holder == holder) else { return };
        let watched = self.watched.entry(holder).or_default();
        if holding.is_fenced || watched.anchor.is_some() {
            return;
        }
        let anchor = Uuid::from_u128(self.random.random());
        self.roles.insert(anchor);
        watched.anchor = Some(anchor);
        watched.was_named = true;
        holding.is_unknown = true;
        self.deal();
    }

    fn deal(&mut self) {
        let fenced: u32 = self.holdings.iter().filter(|holding| holding.is_fenced).map(|holding| holding.held).sum();
        let (fenced_ones, mut dealt): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.holdings).into_iter().partition(|holding| holding.is_fenced);
        deal(self.budget.saturating_sub(fenced), &mut dealt, self.now);
        for holding in &dealt {
            let anchor = self.watched.get(&holding.holder).and_then(|watched| watched.anchor);
            let anchor = anchor.map(|id| Anchor { id, sealed_url: Sealed::from_stored("sealed") });
            let (server, connect_rate) = (SERVER.to_owned(), 200);
            let share = Share { server, grant: holding.grant, connections: holding.share, connect_rate, anchor };
            self.to_nodes.push((holding.holder, share));
        }
        self.holdings = dealt;
        self.holdings.extend(fenced_ones);
        // What is never delivered is lost.
        while self.to_nodes.len() > 50 {
            let lost = self.random.random_range(0..self.to_nodes.len());
            self.to_nodes.swap_remove(lost);
        }
    }

    /// Sessions that the server has.
    pub(super) fn sessions(&self) -> u32 {
        let of_node = |Sessions { of_tenants, is_anchored }| of_tenants + u32::from(is_anchored);
        self.nodes.iter().map(|node| of_node(node.sessions)).sum()
    }

    /// Nothing is lost any more, and all that is over a share is closed.
    pub(super) fn calm_down(&mut self) {
        self.to_dealer.clear();
        self.to_nodes.clear();
        for node in &mut self.nodes {
            node.wanted = self.budget;
            node.is_stopped = false;
        }
        let alive: Vec<Uuid> = self.nodes.iter().filter(|node| node.is_alive).map(|node| node.holder).collect();
        self.holdings.retain(|holding| alive.contains(&holding.holder));
        self.nodes.retain(|node| node.is_alive);
        for _ in 0..10 {
            for at in 0..self.nodes.len() {
                let node = &mut self.nodes[at];
                node.settle();
                let (holder, report) = (node.holder, node.report());
                self.dealer_hears(holder, &report);
                self.make_anchor(holder);
                for (holder, share) in std::mem::take(&mut self.to_nodes) {
                    if let Some(node) = self.nodes.iter_mut().find(|node| node.holder == holder) {
                        node.hear(&share);
                    }
                }
            }
        }
    }
}
