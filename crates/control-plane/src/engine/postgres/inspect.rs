//! How a Postgres server is looked at: its catalogs say what each of our roles may do, and where that drifted.
//!
//! The wanted state is what `create_database`, `create_role` and the steps after them make. Names of others come from the
//! catalogs alone and are quoted by the server.

use async_trait::async_trait;
use sea_orm::sqlx::Connection as _;
use sea_orm::{ConnectionTrait, DatabaseConnection, DbErr, Statement};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::{
    GROUP, IDLE_TIMEOUT, OWNER, Postgres, STATEMENT_TIMEOUT, close, exists, inherits, one, pooler, run, version,
};
use crate::engine::database::OURS;
use crate::engine::error::sqlstate;
use crate::engine::inspect::{self, Examination, Identity, Inspect, Inventory, Login, Sessions};
use crate::engine::{DatabaseName, Engine as _, EngineError, Slot};

const WHAT: &str = "look at the database";
const DRIFT: &str = include_str!("drift.sql");
const RESTORE_ROLES: &str = include_str!("restore_roles.sql");
const RESTORE_RIGHTS: &str = include_str!("restore_rights.sql");

#[async_trait]
impl Inspect for Postgres {
    async fn connections(&self) -> Result<Option<u32>, EngineError> {
        // Superusers' own, and since Postgres 16 those of a role that an admin is not.
        let sql = "SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int \
                   - coalesce(current_setting('reserved_connections', true), '0')::int";
        let connections: i32 = one(&self.admin().await?, sql)
            .await
            .map_err(|error| EngineError::of("read how many connections the server takes", error))?;
        Ok(Some(connections.unsigned_abs()))
    }

    async fn sessions(&self, names: &[String]) -> Result<Sessions, EngineError> {
        let admin = &self.admin().await?;
        // A session's name and user are shown to all roles; what kind of session it is, to few.
        let sql = "SELECT coalesce(application_name, ''), count(*)::int FROM pg_stat_activity \
                   WHERE usesysid IS NOT NULL GROUP BY 1";
        let found =
            pairs::<i32>(admin, sql, []).await.map_err(|error| EngineError::of("list the server's sessions", error))?;
        let mut sessions = Sessions::default();
        for (name, count) in found {
            sessions.open += count.unsigned_abs();
            if names.contains(&name) {
                sessions.by_name.insert(name, count.unsigned_abs());
            }
        }
        Ok(sessions)
    }

    async fn answers(&self) -> Result<(), EngineError> {
        one::<i32>(&self.admin().await?, "SELECT 1")
            .await
            .map(drop)
            .map_err(|error| EngineError::of("reach the server", error))
    }

    async fn inventory(&self) -> Result<Inventory, EngineError> {
        let sql = "SELECT datname::text, false FROM pg_database WHERE datname LIKE 'fh\\_%' \
                   UNION ALL SELECT rolname::text, true FROM pg_roles WHERE rolname LIKE 'fh\\_%'";
        let failed = |error| EngineError::of("list the server's databases and roles", error);
        let mut inventory = Inventory::default();
        for (name, is_role) in pairs::<bool>(&self.admin().await?, sql, []).await.map_err(failed)? {
            if is_role {
                let role =
                    name.rsplit_once('_').and_then(|(name, slot)| Some((name.parse().ok()?, slot.parse().ok()?)));
                inventory.roles.extend(role);
            } else {
                inventory.databases.extend(name.parse::<DatabaseName>().ok());
            }
        }
        Ok(inventory)
    }

    async fn identify(&self, database: &DatabaseName) -> Result<Option<Identity>, EngineError> {
        let Some(db) = self.look_into(database).await? else { return Ok(None) };
        let identity = identity(&db).await;
        close(db).await?;
        identity.map(Some).map_err(|error| EngineError::of(WHAT, error))
    }

    async fn examine(
        &self,
        database: &DatabaseName,
        in_use: Slot,
        connections: u32,
    ) -> Result<Option<Examination>, EngineError> {
        let Some(db) = self.look_into(database).await? else { return Ok(None) };
        let examination = examination(&db, database, in_use, connections).await;
        close(db).await?;
        examination.map(Some).map_err(|error| EngineError::of(WHAT, error))
    }

