//! Login roles and what they may do: all that drifted is told, what is ours is made as it was.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_lets_others_in_is_closed_on_sqlite() {
    use std::os::unix::fs::PermissionsExt as _;
    let stage = Stage::sqlite().await;
    let (_, database) = built(&stage, "acme").await;
    let home = stage.folder.path().join("databases").join(&database.name);
    for (path, mode) in [(home.clone(), 0o755), (home.join("database.db"), 0o640)] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let fixed = assert_fixed(&stage, Kind::PrivilegesDrifted).await;
        assert!(fixed.detail.contains(&format!("{mode:o}")), "{fixed:?}");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_out_of_turn_that_may_log_in_is_barred_on_postgres() {
    on_postgres(async |stage| {
        let (tenant, _) = built(stage, "acme").await;
        rotated(stage, tenant.id).await;
        let database = database_of(stage, tenant.id).await.unwrap();
        let admin = stage.admin().await;
        admin.execute_unprepared(&format!("ALTER ROLE \"{}_a\" LOGIN", database.name)).await.unwrap();
        let fixed = assert_fixed(stage, Kind::RoleMayLogin).await;
        assert!(fixed.detail.contains(&format!("{}_a", database.name)), "{fixed:?}");
        admin.close().await.unwrap();
    })
    .await;
}

