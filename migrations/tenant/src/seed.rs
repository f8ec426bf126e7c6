//! What a new tenant begins with: somebody who administers it, and a pet to look at.

use chrono::{DateTime, Utc};
use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseTransaction};
use uuid::Uuid;

/// The administrator of a tenant that told none; `.invalid` is nobody's (RFC 2606).
const NOBODY: &str = "admin@tenant.invalid";

/// Fills a new tenant's database.
pub async fn seed(db: &DatabaseTransaction, admin_email: Option<&str>, now: DateTime<Utc>) -> Result<(), DbErr> {
    let user = Query::insert()
        .into_table("users")
        .columns(["id", "email", "role", "created_at"])
        .values_panic([
            Expr::value(Uuid::now_v7()),
            Expr::value(admin_email.unwrap_or(NOBODY)),
            Expr::value("admin"),
            Expr::value(now),
        ])
        .to_owned();
    let pet = Query::insert()
        .into_table("pets")
        .columns(["id", "name", "species", "breed", "created_at"])
        .values_panic([
            Expr::value(Uuid::now_v7()),
            Expr::value("Sample Pet"),
            Expr::value("dog"),
            Expr::value("Golden Retriever"),
            Expr::value(now),
        ])
        .to_owned();
    db.execute(&user).await?;
    db.execute(&pet).await?;
    Ok(())
}
