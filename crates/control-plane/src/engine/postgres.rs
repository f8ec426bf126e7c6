//! Postgres: a database of its own for each tenant, entered by two login roles and nobody else.
//!
//! The admin has CREATEDB and CREATEROLE and is no superuser. All objects belong to one owner role that cannot log in;
//! what runtime roles may do comes from one group. Since Postgres 16 the maker of a role may not use it unless that is
//! granted, so it is.

mod address;
mod admin;
mod anchor;
mod ensure;
mod inspect;
mod pooler;
mod rights;
mod scram;
mod session;

use async_trait::async_trait;
use sea_orm::{ConnectionTrait, DatabaseConnection, DbErr, Statement};
use secrecy::{ExposeSecret, SecretString};
use url::Url;
use uuid::Uuid;

use address::DataAddress;
use admin::Admin;
pub(crate) use ensure::ensure_database;
use session::{Session, application_name, only};

use super::database::{DatabaseName, OURS, Slot};
use super::{Engine, EngineError, Entered, Made, Patience, Worker};

const OWNER: &str = "freehold_owner";
const GROUP: &str = "freehold_rw";
const OLDEST: i32 = 140_000;
/// Before it everybody may create in the schema `public`, and only a superuser can take that away: in `template1`, once.
const CLOSED: i32 = 150_000;
/// From it on whether a role has the rights of one that it is a member of is said by each grant.
const PER_GRANT: i32 = 160_000;
const AS_ADMIN: &str = "connect to the server as its admin";
/// Longest statement of a product's handler.
const STATEMENT_TIMEOUT: &str = "30s";
/// Longest that a transaction may sit idle and hold its locks.
const IDLE_TIMEOUT: &str = "30s";

/// All that an admin URL's query may say. Tenants' URLs carry it too, and the driver lets a query override user, password,
/// host and database, and logs the values of what it does not know.
const QUERY: [&str; 6] = ["sslmode", "ssl-mode", "sslrootcert", "ssl-root-cert", "ssl-ca", "statement-cache-capacity"];

/// Connections of the admin to its own database, at most. A login costs more than most of what is done with it.
pub(crate) const ADMIN_CONNECTIONS: u32 = 8;

/// One Postgres server, by its admin's URL.
pub(super) struct Postgres {
    url: Url,
    /// Where tenants' URLs lead to, if not to where the admin's does.
    data_address: Option<DataAddress>,
    worker: Worker,
    admin: Admin,
}

impl Postgres {
    /// Of a server whose admin has another password next, if it is being rotated.
    pub(super) fn new(
        admin_url: &SecretString,
        next: Option<&SecretString>,
        data_address: Option<&str>,
        worker: Worker,
    ) -> Result<Self, EngineError> {
        let url = Self::parsed(admin_url)?;
        let next = next.map(Self::parsed).transpose()?;
        let data_address = data_address.map(str::parse).transpose()?;
        Ok(Self { admin: Admin::new(url.clone(), next, worker), url, data_address, worker })
    }

    fn parsed(admin_url: &SecretString) -> Result<Url, EngineError> {
        let admin = Url::parse(admin_url.expose_secret()).ok().filter(|url| {
            matches!(url.scheme(), "postgres" | "postgresql")
                && !url.username().is_empty()
                // A data plane reaches a server by TCP; a host that begins with a slash is a socket's folder.
                && url.host_str().is_some_and(|host| !host.is_empty() && !host.to_ascii_lowercase().starts_with("%2f"))
                && url.query_pairs().all(|(key, _)| QUERY.contains(&key.as_ref()))
        });
        admin.ok_or_else(|| {
            EngineError::refused(
                "the admin URL of a Postgres server is postgres://admin:password@host:5432/postgres, with sslmode and \
                 sslrootcert behind it at most",
            )
        })
    }

    /// The admin's own connections, outside of every tenant's database.
    async fn admin(&self) -> Result<DatabaseConnection, EngineError> {
        self.admin.connection().await
    }

    /// As the owner, in the tenant's database.
    async fn as_owner(&self, database: &DatabaseName) -> Result<DatabaseConnection, EngineError> {
        // By the connection's own settings: one that is made anew when the first broke is the owner's too.
        self.enter_as_owner(database, Session::default()).await
    }

