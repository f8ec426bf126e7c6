//! The doctor: compares the registry with the servers, says what disagrees, and puts right what is safe.
//!
//! It goes page by page, so that no look takes long however many tenants there are: first the registry itself and the servers, for what is on them
//! that the registry lacks, then the tenants, for what they lack. What looks wrong is read once more before it is told: a
//! tenant that is being worked on, or was between two looks, is well. What is put right is put right by operations. The data
//! of a tenant is never touched.

mod cure;
mod fix;
mod history;
mod keeping;
mod servers;
mod tenants;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use sea_orm::DbErr;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::engine::{EngineError, Inspect, Inventory, Slot};
use crate::plane::Plane;
use crate::provision::On;
pub(crate) use cure::Uncured;
pub(crate) use fix::{order, settle};

/// All that one page may take: the last database is begun with in time for a look, a second one, a fix and a look after it.
const WHOLE: Duration = Duration::from_secs(18);
/// After this no other database of the page is begun with.
const BEGINNING: Duration = Duration::from_secs(8);
/// One look at one database, or one fix of it.
const LOOK: Duration = Duration::from_millis(2_500);
/// How long a server may take to answer at all.
const REACH: Duration = Duration::from_secs(2);
/// Tenants, or names that nobody knows, on one page.
const AT_MOST: usize = 200;
/// Databases that are looked at together.
pub(crate) const AT_ONCE: usize = 8;

/// What disagrees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// The registry does not have revisions that a node was given.
    HistoryLost,
    /// No key of the ring opens the server's admin URL.
    AdminUrlDoesNotOpen,
    /// The server does not answer, or refuses its admin.
    ServerUnreachable,
    /// Others have so many sessions on the server that data planes get fewer than they may have.
    ServerFull,
    /// A database on the server is no tenant's by the registry.
    DatabaseWithoutTenant,
    /// A login role on the server has no database.
    RoleLeftOver,
    /// The server does not have a template that the registry says is ready.
    TemplateMissing,
    /// The server does not have a database, or its login role, that the registry says is ready for a tenant.
    WarmDatabaseMissing,
    /// The number of tenants that have a place on the server is not what is counted there.
    PlacedDisagrees,
    /// Work on the tenant has not ended for an hour.
    OperationStuck,
    /// Work on the tenant was ordered before the registry's history got another identity, and nobody goes on with it.
    OperationHeld,
    /// The registry has no database for the tenant.
    TenantWithoutDatabase,
    /// The tenant's row names another server than its database's.
    ServerDisagrees,
    /// No key of the ring opens the tenant's database URL.
    UrlDoesNotOpen,
    /// The tenant's two copies of its URL differ, or lead to another database.
    UrlDisagrees,
    /// The server does not have the tenant's database.
    DatabaseMissing,
    /// The server answers, and the database does not.
    DatabaseUnreachable,
    /// The database does not say whose it is.
    StampMissing,
    /// The database says that it is another tenant's.
    StampDisagrees,
    /// The database has another schema version than the registry says.
    SchemaVersionDisagrees,
    /// The login role in use is not there.
    RoleMissing,
    /// The login role that is not in use can log in.
    RoleMayLogin,
    /// The server does not let data planes in by the tenant's URL.
    LoginRefused,
    /// Rights or settings of the database and its roles are not as they were made.
    PrivilegesDrifted,
}

/// Something that disagrees. No part of it is a secret.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Finding {
    pub(crate) kind: Kind,
    /// The server's name.
    pub(crate) server: Option<String>,
    /// The database's opaque name.
    pub(crate) database: Option<String>,
    /// The tenant's slug; its id if it is deleted.
    pub(crate) tenant: Option<String>,
    /// What was found.
    pub(crate) detail: String,
    /// What to do.
    pub(crate) remedy: String,
    /// It was put right, and looked at again.
    pub(crate) is_fixed: bool,
    /// The operation that puts it right, if a fix was asked for and there is one.
    pub(crate) operation: Option<Uuid>,
    #[serde(skip)]
    cure: Option<Cure>,
    #[serde(skip)]
    on: Option<On>,
}

/// What the doctor itself can do about a finding.
#[derive(Clone, Copy, Debug)]
enum Cure {
    DropDatabase,
    DropRole(Slot),
    BarRole(Slot),
    RestorePrivileges(Slot, u32),
    RecordSchemaVersion(u32),
    MendStock,
    RecountPlaces,
}

