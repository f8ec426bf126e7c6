//! What tenants lack: their database, its stamp, a URL that opens and is let in, privileges as they were made.
//!
//! The registry is read first and the server looked at after. A tenant that is being worked on is between two states, and
//! is left to the work; work that does not end is a finding itself.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use secrecy::{ExposeSecret, SecretString};
use tenancy::Status;
use tenancy::seal::Sealed;
use uuid::Uuid;

use super::{AT_MOST, AT_ONCE, Checked, Cure, Doctor, Finding, Kind, LOOK, Position, Report};
use crate::engine::{DatabaseName, Engine, EngineError, Examination, Login, Slot};
use crate::provision::{Kind as Work, On, is_held, rests, unfinished, url_subject};
use crate::registry::entities::{databases, history, operations, servers, tenants};

/// How long work on a tenant may take before it is a finding.
const STUCK: Duration = Duration::from_hours(1);
/// Work that begins sooner than this could come between a look and a fix.
const SOON: Duration = Duration::from_mins(1);

/// Things that drifted on one database, told in one finding at most.
const TOLD: usize = 12;

/// A tenant by the registry.
pub(super) struct Seen {
    pub(super) tenant: tenants::Model,
    pub(super) database: Option<databases::Model>,
    operations: Vec<operations::Model>,
    /// The registry's present one.
    epoch: Uuid,
}

/// The servers of a page; those that can be worked, with their engines.
pub(super) type Servers = HashMap<Uuid, (servers::Model, Option<Arc<dyn Engine>>)>;

impl Doctor {
    pub(super) async fn tenants(&self, after: Uuid) -> Result<Report, DbErr> {
        let db = self.plane.registry.db();
        let rows = tenants::Entity::find()
            .filter(tenants::Column::Id.gt(after))
            .order_by_asc(tenants::Column::Id)
            .limit(AT_MOST as u64 + 1)
            .all(db)
            .await?;
        let more = rows.len() > AT_MOST;
        let all = Seen::of(db, rows.into_iter().take(AT_MOST).collect()).await?;
        let count = all.len();
        let (servers, mut findings) = self.servers_of(&all).await?;
        let mut looks = stream::iter(all.into_iter().enumerate())
            .take_while(|(index, _)| std::future::ready(*index == 0 || self.has_time()))
            .map(|(_, seen)| async { (seen.tenant.id, self.tenant(&servers, seen).await) })
            .buffered(AT_ONCE);
        let (mut last, mut looked) = (after, 0);
        while let Some((tenant, found)) = looks.next().await {
            findings.extend(found?);
            (last, looked) = (tenant, looked + 1);
        }
        let next = (more || looked < count).then_some(Position::Tenants { after: last });
        Ok(Report { findings, next, checked: Checked { tenants: looked, ..Checked::default() } })
    }

    /// Engines of the servers that these tenants are on. One that does not answer is told once, and not asked for each.
    pub(super) async fn servers_of(&self, all: &[Seen]) -> Result<(Servers, Vec<Finding>), DbErr> {
        let ids: HashSet<Uuid> =
            all.iter().filter_map(|seen| seen.database.as_ref()).map(|database| database.server_id).collect();
        let rows = servers::Entity::find().filter(servers::Column::Id.is_in(ids)).all(self.plane.registry.db()).await?;
        let asked = rows.into_iter().map(|server| async {
            // Told where the servers are looked at; no time makes it better.
            let engine = match self.admin_url(&server) {
                Some(_) => Ok(None),
                None => self.engine(&server).await.map(Some),
            };
            (server, engine)
        });
        let (mut servers, mut findings) = (Servers::new(), Vec::new());
        for (server, engine) in join_all(asked).await {
            let engine = engine.unwrap_or_else(|sick| {
                findings.push(sick);
                None
            });
            servers.insert(server.id, (server, engine));
        }
        Ok((servers, findings))
    }

    pub(super) async fn tenant(&self, servers: &Servers, seen: Seen) -> Result<Vec<Finding>, DbErr> {
        let first = self.examined(servers, &seen).await;
        if first.is_empty() {
            return Ok(first);
        }
        let tenant = seen.tenant.id;
        let Some(seen) = Seen::read(self.plane.registry.db(), tenant).await? else { return Ok(Vec::new()) };
        let suspected: HashSet<Kind> = first.iter().map(|finding| finding.kind).collect();
        let mut found = self.examined(servers, &seen).await;
        found.retain(|finding| suspected.contains(&finding.kind));
        Ok(found)
    }

