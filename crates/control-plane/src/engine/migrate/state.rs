//! What a database says of its migrations, and what follows from it.

use std::collections::BTreeMap;

use sea_orm::sea_query::{Expr, Query};
use sea_orm::{
    ConnectionTrait, DatabaseExecutor, DbBackend, DbErr, ExprTrait, QueryResult, Statement, TransactionTrait,
};
use sea_orm_migration::MigrationTrait;

use super::Way;
use crate::engine::database::{MIGRATIONS, UNFINISHED, create_ours, has_table};
use crate::engine::{EngineError, postgres};

const WHAT: &str = "read which migrations the database has";

/// The migrations that a database has, in their order.
pub(super) struct State {
    pub(super) done: Vec<String>,
    /// One that was begun outside of a transaction, in either direction, and is not known to have ended.
    pub(super) begun: Option<(usize, String)>,
}

/// One migration in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Step {
    /// From 1.
    pub(super) position: usize,
    pub(super) is_up: bool,
    /// Whether the database says that it has it.
    pub(super) is_recorded: bool,
    /// Whether the database says that one is unfinished.
    pub(super) is_marked: bool,
}

impl State {
    /// Makes what it is read from where that is not there yet.
    pub(super) async fn read(db: &DatabaseExecutor<'_>, has_roles: bool) -> Result<Self, EngineError> {
        let failed = |error| EngineError::of(WHAT, error);
        match Self::find(db).await {
            Ok(state) => Ok(state),
            // Looked for when they are missed: they mostly are there.
            Err(_) if !has_table(db, UNFINISHED).await.map_err(failed)? => {
                prepare(db, has_roles).await?;
                Self::find(db).await.map_err(failed)
            }
            Err(error) => Err(failed(error)),
        }
    }

    async fn find(db: &DatabaseExecutor<'_>) -> Result<Self, DbErr> {
        let read = async |table| {
            db.query_all_raw(Statement::from_string(db.get_database_backend(), Self::select(table))).await
        };
        Self::of(&read(MIGRATIONS).await?, &read(UNFINISHED).await?)
    }

    /// Reads [`MIGRATIONS`] or [`UNFINISHED`]. Nothing else is asked for: a session that was just made looks up every operator,
    /// and a sort or a union of the two costs it as much as a migration's record.
    pub(super) fn select(table: &str) -> String {
        format!("SELECT position, name FROM {table}")
    }

    /// From the rows of both, in any order.
    pub(super) fn of(done: &[QueryResult], begun: &[QueryResult]) -> Result<Self, DbErr> {
        let read = |row: &QueryResult| Ok((row.try_get_by_index::<i32>(0)?, row.try_get_by_index::<String>(1)?));
        let sorted = |rows: &[QueryResult]| rows.iter().map(read).collect::<Result<BTreeMap<i32, String>, DbErr>>();
        let begun = sorted(begun)?.into_iter().next();
        Ok(Self {
            done: sorted(done)?.into_values().collect(),
            begun: begun.map(|(position, name)| (usize::try_from(position).unwrap_or_default(), name)),
        })
    }

    pub(super) async fn read_done(db: &DatabaseExecutor<'_>) -> Result<Vec<String>, EngineError> {
        let select = format!("SELECT name FROM {MIGRATIONS} ORDER BY position");
        let select = Statement::from_string(db.get_database_backend(), select);
        let rows = db.query_all_raw(select).await.map_err(|error| EngineError::of(WHAT, error))?;
        let names = rows.iter().map(|row| row.try_get_by_index(0)).collect::<Result<_, DbErr>>();
        names.map_err(|error| EngineError::of(WHAT, error))
    }

    /// Refuses what this program does not know.
    pub(super) fn check(&self, migrations: &[Box<dyn MigrationTrait>]) -> Result<(), EngineError> {
        let known = |position: usize| migrations.get(position).map(|migration| migration.name());
        let unknown = self.done.iter().enumerate().find(|(position, name)| known(*position) != Some(name.as_str()));
        let unknown = unknown.map(|(position, name)| (position + 1, name));
        let begun =
            self.begun.as_ref().filter(|(position, name)| known(position.wrapping_sub(1)) != Some(name.as_str()));
        match unknown.or(begun.map(|(position, name)| (*position, name))) {
            None => Ok(()),
            Some((position, name)) => Err(EngineError::refused(format!(
                "the database has the migration {name:?} in place {position}, and this program does not know it there: \
                 start the program that made it, or a newer one"
            ))),
        }
    }

