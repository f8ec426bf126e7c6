//! The stock of the stage's server.

use sea_orm::EntityTrait;
use sea_orm::sea_query::Expr;

use super::Stage;
use crate::provision::faults::Faults;
use crate::provision::stock::Keeper;
use crate::registry::entities::{servers, templates, warm_databases};

impl Stage {
    /// Names of templates and of databases that are ready, or being made so.
    pub(crate) async fn stock(&self) -> Vec<String> {
        let db = self.plane.registry.db();
        let templates = templates::Entity::find().all(db).await.unwrap().into_iter().map(|row| row.name);
        let warm = warm_databases::Entity::find().all(db).await.unwrap().into_iter().map(|row| row.name);
        templates.chain(warm).collect()
    }

    /// As one look of the keeper does it.
    pub(crate) async fn keep(&self, target: i32) {
        servers::Entity::update_many()
            .col_expr(servers::Column::WarmTarget, Expr::value(target))
            .exec(self.plane.registry.db())
            .await
            .unwrap();
        Keeper::new(self.plane.clone(), Self::pace(&Faults::default())).look().await.unwrap();
    }
}
