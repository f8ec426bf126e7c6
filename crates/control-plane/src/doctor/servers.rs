//! What is on a server and is nobody's: databases that the registry does not know, login roles without a database.
//!
//! The server is listed first and the registry read after: names are written down before anything is made with them, so
//! what is being made is known by then.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use sea_orm::{
    AccessMode, ColumnTrait, ConnectionTrait, DbBackend, DbErr, EntityTrait, IsolationLevel, QueryFilter, QueryOrder,
    QuerySelect, TransactionOptions,
};
use tenancy::Status;
use tenancy::seal::Sealed;
use uuid::Uuid;

use super::{AT_MOST, AT_ONCE, Checked, Cure, Doctor, Finding, Kind, LOOK, Position, REACH, Report};
use crate::api::servers::admin_url_subject;
use crate::engine::{DatabaseName, Engine, EngineError, Identity, Slot};
use crate::provision::On;
use crate::registry::RegistryTransaction;
use crate::registry::entities::{databases, servers, templates, tenants, warm_databases};
use crate::shares::standing::Standing;

/// What the registry does not know, by name; within one, the database before its roles.
pub(super) type Stray = (DatabaseName, Option<Slot>);

impl Doctor {
    pub(super) async fn next_server(&self, after: &str) -> Result<Report, DbErr> {
        let next = servers::Entity::find()
            .filter(servers::Column::Name.gt(after))
            .order_by_asc(servers::Column::Name)
            .one(self.plane.registry.db())
            .await?;
        match next {
            Some(server) => self.look_at(&server, None).await,
            None => self.tenants(Uuid::nil()).await,
        }
    }

    pub(super) async fn server(&self, name: &str, after: &str) -> Result<Report, DbErr> {
        let server =
            servers::Entity::find().filter(servers::Column::Name.eq(name)).one(self.plane.registry.db()).await?;
        match server {
            Some(server) => self.look_at(&server, after.parse().ok().as_ref()).await,
            None => self.next_server(name).await,
        }
    }

    async fn look_at(&self, server: &servers::Model, after: Option<&DatabaseName>) -> Result<Report, DbErr> {
        let mut report = Report {
            findings: Vec::new(),
            next: Some(Position::Servers { after: server.name.clone() }),
            checked: Checked { servers: usize::from(after.is_none()), ..Checked::default() },
        };
        if let Some(sick) = self.admin_url(server) {
            report.findings.push(sick);
            return Ok(report);
        }
        let engine = match self.engine(server).await {
            Ok(engine) => engine,
            Err(sick) => {
                report.findings.push(sick);
                return Ok(report);
            }
        };
        let (strays, databases) = match self.strays_past(engine.as_ref(), after).await? {
            Ok(found) => found,
            Err(error) => {
                report.findings.push(unreachable(server, &error));
                return Ok(report);
            }
        };
        report.checked.databases = if after.is_none() { databases } else { 0 };
        let names: BTreeSet<DatabaseName> = strays.iter().map(|(name, _)| name.clone()).collect();
        let end = names.last().cloned();
        if after.is_none() {
            report.findings.extend(self.full(server, engine.as_ref()).await?);
            report.findings.extend(self.keeping(server).await?);
        }
        let (engine, strays) = (&engine, &strays);
        let mut looks = stream::iter(names.into_iter().take(AT_MOST).enumerate())
            .take_while(|(index, _)| std::future::ready(*index == 0 || self.has_time()))
            .map(|(_, name)| async move {
                let findings = self.stray(server, engine.as_ref(), &name, strays).await;
                (name, findings)
            })
            .buffered(AT_ONCE);
        let mut last = None;
        while let Some((name, findings)) = looks.next().await {
            report.findings.extend(findings?);
            last = Some(name);
        }
        if let Some(last) = last.filter(|last| end.as_ref() != Some(last)) {
            report.next = Some(Position::Server { name: server.name.clone(), after: last.to_string() });
        }
        Ok(report)
    }

    /// The finding of an admin URL that does not open.
    pub(super) fn admin_url(&self, server: &servers::Model) -> Option<Finding> {
        let sealed = Sealed::from_stored(server.sealed_admin_url.as_str());
        let error = self.plane.servers_ring.open(admin_url_subject(server), &sealed).err()?;
        let remedy = "Add the key to [seal.servers], or restore the server's row from a backup of the registry. Until \
                      then nothing of this server can be looked at, and nothing be done on it.";
        let finding = Finding::new(Kind::AdminUrlDoesNotOpen, format!("Its admin URL does not open: {error}."), remedy);
        Some(Finding { server: Some(server.name.clone()), ..finding })
    }