/// As after a restore: the registry takes the role of before for the one in use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_data_planes_live_by_is_not_barred_on_postgres() {
    on_postgres(async |stage| {
        let (tenant, before) = built(stage, "acme").await;
        rotated(stage, tenant.id).await;
        set_database(stage, &before.name, databases::Column::Slot, before.slot.as_str()).await;
        set_database(stage, &before.name, databases::Column::Generation, before.generation).await;
        set_database(stage, &before.name, databases::Column::SealedUrl, before.sealed_url.as_str()).await;
        set_tenant(stage, tenant.id, tenants::Column::Generation, tenant.generation).await;
        set_tenant(stage, tenant.id, tenants::Column::SealedUrl, tenant.sealed_url.clone()).await;
        let (left, _) = look(stage, true).await;
        assert_eq!(kinds(&left), [Kind::LoginRefused, Kind::RoleMayLogin], "{left:#?}");
        assert!(left.iter().all(|it| !it.is_fixed && it.remedy.contains("rotate-credentials")), "{left:#?}");
        // As it advises: the admin makes a new one, and all is well.
        rotated(stage, tenant.id).await;
        assert_eq!(kinds(&found(stage).await), []);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_in_use_that_does_not_let_in_is_told_on_postgres() {
    on_postgres(async |stage| {
        let (tenant, database) = built(stage, "acme").await;
        let role = format!("\"{}_a\"", database.name);
        let admin = stage.admin().await;
        for planted in ["NOLOGIN", "LOGIN PASSWORD 'planted'"] {
            admin.execute_unprepared(&format!("ALTER ROLE {role} {planted}")).await.unwrap();
            assert_left(stage, Kind::LoginRefused).await;
        }
        rotated(stage, tenant.id).await;
        assert_eq!(kinds(&found(stage).await), []);
        let gone = format!("REVOKE ALL ON DATABASE \"{0}\" FROM \"{0}_b\"; DROP ROLE \"{0}_b\"", database.name);
        admin.execute_unprepared(&gone).await.unwrap();
        assert_left(stage, Kind::RoleMissing).await;
        rotated(stage, tenant.id).await;
        assert_eq!(kinds(&found(stage).await), []);
        admin.close().await.unwrap();
    })
    .await;
}

/// Where a fault is planted.
enum At {
    /// In the tenant's database, as its owner.
    Inside,
    /// On the server, as its admin.
    Server,
    /// On the server, as one who may do everything.
    Superuser,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn privileges_that_drifted_are_restored_on_postgres() {
    on_postgres(async |stage| {
        let (_, other) = built(stage, "globex").await;
        let (_, database) = built(stage, "acme").await;
        write(stage, &database.name, "CREATE TABLE more (id SERIAL PRIMARY KEY, note TEXT)").await;
        assert_eq!(kinds(&found(stage).await), [], "what a migration makes has its rights");
        let (admin, inside) = (stage.admin().await, inside(stage, &database.name).await);
        let superuser = std::env::var("FREEHOLD_TEST_POSTGRES_SUPERUSER_URL").unwrap();
        let superuser = service::pool::open(superuser).await.unwrap();
        let mut all = faults();
        let version = "SELECT current_setting('server_version_num')::int";
        let version = sea_orm::Statement::from_string(admin.get_database_backend(), version);
        let version: i32 = admin.query_one_raw(version).await.unwrap().unwrap().try_get_by_index(0).unwrap();
        if version >= 160_000 {
            let planted = "GRANT freehold_rw TO ROLE_A WITH INHERIT FALSE";
            all.push((At::Server, planted, "ROLE_A lacks the rights of freehold_rw"));
        }
        for (at, planted, told) in all {
            let filled = |text: &str| {
                text.replace("OTHER", &other.name)
                    .replace("ROLE_A", &format!("\"{}_a\"", database.name))
                    .replace("MINE", &database.name)
            };
            let db = match at {
                At::Inside => &inside,
                At::Server => &admin,
                At::Superuser => &superuser,
            };
            db.execute_unprepared(&filled(planted)).await.unwrap();
            let (told, is_mine) = (filled(told).replace('"', ""), !matches!(at, At::Superuser));
            let findings = found(stage).await;
            let drifted: Vec<_> = findings.iter().filter(|it| it.kind == Kind::PrivilegesDrifted).collect();
            assert!(drifted.len() == 1 && drifted[0].detail.contains(&told), "{planted}: {told}: {findings:#?}");
            assert!(findings.iter().all(|it| matches!(it.kind, Kind::PrivilegesDrifted | Kind::LoginRefused)));
            assert_eq!(drifted[0].database.as_deref(), Some(database.name.as_str()));
            let (fixed, _) = look(stage, true).await;
            assert!(fixed.iter().all(|it| it.is_fixed == is_mine), "{planted}: {fixed:#?}");
            if !is_mine {
                let back = filled(planted).replace("ROLE_A SUPERUSER", "").replace(" SUPERUSER", " NOSUPERUSER");
                superuser.execute_unprepared(&back).await.unwrap();
            }
            assert_eq!(kinds(&found(stage).await), [], "{planted}");
        }
        for db in [admin, inside, superuser] {
            db.close().await.unwrap();
        }
    })
    .await;
}

fn faults() -> Vec<(At, &'static str, &'static str)> {
    vec![
        (At::Inside, "GRANT CONNECT ON DATABASE \"MINE\" TO PUBLIC", "PUBLIC has CONNECT on the database"),
        (At::Inside, "GRANT CONNECT ON DATABASE \"MINE\" TO freehold_rw", "freehold_rw has CONNECT on the database"),
        (
            At::Inside,
            "GRANT CREATE, TEMPORARY ON DATABASE \"MINE\" TO ROLE_A",
            "ROLE_A has CREATE, TEMPORARY on the database",
        ),
        (At::Inside, "REVOKE CONNECT ON DATABASE \"MINE\" FROM ROLE_A", "ROLE_A lacks CONNECT on the database"),
        (At::Inside, "GRANT USAGE ON SCHEMA public TO PUBLIC", "PUBLIC has USAGE on the schema public"),
        (At::Inside, "GRANT CREATE ON SCHEMA public TO freehold_rw", "freehold_rw has CREATE on the schema public"),
        (At::Inside, "REVOKE USAGE ON SCHEMA public FROM freehold_rw", "freehold_rw lacks USAGE on the schema public"),
        (At::Inside, "GRANT SELECT ON notes TO PUBLIC", "PUBLIC has SELECT on notes"),
        (At::Inside, "GRANT TRUNCATE ON notes TO freehold_rw", "freehold_rw has TRUNCATE on notes"),
        (At::Inside, "REVOKE INSERT, DELETE ON notes FROM freehold_rw", "freehold_rw lacks DELETE, INSERT on notes"),
        (At::Inside, "GRANT INSERT ON notes TO ROLE_A", "ROLE_A has INSERT on notes"),
        (At::Inside, "REVOKE USAGE ON SEQUENCE more_id_seq FROM freehold_rw", "freehold_rw lacks USAGE on more_id_seq"),
        (At::Inside, "GRANT UPDATE ON freehold_stamp TO freehold_rw", "freehold_rw has UPDATE on freehold_stamp"),
        (
            At::Inside,
            "GRANT UPDATE (tenant_id) ON freehold_stamp TO freehold_rw",
            "freehold_rw has UPDATE on freehold_stamp.tenant_id",
        ),
        (
            At::Inside,
            "GRANT DELETE ON freehold_migrations TO freehold_rw",
            "freehold_rw has DELETE on freehold_migrations",
        ),
        (At::Inside, "GRANT DELETE ON freehold_seed TO freehold_rw", "freehold_rw has DELETE on freehold_seed"),
        (
            At::Inside,
            "ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE INSERT ON TABLES FROM freehold_rw",
            "freehold_rw lacks INSERT on tables to come",
        ),
        (
            At::Inside,
            "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO PUBLIC",
            "PUBLIC has SELECT on tables to come",
        ),
        (At::Server, "ALTER ROLE ROLE_A CREATEDB CREATEROLE", "ROLE_A is CREATEROLE"),
        (At::Superuser, "ALTER ROLE ROLE_A SUPERUSER", "ROLE_A is SUPERUSER"),
        (At::Server, "ALTER ROLE ROLE_A CONNECTION LIMIT 999", "ROLE_A may hold 999 connections, and not 20"),
        (At::Server, "ALTER ROLE ROLE_A NOINHERIT", "ROLE_A is NOINHERIT"),
        (At::Server, "ALTER ROLE ROLE_A VALID UNTIL '2999-01-01'", "the password of ROLE_A ends"),
        (At::Server, "ALTER ROLE ROLE_A SET statement_timeout = 0", "ROLE_A has not statement_timeout=30s"),
        (
            At::Server,
            "ALTER ROLE ROLE_A RESET idle_in_transaction_session_timeout",
            "ROLE_A has not idle_in_transaction_session_timeout=30s",
        ),
        (
            At::Server,
            "ALTER ROLE ROLE_A IN DATABASE \"MINE\" SET statement_timeout = 0",
            "ROLE_A has statement_timeout=0 in this database",
        ),
        (At::Server, "REVOKE freehold_rw FROM ROLE_A", "ROLE_A lacks the rights of freehold_rw"),
        (At::Server, "GRANT freehold_owner TO ROLE_A", "ROLE_A is a member of freehold_owner"),
        (At::Server, "GRANT \"OTHER_a\" TO ROLE_A", "ROLE_A is a member of OTHER_a"),
        (At::Server, "GRANT freehold_rw TO ROLE_A WITH ADMIN OPTION", "ROLE_A may make others members of freehold_rw"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_given_to_others_is_told_and_left_on_postgres() {
    on_postgres(async |stage| {
        let (_, database) = built(stage, "acme").await;
        let watcher = format!("watcher_{}", Uuid::new_v4().simple());
        let admin = stage.admin().await;
        admin.execute_unprepared(&format!("CREATE ROLE \"{watcher}\"")).await.unwrap();
        let granted = format!("GRANT CONNECT ON DATABASE \"{}\" TO \"{watcher}\"", database.name);
        admin.execute_unprepared(&granted).await.unwrap();
        let left = assert_left(stage, Kind::PrivilegesDrifted).await;
        assert_eq!(left.detail, format!("{watcher} has CONNECT on the database."));
        let back = format!("REVOKE ALL ON DATABASE \"{}\" FROM \"{watcher}\"; DROP ROLE \"{watcher}\"", database.name);
        admin.execute_unprepared(&back).await.unwrap();
        admin.close().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_enter_anothers_database_is_told_of_both_on_postgres() {
    on_postgres(async |stage| {
        let (_, globex) = built(stage, "globex").await;
        let (_, acme) = built(stage, "acme").await;
        let admin = stage.admin().await;
        let granted = format!("GRANT CONNECT ON DATABASE \"{}\" TO \"{}_a\"", globex.name, acme.name);
        admin.execute_unprepared(&granted).await.unwrap();
        let findings = found(stage).await;
        let details: Vec<_> = findings.iter().map(|it| it.detail.as_str()).collect();
        let role = format!("{}_a", acme.name);
        assert_eq!(
            details,
            [
                format!("{role} has CONNECT on the database."),
                format!("{role} has rights of its own in the database {}.", globex.name),
            ]
        );
        let (fixed, _) = look(stage, true).await;
        assert!(fixed.len() == 2 && fixed.iter().all(|it| it.is_fixed), "{fixed:#?}");
        assert_eq!(kinds(&found(stage).await), []);
        admin.close().await.unwrap();
    })
    .await;
}
