//! How one database of the stock is made, and how one goes.

use chrono::{DateTime, Utc};
use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{ActiveValue::Set, ColumnTrait, Condition, DbErr, EntityTrait, ExprTrait, QueryFilter};
use tokio::time::Instant;
use uuid::Uuid;

use super::{BUILDING, LEAVING, READY, subject};
use crate::engine::{DatabaseName, EngineError, Slot, drop_unless_anothers, new_password};
use crate::plane::Plane;
use crate::provision::lease::before;
use crate::provision::pace::Pace;
use crate::registry::entities::{servers, templates, warm_databases};

/// Why a piece of the stock was not made, or did not go.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StockError {
    #[error("{0}")]
    Engine(#[from] EngineError),
    #[error("the registry failed: {0}")]
    Registry(#[from] DbErr),
    #[error("the server did not answer in time")]
    Silent,
    #[error("the fleet's schema is newer than this control plane")]
    Behind,
}

/// One server's stock, and who works on it.
pub(super) struct Maker<'a> {
    pub(super) plane: &'a Plane,
    pub(super) server: &'a servers::Model,
    pub(super) version: i32,
    pub(super) pace: &'a Pace,
}

impl Maker<'_> {
    /// Whether tenants are placed on the server: one that takes none keeps nothing ready.
    pub(super) fn is_open(&self) -> bool {
        self.server.state == "open"
    }

    /// Databases that should be ready.
    pub(super) fn target(&self) -> u64 {
        if self.is_open() { u64::from(self.server.warm_target.unsigned_abs()) } else { 0 }
    }

    /// It is not renewed: the work ends well before it does.
    fn lease(&self) -> DateTime<Utc> {
        self.plane.registry.now() + 2 * self.pace.attempt
    }

    pub(super) async fn in_time<T>(&self, work: impl Future<Output = Result<T, EngineError>>) -> Result<T, StockError> {
        match before(Instant::now() + self.pace.attempt, work).await {
            Some(done) => Ok(done?),
            None => Err(StockError::Silent),
        }
    }

    /// Drops what its maker, who is dead or frozen, may have left or may still be making.
    pub(super) async fn drop_of(&self, maker: Option<Uuid>, name: &str, is_template: bool) -> Result<(), StockError> {
        let engine = self.plane.engine(self.server)?;
        let name: DatabaseName = name.parse()?;
        drop(self.plane.entered.take(&name, self.server.address_number));
        self.in_time(async {
            if let Some(maker) = maker.filter(|maker| *maker != self.plane.id) {
                engine.end_sessions_of(maker).await?;
            }
            if is_template {
                // It lets nobody in, and is nobody's.
                return engine.drop_database(&name).await;
            }
            drop_unless_anothers(engine.as_ref(), &name, None).await.map(drop)
        })
        .await
    }

    /// Makes the server's template, unless another is at it.
    pub(super) async fn template(&self) -> Result<Option<DatabaseName>, StockError> {
        let plane = self.plane;
        let db = plane.registry.db();
        let key = (self.server.id, self.version);
        let now = plane.registry.now();
        let known = templates::Entity::find_by_id(key).one(db).await?;
        if let Some(known) = &known {
            if known.state == READY {
                return Ok(Some(known.name.parse()?));
            }
            if known.lease_until.is_some_and(|until| until > now) {
                return Ok(None);
            }
        }
        let migrations = plane.schema.migrations().len();
        if usize::try_from(self.version).unwrap_or(usize::MAX) > migrations {
            return Err(StockError::Behind);
        }
        let name = DatabaseName::generate(plane.registry.mark(), &mut rand::rng());
        let row = templates::ActiveModel {
            server_id: Set(self.server.id),
            schema_version: Set(self.version),
            name: Set(name.as_str().to_owned()),
            state: Set(BUILDING.to_owned()),
            lease_holder: Set(Some(plane.id)),
            lease_until: Set(Some(self.lease())),
            created_at: Set(now),
        };
        if let Some(known) = known {
            // What it has a name for goes before the name is forgotten.
            self.drop_of(known.lease_holder, &known.name, true).await?;
            templates::Entity::delete_many()
                .filter(templates::Column::Name.eq(known.name))
                .filter(templates::Column::State.ne(READY))
                .exec(db)
                .await?;
        }
        let once = OnConflict::columns([templates::Column::ServerId, templates::Column::SchemaVersion])
            .do_nothing()
            .to_owned();
        let inserted = templates::Entity::insert(row).on_conflict(once).exec_without_returning(db).await?;
        if inserted == 0 {
            return Ok(None);
        }
        let engine = plane.engine(self.server)?;
        let to = self.version.unsigned_abs();
        self.in_time(async {
            engine.create_database(&name).await?;
            let entered = engine.enter(&name).await?;
            entered.migrate(plane.schema.as_ref(), to).await?;
            entered.leave().await?;
            engine.make_template(&name).await
        })
        .await?;
        let ready = templates::Entity::update_many()
            .col_expr(templates::Column::State, Expr::value(READY))
            .col_expr(templates::Column::LeaseUntil, Expr::value(None::<DateTime<Utc>>))
            .filter(templates::Column::Name.eq(name.as_str()))
            .filter(templates::Column::LeaseHolder.eq(plane.id))
            .exec(db)
            .await?;
        tracing::info!(server = self.server.name, version = self.version, "a template is ready");
        Ok((ready.rows_affected > 0).then_some(name))
    }

    /// Makes one database ready, as a copy of the template.
    pub(super) async fn one(&self, template: &DatabaseName) -> Result<(), StockError> {
        let plane = self.plane;
        let engine = plane.engine(self.server)?;
        let (name, id, password) = {
            let mut rng = rand::rng();
            (DatabaseName::generate(plane.registry.mark(), &mut rng), Uuid::new_v4(), new_password(&mut rng))
        };
        let url = engine.url(&name, Slot::A, &password);
        let sealed = plane.servers_ring.seal(subject(id), &url, &mut rand::rng());
        let row = warm_databases::ActiveModel {
            name: Set(name.as_str().to_owned()),
            id: Set(id),
            server_id: Set(self.server.id),
            schema_version: Set(self.version),
            state: Set(BUILDING.to_owned()),
            sealed_url: Set(sealed.as_stored().to_owned()),
            lease_holder: Set(Some(plane.id)),
            lease_until: Set(Some(self.lease())),
            created_at: Set(plane.registry.now()),
        };
        warm_databases::Entity::insert(row).exec_without_returning(plane.registry.db()).await?;
        let connections = self.server.connection_budget.unsigned_abs();
        self.in_time(async {
            engine.copy_database(template, &name).await?;
            engine.create_role(&name, Slot::A, &password, connections).await
        })
        .await?;
        warm_databases::Entity::update_many()
            .col_expr(warm_databases::Column::State, Expr::value(READY))
            .col_expr(warm_databases::Column::LeaseUntil, Expr::value(None::<DateTime<Utc>>))
            .filter(warm_databases::Column::Name.eq(name.as_str()))
            .filter(warm_databases::Column::State.eq(BUILDING))
            .exec(plane.registry.db())
            .await?;
        Ok(())
    }

    /// Enters a database that is ready, so that whoever claims it need not.
    pub(super) async fn enter(&self, name: &str) -> Result<(), StockError> {
        let engine = self.plane.engine(self.server)?;
        let name: DatabaseName = name.parse()?;
        let entered = self.in_time(engine.enter(&name)).await?;
        self.plane.entered.put(&name, self.server.address_number, entered);
        Ok(())
    }

    /// Drops one that was not claimed since it was read, and what is left of it.
    pub(super) async fn let_go(&self, row: warm_databases::Model) -> Result<(), StockError> {
        let db = self.plane.registry.db();
        // From here on nobody claims it; it is ours until the lease is over.
        let ours = warm_databases::Entity::update_many()
            .col_expr(warm_databases::Column::State, Expr::value(LEAVING))
            .col_expr(warm_databases::Column::LeaseHolder, Expr::value(self.plane.id))
            .col_expr(warm_databases::Column::LeaseUntil, Expr::value(self.lease()))
            .filter(warm_databases::Column::Name.eq(row.name.as_str()))
            .filter(warm_databases::Column::State.eq(row.state.as_str()))
            .filter(match row.lease_until {
                Some(until) => warm_databases::Column::LeaseUntil.eq(until),
                None => warm_databases::Column::LeaseUntil.is_null(),
            })
            .exec(db)
            .await?;
        if ours.rows_affected > 0 {
            self.drop_of(row.lease_holder, &row.name, false).await?;
            warm_databases::Entity::delete_by_id(row.name).exec(db).await?;
        }
        Ok(())
    }

    /// Drops what nobody will take: of another schema version, left half made, or all of it.
    pub(super) async fn drop_old(&self, all: bool) -> Result<(), StockError> {
        let plane = self.plane;
        let db = plane.registry.db();
        let now = plane.registry.now();
        let of_before = warm_databases::Column::SchemaVersion.ne(self.version);
        let lapsed = warm_databases::Column::LeaseUntil.is_null().or(warm_databases::Column::LeaseUntil.lt(now));
        let is_ready = warm_databases::Column::State.eq(READY);
        let mut going = Condition::any()
            .add(Condition::all().add(warm_databases::Column::State.ne(READY)).add(lapsed))
            .add(Condition::all().add(is_ready.clone()).add(of_before));
        if all {
            going = going.add(is_ready);
        }
        let rows = warm_databases::Entity::find()
            .filter(warm_databases::Column::ServerId.eq(self.server.id))
            .filter(going)
            .all(db)
            .await?;
        // One that cannot be dropped now keeps no other from being dropped, or made.
        let mut failed = None;
        for row in rows {
            if let Err(error) = self.let_go(row).await {
                failed = Some(error);
            }
        }
        let of_before = templates::Entity::find()
            .filter(templates::Column::ServerId.eq(self.server.id))
            .filter(templates::Column::SchemaVersion.lt(self.version))
            // Another may still be making it.
            .filter(templates::Column::LeaseUntil.is_null().or(templates::Column::LeaseUntil.lt(now)))
            .all(db)
            .await?;
        for row in of_before {
            // Who copies it at this moment copies it to its end, or makes its database without a template.
            match self.drop_of(row.lease_holder.filter(|_| row.state != READY), &row.name, true).await {
                Ok(()) => {
                    templates::Entity::delete_by_id((row.server_id, row.schema_version)).exec(db).await?;
                }
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(()), Err)
    }
}
