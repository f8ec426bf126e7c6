//! Where provisioning is tried: a registry, a server, and a product whose seed shows when it was sown twice.

mod planes;
mod servers;
mod sessions;
mod stock;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, DatabaseConnection, EntityTrait, QueryFilter,
};
use secrecy::{ExposeSecret, SecretString};
use tenancy::feed::{Asked, FeedRequest};
use tenancy::id::NodeId;
use tenancy::route::{Epoch, Route};
use tenancy::seal::{Purpose, Sealed, Subject};
use tenancy::{Status, TenantId};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::engine::{EngineKind, Worker, ensure_database};
use crate::plane::Plane;
use planes::plane_on;

use crate::provision::faults::Faults;
use crate::provision::pace::Pace;
use crate::provision::runner::run_at;
use crate::provision::steps::Step;
use crate::provision::{Kind, On, Order, enqueue, wait};
use crate::registry::Registry;
use crate::registry::entities::{config, databases, domains, operations, tenants};
use crate::schema::TenantSchema;

const SCHEMA_VERSION: u32 = 2;
/// Longer than any test takes that is not broken.
const PATIENCE: Duration = Duration::from_mins(1);

/// Runs each test on SQLite and on Postgres.
macro_rules! on_both {
    ($($test:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let stage = crate::provision::tests::stage::Stage::sqlite().await;
                crate::provision::tests::stage::in_time(super::$test(&stage)).await;
            })+
        }
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let stage = crate::provision::tests::stage::Stage::postgres().await;
                crate::provision::tests::stage::in_time(super::$test(&stage)).await;
                stage.clear().await;
            })+
        }
    };
}
pub(crate) use on_both;

/// A test whose awaited moment never comes fails instead of hanging.
pub(crate) async fn in_time<T>(test: impl Future<Output = T>) -> T {
    tokio::time::timeout(3 * PATIENCE, test).await.expect("what the test waits for never came")
}

pub(crate) struct Stage {
    pub(crate) plane: Plane,
    pub(crate) server: Uuid,
    pub(crate) folder: tempfile::TempDir,
    admin_url: SecretString,
    registry_name: String,
}

/// A runner in this process, which dies when it is dropped.
pub(crate) struct Runner {
    task: JoinHandle<()>,
    pub(super) stopping: CancellationToken,
}

impl Runner {
    /// As by kill -9: nothing more is done or let go.
    pub(super) async fn kill(mut self) {
        self.task.abort();
        assert!((&mut self.task).await.unwrap_err().is_cancelled());
    }