impl Finding {
    fn new(kind: Kind, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            kind,
            server: None,
            database: None,
            tenant: None,
            detail: detail.into(),
            remedy: remedy.into(),
            is_fixed: false,
            operation: None,
            cure: None,
            on: None,
        }
    }

    fn cured_by(self, cure: Cure) -> Self {
        Self { cure: Some(cure), ..self }
    }
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub(crate) struct Checked {
    servers: usize,
    databases: usize,
    tenants: usize,
}

/// One page.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) findings: Vec<Finding>,
    /// Where the next page begins; none on the last.
    pub(crate) next: Option<Position>,
    pub(crate) checked: Checked,
}

/// Where a page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    /// With the server whose name is next.
    Servers { after: String },
    /// With what is on this server past this name.
    Server { name: String, after: String },
    /// With the tenant whose id is next.
    Tenants { after: Uuid },
}

impl Default for Position {
    fn default() -> Self {
        Self::Servers { after: String::new() }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Servers { after } => write!(f, "servers/{after}"),
            Self::Server { name, after } => write!(f, "server/{name}/{after}"),
            Self::Tenants { after } => write!(f, "tenants/{after}"),
        }
    }
}

/// Not a position of ours.
#[derive(Debug)]
pub(crate) struct NoPosition;

impl FromStr for Position {
    type Err = NoPosition;

    fn from_str(text: &str) -> Result<Self, NoPosition> {
        let (part, rest) = text.split_once('/').ok_or(NoPosition)?;
        match part {
            "servers" => Ok(Self::Servers { after: rest.to_owned() }),
            "server" => {
                let (name, after) = rest.split_once('/').ok_or(NoPosition)?;
                Ok(Self::Server { name: name.to_owned(), after: after.to_owned() })
            }
            "tenants" => Ok(Self::Tenants { after: rest.parse().map_err(|_| NoPosition)? }),
            _ => Err(NoPosition),
        }
    }
}

/// One look, of one page.
pub(crate) struct Doctor {
    plane: Plane,
    begun: Instant,
    /// Where a test stops between the look at a server and that at the registry.
    #[cfg(test)]
    between: Option<std::sync::Arc<tests::Between>>,
}

impl Doctor {
    pub(crate) fn new(plane: Plane) -> Self {
        Self {
            plane,
            begun: Instant::now(),
            #[cfg(test)]
            between: None,
        }
    }

    /// Looks at one page.
    pub(crate) async fn look(&self, from: Position) -> Result<Report, DbErr> {
        let of_all = if from == Position::default() { self.history().await? } else { None };
        let mut report = match from {
            Position::Servers { after } => self.next_server(&after).await?,
            Position::Server { name, after } => self.server(&name, &after).await?,
            Position::Tenants { after } => self.tenants(after).await?,
        };
        report.findings.splice(0..0, of_all);
        Ok(report)
    }

    /// Whether another database can be begun with, and the page still ends in time.
    fn has_time(&self) -> bool {
        self.begun.elapsed() < BEGINNING
    }

    /// One thing asked of a server, which may have gone silent.
    async fn in_time<T>(
        &self,
        patience: Duration,
        work: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, EngineError> {
        let until = (Instant::now() + patience).min(self.begun + WHOLE);
        let late = |_| Err(EngineError::unavailable("the server did not answer in time"));
        // What is told of an error are our words alone; the server's are for the log.
        timeout_at(until, work).await.unwrap_or_else(late).inspect_err(|error| {
            let source = std::error::Error::source(error).map(ToString::to_string);
            tracing::warn!(source, "the doctor was not answered: {error}");
        })
    }

    async fn inventory(&self, engine: &(impl Inspect + ?Sized)) -> Result<Inventory, EngineError> {
        let inventory = self.in_time(LOOK, engine.inventory()).await?;
        // Other registries' databases on the same server are nobody's business here.
        let mark = self.plane.registry.mark();
        let inventory = Inventory {
            databases: inventory.databases.into_iter().filter(|name| name.is_of(mark)).collect(),
            roles: inventory.roles.into_iter().filter(|(name, _)| name.is_of(mark)).collect(),
        };
        Ok(inventory)
    }
}