    fn leads_to(&self, url: &SecretString, database: &DatabaseName, slot: Slot) -> bool {
        let wanted = self.url(database, slot, &SecretString::default());
        let [Ok(found), Ok(wanted)] = [url, &wanted].map(|url| Url::parse(url.expose_secret())) else { return false };
        // How the server is spoken to may have changed since; where it is, may not.
        let place = |url: &Url| {
            let host = url.host_str().map(str::to_ascii_lowercase);
            (host, url.port().unwrap_or(5432), url.path().to_owned(), url.username().to_owned())
        };
        matches!(found.scheme(), "postgres" | "postgresql") && place(&found) == place(&wanted)
    }

    async fn admits(&self, url: &SecretString) -> Result<bool, EngineError> {
        match pooler::log_in(url, self.worker).await {
            Ok(session) => {
                // It was let in; whether it closes well does not matter.
                let _ = tokio::time::timeout(self.worker.patience, session.close()).await;
                Ok(true)
            }
            Err(error) => {
                let code = sqlstate(&error).unwrap_or_default();
                match code.as_str() {
                    // No connection is free for it, or for anybody: full is not refused.
                    "53300" => Ok(true),
                    // Bad name or password, no login, no right to enter the database.
                    "42501" => Ok(false),
                    "08P01" if pooler::is_login_refused(&error) => Ok(false),
                    code if code.starts_with("28") => Ok(false),
                    _ => Err(EngineError::of("log in as a tenant", error)),
                }
            }
        }
    }

    fn has_data_address(&self) -> bool {
        self.data_address.is_some()
    }

    async fn check_way(&self, database: &DatabaseName, slot: Slot, password: &SecretString) -> Result<(), EngineError> {
        match &self.data_address {
            Some(_) => pooler::check(&self.url(database, slot, password), self.worker).await,
            None => Ok(()),
        }
    }

    async fn restore_privileges(
        &self,
        database: &DatabaseName,
        in_use: Slot,
        connections: u32,
    ) -> Result<(), EngineError> {
        let admin = &self.admin().await?;
        let inherits = inherits(version(admin).await?);
        let filled = |sql: &str| {
            sql.replace("{database}", database.as_str())
                .replace("{role}", &database.role(in_use))
                .replace("{other}", &database.role(in_use.other()))
                .replace("{group}", GROUP)
                .replace("{inherits}", inherits)
                .replace("{connections}", &connections.to_string())
                .replace("{statement_timeout}", STATEMENT_TIMEOUT)
                .replace("{idle_timeout}", IDLE_TIMEOUT)
                .replace("{tables_of_ours}", &OURS.map(|table| format!("'{table}'")).join(", "))
        };
        run(admin, "restore the login roles", &filled(RESTORE_ROLES)).await?;
        let Some(db) = self.look_into(database).await? else {
            return Err(EngineError::refused("the database is gone"));
        };
        let restored = run(&db, "restore the database's privileges", &filled(RESTORE_RIGHTS)).await;
        close(db).await?;
        restored
    }

    async fn drop_role(&self, database: &DatabaseName, slot: Slot) -> Result<(), EngineError> {
        let dropped = format!("DROP ROLE IF EXISTS \"{}\"", database.role(slot));
        run(&self.admin().await?, "drop a login role", &dropped).await
    }

    async fn missing(&self, databases: &[DatabaseName], slot: Option<Slot>) -> Result<Vec<DatabaseName>, EngineError> {
        // As a server marks what it did not drop to the end.
        let sql = "SELECT wanted, true FROM unnest(string_to_array($1, ',')) AS wanted \
                   WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = wanted::name AND datconnlimit <> -2) \
                   OR ($2 <> '' AND NOT EXISTS (SELECT FROM pg_roles WHERE rolname = (wanted || $2)::name))";
        let suffix = slot.map_or_else(String::new, |slot| format!("_{}", slot.as_str()));
        let values = [joined(databases.iter().map(ToString::to_string)).into(), suffix.into()];
        let found = pairs::<bool>(&self.admin().await?, sql, values).await;
        let found = found.map_err(|error| EngineError::of("look for databases that are kept ready", error))?;
        found.iter().map(|(name, _)| name.parse()).collect()
    }