    async fn enter_as_owner(
        &self,
        database: &DatabaseName,
        session: Session,
    ) -> Result<DatabaseConnection, EngineError> {
        let db = self.admin.enter(database.as_str(), Session { role: Some(OWNER), ..session }).await;
        db.map_err(|error| EngineError::of(AS_ADMIN, error))
    }

    async fn make(&self, database: &DatabaseName, template: &str) -> Result<Made, EngineError> {
        let admin = &self.admin().await?;
        let what = "create the database";
        let made = format!("CREATE DATABASE \"{database}\" OWNER \"{OWNER}\" TEMPLATE \"{template}\"");
        match run(admin, what, &made).await {
            Ok(()) => Ok(Made::Anew),
            Err(_) if exists(admin, database.as_str()).await.map_err(|error| EngineError::of(what, error))? => {
                Ok(Made::Before)
            }
            Err(error) => Err(error),
        }
    }

    /// Lets nobody but the group's members into the database, and lets them do what they may.
    async fn close_to_others(&self, database: &DatabaseName) -> Result<(), EngineError> {
        let owner = self.as_owner(database).await?;
        let closed = format!(
            "REVOKE ALL ON DATABASE \"{database}\" FROM PUBLIC; \
             REVOKE ALL ON SCHEMA public FROM PUBLIC; \
             GRANT USAGE ON SCHEMA public TO \"{GROUP}\"; \
             ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO \"{GROUP}\"; \
             ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO \"{GROUP}\""
        );
        run(&owner, "close the database to others", &closed).await?;
        close(owner).await
    }

    /// Lets nobody into a database any more, and ends the sessions in it that the admin may end. Others may leave by
    /// themselves.
    async fn empty(&self, database: &DatabaseName) -> Result<(), EngineError> {
        const WHAT: &str = "end the sessions in the database";
        let admin = &self.admin().await?;
        run(admin, WHAT, &format!("ALTER DATABASE \"{database}\" WITH ALLOW_CONNECTIONS false")).await?;
        // Generated by us: no quote is in the name.
        let others = format!("FROM pg_stat_activity WHERE datname = '{database}' AND usesysid IS NOT NULL");
        let ended = format!("SELECT pg_terminate_backend(pid, 5000) {others} AND pg_has_role(usesysid, 'MEMBER')");
        run(admin, WHAT, &ended).await?;
        let left = format!("SELECT coalesce(string_agg(DISTINCT usename::text, ', '), '') {others}");
        let left: String = one(admin, &left).await.map_err(|error| EngineError::of(WHAT, error))?;
        if left.is_empty() {
            return Ok(());
        }
        Err(EngineError::unavailable(format!(
            "could not drop the database: {left} is in it, whose sessions the server's admin may not end; see \
             pg_stat_activity, and let them leave"
        )))
    }

    fn url_of(&self, database: &str, role: &str, password: &SecretString) -> SecretString {
        let mut url = self.url.clone();
        url.set_path(database);
        // Neither fails for a URL with a host, as the admin's has.
        let _ = url.set_username(role);
        let _ = url.set_password(Some(password.expose_secret()));
        if let Some(address) = &self.data_address {
            address.put_into(&mut url);
        }
        String::from(url).into()
    }

    /// Bars a login role that there may be, and makes the admin its member: only members may end a role's sessions, and
    /// only without LOGIN do no new ones come.
    async fn bar(&self, role: &str) -> Result<(), EngineError> {
        let admin = &self.admin().await?;
        let options = if version(admin).await? >= PER_GRANT { " WITH INHERIT TRUE, SET TRUE" } else { "" };
        let barred = format!(
            "DO $$ BEGIN ALTER ROLE \"{role}\" NOLOGIN; GRANT \"{role}\" TO CURRENT_USER{options}; \
             EXCEPTION WHEN undefined_object THEN NULL; END $$"
        );
        run(admin, "bar a login role", &barred).await
    }
}

async fn run(db: &DatabaseConnection, what: &str, sql: &str) -> Result<(), EngineError> {
    db.execute_unprepared(sql).await.map(drop).map_err(|error| EngineError::of(what, error))
}

