//! What the registry's server does with sessions, looked at and done by its admin.

use sea_orm::{ConnectionTrait, Statement};

use super::Stage;

impl Stage {
    /// Whether one of the registry's sessions waits for another.
    pub(in crate::provision::tests) async fn waits_for_a_lock(&self) -> bool {
        let admin = self.admin().await;
        let sql = "SELECT pid::text FROM pg_stat_activity WHERE datname = $1 AND wait_event_type = 'Lock'";
        let name = self.registry_name.as_str();
        let statement = Statement::from_sql_and_values(admin.get_database_backend(), sql, [name.into()]);
        let waits = !admin.query_all_raw(statement).await.unwrap().is_empty();
        admin.close().await.unwrap();
        waits
    }

    pub(in crate::provision::tests) async fn end_registry_sessions(&self) {
        let admin = self.admin().await;
        let sql = "SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity WHERE datname = $1";
        let name = self.registry_name.as_str();
        let statement = Statement::from_sql_and_values(admin.get_database_backend(), sql, [name.into()]);
        assert!(!admin.query_all_raw(statement).await.unwrap().is_empty());
        admin.close().await.unwrap();
    }
}
