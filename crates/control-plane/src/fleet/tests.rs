//! Rollouts on real databases, on SQLite and on Postgres.

mod budget;
mod gate;
mod kill;
mod lint;
mod order;
mod roll;
mod room;
mod steer;
mod verify;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait, QueryFilter, QueryOrder, Statement,
};
use sea_orm_migration::prelude::{MigrationName, MigrationTrait, SchemaManager};
use service::Problem;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::runner::{Pace, run_at};
use super::settings::{Budget, Canary};
use super::*;
use crate::plane::Plane;
use crate::provision::tests::notes::{Notes, Statements};
use crate::provision::tests::stage::{Stage, of, on_both};
use crate::registry::entities::{operations, rollout_targets, rollout_waves, rollouts, tenants};
use crate::schema::{NewTenant, TenantSchema};

/// Longer than any test takes that is not broken.
const PATIENCE: Duration = Duration::from_mins(1);

/// A newer program's schema: it counts what takes effect, fails where somebody wrote `bad`, and panics where somebody wrote
/// `panic`.
struct Newer;

struct Counting;

impl MigrationName for Counting {
    fn name(&self) -> &'static str {
        "third"
    }
}

#[async_trait]
impl MigrationTrait for Counting {
    #[allow(elided_lifetimes_in_paths, reason = "the trait elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        let text = Statement::from_string(db.get_database_backend(), "SELECT text FROM notes ORDER BY text LIMIT 1");
        let text: Option<String> = db.query_one_raw(text).await?.map(|row| row.try_get_by_index(0)).transpose()?;
        match text.as_deref().unwrap_or_default() {
            "bad" => return Err(DbErr::Custom("the data does not fit".to_owned())),
            "a panic" => panic!("a panic of the test"),
            _ => {}
        }
        db.execute_unprepared("CREATE TABLE IF NOT EXISTS effects (text TEXT); INSERT INTO effects VALUES ('third')")
            .await
            .map(drop)
    }

    #[allow(elided_lifetimes_in_paths, reason = "the trait elides it")]
    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared("DROP TABLE effects").await.map(drop)
    }
}

#[async_trait]
impl TenantSchema for Newer {
    fn migrations(&self) -> Vec<Box<dyn MigrationTrait>> {
        let mut all = Notes.migrations();
        all.push(Box::new(Counting));
        all.push(Box::new(Statements("fourth", "ALTER TABLE notes ADD COLUMN likes INTEGER")));
        all
    }

    async fn seed(&self, db: &DatabaseTransaction, tenant: &NewTenant) -> Result<(), DbErr> {
        Notes.seed(db, tenant).await
    }
}

/// Where a test stops the work of a runner, to kill it there.
#[derive(Clone, Default)]
pub(super) struct Stops(Option<Arc<Stop>>);

struct Stop {
    at: &'static str,
    reached: Notify,
}

impl Stops {
    fn at(at: &'static str) -> Self {
        Self(Some(Arc::new(Stop { at, reached: Notify::new() })))
    }

    async fn reached(&self) {
        let stop = self.0.as_ref().expect("there is a stop");
        let reached = tokio::time::timeout(PATIENCE, stop.reached.notified()).await;
        assert!(reached.is_ok(), "{} was never reached", stop.at);
    }