    /// All that disagrees between what was seen and the server.
    pub(super) async fn examined(&self, servers: &Servers, seen: &Seen) -> Vec<Finding> {
        let mut findings = Vec::new();
        let now = self.plane.registry.now();
        let (held, at_work): (Vec<_>, Vec<_>) = seen.operations.iter().partition(|it| is_held(it, seen.epoch));
        findings.extend(held.into_iter().map(|it| held_back(it, &seen.tenant)));
        findings.extend(at_work.into_iter().filter(|it| is_stuck(it, &seen.tenant, now)).map(stuck));
        let status = seen.tenant.status.parse::<Status>().ok();
        if seen.rests(now) {
            match (status, &seen.database) {
                (Some(Status::Provisioning), _) if seen.operations.is_empty() => findings.push(Finding::new(
                    Kind::TenantWithoutDatabase,
                    "It is being provisioned, and there is no operation that builds it.",
                    "The registry lost a row: restore it from a backup.",
                )),
                (Some(status), None) if status.is_visible() => findings.push(Finding::new(
                    Kind::TenantWithoutDatabase,
                    format!("It is {status}, and the registry has no database for it."),
                    "Restore the row of its database from a backup of the registry. A database that is stamped for it \
                     is among the findings of its server.",
                )),
                (Some(status), Some(database)) if status.is_visible() => {
                    self.examine_database(servers, seen, database, &mut findings).await;
                }
                _ => {}
            }
        }
        let database = seen.database.as_ref();
        let server = database.and_then(|database| servers.get(&database.server_id)).map(|(row, _)| row.name.clone());
        let is_deleted = status == Some(Status::Deleted);
        let tenant = if is_deleted { seen.tenant.id.to_string() } else { seen.tenant.slug.clone() };
        for finding in &mut findings {
            finding.tenant = Some(tenant.clone());
            finding.database = database.map(|database| database.name.clone());
            finding.server.clone_from(&server);
            finding.on = Some(On::Tenant(seen.tenant.id));
        }
        findings
    }

    async fn examine_database(
        &self,
        servers: &Servers,
        seen: &Seen,
        database: &databases::Model,
        findings: &mut Vec<Finding>,
    ) {
        if seen.tenant.server_id != Some(database.server_id) {
            let remedy =
                "See which of the two has the database, and correct the other row from a backup of the registry.";
            let detail = "The tenant's row names another server than its database's row.";
            findings.push(Finding::new(Kind::ServerDisagrees, detail, remedy));
        }
        let url = self.url(seen, database, findings);
        let Some((server, Some(engine))) = servers.get(&database.server_id) else { return };
        let (Ok(name), Ok(slot)) = (database.name.parse::<DatabaseName>(), database.slot.parse::<Slot>()) else {
            let remedy = "Restore the row of its database from a backup of the registry.";
            findings.push(Finding::new(Kind::TenantWithoutDatabase, "The row of its database is damaged.", remedy));
            return;
        };
        // The move of its server has yet to come to it.
        let url = url.filter(|_| database.address_number >= server.address_number);
        let url = url.filter(|url| {
            let leads = engine.leads_to(url, &name, slot);
            if !leads {
                let detail = "Its URL leads to another server, database or login role than the registry's rows.";
                findings.push(Finding::new(Kind::UrlDisagrees, detail, rotate(seen)));
            }
            leads
        });
        let budget = server.connection_budget.unsigned_abs();
        let looked = self.in_time(LOOK, async {
            let Some(examination) = engine.examine(&name, slot, budget).await? else { return Ok(None) };
            let is_admitted = match &url {
                Some(url) if examination.in_use == Login::Open => engine.admits(url).await?,
                _ => examination.in_use != Login::Barred,
            };
            Ok::<_, EngineError>(Some((examination, is_admitted)))
        });
        match looked.await {
            Ok(Some((examination, is_admitted))) => {
                if !is_admitted {
                    let detail = format!("The server does not let {} in by the tenant's URL.", name.role(slot));
                    findings.push(Finding::new(Kind::LoginRefused, detail, rotate(seen)));
                }
                compare(seen, &examination, is_admitted, &name, slot, budget, findings);
            }
            Ok(None) => findings.push(Finding::new(
                Kind::DatabaseMissing,
                "The server does not have its database.",
                "Restore the database under this name from a backup of the server, then rotate the tenant's credentials.",
            )),
            Err(error) => findings.push(Finding::new(
                Kind::DatabaseUnreachable,
                format!("Its database cannot be looked at, though its server answers: {error}."),
                "Try as the server's admin to enter the database; its server's log says what is wrong with it.",
            )),
        }
    }

