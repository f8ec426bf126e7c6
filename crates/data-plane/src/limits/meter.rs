//! One meter: how much of a quota is used on this node. Arithmetic alone; the clock is an argument.
//!
//! It is the generic cell rate algorithm: all that is kept is the time at which the whole burst is there again, `full_at`.
//! What lies between now and then is the debt, and a permit adds one interval to it. A node with a share of one in `n` adds
//! `n` intervals, so that the debt is the same length of time for the whole and for each share of it.
//!
//! It is our own and not governor's limiter, because three things are asked of it that a governor limiter cannot: it goes
//! on from any debt (governor's starts full, and its state can neither be read nor set), it changes its quota on the way,
//! and it takes batches out of one debt that several nodes share. A property test holds it against governor.

use super::answer::{Answer, Ask};
use super::quota::Quota;

const MILLISECOND: u64 = 1_000_000;
/// A batch is what is used in this time.
const HORIZON: u64 = 200 * MILLISECOND;
/// Permits of a batch that are not used by then are gone: whoever gave them counts on it.
pub(super) const LEASE: u64 = 1_000 * MILLISECOND;
/// Whoever was given less than it asked for does not ask again sooner than this, or than 1/64 of the burst takes.
const PACE: u64 = 20 * MILLISECOND;
/// And not later than this, whatever it was told: others may give permits back, or the quota may have grown.
const NEWS: u64 = 1_000 * MILLISECOND;

/// Who has the say over a meter at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// This node alone, over its share: one in so many.
    Share(u32),
    /// All nodes together; this one takes permits in batches.
    Leased,
}

/// What a meter says of one more request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// It may pass.
    May,
    /// Those who have the say must be asked.
    Ask,
    /// Not now.
    Wait,
}

/// How much of a quota is left, for who asks how long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) quota: Quota,
    /// Requests that would pass at once.
    pub(super) requests: u32,
    /// Until all of the burst is there again.
    pub(super) until_full: u64,
    /// Until the next request would pass; 0 if it would now.
    pub(super) until_next: u64,
}

/// How much of a quota is used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meter {
    quota: Quota,
    full_at: u64,
    /// So far the memory that all share knows of it; what is beyond this node used on its own since.
    told: u64,
    /// Which memory told it: after that was lost, another one.
    told_by: u64,
    /// Permits of the batch at hand, and until when they are good.
    left: u32,
    left_until: u64,
    /// The size of the last batch.
    batch: u32,
    /// Used since it was asked for, and when that was.
    used: u32,
    asked_at: u64,
    /// It is in vain to ask before.
    ask_from: u64,
    /// Whether the debt was told by those who have the say, and this node used nothing on its own since.
    is_leased: bool,
}

impl Meter {
    /// A meter with this debt, mostly none.
    pub(super) const fn new(quota: Quota, full_at: u64) -> Self {
        let batch = 1;
        Self {
            quota,
            full_at,
            told: full_at,
            told_by: 0,
            left: 0,
            left_until: 0,
            batch,
            used: 0,
            asked_at: 0,
            ask_from: 0,
            is_leased: false,
        }
    }

    /// When the whole burst is there again.
    pub(super) const fn full_at(&self) -> u64 {
        self.full_at
    }

    /// Goes on with another quota, owing as many requests as before. What a smaller burst cannot hold is forgiven: nobody
    /// waits for days for what it was allowed.
    pub(super) fn hold_to(&mut self, now: u64, quota: Quota) {
        if self.quota == quota {
            return;
        }
        let scaled = |at: u64| {
            let debt = u128::from(at.saturating_sub(now)) * u128::from(quota.interval);
            let debt = u64::try_from(debt.div_ceil(u128::from(self.quota.interval))).unwrap_or(u64::MAX);
            now + debt.min(quota.tolerance())
        };
        (self.full_at, self.told) = (scaled(self.full_at), scaled(self.told));
        self.quota = quota;
        self.left = self.left.min(quota.burst);
        self.ask_from = 0;
    }

    /// Goes on alone from what was told, if that was so. What others took since is not known:
    /// it is taken to be a batch each, and mostly is less.
    pub(super) fn part(&mut self, now: u64, nodes: u32) {
        if std::mem::take(&mut self.is_leased) {
            let others = u64::from(self.batch) * u64::from(nodes.saturating_sub(1));
            let taken = self.quota.interval.saturating_mul(others);
            self.told = (self.told.max(now) + taken).min(now + self.quota.tolerance());
            self.full_at = self.full_at.max(self.told);
        }
    }

    /// Whether one more request may pass. Nothing is taken yet.
    pub(super) fn look(&self, now: u64, standing: Standing) -> Look {
        if self.held(now) > 0 {
            return Look::May;
        }
        match standing {
            Standing::Share(nodes) if self.wait_for_share(now, nodes) == 0 => Look::May,
            Standing::Leased if now >= self.ask_from => Look::Ask,
            Standing::Share(_) | Standing::Leased => Look::Wait,
        }
    }

