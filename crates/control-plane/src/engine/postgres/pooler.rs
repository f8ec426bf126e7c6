//! The way of data planes to a server, which may lead through a pooler: whether it keeps a session for its client.
//!
//! A data plane keeps prepared statements and settings in its sessions, and a product may keep locks and temporary tables there.
//! A pooler that gives each transaction another session loses them, and shows one client what another one set.

use sea_orm::sqlx::postgres::{PgConnectOptions, PgConnection};
use sea_orm::sqlx::{self, AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, Row as _};
use sea_orm::{DbErr, RuntimeErr};
use secrecy::{ExposeSecret as _, SecretString};
use tokio_util::task::AbortOnDropHandle;

use super::session::application_name;
use crate::engine::{EngineError, Worker};

/// Looks of each of the two sessions.
const ROUNDS: usize = 3;
/// Longest part of a pooler's own words that is told.
const LONGEST_WORDS: usize = 200;
const WHAT: &str = "log in by the address for data planes";

/// One session as a data plane begins it: with no setting that a pooler does not know.
pub(super) async fn log_in(url: &SecretString, worker: Worker) -> Result<PgConnection, DbErr> {
    let failed = |error: sqlx::Error| DbErr::Conn(RuntimeErr::SqlxError(std::sync::Arc::new(error)));
    let options: PgConnectOptions = url.expose_secret().parse().map_err(failed)?;
    let options =
        options.application_name(&application_name(worker.id)).extra_float_digits(None).disable_statement_logging();
    // In a task of its own: the driver computes the proof of a password in many turns, and in each all is polled that is around it.
    let connecting = AbortOnDropHandle::new(tokio::spawn(async move { options.connect().await }));
    let connected = tokio::time::timeout(worker.patience, connecting).await;
    match connected {
        Ok(Ok(connected)) => connected.map_err(failed),
        Ok(Err(error)) => Err(DbErr::Custom(error.to_string())),
        Err(_) => Err(failed(sqlx::Error::PoolTimedOut)),
    }
}

/// Refuses a way whose pooler gives a client's transactions to different sessions.
pub(super) async fn check(url: &SecretString, worker: Worker) -> Result<(), EngineError> {
    let (mut one, mut other) = (enter(url, worker).await?, enter(url, worker).await?);
    let looked = tokio::time::timeout(worker.patience, look(&mut one, &mut other)).await;
    let keeps_sessions = match looked {
        Ok(looked) => looked.map_err(|error| told_of(&error))?,
        Err(_) => return Err(EngineError::unavailable("the address for data planes does not answer in time")),
    };
    let outcome = if keeps_sessions {
        Ok(())
    } else {
        let loses_statements = matches!(
            tokio::time::timeout(worker.patience, prepare(&mut one, &mut other)).await,
            Ok(Err(sqlx::Error::Database(_)))
        );
        let more =
            if loses_statements { ", and is too old for prepared statements, or has them switched off" } else { "" };
        Err(EngineError::refused(format!(
            "the pooler at the address for data planes pools transactions or statements{more}: settings, locks and prepared \
             statements of a session do not last there, and data planes need them; set its pool_mode to session"
        )))
    };
    for session in [one, other] {
        // Whether it closes well does not matter.
        let _ = tokio::time::timeout(worker.patience, session.close()).await;
    }
    outcome
}

async fn enter(url: &SecretString, worker: Worker) -> Result<PgConnection, EngineError> {
    log_in(url, worker).await.map_err(|error| match &error {
        DbErr::Conn(RuntimeErr::SqlxError(error)) if matches!(error.as_ref(), sqlx::Error::Database(_)) => {
            told_of(error)
        }
        _ => EngineError::of(WHAT, error),
    })
}

/// What a pooler says is its administrator's to mend, who sees it nowhere else. It names no more than a login role.
fn told_of(error: &sqlx::Error) -> EngineError {
    let words = match error {
        sqlx::Error::Database(answer) => answer.message().chars().take(LONGEST_WORDS).collect(),
        _ => "the line broke".to_owned(),
    };
    EngineError::refused(format!("could not {WHAT}: {words}"))
}

/// Whether a pooler did not let a login role in. It has one code for all that it says, and no other language.
pub(super) fn is_login_refused(error: &DbErr) -> bool {
    let DbErr::Conn(RuntimeErr::SqlxError(error)) = error else { return false };
    let words = error.as_database_error().map(sqlx::error::DatabaseError::message).unwrap_or_default();
    ["authentication failed", "no such user", "no such database"].iter().any(|refused| words.contains(refused))
}

/// Whether each of two sessions is one all the time, and sees nothing of the other. Only in the protocol's simple form, for which
/// nothing has to last.
async fn look(one: &mut PgConnection, other: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let mark = uuid::Uuid::new_v4().to_string();
    let read = "SELECT pg_backend_pid(), coalesce(current_setting('freehold.probe', true), '')";
    let set = format!("SELECT pg_backend_pid(), set_config('freehold.probe', '{mark}', false)");
    let first = ask(one, &set).await?;
    for _ in 0..ROUNDS {
        let (process, setting) = ask(other, read).await?;
        if process == first.0 || setting == mark || ask(one, read).await? != first {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn ask(session: &mut PgConnection, sql: &str) -> Result<(i32, String), sqlx::Error> {
    let row = session.fetch_one(AssertSqlSafe(sql.to_owned())).await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

/// Whether prepared statements last.
async fn prepare(one: &mut PgConnection, other: &mut PgConnection) -> Result<(), sqlx::Error> {
    for _ in 0..ROUNDS {
        sqlx::query("SELECT 1").execute(&mut *one).await?;
        sqlx::query("SELECT 2").execute(&mut *other).await?;
    }
    Ok(())
}
