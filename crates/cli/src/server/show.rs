//! `freehold server show`: a server's fields, the share of its connections that each data plane has, and in words what is
//! wrong with them.

use std::fmt::Write as _;

use anyhow::Result;
use serde::Deserialize;
use tenancy::share::FLOOR;

use super::Server;
use crate::client::{Client, path};
use crate::output::Output;
use crate::table::{Table, or_nothing};

/// A server, and how its connections are used.
#[derive(Deserialize)]
struct Shown {
    #[serde(flatten)]
    server: Server,
    /// None of files.
    connections: Option<Connections>,
}

/// How a server's connections are used.
#[derive(Deserialize)]
struct Connections {
    budget: u64,
    #[serde(default)]
    reserve: u64,
    #[serde(default)]
    reserve_needed: u64,
    #[serde(default)]
    reserve_closing: u64,
    /// None if the server does not answer; so `open`, here and of each share.
    server_limit: Option<u64>,
    open: Option<u64>,
    #[serde(default)]
    shares: Vec<NodeShare>,
}

/// One data plane's share.
#[derive(Deserialize)]
struct NodeShare {
    node: String,
    share: u64,
    #[serde(default)]
    held: u64,
    #[serde(default)]
    wanted: u64,
    open: Option<u64>,
    is_anchored: Option<bool>,
    #[serde(default)]
    is_leaving: bool,
}

/// What is wrong with how a server's connections are used, in words; nothing if nothing is, or if it cannot be asked now.
pub(super) fn warnings(client: &Client, name: &str) -> String {
    let shown = client.get(&path(["servers", name])).and_then(|answer| answer.json::<Shown>("server"));
    shown.ok().and_then(|shown| shown.connections).map(|connections| connections.warnings()).unwrap_or_default()
}

pub(super) fn run(client: &Client, output: Output, name: &str) -> Result<()> {
    let answer = client.get(&path(["servers", name]))?;
    let shown: Shown = answer.json("server")?;
    output.show(answer.text(), || shown.text())
}

impl Shown {
    fn text(&self) -> String {
        let mut facts = self.server.facts();
        let Some(connections) = &self.connections else { return facts.to_string() };
        connections.add_to(&mut facts);
        let mut text = facts.to_string();
        if connections.shares.is_empty() {
            text.push_str("\nno data plane has a share yet; each gets one when it first reaches a control plane\n");
        } else {
            let _ = write!(text, "\n{}", connections.table());
        }
        text.push_str(&connections.warnings());
        text
    }
}

impl Connections {
    fn add_to(&self, facts: &mut Table) {
        facts.row(["reserve needed", &self.reserve_needed.to_string()]);
        facts.row(["kept for closing", &self.reserve_closing.to_string()]);
        for (what, number) in [("server limit", self.server_limit), ("open sessions", self.open)] {
            let number = number.map(|number| number.to_string());
            facts.row([what, number.as_deref().unwrap_or("unknown: the server does not answer")]);
        }
    }

    fn table(&self) -> Table {
        let mut table = Table::of(["NODE", "SHARE", "HELD", "WANTED", "OPEN", "ANCHOR", "LEAVING"]);
        for it in &self.shares {
            let [share, held, wanted] = [it.share, it.held, it.wanted].map(|number| number.to_string());
            let open = it.open.map(|open| open.to_string());
            let yes = |is_so: bool| if is_so { "yes" } else { "no" };
            let (anchor, leaving) = (or_nothing(it.is_anchored.map(yes)), yes(it.is_leaving));
            table.row([&it.node, &share, &held, &wanted, or_nothing(open.as_deref()), anchor, leaving]);
        }
        table
    }

    /// What is wrong, after an empty line; nothing if nothing is.
    fn warnings(&self) -> String {
        let all = [self.crowd(), self.others(), self.little(), self.much(), self.closing()];
        let lines: Vec<String> = all.into_iter().flatten().collect();
        if lines.is_empty() { String::new() } else { format!("\n{}\n", lines.join("\n")) }
    }

    /// More sessions may be ending at once than control planes leave room for.
    fn closing(&self) -> Option<String> {
        let (reserve, closing) = (self.reserve, self.reserve_closing);
        (closing > reserve).then(|| {
            format!(
                "at this connect_rate {closing} sessions may be ending at once, and the reserve is {reserve}: lower --connect-rate, or set \
                 a larger --reserve and a connection_budget that leaves room for it"
            )
        })
    }