    /// Takes a permit, which a look has just seen. Says whether the batch at hand runs low.
    pub(super) fn take(&mut self, now: u64, standing: Standing) -> bool {
        self.used = self.used.saturating_add(1);
        if self.held(now) > 0 {
            self.left -= 1;
        } else if let Standing::Share(nodes) = standing {
            self.full_at = self.full_at.max(now) + self.share(nodes);
        }
        let is_low = self.batch >= 4 && self.left <= self.batch / 4;
        is_low && standing == Standing::Leased && now >= self.ask_from
    }

    /// The question to those who have the say. Permits beyond what is wanted are given back with it.
    pub(super) fn ask(&mut self, now: u64, nodes: u32) -> Ask {
        // A used batch says how fast they go; each is at most twice the one before, so that one burst is no habit.
        let passed = now.saturating_sub(self.asked_at).max(MILLISECOND);
        let rate = u64::from(self.used).saturating_mul(HORIZON) / passed;
        let most = self.batch.saturating_mul(2).min((self.quota.burst / 2).max(1));
        self.batch = u32::try_from(rate).unwrap_or(u32::MAX).clamp(1, most);
        (self.used, self.asked_at) = (0, now);
        let (held, left_until) = (self.held(now), now + LEASE);
        self.left = held.min(self.batch);
        self.question(now, nodes, held, self.batch, left_until)
    }

    /// A question for one permit, to be used at once.
    pub(super) fn ask_for_one(&self, now: u64, nodes: u32) -> Ask {
        self.question(now, nodes, 0, 1, 0)
    }

    /// Tells what this node knows of the debt, and asks for nothing. None: that memory knows it already.
    pub(super) fn tell(&self, now: u64, nodes: u32, memory: u64) -> Option<Ask> {
        let held = self.held(now);
        let is_news = self.full_at > now && (self.told_by != memory || self.full_at > self.told);
        is_news.then(|| self.question(now, nodes, held, held, if held > 0 { self.left_until } else { 0 }))
    }

    fn question(&self, now: u64, nodes: u32, held: u32, want: u32, left_until: u64) -> Ask {
        let own = self.full_at.saturating_sub(self.told.max(now)) / u64::from(nodes.max(1));
        let owed = self.told.saturating_sub(now);
        let (asked_at, full_at, told_by) = (now, self.full_at, self.told_by);
        Ask { quota: self.quota, asked_at, full_at, held, want, left_until, owed, told_by, own }
    }

    /// Takes in what was answered.
    pub(super) fn hear(&mut self, now: u64, ask: &Ask, answer: &Answer) {
        if ask.quota != self.quota {
            // The quota changed on the way. What was given is owed, and not used.
            return;
        }
        // What was used on the way of the question is not in its answer.
        let own = self.full_at.saturating_sub(ask.full_at.max(ask.asked_at));
        self.told = now + answer.debt;
        if ask.want == ask.held {
            // Others may not have told of theirs yet: this node goes on from what it owes itself, and has told that too.
            self.told = self.told.max(ask.full_at);
        }
        self.told_by = answer.memory;
        self.full_at = self.told + own;
        if ask.left_until > 0 {
            self.left += answer.granted;
            self.left_until = ask.left_until;
            self.is_leased = true;
        }
        self.ask_from = 0;
        if answer.granted < ask.want.saturating_sub(ask.held) {
            // A slow plan has so few permits that each may be asked for: its last one is not kept waiting.
            let is_slow = answer.granted > 0 && self.quota.interval >= PACE;
            let pace = if is_slow { 0 } else { PACE.min(self.quota.tolerance() / 64) };
            let wait = if self.left == 0 { self.wait_for_all(now).min(NEWS) } else { 0 };
            self.ask_from = now + wait.max(pace);
        }
    }

    /// What is left of the quota.
    pub(super) fn left(&self, now: u64, standing: Standing) -> Left {
        let debt = self.full_at.saturating_sub(now);
        let free = self.quota.tolerance().saturating_sub(debt);
        let (held, whole) = match standing {
            Standing::Share(nodes) => (self.held(now), self.share(nodes)),
            Standing::Leased => (self.held(now), self.quota.interval),
        };
        let requests = u32::try_from(free / whole).unwrap_or(u32::MAX).saturating_add(held);
        let until_next = match standing {
            _ if held > 0 => 0,
            Standing::Share(nodes) => self.wait_for_share(now, nodes),
            Standing::Leased => self.wait_for_all(now).max(self.ask_from.saturating_sub(now)),
        };
        Left { quota: self.quota, requests: requests.min(self.quota.burst), until_full: debt, until_next }
    }

    fn held(&self, now: u64) -> u32 {
        if now < self.left_until { self.left } else { 0 }
    }

    const fn share(&self, nodes: u32) -> u64 {
        self.quota.interval.saturating_mul(if nodes == 0 { 1 } else { nodes as u64 })
    }

    /// A share may be less than one request: it is one then, every so often.
    fn wait_for_share(&self, now: u64, nodes: u32) -> u64 {
        let (debt, share) = (self.full_at.saturating_sub(now), self.share(nodes));
        (debt.saturating_add(share)).saturating_sub(self.quota.tolerance().max(share))
    }

    fn wait_for_all(&self, now: u64) -> u64 {
        self.wait_for_share(now, 1)
    }
}

#[cfg(test)]
mod tests;
