//! What the registry itself lacks: revisions that nodes were given.

use sea_orm::DbErr;

use super::{Doctor, Finding, Kind};
use crate::registry::lost::Lost;

impl Doctor {
    /// The finding of a registry that lost part of its history.
    pub(super) async fn history(&self) -> Result<Option<Finding>, DbErr> {
        let lost = Lost::of(&self.plane.registry.history().await?);
        Ok(lost.map(|lost| {
            let remedy = "Stop the control planes and start one with --restored. If you know why they are missing, \
                          acknowledge it by POST /v1/epoch. Both begin another history, which holds every operation that \
                          has not ended until its retry.";
            let detail = format!("{lost}. It was restored from a backup. No tenant is deleted meanwhile.");
            Finding::new(Kind::HistoryLost, detail, remedy)
        }))
    }
}
