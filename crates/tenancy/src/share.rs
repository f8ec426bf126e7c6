//! Shares of a server's connection budget: how the control plane deals them out, and how a node keeps to its own.
//!
//! What all holders may have open never exceeds the budget, whatever messages are lost, late, repeated or reordered, and
//! whoever dies. The dealer counts for each holder the most that it may still have ([`Holding::held`]). It lowers that figure
//! only when the holder says so in answer to its newest grant, or when the server shows that the holder is gone. It raises a
//! share only within what is left.
//!
//! The server shows it by the holder's anchor: a session there that is one of its connections. A node opens connections only
//! while its anchor answers. Once the anchor has ended and none can begin, the holder's sessions there only become fewer.

mod deal;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

pub use deal::deal;

use crate::seal::{Purpose, Sealed, Subject};

/// The least that a share is worth giving: the anchor, and a connection to work with.
pub const FLOOR: u32 = 2;

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
    /// The node opens connections there only while this session lives, which is one of them. None: the control plane has not made
    /// it yet, and the node waits for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<Anchor>,
}

/// How a node opens its anchor session on a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Anchor {
    /// Another one after the control plane has barred the one before.
    pub id: Uuid,
    /// The URL of a login role that owns nothing, sealed for [`Anchor::subject`].
    pub sealed_url: Sealed,
}

impl Anchor {
    /// For whom the URL of an anchor is sealed.
    pub const fn subject(id: Uuid) -> Subject {
        Subject { purpose: Purpose::AnchorUrl, id, generation: 1 }
    }
}

/// What a server's sessions of this process are called: how the server shows that none is left. Its anchor has another name.
pub fn application_name(holder: Uuid) -> String {
    format!("freehold-data-plane {}", holder.simple())
}

/// What a server's anchor session of this process is called. 59 bytes of the 63 that a server keeps.
pub fn anchor_name(holder: Uuid) -> String {
    format!("{}/anchor", application_name(holder))
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
    /// The node opens connections there only while its anchor lives, for as long as it runs.
    // Not sent where there is none: a control plane that makes none may be of a version that knows of none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_anchored: bool,
}

impl ShareReport {
    /// Connections that the node may have open. One that was never told of an anchor has opened nothing, whatever it was granted.
    const fn may_be_open(&self) -> u32 {
        if self.is_anchored { self.at_most } else { 0 }
    }
}

/// What a node keeps to on one server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The newest grant that was heard.
    pub grant: u64,
    /// What it allows.
    pub connections: u32,
    /// A grant named an anchor. From then on the node needs one, whatever later grants say.
    pub is_anchored: bool,
}

impl Kept {
    /// Takes in a grant, unless it is older than what is known. Answers whether it was news.
    pub fn hear(&mut self, share: &Share) -> bool {
        let is_news = share.grant > self.grant;
        if is_news {
            let is_anchored = self.is_anchored || share.anchor.is_some();
            *self = Self { grant: share.grant, connections: share.connections, is_anchored };
        }
        is_news
    }

    /// What the node says, with so many connections that exist or may still exist there.
    pub fn report(&self, server: &str, open: u32, wanted: u32) -> ShareReport {
        let at_most = self.connections.max(open);
        ShareReport { server: server.to_owned(), grant: self.grant, at_most, wanted, is_anchored: self.is_anchored }
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
    /// Its anchor has ended and is barred: it opens nothing before it has heard of another one. Its share is not dealt.
    pub is_fenced: bool,
}

impl Holding {
    /// A holder that was not known. One that keeps to an anchor is of a past that the registry has forgotten, and keeps what it has.
    pub const fn new(holder: Uuid, report: &ShareReport) -> Self {
        let held = report.may_be_open();
        let (grant, wanted, is_unknown) = (report.grant, report.wanted, report.grant != 0);
        Self { holder, grant, share: 0, held, wanted, is_unknown, is_fenced: false }
    }

    /// Takes in what the holder says. Answers whether anything changed.
    pub fn hear(&mut self, report: &ShareReport) -> bool {
        let before = self.clone();
        self.wanted = report.wanted;
        if report.grant > self.grant {
            // The registry was restored from before that grant: what the holder has, it has.
            self.grant = report.grant;
            self.held = self.held.max(report.may_be_open());
            self.is_unknown = true;
        } else if self.is_fenced {
            // What it says it may have is of a grant that it can use no more: what the server showed holds.
            self.is_unknown = true;
        } else if report.grant == self.grant {
            // Said of this very grant: never more again. What was said earlier and comes later is larger.
            self.held = self.held.min(report.at_most.max(self.share));
        }
        self.is_fenced = false;
        *self != before
    }

    /// The server showed how many sessions a fenced holder has left, longer after its anchor was barred than a dial goes on.
    pub fn shrink(&mut self, sessions: u32) {
        self.held = self.held.min(sessions);
        if self.share > 0 {
            self.share = 0;
            // What it may say of the grant before means nothing any more.
            self.grant += 1;
        }
    }
}

#[cfg(test)]
mod tests;
