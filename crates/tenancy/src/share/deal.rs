//! The dealer: who gets how much of a budget. By need, with the least that is of use for each holder before anybody has more.

use super::{FLOOR, Holding};

/// Deals a budget to its holders, and answers whether any grant changed. While all have what they need, no share shrinks.
///
/// Shrunk shares are granted at once; what they free is granted to others only once their holders gave it up. A new grant has a
/// number that no grant had before, also where a registry has forgotten some: at least `now`, milliseconds since 1970.
pub fn deal(budget: u32, holdings: &mut [Holding], now: u64) -> bool {
    holdings.sort_by_key(|holding| holding.holder);
    let before: Vec<u32> = holdings.iter().map(|holding| holding.share).collect();
    let dealt: u64 = before.iter().map(|share| u64::from(*share)).sum();
    let is_short = holdings.iter().any(|holding| holding.share < holding.wanted.max(FLOOR));
    let mut targets = if is_short || dealt > u64::from(budget) { by_need(budget, holdings) } else { before.clone() };
    spread(budget, &mut targets);
    let held: u64 = holdings.iter().map(|holding| u64::from(holding.held)).sum();
    let mut left = u32::try_from(u64::from(budget).saturating_sub(held)).unwrap_or(u32::MAX);
    for (holding, target) in holdings.iter_mut().zip(targets) {
        // What it may still have of an earlier share takes nothing from others.
        let possible = target.min(holding.held.saturating_add(left));
        // Of less than the least it could use nothing, and others could.
        holding.share = if possible < FLOOR { 0 } else { possible };
        let more = holding.share.saturating_sub(holding.held);
        left -= more;
        holding.held += more;
    }
    let mut is_changed = false;
    for (holding, before) in holdings.iter_mut().zip(before) {
        if holding.share != before || holding.is_unknown {
            holding.grant = now.max(holding.grant + 1);
            holding.is_unknown = false;
            is_changed = true;
        }
    }
    is_changed
}

/// What each holder needs: the smallest needs whole, and of the rest the same for all. The least for each comes first. Where there
/// is not enough for that, some get nothing: those that need nothing before those that do, and of each those that have nothing
/// before those that have.
fn by_need(budget: u32, holdings: &[Holding]) -> Vec<u32> {
    let mut left = budget;
    let mut order: Vec<usize> = (0..holdings.len()).collect();
    order.sort_by_key(|at| holdings[*at].wanted);
    let mut targets = vec![0; holdings.len()];
    let mut first = order.clone();
    first.sort_by_key(|at| (holdings[*at].wanted == 0, holdings[*at].share == 0));
    for at in first.into_iter().take((budget / FLOOR) as usize) {
        targets[at] = FLOOR;
        left -= FLOOR;
    }
    order.retain(|at| targets[*at] > 0);
    let mut others = u32::try_from(order.len()).unwrap_or(u32::MAX);
    for at in order {
        let fair = left / others.max(1);
        let more = holdings[at].wanted.saturating_sub(targets[at]).min(fair);
        targets[at] += more;
        left -= more;
        others -= 1;
    }
    targets
}

/// Deals out what is not needed now: a holder that comes to need it need not ask.
fn spread(budget: u32, targets: &mut [u32]) {
    let dealt: u32 = targets.iter().sum();
    let left = budget.saturating_sub(dealt);
    let served = targets.iter_mut().filter(|target| **target > 0);
    let served: Vec<&mut u32> = served.collect();
    let others = u32::try_from(served.len()).unwrap_or(u32::MAX);
    for (at, target) in (0..).zip(served) {
        // The remainder goes to the first.
        *target += left / others + u32::from(at < left % others);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn holding(number: u128, share: u32, wanted: u32) -> Holding {
        let (holder, held) = (Uuid::from_u128(number), share);
        Holding { holder, grant: 1, share, held, wanted, is_unknown: false, is_fenced: false }
    }

    fn shares(holdings: &[Holding]) -> Vec<u32> {
        holdings.iter().map(|holding| holding.share).collect()
    }

    #[test]
    fn one_node_has_all_and_a_second_gets_its_part_as_the_first_gives_way() {
        let mut holdings = vec![holding(1, 0, 0)];
        assert!(deal(90, &mut holdings, 0));
        assert_eq!(shares(&holdings), [90]);
        assert!(!deal(90, &mut holdings, 0), "nothing changes by itself");
        holdings[0].wanted = 90;
        holdings.push(holding(2, 0, 20));
        assert!(deal(90, &mut holdings, 0));
        assert_eq!(shares(&holdings), [70, 0], "nothing is granted that another may still have");
        holdings[0].held = 89;
        deal(90, &mut holdings, 0);
        assert_eq!(shares(&holdings), [70, 0], "one alone is of no use");
        holdings[0].held = 88;
        deal(90, &mut holdings, 0);
        assert_eq!(shares(&holdings), [70, 2], "the first that come free");
        holdings[0].held = 70;
        deal(90, &mut holdings, 0);
        assert_eq!(shares(&holdings), [70, 20]);
    }

    #[test]
    fn small_needs_are_met_and_large_ones_share_the_rest() {
        let mut holdings = vec![holding(1, 0, 100), holding(2, 0, 3), holding(3, 0, 100)];
        deal(43, &mut holdings, 0);
        assert_eq!(shares(&holdings), [20, 3, 20]);
    }

    #[test]
    fn where_there_are_more_nodes_than_connections_some_have_none() {
        let mut holdings: Vec<_> = (1..=5).map(|number| holding(number, 0, 10)).collect();
        deal(7, &mut holdings, 0);
        assert_eq!(shares(&holdings), [2, 2, 3, 0, 0]);
        let mut holdings = vec![holding(1, 0, 10)];
        deal(1, &mut holdings, 0);
        assert_eq!(shares(&holdings), [0], "its anchor alone would serve nobody");
    }

    #[test]
    fn where_not_all_can_have_some_those_that_serve_come_first() {
        // The order of holders is that of their starts.
        let mut holdings = vec![holding(1, 0, 0), holding(2, 0, 5), holding(3, 4, 3), holding(4, 0, 9)];
        deal(4, &mut holdings, 0);
        assert_eq!(shares(&holdings), [0, 0, 2, 0], "one keeps some, and the other part is not free yet");
        holdings[2].held = 2;
        deal(4, &mut holdings, 0);
        assert_eq!(shares(&holdings), [0, 2, 2, 0]);
        // One that needs nothing gives way to one that does.
        holdings[1].wanted = 0;
        deal(4, &mut holdings, 0);
        assert_eq!(shares(&holdings), [0, 0, 2, 0]);
        holdings[1].held = 0;
        deal(4, &mut holdings, 0);
        assert_eq!(shares(&holdings), [0, 0, 2, 2]);
    }

    #[test]
    fn a_smaller_budget_shrinks_all() {
        let mut holdings = vec![holding(1, 50, 50), holding(2, 40, 10)];
        deal(30, &mut holdings, 0);
        assert_eq!(shares(&holdings), [20, 10]);
    }
}
