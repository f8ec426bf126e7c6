//! The rotation of a server's admin: the new password is in the registry, and the server has it or gets it. Whoever comes
//! brings it to its end, the caller who began it or the keeper, as often as it takes.

use sea_orm::sea_query::LockType;
use sea_orm::{ActiveModelTrait, ActiveValue::Set, DbErr, EntityTrait, IntoActiveModel, QuerySelect};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::stock::StockError;
use crate::audit::Deed;
use crate::plane::Plane;
use crate::registry::entities::servers;

/// Ends a rotation that was begun; answers the server as it is then. One that none is at work for is answered as it is.
pub(crate) async fn settle_admin(plane: &Plane, row: &servers::Model) -> Result<servers::Model, StockError> {
    if let Some(url) = plane.next_admin_url(row)? {
        let next = plane.engines.new_for(row.engine.parse()?, &url)?;
        // Whoever was here before may have come as far.
        if next.answers().await.is_err() {
            plane.engine(row)?.set_admin_password(&password_in(&url)).await?;
            plane.engines.new_for(row.engine.parse()?, &url)?.answers().await?;
        }
    }
    let mut change = plane.registry.change().await?;
    let now = servers::Entity::find_by_id(row.id).lock(LockType::Update).one(change.db()).await?;
    let now = now.ok_or_else(|| DbErr::RecordNotFound("the server is gone from the registry".to_owned()))?;
    // Another may have been faster. The text may have been sealed anew meanwhile.
    let Some(sealed) = now.next_sealed_admin_url.clone().filter(|_| now.generation == row.generation) else {
        return Ok(now);
    };
    let generation = now.generation + 1;
    let mut now = now.into_active_model();
    now.sealed_admin_url = Set(sealed);
    now.next_sealed_admin_url = Set(None);
    now.generation = Set(generation);
    let now = now.update(change.db()).await?;
    change.audit(Deed::on_platform("server.admin-rotated", now.name.as_str()));
    change.commit().await?;
    tracing::info!(server = now.name, "a server's admin has another password");
    Ok(now)
}

/// Of URL-safe letters alone, so that nothing of it is escaped.
fn password_in(url: &SecretString) -> SecretString {
    let url = Url::parse(url.expose_secret()).ok();
    url.and_then(|url| url.password().map(str::to_owned)).unwrap_or_default().into()
}
