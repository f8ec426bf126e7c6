//! What an admin must be able to do on its server. What it lacks is told by the statement that gives it, for whoever
//! administers the server to type.

use sea_orm::{ConnectionTrait, DatabaseConnection, DbErr, Statement};

use super::{CLOSED, GROUP, OLDEST, OWNER, PER_GRANT, Postgres, Session, one, run, version};
use crate::engine::EngineError;

/// An admin, as its server has it.
struct Rights {
    /// Its role, quoted by the server.
    admin: String,
    /// Attributes that it needs and has not; a superuser needs none.
    lacking: Vec<&'static str>,
    is_superuser: bool,
    is_standby: bool,
    is_read_only: bool,
}

impl Postgres {
    /// Refuses a server that cannot be worked by its admin, and says what gives it what it lacks.
    pub(super) async fn check_rights(&self) -> Result<(), EngineError> {
        let db = &match self.admin.connection().await {
            Ok(db) => db,
            Err(error) => return Err(self.way_in(error)),
        };
        let version = version(db).await?;
        if version < OLDEST {
            return Err(EngineError::refused(format!(
                "the server is Postgres {}, and 14 is the oldest that can be worked: upgrade it, or register another",
                version / 10_000
            )));
        }
        let rights = Rights::read(db).await.map_err(|error| EngineError::of("read the admin's rights", error))?;
        if rights.is_standby {
            return Err(EngineError::refused(
                "the server is a standby, which takes no changes: give the URL of its primary",
            ));
        }
        if rights.is_read_only {
            return Err(EngineError::refused(format!(
                "the admin's sessions are read-only: ALTER ROLE {} SET default_transaction_read_only = off",
                rights.admin
            )));
        }
        if version < CLOSED && !self.is_template_closed().await? {
            return Err(EngineError::refused(
                "on Postgres 14 everybody may create in the schema public, unless a superuser has closed it in template1, \
                 as it is on newer servers: ALTER SCHEMA public OWNER TO pg_database_owner; REVOKE CREATE ON SCHEMA \
                 public FROM PUBLIC",
            ));
        }
        if !rights.lacking.is_empty() {
            return Err(EngineError::refused(format!(
                "the admin lacks {}: as a superuser, ALTER ROLE {} {}",
                rights.lacking.join(" and "),
                rights.admin,
                rights.lacking.join(" ")
            )));
        }
        if let Err(error) = self.ensure_roles(db).await {
            return Err(if error.is_unavailable() { error } else { membership(&rights.admin, version, OWNER) });
        }
        // Before, CREATEROLE was enough to make others its members.
        if version >= PER_GRANT && !rights.is_superuser {
            let sql = format!("SELECT pg_has_role(current_user, '{GROUP}', 'MEMBER WITH ADMIN OPTION')");
            let may_give: bool =
                one(db, &sql).await.map_err(|error| EngineError::of("look at the admin's roles", error))?;
            if !may_give {
                return Err(membership(&rights.admin, version, GROUP));
            }
        }
        self.tell_what_is_open(db).await
    }

    /// Which of the databases that a server has from the start let every tenant's role in. There is nothing in them, and only
    /// their owner, a superuser, can close them: it is told, and refused is nothing.
    async fn tell_what_is_open(&self, db: &DatabaseConnection) -> Result<(), EngineError> {
        let sql = "SELECT coalesce(string_agg(quote_ident(datname), ', ' ORDER BY datname), '') FROM pg_database \
                   WHERE datname IN ('postgres', 'template1') AND datallowconn AND has_database_privilege('public', oid, 'CONNECT')";
        let open: String =
            one(db, sql).await.map_err(|error| EngineError::of("look at the server's own databases", error))?;
        if !open.is_empty() {
            let (host, admin) = (self.url.host_str().unwrap_or_default(), self.url.username());
            tracing::warn!(
                host,
                "every tenant's role may connect to the server's own databases, in which it can read \
                catalogs and change nothing; as a superuser: GRANT CONNECT ON DATABASE {open} TO \"{admin}\" WITH GRANT \
                OPTION; REVOKE CONNECT, TEMPORARY ON DATABASE {open} FROM PUBLIC"
            );
        }
        Ok(())
    }

