//! What the doctor puts right itself: only what costs nobody any data, by whoever holds the operation that was ordered for it.
//! Nobody else works on the tenant meanwhile; what was found is looked at anew.

use std::collections::BTreeSet;

use sea_orm::{DbErr, EntityTrait};
use tokio::time::Instant;
use uuid::Uuid;

use super::servers::is_half_made;
use super::tenants::Seen;
use super::{AT_MOST, Cure, Doctor, LOOK};
use crate::engine::{DatabaseName, Engine, EngineError};
use crate::registry::entities::servers;

/// Why something is not put right.
pub(crate) enum Uncured {
    Registry(DbErr),
    Server(EngineError),
    /// All was done that can be, and it is as it was.
    Left(String),
}

impl From<DbErr> for Uncured {
    fn from(error: DbErr) -> Self {
        Self::Registry(error)
    }
}

impl From<EngineError> for Uncured {
    fn from(error: EngineError) -> Self {
        Self::Server(error)
    }
}

impl Doctor {
    /// Cures what can be of a tenant. Answers the schema version that is to be recorded, if the registry has another.
    pub(crate) async fn cure_tenant(&self, tenant: Uuid) -> Result<Option<u32>, Uncured> {
        let db = self.plane.registry.db();
        let Some(seen) = Seen::read(db, tenant).await? else { return Ok(None) };
        let seen = seen.held_by_us();
        let Some(row) = &seen.database else { return Ok(None) };
        let server = servers::Entity::find_by_id(row.server_id).one(db).await?;
        let Some(server) = server else { return Ok(None) };
        let (engine, name) = (self.plane.engine(&server)?, row.name.parse::<DatabaseName>()?);
        self.in_time(LOOK, engine.answers()).await?;
        let servers = [(server.id, (server, Some(engine.clone())))].into();
        let (mut version, mut failed) = (None, None);
        for finding in self.examined(&servers, &seen).await {
            let cured = match finding.cure {
                Some(Cure::BarRole(slot)) => self.in_time(LOOK, engine.disable_role(&name, slot)).await,
                Some(Cure::RestorePrivileges(slot, connections)) => {
                    self.in_time(LOOK, engine.restore_privileges(&name, slot, connections)).await
                }
                Some(Cure::RecordSchemaVersion(has)) => {
                    version = Some(has);
                    Ok(())
                }
                _ => Ok(()),
            };
            failed = failed.or(cured.err());
        }
        if let Some(error) = failed {
            return Err(error.into());
        }
        let left = self.examined(&servers, &seen).await.into_iter();
        let left = left.filter(|it| it.cure.is_some_and(|cure| !matches!(cure, Cure::RecordSchemaVersion(_))));
        let left: Vec<String> = left.map(|finding| finding.detail).collect();
        if left.is_empty() { Ok(version) } else { Err(Uncured::Left(left.join(" "))) }
    }

    /// Drops what is on a server, is known to no registry, and nobody misses. Answers whether it came to the end before it
    /// was `late`.
    pub(crate) async fn cure_strays(&self, server: &servers::Model, late: Instant) -> Result<bool, Uncured> {
        let engine = self.plane.engine(server)?;
        let (strays, _) = self.strays_past(engine.as_ref(), None).await??;
        let names: BTreeSet<DatabaseName> = strays.iter().map(|(name, _)| name.clone()).collect();
        let mut failed = None;
        for (count, name) in names.iter().enumerate() {
            if count > AT_MOST || Instant::now() >= late {
                return Ok(false);
            }
            let doctor = Self::new(self.plane.clone());
            for finding in doctor.stray(server, engine.as_ref(), name, &strays).await? {
                if let Some(cure) = finding.cure {
                    failed = failed.or(doctor.cure_stray(engine.as_ref(), name, cure).await?.err());
                }
            }
        }
        failed.map_or(Ok(true), |error| Err(error.into()))
    }

    async fn cure_stray(
        &self,
        engine: &dyn Engine,
        name: &DatabaseName,
        cure: Cure,
    ) -> Result<Result<(), EngineError>, DbErr> {
        // A name that the registry does not know stays unknown: names are made up once.
        if self.known().await?.contains(name.as_str()) {
            return Ok(Ok(()));
        }
        let cured = self.in_time(LOOK, async {
            match cure {
                Cure::DropRole(slot) => engine.drop_role(name, slot).await,
                Cure::DropDatabase => match engine.identify(name).await? {
                    Some(identity) if is_half_made(&identity) => engine.drop_database(name).await,
                    _ => Ok(()),
                },
                _ => Ok(()),
            }
        });
        Ok(cured.await)
    }
}
