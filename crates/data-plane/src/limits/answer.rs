//! What a node asks of the memory that all nodes share, and what it is answered.

use super::quota::Quota;

/// A question about one meter. Times are nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    pub(super) quota: Quota,
    /// When it was asked, and what the meter said then.
    pub(super) asked_at: u64,
    pub(super) full_at: u64,
    /// Permits that the node has still.
    pub(super) held: u32,
    /// Permits that it wants to have.
    pub(super) want: u32,
    /// By the node's clock, until when what it has then is good; 0 for permits that are used at once.
    pub(super) left_until: u64,
    /// The debt as it was last told, less what time has paid. It counts only where nothing is remembered.
    pub(super) owed: u64,
    /// Which memory told it.
    pub(super) told_by: u64,
    /// What the node has added to the debt on its own since.
    pub(super) own: u64,
}

/// The answer to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    /// Permits that were given; the debt counts them.
    pub(super) granted: u32,
    /// The debt now, in nanoseconds.
    pub(super) debt: u64,
    /// Which memory answers.
    pub(super) memory: u64,
}
