//! The registry's own database, made when it is absent.

use std::num::NonZeroU32;

use sea_orm::ConnectionTrait;
use secrecy::{ExposeSecret, SecretString};
use url::Url;
use uuid::Uuid;

use super::session::connect;
use super::{close, exists, run};
use crate::engine::{EngineError, Worker};

/// Makes the registry's own database when it is absent.
pub(crate) async fn ensure_database(admin: &SecretString, wanted: &SecretString) -> Result<(), EngineError> {
    let bad = || EngineError::refused("registry.url and registry.create_from must be URLs of one Postgres server");
    let url = Url::parse(wanted.expose_secret()).map_err(|_| bad())?;
    let name = url.path().trim_start_matches('/');
    let is_plain = (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if !is_plain {
        return Err(EngineError::refused(
            "the registry's database is named with a-z, 0-9 and _, to be created for you",
        ));
    }
    let failed = |error| EngineError::of("create the registry's database", error);
    // It sets no password.
    let worker = Worker { id: Uuid::nil(), scram_iterations: NonZeroU32::MIN, patience: Worker::PATIENCE };
    let admin = connect(admin.expose_secret(), worker, 1).await.map_err(failed)?;
    if !exists(&admin, name).await.map_err(failed)?
        && let Err(error) = admin.execute_unprepared(&format!("CREATE DATABASE \"{name}\" TEMPLATE template0")).await
        && !exists(&admin, name).await.map_err(failed)?
    {
        return Err(failed(error));
    }
    // Tenants' login roles on the same server have no business in it.
    let closed = format!("REVOKE ALL ON DATABASE \"{name}\" FROM PUBLIC");
    run(&admin, "close the registry's database to others", &closed).await?;
    close(admin).await
}
