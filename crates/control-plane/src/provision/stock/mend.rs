//! What of the stock is not on its server any more, or not as it was made: somebody dropped it there, or its server's budget
//! is another. It is let go of, so that others are made in its place; limits are set anew.

use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter};
use tokio::time::Instant;
use uuid::Uuid;

use super::READY;
use super::keep::count;
use super::make::{Maker, StockError};
use crate::engine::{DatabaseName, Slot};
use crate::plane::Plane;
use crate::provision::pace::Pace;
use crate::registry::entities::{servers, templates, warm_databases};

/// What the registry says is ready on a server, and is not.
#[derive(Debug, Default)]
pub(crate) struct Gaps {
    /// Templates that are not there.
    pub(crate) templates: Vec<DatabaseName>,
    /// Ready databases that are not there, or whose login role is not.
    pub(crate) databases: Vec<DatabaseName>,
    /// Ready databases whose login role may hold another number of connections than it should; and how many.
    pub(crate) limits: Vec<(DatabaseName, i32)>,
}

/// Compares what is ready by the registry with what the server has. The server is not asked where nothing is.
pub(crate) async fn gaps(plane: &Plane, server: &servers::Model) -> Result<Gaps, StockError> {
    let (templates, databases) = ready(plane, server.id).await?;
    let mut gaps = Gaps::default();
    if templates.is_empty() && databases.is_empty() {
        return Ok(gaps);
    }
    let engine = plane.engine(server)?;
    if !templates.is_empty() {
        gaps.templates = engine.missing(&templates, None).await?;
    }
    if !databases.is_empty() {
        let budget = server.connection_budget.unsigned_abs();
        gaps.databases = engine.missing(&databases, Some(Slot::A)).await?;
        gaps.limits = engine.limits_drifted(&databases, Slot::A, budget).await?;
        gaps.limits.retain(|(name, _)| !gaps.databases.contains(name));
    }
    if gaps.is_empty() {
        return Ok(gaps);
    }
    // What was claimed or let go of meanwhile is nothing of the stock.
    let (templates, databases) = ready(plane, server.id).await?;
    gaps.templates.retain(|name| templates.contains(name));
    gaps.databases.retain(|name| databases.contains(name));
    gaps.limits.retain(|(name, _)| databases.contains(name));
    Ok(gaps)
}

/// Lets go of what is missing on a server, makes as many ready as should be, and sets limits anew. Answers whether it came to
/// the end before it was `late`.
pub(crate) async fn restock(plane: &Plane, server: &servers::Model, late: Instant) -> Result<bool, StockError> {
    let version = plane.registry.history().await?.schema_version;
    let maker = Maker { plane, server, version, pace: &Pace::default() };
    maker.mend().await?;
    let target = maker.target();
    if target == 0 {
        return Ok(true);
    }
    let Some(template) = maker.template().await? else { return Ok(false) };
    while count(&maker).await? < target {
        if Instant::now() >= late {
            return Ok(false);
        }
        maker.one(&template).await?;
    }
    Ok(true)
}

impl Gaps {
    pub(crate) const fn is_empty(&self) -> bool {
        self.templates.is_empty() && self.databases.is_empty() && self.limits.is_empty()
    }
}

/// Names of templates and of databases that are ready on the server.
async fn ready(plane: &Plane, server: Uuid) -> Result<(Vec<DatabaseName>, Vec<DatabaseName>), StockError> {
    let db = plane.registry.db();
    let of_server = templates::Entity::find().filter(templates::Column::ServerId.eq(server));
    let made = of_server.filter(templates::Column::State.eq(READY)).all(db).await?;
    let of_server = warm_databases::Entity::find().filter(warm_databases::Column::ServerId.eq(server));
    let warm = of_server.filter(warm_databases::Column::State.eq(READY)).all(db).await?;
    let templates = made.iter().map(|row| row.name.parse()).collect::<Result<_, _>>()?;
    let databases = warm.iter().map(|row| row.name.parse()).collect::<Result<_, _>>()?;
    Ok((templates, databases))
}

impl Maker<'_> {
    /// Lets go of what is missing on the server, and sets limits anew; answers how many were missing.
    pub(super) async fn mend(&self) -> Result<u64, StockError> {
        let looked = async { Ok::<_, crate::engine::EngineError>(gaps(self.plane, self.server).await) };
        let gaps = self.in_time(looked).await??;
        let (plane, db, mut missing) = (self.plane, self.plane.registry.db(), 0);
        for name in &gaps.databases {
            let row = warm_databases::Entity::find_by_id(name.as_str())
                .filter(warm_databases::Column::State.eq(READY))
                .one(db)
                .await?;
            let Some(row) = row else { continue };
            tracing::warn!(server = self.server.name, database = name.as_str(), "a database that was ready is gone");
            self.let_go(row).await?;
            missing += 1;
        }
        for name in &gaps.templates {
            tracing::warn!(server = self.server.name, database = name.as_str(), "a template is gone");
            self.drop_of(None, name.as_str(), true).await?;
            self.forget_template(name).await?;
            missing += 1;
        }
        let (engine, budget) = (plane.engine(self.server)?, self.server.connection_budget.unsigned_abs());
        for (name, _) in &gaps.limits {
            self.in_time(engine.limit_role(name, Slot::A, budget)).await?;
        }
        Ok(missing)
    }

    async fn forget_template(&self, name: &DatabaseName) -> Result<(), DbErr> {
        templates::Entity::delete_many()
            .filter(templates::Column::Name.eq(name.as_str()))
            .filter(templates::Column::State.eq(READY))
            .exec(self.plane.registry.db())
            .await?;
        Ok(())
    }
}
