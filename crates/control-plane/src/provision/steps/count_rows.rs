//! Count rows: notes how much is about to be destroyed, for the record of erasure.

use std::time::Duration;

use async_trait::async_trait;
use sea_orm::sea_query::OnConflict;
use sea_orm::{ActiveValue::Set, ColumnTrait, EntityTrait, QueryFilter};
use tokio::time::timeout;

use super::{Step, StepError};
use crate::provision::work::Work;
use crate::registry::change::Change;
use crate::registry::entities::{databases, erasures};

/// Well within the time of one attempt.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct CountRows;

#[async_trait]
impl Step for CountRows {
    fn name(&self) -> &'static str {
        "count_rows"
    }

    async fn run(&self, work: &Work) -> Result<(), StepError> {
        let Some(database) = work.database().await? else { return Ok(()) };
        let (engine, name) = (&database.engine, &database.name);
        // One that is gone already is no reason to keep the rest.
        if !engine.has_database(name).await? || engine.is_invalid(name).await? {
            return Ok(());
        }
        let entered = work.entered().await?;
        // How much it was is worth some time, and no more: the data must go, however much it is.
        let counts = match timeout(PATIENCE, entered.count_rows()).await {
            Ok(counts) => counts?.into(),
            Err(_) => "not counted: it took too long".into(),
        };
        drop(entered);
        work.leave().await;
        work.note_row_counts(counts);
        Ok(())
    }

    async fn record(&self, work: &Work, change: &mut Change) -> Result<(), StepError> {
        let found = databases::Entity::find().filter(databases::Column::TenantId.eq(work.tenant_id()));
        let database = found.one(change.db()).await?;
        let server = match &database {
            Some(database) => Some(work.server_row(change.db(), database.server_id).await?.name),
            None => None,
        };
        let operation = work.lease.operation();
        let row = erasures::ActiveModel {
            tenant_id: Set(work.tenant_id()),
            requested_by: Set(operation.requested_by.clone()),
            requested_at: Set(operation.created_at),
            erased_at: Set(None),
            server: Set(server),
            database: Set(database.map(|database| database.name)),
            row_counts: Set(work.row_counts()),
        };
        let again = OnConflict::column(erasures::Column::TenantId)
            .update_columns([erasures::Column::RowCounts, erasures::Column::RequestedBy, erasures::Column::RequestedAt])
            .to_owned();
        erasures::Entity::insert(row).on_conflict(again).exec_without_returning(change.db()).await?;
        Ok(())
    }
}