    /// The finding of a server whose connections are in use by others.
    async fn full(&self, server: &servers::Model, engine: &dyn Engine) -> Result<Option<Finding>, DbErr> {
        let shares = self.plane.registry.shares_on(server.id).await?;
        if shares.is_empty() {
            return Ok(None);
        }
        // A server that does not answer is another finding.
        let looked = self.in_time(LOOK, Standing::of(engine, server, &shares)).await;
        let full = looked.ok().flatten().filter(Standing::is_full);
        Ok(full.map(|standing| {
            let (limit, open, others) = (standing.limit, standing.sessions.open, standing.others());
            let detail =
                format!("It takes {limit} sessions and has {open}. {others} of them are of others than data planes.");
            let remedy = "pg_stat_activity shows who has them. End sessions that are not needed, or lower the server's \
                          connection_budget.";
            Finding { server: Some(server.name.clone()), ..Finding::new(Kind::ServerFull, detail, remedy) }
        }))
    }

    /// The engine of a server that answers; or the finding that it does not.
    pub(super) async fn engine(&self, server: &servers::Model) -> Result<Arc<dyn Engine>, Finding> {
        let sick = |error| unreachable(server, &error);
        let engine = self.plane.engine(server).map_err(sick)?;
        if self.in_time(REACH, engine.answers()).await.is_err() {
            self.in_time(REACH, engine.answers()).await.map_err(sick)?;
        }
        Ok(engine)
    }