    /// What is to be done, in this order.
    pub(super) fn steps(&self, to: usize, way: Way) -> Vec<Step> {
        let done = self.done.len();
        let is_marked = self.begun.is_some();
        let step = |position, is_up, is_recorded| Step { position, is_up, is_recorded, is_marked };
        let mut steps = Vec::new();
        match self.begun.as_ref().map(|(position, _)| *position) {
            // It was being taken back, and is wanted: what is gone of it is made again.
            Some(position) if position <= done && position <= to.max(if way == Way::Up { done } else { to }) => {
                steps.push(step(position, true, true));
            }
            // It was being taken, and is not wanted: what is there of it is taken back.
            Some(position) if position > done && position > to && way == Way::UpOrDown => {
                steps.push(step(position, false, false));
            }
            _ => {}
        }
        steps.extend((done + 1..=to).map(|position| step(position, true, false)));
        if way == Way::UpOrDown {
            steps.extend((to + 1..=done).rev().map(|position| step(position, false, true)));
        }
        steps
    }
}

impl Step {
    /// Writes that it was done, where that changes something; and that nothing is unfinished any more, where something was.
    pub(in crate::engine) async fn record(self, db: &impl ConnectionTrait, name: &str) -> Result<(), DbErr> {
        let position = i32::try_from(self.position).unwrap_or(i32::MAX);
        // Each with its values in it: the session runs it once, and to prepare it would be to send another message.
        let send = async |statement: Statement| db.execute_unprepared(&statement.to_string()).await.map(drop);
        let backend = db.get_database_backend();
        if self.is_up && !self.is_recorded {
            let insert = Query::insert()
                .into_table(MIGRATIONS)
                .columns(["position", "name"])
                .values_panic([position.into(), name.into()])
                .to_owned();
            send(backend.build(&insert)).await?;
        }
        if !self.is_up && self.is_recorded {
            let delete = Query::delete()
                .from_table(MIGRATIONS)
                .and_where(Expr::col("position").eq(position))
                .and_where(Expr::col("name").eq(name))
                .to_owned();
            send(backend.build(&delete)).await?;
        }
        if self.is_marked {
            db.execute_unprepared(&format!("DELETE FROM {UNFINISHED}")).await?;
        }
        Ok(())
    }
}

/// Whether the database was ever prepared for migrations.
pub(super) async fn has_records(db: &DatabaseExecutor<'_>) -> Result<bool, EngineError> {
    has_table(db, MIGRATIONS).await.map_err(|error| EngineError::of(WHAT, error))
}

/// Makes our own tables, which tenants may read and not change. A copy of a template has them; one that was made by an older
/// program lacks the youngest.
async fn prepare(db: &DatabaseExecutor<'_>, has_roles: bool) -> Result<(), EngineError> {
    let failed = |error| EngineError::of("prepare the database", error);
    // In one transaction, on either engine: none is ever there and open to tenants.
    let transaction = db.begin().await.map_err(failed)?;
    let is_postgres = transaction.get_database_backend() != DbBackend::Sqlite;
    transaction.execute_unprepared(&create_ours()).await.map_err(failed)?;
    if is_postgres && has_roles {
        transaction.execute_unprepared(&postgres::protect_ours()).await.map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(done: usize, begun: Option<usize>) -> State {
        let name = |position: usize| format!("m{position}");
        State { done: (1..=done).map(name).collect(), begun: begun.map(|position| (position, name(position))) }
    }

    fn told(steps: &[Step]) -> String {
        let step = |step: &Step| format!("{}{}", if step.is_up { "+" } else { "-" }, step.position);
        steps.iter().map(step).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn steps_lead_from_where_a_database_is_to_where_it_shall_be() {
        for (done, begun, to, way, steps) in [
            (0, None, 3, Way::UpOrDown, "+1 +2 +3"),
            (2, None, 2, Way::UpOrDown, ""),
            (3, None, 1, Way::UpOrDown, "-3 -2"),
            (3, None, 1, Way::Up, ""),
            // Begun, and gone on with.
            (2, Some(3), 3, Way::UpOrDown, "+3"),
            (3, Some(3), 2, Way::UpOrDown, "-3"),
            // Begun, and wanted no longer.
            (2, Some(3), 2, Way::UpOrDown, "-3"),
            (2, Some(3), 1, Way::UpOrDown, "-3 -2"),
            (3, Some(3), 3, Way::UpOrDown, "+3"),
            (3, Some(3), 4, Way::UpOrDown, "+3 +4"),
            (3, Some(3), 1, Way::Up, "+3"),
            (2, Some(3), 2, Way::Up, ""),
        ] {
            assert_eq!(told(&state(done, begun).steps(to, way)), steps, "{done} {begun:?} {to} {way:?}");
        }
    }
}
