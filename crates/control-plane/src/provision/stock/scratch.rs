//! Scratch databases: made at a schema version for a look, and dropped after it.
//!
//! One is written down before it is made, as something that is being dropped: nobody takes it, and what its maker left when it
//! died is dropped by the keeper of any control plane once the lease is over.

use std::time::Duration;

use sea_orm::{ActiveValue::Set, EntityTrait};
use uuid::Uuid;

use super::make::{Maker, StockError};
use super::{LEAVING, subject};
use crate::engine::{DatabaseName, Slot, new_password};
use crate::plane::Plane;
use crate::provision::pace::Pace;
use crate::registry::entities::{servers, warm_databases};

/// How long one may be used. Whoever needs longer finds it gone.
const LEASE: Duration = Duration::from_mins(2);

/// A database on a server that is nobody's.
pub(crate) struct Scratch<'a> {
    plane: &'a Plane,
    server: &'a servers::Model,
    name: DatabaseName,
}

impl<'a> Scratch<'a> {
    /// Makes one, and migrates it to a version that this program contains.
    pub(crate) async fn make(plane: &'a Plane, server: &'a servers::Model, version: u32) -> Result<Self, StockError> {
        let (name, id, password) = {
            let mut rng = rand::rng();
            (DatabaseName::generate(plane.registry.mark(), &mut rng), Uuid::new_v4(), new_password(&mut rng))
        };
        let engine = plane.engine(server)?;
        // No role is made that it would let in; every row of the stock has a URL.
        let url = engine.url(&name, Slot::A, &password);
        let sealed = plane.servers_ring.seal(subject(id), &url, &mut rand::rng());
        let row = warm_databases::ActiveModel {
            name: Set(name.as_str().to_owned()),
            id: Set(id),
            server_id: Set(server.id),
            schema_version: Set(i32::try_from(version).unwrap_or(i32::MAX)),
            state: Set(LEAVING.to_owned()),
            sealed_url: Set(sealed.as_stored().to_owned()),
            // Nobody else's work is in it: whoever drops it ends no sessions of this process' other work.
            lease_holder: Set(None),
            lease_until: Set(Some(plane.registry.now() + LEASE)),
            created_at: Set(plane.registry.now()),
        };
        warm_databases::Entity::insert(row).exec_without_returning(plane.registry.db()).await?;
        let scratch = Self { plane, server, name };
        let made = async {
            engine.create_database(&scratch.name).await?;
            let entered = engine.enter(&scratch.name).await?;
            let migrated = entered.migrate(plane.schema.as_ref(), version).await;
            entered.leave().await?;
            migrated.map(drop)
        };
        match made.await {
            Ok(()) => Ok(scratch),
            Err(error) => {
                scratch.end().await;
                Err(error.into())
            }
        }
    }

    pub(crate) const fn name(&self) -> &DatabaseName {
        &self.name
    }

    /// Drops it. What cannot be dropped now is dropped by the keeper.
    pub(crate) async fn end(self) {
        let pace = Pace::default();
        let maker = Maker { plane: self.plane, server: self.server, version: 0, pace: &pace };
        let dropped: Result<_, StockError> = async {
            maker.drop_of(None, self.name.as_str(), true).await?;
            Ok(warm_databases::Entity::delete_by_id(self.name.as_str()).exec(self.plane.registry.db()).await?)
        }
        .await;
        if let Err(error) = dropped {
            tracing::warn!(database = %self.name, %error, "a scratch database is left to the keeper");
        }
    }
}