    /// The tenant's URL if both copies of it open and agree; else why not.
    fn url(&self, seen: &Seen, database: &databases::Model, findings: &mut Vec<Finding>) -> Option<SecretString> {
        let open = |generation: i64, sealed: &str| {
            let subject = url_subject(seen.tenant.id, generation.unsigned_abs());
            self.plane.tenants_ring.open(subject, &Sealed::from_stored(sealed)).map_err(|error| error.to_string())
        };
        let tenants = match &seen.tenant.sealed_url {
            Some(sealed) => open(seen.tenant.generation, sealed),
            None => Err("there is none".to_owned()),
        };
        match (tenants, open(database.generation, &database.sealed_url)) {
            (Ok(one), Ok(other)) => {
                let is_one =
                    one.expose_secret() == other.expose_secret() && seen.tenant.generation == database.generation;
                if !is_one {
                    let detail = format!(
                        "The URL in the tenant's row (generation {}) is not the one in its database's row (generation \
                         {}).",
                        seen.tenant.generation, database.generation
                    );
                    findings.push(Finding::new(Kind::UrlDisagrees, detail, rotate(seen)));
                }
                is_one.then_some(one)
            }
            (tenants, databases) => {
                let whys: Vec<String> = [("tenant", tenants), ("database", databases)]
                    .into_iter()
                    .filter_map(|(row, opened)| opened.err().map(|why| format!("that in the {row}'s row: {why}")))
                    .collect();
                let detail = format!("Its URL does not open; {}.", whys.join("; "));
                let remedy = format!("Add the key to [seal.tenants] of both planes. If it is lost: {}", rotate(seen));
                findings.push(Finding::new(Kind::UrlDoesNotOpen, detail, remedy));
                None
            }
        }
    }
}

impl Seen {
    /// The tenants with what belongs to them.
    async fn of(db: &impl ConnectionTrait, rows: Vec<tenants::Model>) -> Result<Vec<Self>, DbErr> {
        let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
        let all = databases::Entity::find().filter(databases::Column::TenantId.is_in(ids.iter().copied()));
        let mut databases: HashMap<Uuid, databases::Model> =
            all.all(db).await?.into_iter().map(|row| (row.tenant_id, row)).collect();
        let history = history::Entity::find_by_id(1).one(db).await?;
        let epoch = history.map(|history| history.epoch).unwrap_or_default();
        let mut operations: HashMap<Uuid, Vec<operations::Model>> = HashMap::new();
        for operation in unfinished(db, ids).await? {
            // A fix at work leaves the tenant as it is; one that is held is told of.
            let is_fix = operation.kind == Work::Fix.as_str() && !is_held(&operation, epoch);
            if let Some(tenant) = operation.tenant_id.filter(|_| !is_fix) {
                operations.entry(tenant).or_default().push(operation);
            }
        }
        let seen = |tenant: tenants::Model| Self {
            database: databases.remove(&tenant.id),
            operations: operations.remove(&tenant.id).unwrap_or_default(),
            tenant,
            epoch,
        };
        Ok(rows.into_iter().map(seen).collect())
    }

    pub(super) async fn read(db: &impl ConnectionTrait, tenant: Uuid) -> Result<Option<Self>, DbErr> {
        let row = tenants::Entity::find_by_id(tenant).one(db).await?;
        Ok(Self::of(db, row.into_iter().collect()).await?.pop())
    }

    /// As whoever holds the tenant sees it: what has not begun by then does not begin.
    pub(super) fn held_by_us(mut self) -> Self {
        self.operations.retain(|operation| operation.state != "pending");
        self
    }

    /// Whether nobody works on the tenant, and nobody is about to. What was begun and is held has the tenant between two
    /// states.
    pub(super) fn rests(&self, now: DateTime<Utc>) -> bool {
        let until =
            |it: &operations::Model| if is_held(it, self.epoch) { DateTime::<Utc>::MIN_UTC } else { now + SOON };
        self.operations.iter().all(|operation| rests(operation, until(operation)))
    }
}

