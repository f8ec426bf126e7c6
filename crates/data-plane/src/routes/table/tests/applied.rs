//! What a node calls applied: nothing that it serves, or has in use, was out of date by then.

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Change(u8, bool),
    Poll,
    Apply(usize),
    Ask(u8),
    Take(usize),
    /// A request begins with what the node serves of a tenant.
    Use(u8),
    /// The oldest request ends.
    End,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..5, prop::bool::weighted(0.1)).prop_map(|(number, gone)| Step::Change(number, gone)),
        4 => Just(Step::Poll),
        4 => any::<usize>().prop_map(Step::Apply),
        2 => (0u8..5).prop_map(Step::Ask),
        2 => any::<usize>().prop_map(Step::Take),
        3 => (0u8..5).prop_map(Step::Use),
        2 => Just(Step::End),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// An operation that waits until a node has applied a revision may then drop the database that the tenant had before it.
    #[test]
    fn nothing_that_was_out_of_date_by_then_is_served_or_in_use(steps in prop::collection::vec(step(), 0..120), page in 1usize..4) {
        let mut registry = Registry::new();
        let table = RouteTable::new(100);
        let mut line = Line::default();
        let now = Instant::now();
        // Who changed with each revision, from 1 on.
        let mut changed: Vec<u8> = Vec::new();
        let mut in_use: Vec<(u8, InUse)> = Vec::new();
        for step in steps {
            match step {
                Step::Change(number, is_gone) => {
                    registry.change(number, is_gone);
                    changed.push(number);
                }
                Step::Poll => line.answers.push(registry.feed(&table, page)),
                Step::Apply(which) if !line.answers.is_empty() => {
                    let (asked, answer) = line.answers.remove(which % line.answers.len());
                    table.apply(asked, answer, now);
                }
                Step::Ask(number) => line.routes.push((table.position(), registry.route(number))),
                Step::Take(which) if !line.routes.is_empty() => {
                    let (asked, answer) = line.routes.remove(which % line.routes.len());
                    table.take(asked, &answer);
                }
                Step::Use(number) => in_use.extend(table.get(tenant(number)).map(|served| (number, served))),
                Step::End if !in_use.is_empty() => drop(in_use.remove(0)),
                _ => {}
            }
            let applied = table.applied().0;
            let served = (0..5).filter_map(|number| Some((number, table.get(tenant(number))?.route.revision.0)));
            let used = in_use.iter().map(|(number, served)| (*number, served.route.revision.0));
            for (number, revision) in served.chain(used) {
                let later = changed.iter().skip(usize::try_from(revision).unwrap()).position(|other| *other == number);
                let out_of_date = later.map_or(u64::MAX, |later| revision + u64::try_from(later).unwrap() + 1);
                prop_assert!(applied < out_of_date, "{applied} is applied, and tenant {number} of {revision} was out of date by {out_of_date}");
            }
        }
    }
}
