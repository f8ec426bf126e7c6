//! The doctor on real servers: every fault is planted, and exactly that is found.

mod healthy;
mod keeping;
mod operations;
mod privileges;
mod strays;
mod tenant;

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, ConnectionTrait, DatabaseConnection, EntityTrait, QueryFilter};
use secrecy::ExposeSecret;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;
use crate::engine::{DatabaseName, Engine, EngineKind};
use crate::provision::tests::stage::{Stage, in_time, on_both};
use crate::provision::{Order, enqueue, run, wait};
use crate::registry::entities::{databases, operations as rows, servers, templates, tenants, warm_databases};

/// Longer than any test takes that is not broken.
const PATIENCE: Duration = Duration::from_mins(1);

/// A test of what only a server with roles has.
async fn on_postgres(test: impl AsyncFnOnce(&Stage)) {
    let stage = Stage::postgres().await;
    in_time(Box::pin(test(&stage))).await;
    stage.clear().await;
}

/// Stops who comes first between two reads, until the test has changed what is read.
#[derive(Default)]
pub(super) struct Between {
    is_passed: AtomicBool,
    reached: Notify,
    go_on: Notify,
}

impl Between {
    pub(super) async fn pass(&self) {
        if !self.is_passed.swap(true, SeqCst) {
            self.reached.notify_one();
            self.go_on.notified().await;
        }
    }
}

/// A runner, until it is dropped.
struct Running(CancellationToken);