    /// Some data plane has no connection, because there are fewer than all data planes need at least.
    fn crowd(&self) -> Option<String> {
        let staying: Vec<&NodeShare> = self.shares.iter().filter(|share| !share.is_leaving).collect();
        let without = staying.iter().filter(|share| share.share == 0).count();
        let (nodes, budget) = (staying.len(), self.budget);
        let least = u64::try_from(nodes).unwrap_or(u64::MAX).saturating_mul(FLOOR.into());
        (without > 0 && budget < least).then(|| {
            format!(
                "too few connections: {nodes} data planes need {FLOOR} each and share a budget of {budget}, so {without} got \
                 none; raise connection_budget or run fewer"
            )
        })
    }

    /// Control planes have fewer than one of them may need at once. A small server leaves them half of what it takes by default.
    fn little(&self) -> Option<String> {
        let (reserve, needed) = (self.reserve, self.reserve_needed);
        let usual = needed.min(self.server_limit? / 2);
        (reserve < usual).then(|| {
            format!(
                "one control plane may need {needed} connections at once and {reserve} are kept for them: rollouts work on fewer \
                 databases there at once, and other work may have to be tried again; set another --reserve, and a connection_budget \
                 that leaves room for it"
            )
        })
    }

    /// Budget and reserve are more than there is.
    fn much(&self) -> Option<String> {
        let (limit, sum) = (self.server_limit?, self.budget + self.reserve);
        (limit < sum).then(|| {
            format!(
                "connection_budget and reserve are {sum} together, and the server takes {limit}: lower one of them, or raise the \
                 server's max_connections"
            )
        })
    }

