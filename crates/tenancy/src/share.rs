//! Shares of a server's connection budget: how the control plane deals them out, and how a node keeps to its own.
//!
//! What all holders may have open never exceeds the budget, whatever messages are lost, late, repeated or reordered, and
//! whoever dies. The dealer counts for each holder the most that it may still have ([`Holding::held`]). It lowers that figure
//! only when the holder says so in answer to its newest grant, or when the server shows that the holder is gone. It raises a
//! share only within what is left.

mod deal;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

pub use deal::deal;

/// A node's share of one server, as the control plane tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Share {
    /// The server's name.
    pub server: String,
    /// The number of this grant: a later one replaces it, whatever arrives first.
    pub grant: u64,
    /// Connections that the node may have open there.
    pub connections: u32,
    /// Connections that the node may open there in a second.
    pub connect_rate: u32,
}

/// What a server's sessions of this process are called: how the server shows that none is left.
pub fn application_name(holder: Uuid) -> String {
    format!("freehold-data-plane {}", holder.simple())
}

/// What a node says of its share of one server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ShareReport {
    /// The server's name.
    #[schema(max_length = 63)]
    pub server: String,
    /// The newest grant that the node keeps to; 0 before the first.
    pub grant: u64,
    /// The node has no more connections than this there, and opens none beyond its grant.
    pub at_most: u32,
    /// Connections that the node could use.
    pub wanted: u32,
}

/// What a node keeps to on one server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The newest grant that was heard.
    pub grant: u64,
    /// What it allows.
    pub connections: u32,
}

impl Kept {
    /// Takes in a grant, unless it is older than what is known. Answers whether it was news.
    pub fn hear(&mut self, share: &Share) -> bool {
        let is_news = share.grant > self.grant;
        if is_news {
            *self = Self { grant: share.grant, connections: share.connections };
        }
        is_news
    }

    /// What the node says, with so many connections that exist or may still exist there.
    pub fn report(&self, server: &str, open: u32, wanted: u32) -> ShareReport {
        let at_most = self.connections.max(open);
        ShareReport { server: server.to_owned(), grant: self.grant, at_most, wanted }
    }
}

/// One process' part of a server's budget, as the dealer counts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The process; another one after each start of a node.
    pub holder: Uuid,
    /// The number of the newest grant.
    pub grant: u64,
    /// What the newest grant allows.
    pub share: u32,
    /// The most that the holder may still have open.
    pub held: u32,
    /// Connections that the holder could use.
    pub wanted: u32,
    /// The holder keeps to a grant that the dealer does not know, and is due a new one.
    pub is_unknown: bool,
}

impl Holding {
    /// A holder that was not known. One that has heard a grant is of a past that the registry has forgotten, and keeps what it has.
    pub const fn new(holder: Uuid, report: &ShareReport) -> Self {
        let held = if report.grant == 0 { 0 } else { report.at_most };
        Self { holder, grant: report.grant, share: 0, held, wanted: report.wanted, is_unknown: report.grant != 0 }
    }

    /// Takes in what the holder says. Answers whether anything changed.
    pub fn hear(&mut self, report: &ShareReport) -> bool {
        let before = self.clone();
        self.wanted = report.wanted;
        if report.grant > self.grant {
            // The registry was restored from before that grant: what the holder has, it has.
            self.grant = report.grant;
            self.held = self.held.max(report.at_most);
            self.is_unknown = true;
        } else if report.grant == self.grant {
            // Said of this very grant: never more again. What was said earlier and comes later is larger.
            self.held = self.held.min(report.at_most.max(self.share));
        }
        *self != before
    }
}

#[cfg(test)]
mod tests;