async fn one<T: sea_orm::TryGetable>(db: &DatabaseConnection, sql: &str) -> Result<T, DbErr> {
    let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), sql)).await?;
    row.ok_or_else(|| DbErr::RecordNotFound("the server answered no row".to_owned()))?.try_get_by_index(0)
}

async fn version(db: &DatabaseConnection) -> Result<i32, EngineError> {
    one(db, "SELECT current_setting('server_version_num')::int")
        .await
        .map_err(|error| EngineError::of("read the server's version", error))
}

async fn exists(db: &DatabaseConnection, database: &str) -> Result<bool, DbErr> {
    let statement = Statement::from_sql_and_values(
        db.get_database_backend(),
        "SELECT 1 FROM pg_database WHERE datname = $1",
        [database.into()],
    );
    Ok(db.query_one_raw(statement).await?.is_some())
}

async fn close(db: DatabaseConnection) -> Result<(), EngineError> {
    db.close().await.map_err(|error| EngineError::of("close the connection", error))
}

#[async_trait]
impl Engine for Postgres {
    async fn check(&self) -> Result<(), EngineError> {
        self.check_rights().await
    }

    async fn set_admin_password(&self, password: &SecretString) -> Result<(), EngineError> {
        let verifier = scram::verifier(password, self.worker.scram_iterations, &mut rand::rng());
        let changed = format!("ALTER ROLE CURRENT_USER PASSWORD '{verifier}'");
        run(&self.admin().await?, "change the admin's password", &changed).await
    }

    fn admin_url_with(&self, password: &SecretString) -> Option<SecretString> {
        let mut url = self.url.clone();
        url.set_password(Some(password.expose_secret())).ok()?;
        Some(String::from(url).into())
    }

    async fn create_database(&self, database: &DatabaseName) -> Result<(), EngineError> {
        let admin = &self.admin().await?;
        self.ensure_roles(admin).await?;
        self.make(database, if version(admin).await? < CLOSED { "template1" } else { "template0" }).await?;
        self.close_to_others(database).await
    }

    async fn create_role(
        &self,
        database: &DatabaseName,
        slot: Slot,
        password: &SecretString,
        connections: u32,
    ) -> Result<(), EngineError> {
        let admin = &self.admin().await?;
        let role = database.role(slot);
        let what = "make a login role for the database";
        let verifier = scram::verifier(password, self.worker.scram_iterations, &mut rand::rng());
        let inherits = inherits(version(admin).await?);
        // One message, and so one transaction.
        let made = format!(
            "DO $$ BEGIN CREATE ROLE \"{role}\" NOLOGIN; \
             EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$; \
             ALTER ROLE \"{role}\" LOGIN INHERIT CONNECTION LIMIT {connections} PASSWORD '{verifier}'; \
             ALTER ROLE \"{role}\" SET statement_timeout = '{STATEMENT_TIMEOUT}'; \
             ALTER ROLE \"{role}\" SET idle_in_transaction_session_timeout = '{IDLE_TIMEOUT}'; \
             GRANT \"{GROUP}\" TO \"{role}\"{inherits}; \
             GRANT CONNECT ON DATABASE \"{database}\" TO \"{role}\""
        );
        run(admin, what, &made).await
    }

    async fn disable_role(&self, database: &DatabaseName, slot: Slot) -> Result<(), EngineError> {
        let role = database.role(slot);
        self.bar(&role).await?;
        // Generated by us: no quote is in it.
        let ended = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'");
        run(&self.admin().await?, "end a login role's sessions", &ended).await
    }

    async fn enter(&self, database: &DatabaseName) -> Result<Entered, EngineError> {
        Ok(only(self.as_owner(database).await?, Patience::ALONE))
    }

    async fn enter_among_others(&self, database: &DatabaseName, patience: Patience) -> Result<Entered, EngineError> {
        let session = Session { patience, ..Session::default() };
        Ok(only(self.enter_as_owner(database, session).await?, patience))
    }

    async fn enter_aloud(&self, database: &DatabaseName) -> Result<Entered, EngineError> {
        let session = Session { is_aloud: true, ..Session::default() };
        Ok(only(self.enter_as_owner(database, session).await?, Patience::ALONE))
    }

    async fn make_template(&self, database: &DatabaseName) -> Result<(), EngineError> {
        // Nobody is in it when it is copied, or it could not be.
        let closed = format!("ALTER DATABASE \"{database}\" WITH ALLOW_CONNECTIONS false");
        run(&self.admin().await?, "close the template", &closed).await
    }