    /// Others than data planes have so many sessions that the budget does not fit beside them. What fits into the reserve is the control
    /// planes' own: if the budget does not fit beside the reserve, that is told by itself.
    fn others(&self) -> Option<String> {
        let (limit, open) = (self.server_limit?, self.open?);
        let own: u64 = self.shares.iter().filter_map(|share| share.open).sum();
        let others = open.saturating_sub(own);
        let (left, budget) = (limit.saturating_sub(others), self.budget);
        (left < budget && others > self.reserve).then(|| {
            format!(
                "others use {others} connections of the server: they leave {left} of {limit}, and the budget is {budget}; \
                 close some of theirs or lower connection_budget (control planes count as others)"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server of two connections, for these shares: share, open, `is_leaving`.
    fn shown(server_limit: Option<u64>, open: Option<u64>, shares: &[(u64, Option<u64>, bool)]) -> Shown {
        let server = r#"{"id":"01a2","name":"local","engine":"postgres","region":"here","state":"open","capacity":1000,
            "connection_budget":2,"reserve":28,"connect_rate":200,"warm":2,"created_at":"2026-11-24T14:34:39.584503Z","databases":5,
            "ready":2,"connections":{"budget":2,"reserve":28,"reserve_needed":28,"reserve_closing":4,"new":[]}}"#;
        let mut shown: Shown = serde_json::from_str(server).unwrap();
        let connections = shown.connections.as_mut().unwrap();
        connections.server_limit = server_limit;
        connections.open = open;
        connections.shares = (1..)
            .zip(shares)
            .map(|(node, &(share, open, is_leaving))| NodeShare {
                node: format!("01b{node}"),
                share,
                held: share,
                wanted: 4,
                open,
                is_anchored: open.map(|open| open > 0),
                is_leaving,
            })
            .collect();
        shown
    }

    #[test]
    fn sessions_that_fit_into_the_reserve_are_the_control_planes_own() {
        let others = |open| warnings(&shown(Some(30), Some(open), &[(2, Some(2), false)])).1;
        assert_eq!(others(30), None, "28 are reserved, and leave room for the budget");
        assert!(others(31).is_some());
        // What does not fit is the reserve itself.
        let shown = shown(Some(10), Some(12), &[(2, Some(2), false)]);
        assert_eq!(warnings(&shown).1, None);
        assert!(shown.text().contains("connection_budget and reserve are 30 together, and the server takes 10"));
    }

    #[test]
    fn a_reserve_that_is_too_small_for_the_connect_rate_is_told_of() {
        let mut shown = shown(Some(100), Some(4), &[(2, Some(2), false)]);
        assert_eq!(shown.connections.as_ref().unwrap().warnings(), "");
        shown.connections.as_mut().unwrap().reserve_closing = 200;
        let text = shown.text();
        assert!(text.ends_with("a larger --reserve and a connection_budget that leaves room for it\n"), "{text}");
    }

    fn warnings(shown: &Shown) -> (Option<String>, Option<String>) {
        let connections = shown.connections.as_ref().unwrap();
        (connections.crowd(), connections.others())
    }

    #[test]
    fn a_server_is_shown_with_its_shares_and_with_what_is_wrong() {
        let shares = [(2, Some(1), false), (0, Some(0), false), (0, Some(0), false), (0, Some(2), true)];
        insta::assert_snapshot!(shown(Some(30), Some(33), &shares).text(), @r"
        name               local
        id                 01a2
        engine             postgres
        region             here
        state              open
        capacity           1000
        databases          5
        warm               2
        ready              2
        connection budget  2
        reserve            28
        connect rate       200
        created            2026-11-24T14:34:39Z
        reserve needed     28
        kept for closing   4
        server limit       30
        open sessions      33

        NODE  SHARE  HELD  WANTED  OPEN  ANCHOR  LEAVING
        01b1  2      2     4       1     yes     no
        01b2  0      0     4       0     no      no
        01b3  0      0     4       0     no      no
        01b4  0      0     4       2     yes     yes

        too few connections: 3 data planes need 2 each and share a budget of 2, so 2 got none; raise connection_budget or run fewer
        others use 30 connections of the server: they leave 0 of 30, and the budget is 2; close some of theirs or lower connection_budget (control planes count as others)
        ");
    }

    #[test]
    fn a_server_that_does_not_answer_is_shown_without_what_it_would_tell() {
        let text = shown(None, None, &[(2, None, false)]).text();
        let (_, told) = text.split_once("closing   4\n").unwrap();
        insta::assert_snapshot!(told, @r"
        server limit       unknown: the server does not answer
        open sessions      unknown: the server does not answer

        NODE  SHARE  HELD  WANTED  OPEN  ANCHOR  LEAVING
        01b1  2      2     4       -     -       no
        ");
        assert!(
            shown(Some(30), Some(0), &[])
                .text()
                .ends_with("\n\nno data plane has a share yet; each gets one when it first reaches a control plane\n")
        );
    }

    #[test]
    fn data_planes_without_a_share_are_told_only_where_the_budget_is_too_small_for_them() {
        let crowd = |shares: &[(u64, Option<u64>, bool)]| warnings(&shown(None, None, shares)).0;
        // As many connections as it needs: the dealer has not come to it yet.
        assert_eq!(crowd(&[(0, None, false)]), None);
        // One that leaves needs none.
        assert_eq!(crowd(&[(2, None, false), (0, None, true)]), None);
        assert!(crowd(&[(2, None, false), (0, None, false)]).is_some());
    }

    #[test]
    fn sessions_of_others_are_told_only_where_the_budget_does_not_fit_beside_them() {
        let others = |open, own| warnings(&shown(Some(30), Some(open), &[(2, Some(own), false)])).1;
        assert_eq!(others(28, 0), None);
        assert_eq!(others(30, 2), None);
        assert!(others(29, 0).unwrap().starts_with("others use 29 connections of the server: they leave 1 of 30,"));
        assert!(others(31, 2).is_some());
        assert!(others(40, 0).unwrap().starts_with("others use 40 connections of the server: they leave 0 of 30,"));
    }

    #[test]
    fn a_reserve_is_told_that_is_too_small_or_does_not_fit() {
        let mut shown = shown(Some(60), Some(0), &[]);
        let connections = shown.connections.as_mut().unwrap();
        assert_eq!((connections.little(), connections.much()), (None, None));
        (connections.reserve_needed, connections.budget) = (29, 33);
        let little = connections.little().unwrap();
        assert!(little.starts_with("one control plane may need 29 connections at once and 28 are kept"), "{little}");
        let much = connections.much().unwrap();
        assert!(much.starts_with("connection_budget and reserve are 61 together, and the server takes 60"), "{much}");
    }

    #[test]
    fn a_server_of_files_has_no_connections() {
        let files: Shown = serde_json::from_str(r#"{"name":"files","engine":"sqlite"}"#).unwrap();
        assert_eq!(files.text(), files.server.facts().to_string());
    }
}