    pub(super) async fn stop(mut self) {
        self.stopping.cancel();
        tokio::time::timeout(PATIENCE, &mut self.task).await.unwrap().unwrap();
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Stage {
    pub(crate) async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let databases = folder.path().join("databases");
        std::fs::create_dir(&databases).unwrap();
        let registry = format!("sqlite://{}?mode=rwc", folder.path().join("registry.db").display());
        let admin = format!("sqlite://{}", databases.display());
        Self::open(EngineKind::Sqlite, registry, admin, String::new(), folder).await
    }

    pub(crate) async fn postgres() -> Self {
        let admin = std::env::var("FREEHOLD_TEST_POSTGRES_URL")
            .expect("run this by `cargo xtask test`, which starts a Postgres");
        let name = format!("registry_{}", Uuid::new_v4().simple());
        let mut url = url::Url::parse(&admin).unwrap();
        url.set_path(&name);
        let registry = String::from(url);
        ensure_database(&admin.clone().into(), &registry.clone().into()).await.unwrap();
        Self::open(EngineKind::Postgres, registry, admin, name, tempfile::tempdir().unwrap()).await
    }

    async fn open(
        kind: EngineKind,
        registry: String,
        admin_url: String,
        registry_name: String,
        folder: tempfile::TempDir,
    ) -> Self {
        let admin_url = SecretString::from(admin_url);
        let registry = Registry::open(&registry.into(), SCHEMA_VERSION).await.unwrap();
        let plane = plane_on(registry, folder.path(), "k", &["k"], Worker::PATIENCE);
        plane.engines.new_for(kind, &admin_url).unwrap().check().await.unwrap();
        let mut stage = Self { plane, server: Uuid::nil(), admin_url, registry_name, folder };
        stage.server = stage.add_server("one", "eu", kind, 1_000).await;
        stage
    }

    /// Another control plane on the same registry, with another ring.
    pub(super) fn plane_with_keys(&self, primary: &str, keys: &[&str]) -> Plane {
        plane_on(self.plane.registry.clone(), self.folder.path(), primary, keys, Worker::PATIENCE)
    }

    /// Another control plane on the same registry, which waits so long for a server's connection.
    pub(super) fn plane_with_patience(&self, patience: Duration) -> Plane {
        plane_on(self.plane.registry.clone(), self.folder.path(), "k", &["k"], patience)
    }

    /// Another control plane on the same registry, of a newer program.
    pub(crate) fn plane_with_schema(&self, schema: Arc<dyn TenantSchema>) -> Plane {
        let mut plane = self.plane_with_keys("k", &["k"]);
        plane.parts_mut().schema = schema;
        plane
    }

    pub(crate) const fn admin_url(&self) -> &SecretString {
        &self.admin_url
    }

    pub(crate) fn kind(&self) -> EngineKind {
        if self.registry_name.is_empty() { EngineKind::Sqlite } else { EngineKind::Postgres }
    }

    /// Writes a tenant that is to be built, with all that belongs to one.
    pub(crate) async fn create(&self, slug: &str, region: Option<&str>) -> operations::Model {
        let (id, now) = (TenantId::generate().as_uuid(), Utc::now());
        let change = self.plane.registry.change().await.unwrap();
        let row = tenants::ActiveModel {
            id: Set(id),
            slug: Set(slug.to_owned()),
            name: Set("A tenant".to_owned()),
            status: Set(Status::Provisioning.as_str().to_owned()),
            plan: Set("free".to_owned()),
            region: Set(region.map(str::to_owned)),
            admin_email: Set(Some("admin@example.org".to_owned())),
            server_id: Set(None),
            schema_version: Set(0),
            generation: Set(0),
            sealed_url: Set(None),
            revision: Set(0),
            version: Set(1),
            status_before: Set(None),
            created_at: Set(now),
            updated_at: Set(now),
            delete_after: Set(None),
            tokens_from: Set(None),
            limits: Set(None),
            slug_since: Set(Some(now)),
            reconnects: Set(0),
            reconnected_at: Set(None),
        };
        row.insert(change.db()).await.unwrap();
        let entry = config::ActiveModel {
            tenant_id: Set(id),
            key: Set("colour".to_owned()),
            value: Set("blue".into()),
            created_at: Set(now),
        };
        entry.insert(change.db()).await.unwrap();
        let host = Set(format!("{slug}.example.org"));
        domains::ActiveModel { host, tenant_id: Set(id), created_at: Set(now) }.insert(change.db()).await.unwrap();
        let operation = enqueue(&change, order(Kind::Create, id, now)).await.unwrap();
        change.commit().await.unwrap();
        operation
    }

    /// A tenant that is active.
    pub(crate) async fn built(&self, slug: &str) -> operations::Model {
        self.built_in(slug, None).await
    }

    /// A tenant that is active, in a region.
    pub(crate) async fn built_in(&self, slug: &str, region: Option<&str>) -> operations::Model {
        let operation = self.create(slug, region).await;
        assert_eq!(self.work_until_ended(&operation, &Faults::default()).await.state, "done");
        operation
    }

    /// A data plane that was heard, and has applied nothing.
    pub(crate) async fn behind(&self) -> FeedRequest {
        let node = FeedRequest::first(NodeId::generate());
        self.hear(&node).await;
        node
    }

    /// A node follows the history as it is, and has applied what it says.
    pub(crate) async fn hear(&self, node: &FeedRequest) {
        let epoch = Some(Epoch(self.plane.registry.history().await.unwrap().epoch));
        let node = FeedRequest { epoch: node.epoch.or(epoch), ..node.clone() };
        self.plane.registry.heard(&node, self.plane.registry.now()).await.unwrap();
    }

    /// As the API's DELETE does it, with the grace period over.
    pub(crate) async fn delete(&self, created: &operations::Model, before: Status) -> operations::Model {
        let mut change = self.plane.registry.change().await.unwrap();
        let to = if before == Status::Failed { Status::Deleted } else { Status::Deleting };
        tenants::Entity::update_many()
            .col_expr(tenants::Column::Status, Expr::value(to.as_str()))
            .col_expr(tenants::Column::StatusBefore, Expr::value(before.as_str()))
            .filter(tenants::Column::Id.eq(of(created)))
            .exec(change.db())
            .await
            .unwrap();
        if to == Status::Deleting {
            change.touch(of(created));
        }
        let operation = enqueue(&change, order(Kind::Delete, of(created), Utc::now())).await.unwrap();
        change.commit().await.unwrap();
        operation
    }

    /// As the API's rotate-credentials does it.
    pub(super) async fn rotate(&self, created: &operations::Model, is_forced: bool) -> operations::Model {
        let change = self.plane.registry.change().await.unwrap();
        let order = Order { is_forced, ..order(Kind::Rotate, of(created), Utc::now()) };
        let operation = enqueue(&change, order).await.unwrap();
        change.commit().await.unwrap();
        operation
    }

    /// As the API's retry does it.
    pub(super) async fn retry(&self, id: Uuid) -> Result<operations::Model, service::Problem> {
        let change = self.plane.registry.change().await?;
        let row = crate::provision::retry(&change, id, Utc::now()).await?;
        change.commit().await?;
        Ok(row)
    }

    /// Quick where time means nothing, patient where a slow machine must not be taken for a dead one.
    pub(super) fn pace(faults: &Faults) -> Pace {
        Pace {
            scan: Duration::from_millis(20),
            first_retry: Duration::from_millis(1),
            put_off: Duration::from_millis(1),
            faults: faults.clone(),
            ..Pace::default()
        }
    }

    /// A runner whom nothing fails.
    pub(crate) fn running(&self) -> Runner {
        self.runner(&Faults::default())
    }

    pub(super) fn runner(&self, faults: &Faults) -> Runner {
        self.runner_at(Self::pace(faults))
    }

    pub(super) fn runner_at(&self, pace: Pace) -> Runner {
        let stopping = CancellationToken::new();
        let task = tokio::spawn(run_at(self.plane.clone(), pace, stopping.clone()));
        Runner { task, stopping }
    }

    pub(super) async fn ended(&self, operation: &operations::Model) -> operations::Model {
        let row = wait(&self.plane, operation.id, PATIENCE).await.unwrap();
        assert!(row.finished_at.is_some(), "it did not end: {row:?}");
        row
    }

    /// As [`Stage::ended`], with a registry that does not always answer.
    pub(super) async fn ended_whatever_fails(&self, operation: &operations::Model) -> operations::Model {
        while wait(&self.plane, operation.id, PATIENCE).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.ended(operation).await
    }

    pub(super) async fn work_until_ended(&self, operation: &operations::Model, faults: &Faults) -> operations::Model {
        let runner = self.runner(faults);
        let ended = self.ended(operation).await;
        runner.stop().await;
        ended
    }

    /// Has an operation worked on until it is done, and whoever worked on it has left the tenant's database.
    pub(crate) async fn done(&self, operation: &operations::Model) {
        assert_eq!(self.work_until_ended(operation, &Faults::default()).await.state, "done");
    }

    /// The time of every lease is over.
    pub(super) async fn lapse(&self) {
        operations::Entity::update_many()
            .col_expr(operations::Column::LeaseUntil, Expr::value(Utc::now() - Duration::from_secs(1)))
            .filter(operations::Column::LeaseUntil.is_not_null())
            .exec(self.plane.registry.db())
            .await
            .unwrap();
    }

    pub(super) async fn operation(&self, operation: &operations::Model) -> operations::Model {
        operations::Entity::find_by_id(operation.id).one(self.plane.registry.db()).await.unwrap().unwrap()
    }

    pub(crate) async fn tenant(&self, operation: &operations::Model) -> tenants::Model {
        tenants::Entity::find_by_id(of(operation)).one(self.plane.registry.db()).await.unwrap().unwrap()
    }

    pub(super) async fn status(&self, operation: &operations::Model) -> Status {
        self.tenant(operation).await.status.parse().unwrap()
    }

    pub(crate) async fn route(&self, operation: &operations::Model) -> Option<Route> {
        self.plane.registry.route(&Asked::Tenant(of(operation).into())).await.unwrap().route
    }

    /// Names of databases in the registry.
    pub(crate) async fn names(&self) -> Vec<String> {
        let rows = databases::Entity::find().all(self.plane.registry.db()).await.unwrap();
        rows.into_iter().map(|row| row.name).collect()
    }

    pub(crate) async fn admin(&self) -> DatabaseConnection {
        service::pool::open(self.admin_url.expose_secret()).await.unwrap()
    }

    /// Leaves nothing on the shared server.
    pub(crate) async fn clear(&self) {
        let engine = self.plane.engines.new_for(self.kind(), &self.admin_url).unwrap();
        for name in self.names().await.into_iter().chain(self.stock().await) {
            engine.drop_database(&name.parse().unwrap()).await.unwrap();
        }
        let admin = self.admin().await;
        let sql = format!("DROP DATABASE \"{}\" WITH (FORCE)", self.registry_name);
        // The server's own workers visit databases now and then, and nobody but a superuser may end them.
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while let Err(error) = admin.execute_unprepared(&sql).await {
            assert!(tokio::time::Instant::now() < deadline, "{error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(super) fn open_url(&self, row: &databases::Model) -> SecretString {
        let generation = row.generation.unsigned_abs();
        let subject = Subject { purpose: Purpose::TenantUrl, id: row.tenant_id, generation };
        self.plane.tenants_ring.open(subject, &Sealed::from_stored(row.sealed_url.as_str())).unwrap()
    }
}

/// The names of a kind's steps on a tenant, in their order.
pub(super) fn names_of(kind: Kind) -> Vec<&'static str> {
    kind.steps(On::Tenant(Uuid::nil())).iter().map(|step: &&'static dyn Step| step.name()).collect()
}

/// The tenant that an operation is on.
pub(crate) fn of(operation: &operations::Model) -> Uuid {
    operation.tenant_id.expect("it is on a tenant")
}

/// What a test orders.
fn order(kind: Kind, tenant: Uuid, run_after: DateTime<Utc>) -> Order {
    Order { kind, on: On::Tenant(tenant), run_after, is_forced: false, requested_by: "a test".to_owned() }
}