impl Running {
    fn on(stage: &Stage) -> Self {
        let stopping = CancellationToken::new();
        tokio::spawn(run(stage.plane.clone(), stopping.clone()));
        Self(stopping)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// An active tenant with its database.
async fn built(stage: &Stage, slug: &str) -> (tenants::Model, databases::Model) {
    let operation = stage.create(slug, None).await;
    stage.done(&operation).await;
    let tenant = stage.tenant(&operation).await;
    let database = database_of(stage, tenant.id).await.unwrap();
    (tenant, database)
}

async fn rotated(stage: &Stage, tenant: Uuid) {
    let operation = order(stage, crate::provision::Kind::Rotate, tenant).await;
    stage.done(&operation).await;
}

async fn order(stage: &Stage, kind: crate::provision::Kind, tenant: Uuid) -> rows::Model {
    let change = stage.plane.registry.change().await.unwrap();
    let (on, run_after, requested_by) = (On::Tenant(tenant), change.now(), "a test".to_owned());
    let order = Order { kind, on, run_after, is_forced: false, requested_by };
    let operation = enqueue(&change, order).await.unwrap();
    change.commit().await.unwrap();
    operation
}

async fn database_of(stage: &Stage, tenant: Uuid) -> Option<databases::Model> {
    let all = databases::Entity::find().filter(databases::Column::TenantId.eq(tenant));
    all.one(stage.plane.registry.db()).await.unwrap()
}

async fn engine(stage: &Stage) -> std::sync::Arc<dyn Engine> {
    let server = servers::Entity::find_by_id(stage.server).one(stage.plane.registry.db()).await.unwrap().unwrap();
    stage.plane.engine(&server).unwrap()
}

/// In a tenant's database, with all rights on what is in it.
async fn inside(stage: &Stage, name: &str) -> DatabaseConnection {
    if stage.kind() == EngineKind::Sqlite {
        let file = stage.folder.path().join("databases").join(name).join("database.db");
        return service::pool::open(format!("sqlite://{}", file.display())).await.unwrap();
    }
    let mut url = url::Url::parse(stage.admin_url().expose_secret()).unwrap();
    url.set_path(name);
    let mut options = sea_orm::ConnectOptions::new(String::from(url));
    options.max_connections(1);
    let db = service::pool::open(options).await.unwrap();
    db.execute_unprepared("SET ROLE freehold_owner").await.unwrap();
    db
}

async fn write(stage: &Stage, name: &str, sql: &str) {
    let db = inside(stage, name).await;
    db.execute_unprepared(sql).await.unwrap();
    db.close().await.unwrap();
}

async fn set_tenant(stage: &Stage, tenant: Uuid, column: tenants::Column, value: impl Into<sea_orm::Value>) {
    tenants::Entity::update_many()
        .col_expr(column, Expr::value(value))
        .filter(tenants::Column::Id.eq(tenant))
        .exec(stage.plane.registry.db())
        .await
        .unwrap();
}

async fn set_database(stage: &Stage, name: &str, column: databases::Column, value: impl Into<sea_orm::Value>) {
    databases::Entity::update_many()
        .col_expr(column, Expr::value(value))
        .filter(databases::Column::Name.eq(name))
        .exec(stage.plane.registry.db())
        .await
        .unwrap();
}

/// All pages.
async fn look(stage: &Stage, is_fixing: bool) -> (Vec<Finding>, Checked) {
    let (mut findings, mut checked, mut next) = (Vec::new(), Checked::default(), Some(Position::default()));
    while let Some(from) = next {
        let doctor = Doctor::new(stage.plane.clone());
        let begun = Instant::now();
        let mut report = doctor.look(from).await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(20));
        if is_fixing {
            fix(stage, &mut report.findings).await;
        }
        let json = serde_json::to_string(&report.findings).unwrap();
        assert!(!json.contains("postgres://") && !json.contains("fh1."), "a secret in {json}");
        assert!(report.findings.iter().all(|it| it.remedy.len() > 10 && it.detail.ends_with('.')), "{json}");
        findings.extend(report.findings);
        checked.servers += report.checked.servers;
        checked.databases += report.checked.databases;
        checked.tenants += report.checked.tenants;
        next = report.next.map(|next| next.to_string().parse().unwrap());
    }
    (findings, checked)
}

/// As the API's fix, with a runner for it.
async fn fix(stage: &Stage, findings: &mut [Finding]) {
    super::order(&stage.plane, findings, "the doctor's tests").await.unwrap();
    if findings.iter().any(|finding| finding.operation.is_some()) {
        let _runner = Running::on(stage);
        assert!(settle(&stage.plane, findings, PATIENCE).await.unwrap(), "a fix does not end: {findings:#?}");
    }
}

/// What is found without a fix.
async fn found(stage: &Stage) -> Vec<Finding> {
    look(stage, false).await.0
}

/// The one finding that there is.
async fn only(stage: &Stage, kind: Kind) -> Finding {
    let mut findings = found(stage).await;
    assert_eq!(kinds(&findings), [kind], "{findings:#?}");
    assert!(!findings[0].is_fixed);
    findings.remove(0)
}

/// The doctor fixes the one finding that there is, and finds nothing after.
async fn assert_fixed(stage: &Stage, kind: Kind) -> Finding {
    only(stage, kind).await;
    let (mut fixed, _) = look(stage, true).await;
    assert_eq!(kinds(&fixed), [kind], "{fixed:#?}");
    assert!(fixed[0].is_fixed, "{fixed:#?}");
    assert_eq!(kinds(&found(stage).await), []);
    fixed.remove(0)
}

/// The doctor leaves the one finding that there is to people.
async fn assert_left(stage: &Stage, kind: Kind) -> Finding {
    only(stage, kind).await;
    let (left, _) = look(stage, true).await;
    assert!(left.iter().all(|it| it.kind == kind && !it.is_fixed), "{left:#?}");
    only(stage, kind).await
}

fn kinds(findings: &[Finding]) -> Vec<Kind> {
    findings.iter().map(|finding| finding.kind).collect()
}

#[test]
fn a_position_is_read_back() {
    for position in [
        Position::Servers { after: String::new() },
        Position::Server { name: "one".to_owned(), after: "fh_aaaaaaaaaaaaaaaaaaaaaaaa".to_owned() },
        Position::Tenants { after: Uuid::now_v7() },
    ] {
        assert_eq!(position.to_string().parse::<Position>().unwrap(), position);
    }
    for damaged in ["", "servers", "server/one", "tenants/one", "elsewhere/one"] {
        assert!(damaged.parse::<Position>().is_err(), "{damaged}");
    }
}
