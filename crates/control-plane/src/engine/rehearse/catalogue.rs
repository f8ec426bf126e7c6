//! The part of a Postgres catalogue by which is seen what a migration did to tables that were there. Of SQLite nothing is read:
//! whoever writes has all of a database for itself there.

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait, DbBackend, DbErr, QueryResult, Statement};

use super::{Blocks, Finding};

const TABLES: &str = "SELECT c.oid::bigint, c.oid::regclass::text, coalesce(pg_relation_filenode(c.oid), 0)::bigint \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'm') \
    AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND c.relname NOT LIKE 'freehold\\_%'";
const COLUMNS: &str = "SELECT attrelid::bigint, attnum::int, attname::text, format_type(atttypid, atttypmod), attnotnull, \
    atthasdef OR attidentity <> '' OR attgenerated <> '' FROM pg_attribute WHERE attnum > 0 AND NOT attisdropped";
const INDEXES: &str = "SELECT indexrelid::bigint, indexrelid::regclass::text, indrelid::bigint FROM pg_index";

struct Column {
    name: String,
    data_type: String,
    is_not_null: bool,
    has_default: bool,
}

/// Tables by their numbers, which stay when a name changes.
#[derive(Default)]
pub(super) struct Catalogue {
    /// Name, and the number of the file that it is in.
    tables: BTreeMap<i64, (String, i64)>,
    columns: BTreeMap<(i64, i32), Column>,
    /// Name, and of which table.
    indexes: BTreeMap<i64, (String, i64)>,
}

impl Catalogue {
    pub(super) async fn read(db: &impl ConnectionTrait) -> Result<Self, DbErr> {
        let mut catalogue = Self::default();
        if db.get_database_backend() == DbBackend::Sqlite {
            return Ok(catalogue);
        }
        for row in rows(db, TABLES).await? {
            catalogue.tables.insert(row.try_get_by_index(0)?, (row.try_get_by_index(1)?, row.try_get_by_index(2)?));
        }
        for row in rows(db, COLUMNS).await? {
            let table = row.try_get_by_index(0)?;
            let column = Column {
                name: row.try_get_by_index(2)?,
                data_type: row.try_get_by_index(3)?,
                is_not_null: row.try_get_by_index(4)?,
                has_default: row.try_get_by_index(5)?,
            };
            if catalogue.tables.contains_key(&table) {
                catalogue.columns.insert((table, row.try_get_by_index(1)?), column);
            }
        }
        for row in rows(db, INDEXES).await? {
            catalogue.indexes.insert(row.try_get_by_index(0)?, (row.try_get_by_index(1)?, row.try_get_by_index(2)?));
        }
        Ok(catalogue)
    }

    /// The name of a table.
    pub(super) fn table(&self, number: i64) -> Option<&str> {
        self.tables.get(&number).map(|(name, _)| name.as_str())
    }

    /// Tables that are in another file afterwards.
    pub(super) fn rewrites(&self, after: &Self) -> Vec<String> {
        let moved =
            self.tables.iter().filter(|(number, (_, file))| after.tables.get(number).is_some_and(|it| it.1 != *file));
        moved.map(|(_, (name, _))| name.clone()).collect()
    }

    /// What holds up those who use a table that was there.
    pub(super) fn findings(&self, after: &Self, is_in_transaction: bool) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut find = |kind, detail| findings.push(Finding { kind, detail });
        for table in self.rewrites(after) {
            find(Blocks::Rewrite, format!("{table} is written anew, with nobody in it: expand and contract instead"));
        }
        for (number, (index, table)) in &after.indexes {
            let Some(table) = self.table(*table).filter(|_| is_in_transaction && !self.indexes.contains_key(number))
            else {
                continue;
            };
            let detail = format!(
                "the index {index} is made while nobody may write to {table}: CREATE INDEX CONCURRENTLY, in a migration of its \
                 own outside of a transaction"
            );
            find(Blocks::Index, detail);
        }
        for (key, now) in &after.columns {
            let Some(table) = self.table(key.0) else { continue };
            let column = format!("{table}.{}", now.name);
            match self.columns.get(key) {
                None if now.is_not_null && !now.has_default => find(
                    Blocks::NotNull,
                    format!(
                        "{column} is NOT NULL and has no default, which fails where there are rows: nullable first"
                    ),
                ),
                Some(before) if now.is_not_null && !before.is_not_null => find(
                    Blocks::NotNull,
                    format!(
                        "{column} becomes NOT NULL, for which {table} is read whole with nobody in it, unless a valid CHECK \
                         says so already"
                    ),
                ),
                _ => {}
            }
            if let Some(before) = self.columns.get(key).filter(|before| before.data_type != now.data_type) {
                let types = format!("{} becomes {}", before.data_type, now.data_type);
                find(
                    Blocks::TypeChange,
                    format!("{column}: {types}: programs in use read the old one; a new column instead"),
                );
            }
        }
        findings
    }
}

async fn rows(db: &impl ConnectionTrait, sql: &str) -> Result<Vec<QueryResult>, DbErr> {
    db.query_all_raw(Statement::from_string(db.get_database_backend(), sql)).await
}