    pub(super) async fn meet(&self, at: &'static str) {
        if let Some(stop) = self.0.as_ref().filter(|stop| stop.at == at) {
            stop.reached.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

/// A fleet of a few tenants at version 2, and control planes whose program contains 4 migrations.
struct Fleet<'a> {
    stage: &'a Stage,
    plane: Plane,
    tenants: Vec<operations::Model>,
}

/// A runner in this process, which dies when it is dropped.
struct Running {
    task: JoinHandle<()>,
    stopping: CancellationToken,
}

impl Running {
    async fn stop(mut self) {
        self.stopping.cancel();
        tokio::time::timeout(PATIENCE, &mut self.task).await.unwrap().unwrap();
    }

    /// As by kill -9: nothing more is done or let go.
    async fn kill(mut self) {
        self.task.abort();
        assert!((&mut self.task).await.unwrap_err().is_cancelled());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<'a> Fleet<'a> {
    async fn of(stage: &'a Stage, tenants: usize) -> Self {
        let mut all = Vec::new();
        for number in 0..tenants {
            all.push(stage.built(&format!("tenant-{number}")).await);
        }
        Self { stage, plane: stage.plane_with_schema(Arc::new(Newer)), tenants: all }
    }

    fn order() -> Order {
        let settings = Settings { waves: vec![50.0], attempts: 4, ..Settings::default() };
        Order { version: 4, is_down: false, selection: Selection::default(), settings }
    }

    async fn start(&self, order: &Order) -> Result<rollouts::Model, Problem> {
        start_on(&self.plane, order).await
    }

    fn pace(stops: &Stops) -> Pace {
        Pace { scan: Duration::from_millis(20), stops: stops.clone(), ..Pace::of(Duration::from_secs(8)) }
    }

    fn running(&self) -> Running {
        Self::runner(self.plane.clone(), &Stops::default())
    }

    fn runner(plane: Plane, stops: &Stops) -> Running {
        let stopping = CancellationToken::new();
        let task = tokio::spawn(run_at(plane, Self::pace(stops), stopping.clone()));
        Running { task, stopping }
    }

    async fn read(&self, id: Uuid) -> rollouts::Model {
        rollouts::Entity::find_by_id(id).one(self.plane.registry.db()).await.unwrap().unwrap()
    }

    /// Waits until it is not running.
    async fn rest(&self, id: Uuid) -> rollouts::Model {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let row = self.read(id).await;
            if row.state != State::Running.as_str() {
                return row;
            }
            assert!(tokio::time::Instant::now() < deadline, "it did not end: {row:?} {:?}", self.targets(id).await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Worked on until it is not running.
    async fn roll(&self, order: &Order) -> rollouts::Model {
        let rollout = self.start(order).await.unwrap();
        let runner = self.running();
        let ended = self.rest(rollout.id).await;
        runner.stop().await;
        ended
    }

    /// The state in which it is when it was worked on.
    async fn rest_of(&self, id: Uuid) -> String {
        let runner = self.running();
        let ended = self.rest(id).await;
        runner.stop().await;
        ended.state
    }

    async fn targets(&self, id: Uuid) -> Vec<rollout_targets::Model> {
        rollout_targets::Entity::find()
            .filter(rollout_targets::Column::RolloutId.eq(id))
            .order_by_asc(rollout_targets::Column::TenantId)
            .all(self.plane.registry.db())
            .await
            .unwrap()
    }

    async fn states(&self, id: Uuid) -> BTreeMap<String, usize> {
        let mut states = BTreeMap::new();
        for target in self.targets(id).await {
            *states.entry(target.state).or_default() += 1;
        }
        states
    }

    async fn waves(&self, id: Uuid) -> Vec<rollout_waves::Model> {
        rollout_waves::Entity::find()
            .filter(rollout_waves::Column::RolloutId.eq(id))
            .order_by_asc(rollout_waves::Column::Position)
            .all(self.plane.registry.db())
            .await
            .unwrap()
    }

    /// The versions that the registry knows of.
    async fn versions(&self) -> Vec<i32> {
        let mut versions = Vec::new();
        for tenant in &self.tenants {
            versions.push(self.stage.tenant(tenant).await.schema_version);
        }
        versions
    }

    async fn fleet_version(&self) -> i32 {
        self.plane.registry.history().await.unwrap().schema_version
    }

    /// Does something in a tenant's database, as its owner.
    async fn execute(&self, tenant: &operations::Model, sql: &str) {
        let (engine, name) = self.database(tenant).await;
        let entered = engine.enter(&name).await.unwrap();
        entered.execute(sql).await;
        entered.leave().await.unwrap();
    }

    async fn database(
        &self,
        tenant: &operations::Model,
    ) -> (Arc<dyn crate::engine::Engine>, crate::engine::DatabaseName) {
        use crate::registry::entities::{databases, servers};

        let db = self.plane.registry.db();
        let database = databases::Entity::find()
            .filter(databases::Column::TenantId.eq(of(tenant)))
            .one(db)
            .await
            .unwrap()
            .unwrap();
        let server = servers::Entity::find_by_id(database.server_id).one(db).await.unwrap().unwrap();
        (self.plane.engine(&server).unwrap(), database.name.parse().unwrap())
    }

    /// How often the third migration took effect in each database.
    async fn effects(&self) -> Vec<i64> {
        let mut all = Vec::new();
        for tenant in &self.tenants {
            let (engine, name) = self.database(tenant).await;
            let entered = engine.enter(&name).await.unwrap();
            let counts = entered.count_rows().await.unwrap();
            entered.leave().await.unwrap();
            all.push(counts.get("effects").and_then(serde_json::Value::as_i64).unwrap_or_default());
        }
        all
    }

    /// The time of every lease is over.
    async fn lapse(&self) {
        rollout_targets::Entity::update_many()
            .col_expr(rollout_targets::Column::LeaseUntil, Expr::value(chrono::Utc::now() - Duration::from_secs(1)))
            .filter(rollout_targets::Column::LeaseUntil.is_not_null())
            .exec(self.plane.registry.db())
            .await
            .unwrap();
    }
}

async fn start_on(plane: &Plane, what: &Order) -> Result<rollouts::Model, Problem> {
    let mut change = plane.registry.change().await?;
    let row = order(plane, &mut change, what, "a test").await?;
    change.commit().await?;
    plane.fleet.notify_one();
    Ok(row)
}