    async fn limits_drifted(
        &self,
        databases: &[DatabaseName],
        slot: Slot,
        connections: u32,
    ) -> Result<Vec<(DatabaseName, i32)>, EngineError> {
        let sql = "SELECT rolname::text, rolconnlimit FROM pg_roles \
                   WHERE rolname = ANY (string_to_array($1, ',')::name[]) AND rolconnlimit <> $2";
        let limit = i32::try_from(connections).unwrap_or(i32::MAX);
        let values = [joined(databases.iter().map(|database| database.role(slot))).into(), limit.into()];
        let found = pairs::<i32>(&self.admin().await?, sql, values).await;
        let found = found.map_err(|error| EngineError::of("look at login roles that are kept ready", error))?;
        let suffix = format!("_{}", slot.as_str());
        found.into_iter().map(|(role, limit)| Ok((role.trim_end_matches(&suffix).parse()?, limit))).collect()
    }

    async fn limit_role(&self, database: &DatabaseName, slot: Slot, connections: u32) -> Result<(), EngineError> {
        let limited = format!("ALTER ROLE \"{}\" CONNECTION LIMIT {connections}", database.role(slot));
        run(&self.admin().await?, "limit a login role", &limited).await
    }
}

/// Names of ours, which have no comma.
fn joined(names: impl Iterator<Item = String>) -> String {
    names.collect::<Vec<_>>().join(",")
}

impl Postgres {
    /// As the owner, in a database that is there, and known from others who are in it.
    async fn look_into(&self, database: &DatabaseName) -> Result<Option<DatabaseConnection>, EngineError> {
        let admin = &self.admin().await?;
        if !exists(admin, database.as_str()).await.map_err(|error| EngineError::of(WHAT, error))? {
            return Ok(None);
        }
        let db = match self.as_owner(database).await {
            Ok(db) => db,
            // Dropped meanwhile.
            Err(_) if !exists(admin, database.as_str()).await.map_err(|error| EngineError::of(WHAT, error))? => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        run(&db, WHAT, "SET application_name = 'freehold-doctor'").await?;
        Ok(Some(db))
    }
}

async fn identity(db: &DatabaseConnection) -> Result<Identity, DbErr> {
    // Whatever works for no user is the server's own. A session of this look's own kind may not have ended yet.
    let is_entered = one(
        db,
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND usename IS NOT NULL \
         AND pid <> pg_backend_pid() AND application_name IS DISTINCT FROM 'freehold-doctor')",
    )
    .await?;
    Ok(Identity { is_entered, ..inspect::identity(db).await? })
}

async fn examination(
    db: &DatabaseConnection,
    database: &DatabaseName,
    in_use: Slot,
    connections: u32,
) -> Result<Examination, DbErr> {
    let identity = identity(db).await?;
    let (a, b) = (database.role(in_use), database.role(in_use.other()));
    let sql = "SELECT rolname::text, rolcanlogin FROM pg_roles WHERE rolname IN ($1, $2)";
    let roles = pairs::<bool>(db, sql, [a.as_str().into(), b.as_str().into()]).await?;
    let login = |role: &str| match roles.iter().find(|(name, _)| name == role) {
        None => Login::Absent,
        Some((_, false)) => Login::Barred,
        Some((_, true)) => Login::Open,
    };
    let limit = i32::try_from(connections).unwrap_or(i32::MAX);
    let values: [sea_orm::Value; 8] = [
        a.as_str().into(),
        b.as_str().into(),
        limit.into(),
        OWNER.into(),
        GROUP.into(),
        STATEMENT_TIMEOUT.into(),
        IDLE_TIMEOUT.into(),
        OURS.join(",").into(),
    ];
    let rows = db.query_all_raw(Statement::from_sql_and_values(db.get_database_backend(), DRIFT, values)).await?;
    let drifts = rows.iter().map(|row| row.try_get_by_index(0)).collect::<Result<_, _>>()?;
    Ok(Examination { identity, in_use: login(&a), other: login(&b), drifts })
}

async fn pairs<T: sea_orm::TryGetable>(
    db: &DatabaseConnection,
    sql: &str,
    values: impl IntoIterator<Item = sea_orm::Value>,
) -> Result<Vec<(String, T)>, DbErr> {
    let rows = db.query_all_raw(Statement::from_sql_and_values(db.get_database_backend(), sql, values)).await?;
    rows.iter().map(|row| Ok((row.try_get_by_index(0)?, row.try_get_by_index(1)?))).collect()
}
