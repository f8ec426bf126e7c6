//! Many rows are written in one statement, each with its own value.

use sea_orm::ColumnTrait;
use sea_orm::sea_query::{CaseStatement, Expr, SimpleExpr};
use uuid::Uuid;

/// The value that goes with a row's id. Of rows that the statement leaves out it says nothing.
pub(crate) fn each(id: impl ColumnTrait, values: impl IntoIterator<Item = (Uuid, impl Into<SimpleExpr>)>) -> Expr {
    let case = |of: CaseStatement, (row, value)| of.case(id.eq::<Uuid>(row), value);
    values.into_iter().fold(CaseStatement::new(), case).into()
}
