//! A tenant's life as a typed machine.
//!
//! There is one table of allowed moves; nothing else in the project decides whether a move is legal.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where a tenant is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Its database is being built: no data plane knows of it.
    Provisioning,
    /// Served.
    Active,
    /// Refused, with its data kept.
    Suspended,
    /// Refused, and its data goes when the grace period ends.
    Deleting,
    /// Gone. A tombstone remains.
    Deleted,
    /// Building its database failed and was undone.
    Failed,
}

/// A move that the table does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a tenant that is {from} cannot become {to}")]
pub struct IllegalTransition {
    /// The status it has.
    pub from: Status,
    /// The status asked for.
    pub to: Status,
}

impl Status {
    /// Every status, in the order of a life.
    pub const ALL: [Self; 6] =
        [Self::Provisioning, Self::Active, Self::Suspended, Self::Deleting, Self::Deleted, Self::Failed];

    /// The statuses that may follow this one.
    pub const fn successors(self) -> &'static [Self] {
        match self {
            Self::Provisioning => &[Self::Active, Self::Failed],
            Self::Active => &[Self::Suspended, Self::Deleting],
            Self::Suspended => &[Self::Active, Self::Deleting],
            Self::Deleting => &[Self::Active, Self::Suspended, Self::Deleted],
            Self::Deleted => &[],
            Self::Failed => &[Self::Provisioning, Self::Deleted],
        }
    }

    /// The new status, or why it cannot be.
    pub fn become_(self, to: Self) -> Result<Self, IllegalTransition> {
        if self.successors().contains(&to) { Ok(to) } else { Err(IllegalTransition { from: self, to }) }
    }

    /// Whether data planes may know of a tenant in this status. A half-built tenant never routes.
    pub const fn is_visible(self) -> bool {
        matches!(self, Self::Active | Self::Suspended | Self::Deleting)
    }

    /// The word used in the API and in the registry.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "provisioning",
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Deleting => "deleting",
            Self::Deleted => "deleted",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No status has this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a status: use provisioning, active, suspended, deleting, deleted or failed")]
pub struct UnknownStatus;

impl FromStr for Status {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or(UnknownStatus)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_status() -> impl Strategy<Value = Status> {
        prop::sample::select(Status::ALL.to_vec())
    }

    #[test]
    fn the_table_is_the_design() {
        let moves: Vec<String> = Status::ALL
            .into_iter()
            .flat_map(|from| from.successors().iter().map(move |to| format!("{from}>{to}")))
            .collect();
        assert_eq!(
            moves,
            [
                "provisioning>active",
                "provisioning>failed",
                "active>suspended",
                "active>deleting",
                "suspended>active",
                "suspended>deleting",
                "deleting>active",
                "deleting>suspended",
                "deleting>deleted",
                "failed>provisioning",
                "failed>deleted",
            ]
        );
    }

    proptest! {
        #[test]
        fn deleted_is_for_ever_and_a_tenant_is_only_seen_after_it_was_active(walk in prop::collection::vec(any_status(), 0..40)) {
            let mut now = Status::Provisioning;
            let mut activated = false;
            for to in walk {
                let before = now;
                if let Ok(next) = now.become_(to) {
                    now = next;
                }
                activated |= now == Status::Active;
                prop_assert!(before != Status::Deleted || now == Status::Deleted);
                prop_assert!(!now.is_visible() || activated);
            }
        }

        #[test]
        fn names_are_read_back(status in any_status()) {
            prop_assert_eq!(status.as_str().parse::<Status>(), Ok(status));
            prop_assert_eq!(serde_json::to_value(status).unwrap(), serde_json::json!(status.as_str()));
        }
    }
}
