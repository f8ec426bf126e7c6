//! The admin's way to its server: one attempt to connect is shared by all who wait for it, and a failure is remembered for a
//! moment, so that a server which went silent costs many walks one wait, and not one after the other.
//!
//! While the admin's password is being rotated there are two URLs, and nobody knows which of them the server takes: both are
//! tried.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use sea_orm::{DatabaseConnection, DbErr};
use tokio::time::Instant;
use url::Url;

use super::session::{Session, connect, connect_with};
use super::{ADMIN_CONNECTIONS, AS_ADMIN};
use crate::engine::error::sqlstate;
use crate::engine::{EngineError, Worker};

/// How long a failure to connect is everybody's. Shorter than the waits between a step's later attempts.
const REMEMBERED: Duration = Duration::from_millis(500);
/// `invalid_password`.
const WRONG_PASSWORD: &str = "28P01";

/// A connection, and the URL that it was made by; or why there is none, and since when that is known.
type Outcome = Result<(DatabaseConnection, Arc<Url>), (DbErr, Instant)>;

/// By which URLs the admin may get in, and what came of the last attempt.
pub(super) struct Admin {
    worker: Worker,
    urls: Vec<Arc<Url>>,
    attempt: Mutex<Option<Shared<BoxFuture<'static, Outcome>>>>,
}

impl Admin {
    pub(super) fn new(url: Url, next: Option<Url>, worker: Worker) -> Self {
        Self { worker, urls: std::iter::once(url).chain(next).map(Arc::new).collect(), attempt: Mutex::default() }
    }

    /// The admin's own connections, outside of every tenant's database.
    pub(super) async fn connection(&self) -> Result<DatabaseConnection, EngineError> {
        self.connected().await.map(|(connection, _)| connection).map_err(|error| EngineError::of(AS_ADMIN, error))
    }

    /// One connection into another database of the server.
    pub(super) async fn enter(&self, database: &str, session: Session) -> Result<DatabaseConnection, DbErr> {
        let (_, url) = self.connected().await?;
        let into = |url: &Url| {
            let mut url = url.clone();
            url.set_path(database);
            String::from(url)
        };
        let entered = connect_with(&into(&url), self.worker, session).await;
        // Since it was connected, the password may have become the other.
        let other = self.urls.iter().find(|other| **other != url);
        match (entered, other) {
            (Err(error), Some(other)) if is_wrong_password(&error) => {
                connect_with(&into(other), self.worker, session).await
            }
            (entered, _) => entered,
        }
    }

    async fn connected(&self) -> Result<(DatabaseConnection, Arc<Url>), DbErr> {
        let attempt = {
            let mut last = self.attempt.lock().unwrap_or_else(PoisonError::into_inner);
            match &*last {
                Some(attempt) if !is_over(attempt) => attempt.clone(),
                _ => last.insert(self.begin()).clone(),
            }
        };
        attempt.await.map_err(|(error, _)| error)
    }

    /// Goes on by itself: whoever waits for it may give up.
    fn begin(&self) -> Shared<BoxFuture<'static, Outcome>> {
        let (urls, worker) = (self.urls.clone(), self.worker);
        let connecting = tokio::spawn(async move {
            let mut failed = DbErr::Custom("there is no URL".to_owned());
            for url in urls {
                match connect(url.as_str(), worker, ADMIN_CONNECTIONS).await {
                    Ok(connection) => return Ok((connection, url)),
                    Err(error) => {
                        let is_last = !is_wrong_password(&error);
                        failed = error;
                        if is_last {
                            break;
                        }
                    }
                }
            }
            Err((failed, Instant::now()))
        });
        let broken_off = |error| Err((DbErr::Custom(format!("connecting broke off: {error}")), Instant::now()));
        connecting.map(move |connected| connected.unwrap_or_else(broken_off)).boxed().shared()
    }
}

/// Whether it failed, and so long ago that another may be made.
fn is_over(attempt: &Shared<BoxFuture<'static, Outcome>>) -> bool {
    matches!(attempt.peek(), Some(Err((_, since))) if since.elapsed() >= REMEMBERED)
}

fn is_wrong_password(error: &DbErr) -> bool {
    sqlstate(error).as_deref() == Some(WRONG_PASSWORD)
}