    /// What is on the server past a name and unknown at two looks, and how many databases there are.
    pub(super) async fn strays_past(
        &self,
        engine: &dyn Engine,
        after: Option<&DatabaseName>,
    ) -> Result<Result<(BTreeSet<Stray>, usize), EngineError>, DbErr> {
        let (mut strays, count) = match self.strays(engine).await? {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        strays.retain(|(name, _)| after.is_none_or(|after| name > after));
        if !strays.is_empty() {
            // Read again: what was being made or dropped is known, or gone.
            match self.strays(engine).await? {
                Ok((again, _)) => strays.retain(|stray| again.contains(stray)),
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok((strays, count)))
    }

    /// What is on the server and unknown, and how many databases there are.
    async fn strays(&self, engine: &dyn Engine) -> Result<Result<(BTreeSet<Stray>, usize), EngineError>, DbErr> {
        let inventory = match self.inventory(engine).await {
            Ok(inventory) => inventory,
            Err(error) => return Ok(Err(error)),
        };
        #[cfg(test)]
        if let Some(between) = &self.between {
            between.pass().await;
        }
        let known = self.known().await?;
        let count = inventory.databases.len();
        let roles = inventory.roles.into_iter().filter(|(name, _)| !inventory.databases.contains(name));
        let roles: Vec<Stray> = roles.map(|(name, slot)| (name, Some(slot))).collect();
        let all = inventory.databases.into_iter().map(|name| (name, None)).chain(roles);
        Ok(Ok((all.filter(|(name, _)| !known.contains(name.as_str())).collect(), count)))
    }

    /// Every name that the registry has, on whatever server, as of one moment: a name moves from one table to the other, and
    /// one server may be registered by two names.
    pub(super) async fn known(&self) -> Result<BTreeSet<String>, DbErr> {
        let snapshot = self.snapshot().await?;
        let mut known: BTreeSet<String> = claimed(&snapshot).await?.into_iter().collect();
        let warm = warm_databases::Entity::find().select_only().column(warm_databases::Column::Name);
        known.extend(warm.into_tuple::<String>().all(&snapshot).await?);
        let made = templates::Entity::find().select_only().column(templates::Column::Name);
        known.extend(made.into_tuple::<String>().all(&snapshot).await?);
        snapshot.commit().await?;
        Ok(known)
    }

    async fn snapshot(&self) -> Result<RegistryTransaction, DbErr> {
        let db = self.plane.registry.db();
        // A reading transaction of SQLite's is a snapshot already.
        let is_postgres = db.get_database_backend() == DbBackend::Postgres;
        let options = TransactionOptions {
            isolation_level: is_postgres.then_some(IsolationLevel::RepeatableRead),
            access_mode: is_postgres.then_some(AccessMode::ReadOnly),
            ..TransactionOptions::default()
        };
        db.begin_with_options(options).await
    }

    /// What is to be said of one name that the registry does not know.
    pub(super) async fn stray(
        &self,
        server: &servers::Model,
        engine: &dyn Engine,
        name: &DatabaseName,
        strays: &BTreeSet<Stray>,
    ) -> Result<Vec<Finding>, DbErr> {
        let mut findings = Vec::new();
        if strays.contains(&(name.clone(), None)) {
            findings.extend(self.stray_database(engine, name).await?);
        } else {
            for slot in Slot::BOTH {
                if strays.contains(&(name.clone(), Some(slot))) {
                    let detail = format!("The login role {} has no database.", name.role(slot));
                    let remedy = "Run the doctor with fix, which drops the role.";
                    findings.push(Finding::new(Kind::RoleLeftOver, detail, remedy).cured_by(Cure::DropRole(slot)));
                }
            }
        }
        for finding in &mut findings {
            finding.server = Some(server.name.clone());
            finding.database = Some(name.to_string());
            finding.on = Some(On::Server(server.id));
        }
        Ok(findings)
    }

    async fn stray_database(&self, engine: &dyn Engine, name: &DatabaseName) -> Result<Option<Finding>, DbErr> {
        let found = |detail: String, remedy: &str| Finding::new(Kind::DatabaseWithoutTenant, detail, remedy);
        let identity = match self.in_time(LOOK, engine.identify(name)).await {
            Ok(Some(identity)) => identity,
            Ok(None) => return Ok(None),
            Err(error) => {
                let remedy = "See as the server's admin whose it is (SELECT * FROM freehold_stamp), and drop it by hand \
                              if it is nobody's.";
                return Ok(Some(found(format!("It is no tenant's, and cannot be looked into: {error}."), remedy)));
            }
        };
        if let Some(stamp) = &identity.stamp {
            return self.stamped(stamp).await.map(Some);
        }
        Ok(Some(if is_half_made(&identity) {
            let remedy = "Run the doctor with fix, which drops it.";
            found("It is no tenant's, has no stamp and was never seeded: it is half made.".to_owned(), remedy)
                .cured_by(Cure::DropDatabase)
        } else if identity.is_entered {
            let remedy = "See who is in it (pg_stat_activity). Run the doctor again when they have left.";
            found("It is no tenant's and has no stamp, and somebody is in it.".to_owned(), remedy)
        } else {
            let remedy = "See as the server's admin whose data it is, and keep a copy before you drop it by hand.";
            found("It is no tenant's and has no stamp, and was seeded: there is data in it.".to_owned(), remedy)
        }))
    }

    /// What is to be said of a database that is stamped. It may hold a tenant's only data: it is never dropped from here.
    async fn stamped(&self, stamp: &str) -> Result<Finding, DbErr> {
        let tenant = match stamp.parse::<Uuid>() {
            Ok(id) => tenants::Entity::find_by_id(id).one(self.plane.registry.db()).await?,
            Err(_) => None,
        };
        let (tenant, detail, remedy) = match tenant {
            Some(row) if row.status == Status::Deleted.as_str() => (
                Some(row.id.to_string()),
                "It is stamped for a tenant that is deleted.".to_owned(),
                "Its data should have gone with the tenant. Drop the database and its roles by hand, once you are sure \
                 that the registry was not restored from a backup of another time.",
            ),
            Some(row) => (
                Some(row.slug),
                "It is stamped for a tenant whose database, by the registry, is not this one.".to_owned(),
                "The registry may be older than the database, restored from a backup. Compare it with the tenant's own \
                 database, take over what it has, and drop by hand the one that is not needed.",
            ),
            None => (
                None,
                format!("It is stamped for the tenant {stamp:?}, which the registry does not know."),
                "Another Freehold may use this server, or the registry was restored from a backup that is older than the \
                 tenant. Restore a newer one, or keep a copy before you drop the database by hand.",
            ),
        };
        Ok(Finding { tenant, ..Finding::new(Kind::DatabaseWithoutTenant, detail, remedy) })
    }
}

/// Nobody's data is in it: it was never stamped, never seeded, and nobody is at work in it.
pub(super) const fn is_half_made(identity: &Identity) -> bool {
    identity.stamp.is_none() && !identity.is_seeded && !identity.is_entered
}

/// Names of databases that are tenants'. One that is deleted, or was never built, has none.
async fn claimed(db: &impl ConnectionTrait) -> Result<Vec<String>, DbErr> {
    let ends = [Status::Deleted.as_str(), Status::Failed.as_str()];
    let gone = sea_orm::sea_query::Query::select()
        .column(tenants::Column::Id)
        .from(tenants::Entity)
        .and_where(tenants::Column::Status.is_in(ends))
        .to_owned();
    let all = databases::Entity::find().filter(databases::Column::TenantId.not_in_subquery(gone));
    all.select_only().column(databases::Column::Name).into_tuple::<String>().all(db).await
}

pub(super) fn unreachable(server: &servers::Model, error: &EngineError) -> Finding {
    let remedy =
        "See that the server runs, and that its admin URL is right: nothing on it can be looked at until then.";
    let finding = Finding::new(Kind::ServerUnreachable, format!("It cannot be worked: {error}."), remedy);
    Finding { server: Some(server.name.clone()), ..finding }
}
