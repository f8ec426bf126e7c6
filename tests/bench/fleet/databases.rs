//! Tenants' databases as whoever has their login reaches them, without Freehold.

use std::time::{Duration, Instant};

use end_to_end::bed::{Bed, Store};
use futures_util::StreamExt as _;
use futures_util::stream;
use sea_orm::sqlx::sqlite::SqliteJournalMode;
use sea_orm::{ConnectOptions, ConnectionTrait as _, DatabaseConnection, Statement};

use super::per_second;

/// All of them, in the order of their names.
pub(super) struct Databases {
    pub(super) urls: Vec<String>,
    store: Store,
}

impl Databases {
    pub(super) async fn of(bed: &Bed) -> Self {
        let registry = bed.registry().await;
        let names = Statement::from_string(registry.get_database_backend(), "SELECT name FROM databases ORDER BY name");
        let rows = registry.query_all_raw(names).await.unwrap();
        let name = |row: &sea_orm::QueryResult| row.try_get_by_index::<String>(0).unwrap();
        let urls = rows.iter().map(name).map(|name| match bed.store {
            Store::Postgres => {
                let admin = std::env::var("FREEHOLD_TEST_POSTGRES_URL").unwrap();
                format!("{}/{name}", admin.rsplit_once('/').unwrap().0)
            }
            Store::Sqlite => {
                format!("sqlite://{}", bed.folder.path().join("tenants").join(name).join("database.db").display())
            }
        });
        let urls = urls.collect();
        registry.close().await.unwrap();
        Self { urls, store: bed.store }
    }

    /// One connection, as Freehold makes it.
    pub(super) async fn connect(&self, url: &str) -> DatabaseConnection {
        let mut options = ConnectOptions::new(url);
        options.max_connections(1).sqlx_logging(false);
        match self.store {
            Store::Postgres => options.map_sqlx_postgres_opts(|options| options.options([("role", "freehold_owner")])),
            Store::Sqlite => options.map_sqlx_sqlite_opts(|options| {
                options.journal_mode(SqliteJournalMode::Wal).busy_timeout(Duration::from_secs(5)).foreign_keys(true)
            }),
        };
        service::pool::open(options).await.unwrap()
    }

    /// One statement in each of so many, so many at once; answers how many a second.
    pub(super) async fn run(&self, sql: &str, count: usize, at_once: usize) -> f64 {
        let begun = Instant::now();
        stream::iter(self.urls.iter().take(count))
            .for_each_concurrent(at_once, |url| async move {
                let db = self.connect(url).await;
                db.execute_unprepared(sql).await.unwrap();
                db.close().await.unwrap();
            })
            .await;
        per_second(count.min(self.urls.len()), begun.elapsed())
    }
}
