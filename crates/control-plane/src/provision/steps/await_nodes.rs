//! Await nodes: until no data plane serves or dials the old URL. A forced rotation waits for none, and says whom it cut off.

use async_trait::async_trait;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};

use super::{Step, StepError};
use crate::provision::work::Work;
use crate::registry::change::Change;
use crate::registry::entities::operations;

/// Data planes named in a note, at most.
const NAMED: usize = 10;

pub(super) struct AwaitNodes;

#[async_trait]
impl Step for AwaitNodes {
    fn name(&self) -> &'static str {
        "await_nodes"
    }

    async fn run(&self, work: &Work) -> Result<(), StepError> {
        let behind = work.nodes_behind().await?;
        if !behind.is_empty() && !work.lease.operation().is_forced {
            return Err(StepError::awaiting(&behind));
        }
        work.note_cut_off(behind);
        Ok(())
    }

    async fn record(&self, work: &Work, change: &mut Change) -> Result<(), StepError> {
        let behind = work.cut_off();
        if behind.is_empty() {
            return Ok(());
        }
        let named: Vec<String> = behind.iter().take(NAMED).map(ToString::to_string).collect();
        let more = if behind.len() > NAMED { " and more" } else { "" };
        let note = format!(
            "forced: data planes that had not taken the new URL yet were cut off ({}): {}{more}",
            behind.len(),
            named.join(", ")
        );
        operations::Entity::update_many()
            .col_expr(operations::Column::Note, Expr::value(note))
            .filter(operations::Column::Id.eq(work.lease.operation().id))
            .exec(change.db())
            .await?;
        Ok(())
    }
}