    /// Why the admin is not let in, where its server says so.
    fn way_in(&self, error: EngineError) -> EngineError {
        let (user, database) = (self.url.username(), self.url.path().trim_start_matches('/'));
        let database = if database.is_empty() { user } else { database };
        match error.sqlstate().as_deref() {
            Some("42501") => EngineError::refused(format!(
                "the admin may not enter the database of its URL: GRANT CONNECT ON DATABASE \"{database}\" TO \"{user}\""
            )),
            Some("3D000") => EngineError::refused(
                "the server has no database of the name in its admin URL; every server has one that is called postgres",
            ),
            Some("28000") => EngineError::refused(format!(
                "the server does not let the admin in: ALTER ROLE \"{user}\" LOGIN, and a line for it in pg_hba.conf; or \
                 check the server's admin URL"
            )),
            _ => error,
        }
    }

    /// Owner and group, once for each server. Others may make them at the same moment.
    pub(super) async fn ensure_roles(&self, admin: &DatabaseConnection) -> Result<(), EngineError> {
        for role in [OWNER, GROUP] {
            let made = format!(
                "DO $$ BEGIN CREATE ROLE \"{role}\" NOLOGIN; \
                 EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
            );
            run(admin, "make the server's roles", &made).await?;
        }
        if !self.may_set_role(admin).await? {
            let options = if version(admin).await? >= PER_GRANT { " WITH INHERIT TRUE, SET TRUE" } else { "" };
            let granted = format!("GRANT \"{OWNER}\" TO CURRENT_USER{options}");
            // Another replica's grant of the same at the same moment is as good as ours.
            if let Err(error) = run(admin, "take the owner's role", &granted).await
                && !self.may_set_role(admin).await?
            {
                return Err(error);
            }
        }
        Ok(())
    }

    async fn may_set_role(&self, admin: &DatabaseConnection) -> Result<bool, EngineError> {
        // SET ROLE makes objects as the owner; dropping a database needs its rights as they are inherited.
        let privilege = if version(admin).await? >= PER_GRANT { "SET" } else { "MEMBER" };
        let sql = format!(
            "SELECT pg_has_role(current_user, '{OWNER}', '{privilege}') AND pg_has_role(current_user, '{OWNER}', 'USAGE')"
        );
        one(admin, &sql).await.map_err(|error| EngineError::of("look at the admin's roles", error))
    }

    /// Whether template1 is as it is from the start on newer servers.
    async fn is_template_closed(&self) -> Result<bool, EngineError> {
        let what = "look at template1";
        let db =
            self.admin.enter("template1", Session::default()).await.map_err(|error| EngineError::of(what, error))?;
        let closed = "SELECT nspowner = 'pg_database_owner'::regrole AND NOT has_schema_privilege('public', oid, 'CREATE') \
                      FROM pg_namespace WHERE nspname = 'public'";
        let closed = one(&db, closed).await.map_err(|error| EngineError::of(what, error));
        super::close(db).await?;
        closed
    }
}

impl Rights {
    async fn read(db: &DatabaseConnection) -> Result<Self, DbErr> {
        let sql = "SELECT quote_ident(rolname), rolsuper, rolcreatedb, rolcreaterole, pg_is_in_recovery(), \
                   current_setting('default_transaction_read_only')::bool FROM pg_roles WHERE rolname = current_user";
        let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), sql)).await?;
        let row = row.ok_or_else(|| DbErr::RecordNotFound("the server does not know its admin".to_owned()))?;
        let is_superuser: bool = row.try_get_by_index(1)?;
        let mut lacking = Vec::new();
        for (index, attribute) in [(2, "CREATEDB"), (3, "CREATEROLE")] {
            if !is_superuser && !row.try_get_by_index::<bool>(index)? {
                lacking.push(attribute);
            }
        }
        Ok(Self {
            admin: row.try_get_by_index(0)?,
            lacking,
            is_superuser,
            is_standby: row.try_get_by_index(4)?,
            is_read_only: row.try_get_by_index(5)?,
        })
    }
}

/// The admin is not what it must be of a role that another admin made.
fn membership(admin: &str, version: i32, role: &str) -> EngineError {
    let options = if version >= PER_GRANT { " WITH ADMIN TRUE, INHERIT TRUE, SET TRUE" } else { " WITH ADMIN OPTION" };
    EngineError::refused(format!(
        "another admin made the role {role} on this server, and this one may not use it: as a superuser, GRANT {role} TO \
         {admin}{options}"
    ))
}
