//! What the doctor puts right itself: only what costs nobody any data, and only while nobody works on the tenant.

use std::collections::HashMap;

use sea_orm::sea_query::{Expr, LockType};
use sea_orm::{ColumnTrait, DbErr, EntityTrait, ExprTrait, QueryFilter, QuerySelect};
use tokio::time::timeout_at;
use uuid::Uuid;

use super::servers::is_half_made;
use super::tenants::{Seen, Servers};
use super::{Cure, Doctor, Finding, Kind, LOOK, WHOLE};
use crate::engine::{DatabaseName, Engine, EngineError};
use crate::registry::entities::tenants;

impl Doctor {
    /// Drops what the registry does not know and nobody misses.
    pub(super) async fn fix_stray(
        &self,
        engine: &dyn Engine,
        name: &DatabaseName,
        finding: &mut Finding,
    ) -> Result<(), DbErr> {
        let Some(cure) = finding.cure else { return Ok(()) };
        // A name that the registry does not know stays unknown: names are made up once.
        if self.known().await?.contains(name.as_str()) {
            return Ok(());
        }
        let fixed = self.in_time(LOOK, async {
            match cure {
                Cure::DropRole(slot) => engine.drop_role(name, slot).await,
                Cure::DropDatabase => match engine.identify(name).await? {
                    Some(identity) if is_half_made(&identity) => engine.drop_database(name).await,
                    _ => Ok(()),
                },
                _ => Ok(()),
            }
        });
        let left = match fixed.await {
            Ok(()) => self.inventory(engine).await,
            Err(error) => Err(error),
        };
        match (left, cure) {
            (Ok(left), Cure::DropRole(slot)) => finding.is_fixed = !left.roles.contains(&(name.clone(), slot)),
            (Ok(left), _) => finding.is_fixed = !left.databases.contains(name),
            (Err(error), _) => failed(finding, &error),
        }
        told(finding);
        Ok(())
    }

    /// Fixes what can be of a tenant, and looks at it again.
    pub(super) async fn fix_tenant(
        &self,
        servers: &Servers,
        tenant: Uuid,
        mut findings: Vec<Finding>,
    ) -> Result<Vec<Finding>, DbErr> {
        let fixed = async {
            let _one = self.fixing.lock().await;
            self.cure(servers, tenant).await
        };
        let Ok(fixed) = timeout_at(self.begun + WHOLE, fixed).await else {
            return Ok(unfixed(findings, "the time of this page was over; run the doctor again"));
        };
        let Some(errors) = fixed? else {
            return Ok(unfixed(findings, "the tenant is being worked on; run the doctor when that has ended"));
        };
        let registry = &self.plane.registry;
        let seen = Seen::read(registry.db(), tenant).await?;
        // What is worked on by now looks well whatever it is.
        let Some(seen) = seen.filter(|seen| seen.rests(registry.now())) else { return Ok(findings) };
        let left = self.examined(servers, &seen).await;
        for finding in &mut findings {
            match left.iter().find(|left| left.kind == finding.kind) {
                Some(left) => finding.detail.clone_from(&left.detail),
                // Gone with what was fixed, whether it had a cure of its own or not.
                None => finding.is_fixed = !left.iter().any(|left| left.kind == Kind::DatabaseUnreachable),
            }
            if let Some(error) = errors.get(&finding.kind).filter(|_| !finding.is_fixed) {
                failed(finding, error);
            }
            told(finding);
        }
        Ok(findings)
    }

    /// Cures what is found under the lock of the tenant's row: nothing is ordered for it meanwhile, and what was ordered
    /// does not begin. None if somebody works on it. Answers what did not succeed.
    async fn cure(&self, servers: &Servers, tenant: Uuid) -> Result<Option<HashMap<Kind, EngineError>>, DbErr> {
        let registry = &self.plane.registry;
        let mut change = registry.change().await?;
        tenants::Entity::find_by_id(tenant).lock(LockType::NoKeyUpdate).one(change.db()).await?;
        let Some(seen) = Seen::read(change.db(), tenant).await? else { return Ok(None) };
        let named = seen.database.as_ref().and_then(|row| Some((row.name.parse().ok()?, servers.get(&row.server_id)?)));
        let Some((name, (_, Some(engine)))): Option<(DatabaseName, _)> = named else { return Ok(None) };
        if !seen.rests(registry.now()) {
            return Ok(None);
        }
        let mut errors = HashMap::new();
        for finding in self.examined(servers, &seen).await {
            let cured = match finding.cure {
                Some(Cure::BarRole(slot)) => self.in_time(LOOK, engine.disable_role(&name, slot)).await,
                Some(Cure::RestorePrivileges(slot, connections)) => {
                    self.in_time(LOOK, engine.restore_privileges(&name, slot, connections)).await
                }
                Some(Cure::RecordSchemaVersion(version)) => {
                    let version = i32::try_from(version).unwrap_or(i32::MAX);
                    tenants::Entity::update_many()
                        .col_expr(tenants::Column::SchemaVersion, Expr::value(version))
                        .col_expr(tenants::Column::Version, Expr::col(tenants::Column::Version).add(1))
                        .col_expr(tenants::Column::UpdatedAt, Expr::value(registry.now()))
                        .filter(tenants::Column::Id.eq(tenant))
                        .exec(change.db())
                        .await?;
                    // Data planes decide by it whether they can serve the tenant.
                    change.touch(tenant);
                    Ok(())
                }
                _ => Ok(()),
            };
            if let Err(error) = cured {
                errors.insert(finding.kind, error);
            }
        }
        change.commit().await?;
        Ok(Some(errors))
    }
}

fn unfixed(mut findings: Vec<Finding>, why: &str) -> Vec<Finding> {
    for finding in findings.iter_mut().filter(|finding| finding.cure.is_some()) {
        finding.detail = format!("{} It was not fixed: {why}.", finding.detail);
    }
    findings
}

pub(super) fn failed(finding: &mut Finding, error: &EngineError) {
    finding.detail = format!("{} Fixing it failed: {error}.", finding.detail);
}

pub(super) fn told(finding: &Finding) {
    if finding.is_fixed {
        tracing::info!(kind = ?finding.kind, server = finding.server, database = finding.database,
            tenant = finding.tenant, "the doctor fixed what it found: {}", finding.detail);
    }
}