    async fn copy_database(&self, template: &DatabaseName, database: &DatabaseName) -> Result<Made, EngineError> {
        if self.make(database, template.as_str()).await? == Made::Before {
            // It may have been begun when there was no template yet.
            self.close_to_others(database).await?;
            return Ok(Made::Before);
        }
        // What a database lets whom do is not copied with it.
        let closed = format!("REVOKE ALL ON DATABASE \"{database}\" FROM PUBLIC");
        run(&self.admin().await?, "close the database to others", &closed).await?;
        Ok(Made::Anew)
    }

    async fn has_database(&self, database: &DatabaseName) -> Result<bool, EngineError> {
        let found = exists(&self.admin().await?, database.as_str()).await;
        found.map_err(|error| EngineError::of("look for the database", error))
    }

    async fn is_invalid(&self, database: &DatabaseName) -> Result<bool, EngineError> {
        // As a server marks what it did not drop to the end. Generated by us: no quote is in the name.
        let sql = format!("SELECT EXISTS (SELECT FROM pg_database WHERE datname = '{database}' AND datconnlimit = -2)");
        one(&self.admin().await?, &sql).await.map_err(|error| EngineError::of("look for the database", error))
    }

    async fn drop_database(&self, database: &DatabaseName) -> Result<(), EngineError> {
        let admin = &self.admin().await?;
        let what = "drop the database";
        if exists(admin, database.as_str()).await.map_err(|error| EngineError::of(what, error))? {
            for slot in Slot::BOTH {
                self.bar(&database.role(slot)).await?;
            }
            let dropped = format!("DROP DATABASE IF EXISTS \"{database}\"");
            match run(admin, what, &format!("{dropped} WITH (FORCE)")).await {
                // Somebody is in it whose sessions the admin may not end.
                Err(error) if error.sqlstate().as_deref() == Some("42501") => {
                    self.empty(database).await?;
                    run(admin, what, &dropped).await?;
                }
                dropped => dropped?,
            }
        }
        for slot in Slot::BOTH {
            run(admin, "drop a login role", &format!("DROP ROLE IF EXISTS \"{}\"", database.role(slot))).await?;
        }
        Ok(())
    }

    async fn end_sessions_of(&self, holder: Uuid) -> Result<(), EngineError> {
        const WHAT: &str = "end the sessions of a control plane that was taken over from";
        let admin = &self.admin().await?;
        let of_holder = format!("FROM pg_stat_activity WHERE application_name = '{}'", application_name(holder));
        // One that ended by itself meanwhile counts as not ended: it is looked for again.
        let left = format!(
            "SELECT coalesce(string_agg(pid::text, ','), '') FROM (SELECT pid, pg_terminate_backend(pid, 5000) AS is_ended \
             {of_holder}) AS sessions WHERE NOT is_ended"
        );
        let left: String = one(admin, &left).await.map_err(|error| EngineError::of(WHAT, error))?;
        if left.is_empty() {
            return Ok(());
        }
        let alive = format!("SELECT count(*) {of_holder} AND pid IN ({left})");
        match one::<i64>(admin, &alive).await.map_err(|error| EngineError::of(WHAT, error))? {
            0 => Ok(()),
            alive => Err(EngineError::unavailable(format!(
                "could not {WHAT}: {alive} of them still go on, and what they do could take effect after this; see \
                 pg_stat_activity on the server"
            ))),
        }
    }

    fn url(&self, database: &DatabaseName, slot: Slot, password: &SecretString) -> SecretString {
        self.url_of(database.as_str(), &database.role(slot), password)
    }
}

/// How a grant of the group says that its member has the group's rights, where the role itself does not.
const fn inherits(version: i32) -> &'static str {
    if version >= PER_GRANT { " WITH INHERIT TRUE" } else { "" }
}

/// Closes our own tables to tenants' roles, but for reading.
pub(super) fn protect_ours() -> String {
    let closed = OURS.map(|table| {
        format!("REVOKE ALL ON \"{table}\" FROM \"{GROUP}\"; GRANT SELECT ON \"{table}\" TO \"{GROUP}\";")
    });
    closed.join(" ")
}