fn compare(
    seen: &Seen,
    examination: &Examination,
    is_admitted: bool,
    name: &DatabaseName,
    slot: Slot,
    budget: u32,
    findings: &mut Vec<Finding>,
) {
    let identity = &examination.identity;
    match &identity.stamp {
        None => findings.push(Finding::new(
            Kind::StampMissing,
            "It does not say whose it is: data planes refuse it.",
            "See by its data whose it is. If it is this tenant's, write the stamp by hand as the owner of the database.",
        )),
        Some(stamp) if *stamp != seen.tenant.id.to_string() => findings.push(Finding::new(
            Kind::StampDisagrees,
            format!("It is stamped for the tenant {stamp:?}: data planes refuse it."),
            "The registry or the server was restored to another time, or a row was changed by hand. Find the database \
             that is stamped for this tenant, and correct the registry from a backup. Do not change the stamp.",
        )),
        Some(_) => {}
    }
    let (recorded, has) = (seen.tenant.schema_version.unsigned_abs(), identity.schema_version);
    if recorded != has {
        let detail = format!("It has schema version {has}, and the registry says {recorded}.");
        let finding = Finding::new(Kind::SchemaVersionDisagrees, detail, "");
        // What is there is there. A database that lacks what data planes count on needs a migration, not another number.
        findings.push(if has > recorded {
            let remedy = "Run the doctor with fix, which records the version that the database has.".to_owned();
            Finding { remedy, ..finding }.cured_by(Cure::RecordSchemaVersion(has))
        } else {
            let remedy = "Suspend the tenant and migrate its database, or restore it from a newer backup.".to_owned();
            Finding { remedy, ..finding }
        });
    }
    if examination.in_use == Login::Absent {
        let detail = format!("The login role in use, {}, is not on the server.", name.role(slot));
        findings.push(Finding::new(Kind::RoleMissing, detail, rotate(seen)));
    }
    if examination.other == Login::Open {
        let detail = format!("The login role {} can log in, and no rotation is at work.", name.role(slot.other()));
        // A registry that was restored may have the two the wrong way round: the other is what data planes live by then.
        findings.push(if is_admitted {
            let remedy = "Run the doctor with fix, which ends the role's sessions and bars it.";
            Finding::new(Kind::RoleMayLogin, detail, remedy).cured_by(Cure::BarRole(slot.other()))
        } else {
            Finding::new(Kind::RoleMayLogin, detail, format!("Data planes may live by it. {}", rotate(seen)))
        });
    }
    if !examination.drifts.is_empty() {
        let mut told: Vec<String> = examination.drifts.iter().take(TOLD).cloned().collect();
        if examination.drifts.len() > TOLD {
            told.push(format!("and {} more", examination.drifts.len() - TOLD));
        }
        let detail = format!("{}.", told.join("; "));
        let remedy = "Run the doctor with fix, which makes our roles' rights and settings what they were made. What was \
                      given to others, or belongs to them, is to be taken back by hand.";
        let finding = Finding::new(Kind::PrivilegesDrifted, detail, remedy);
        findings.push(finding.cured_by(Cure::RestorePrivileges(slot, budget)));
    }
}

fn rotate(seen: &Seen) -> String {
    format!("Rotate the tenant's credentials: POST /v1/tenants/{}/rotate-credentials.", seen.tenant.slug)
}

/// Whether work that was due has not ended for too long.
fn is_stuck(operation: &operations::Model, tenant: &tenants::Model, now: DateTime<Utc>) -> bool {
    // A deletion was due when its grace period ended; a creation that was started again, when the tenant was changed.
    let due = match operation.kind.as_str() {
        "delete" => tenant.delete_after.unwrap_or(operation.created_at),
        "create" => tenant.updated_at,
        _ => operation.created_at,
    };
    !rests(operation, now + SOON) && due.max(operation.created_at) < now - STUCK
}

fn stuck(operation: &operations::Model) -> Finding {
    let why = operation.error.as_deref().unwrap_or("nothing is said of why");
    let detail = format!("Its operation {} ({}) has not ended for over an hour: {why}.", operation.id, operation.kind);
    let remedy = format!(
        "GET /v1/operations/{} shows the step that it waits for. See that control planes run, of a version that knows it.",
        operation.id
    );
    Finding::new(Kind::OperationStuck, detail, remedy)
}

fn held_back(operation: &operations::Model, tenant: &tenants::Model) -> Finding {
    let detail = format!(
        "Its operation {} ({}, {}) was ordered before the registry's history got another identity, and is held.",
        operation.id, operation.kind, operation.state
    );
    let may_restore =
        tenant.status == Status::Deleting.as_str() && operation.kind == "delete" && operation.state == "pending";
    let restore = if may_restore {
        format!(" POST /v1/tenants/{}/restore calls the deletion off.", tenant.slug)
    } else {
        String::new()
    };
    let remedy = format!(
        "See what became of it since: it may have ended long ago. POST /v1/operations/{}/retry has it go on where it \
         was.{restore}",
        operation.id
    );
    Finding::new(Kind::OperationHeld, detail, remedy)
}
