//! Seed: lets the product fill the database, once however often it is tried. It goes with the database.

use async_trait::async_trait;

use super::{Step, StepError};
use crate::provision::work::Work;
use crate::schema::NewTenant;

pub(super) struct Seed;

#[async_trait]
impl Step for Seed {
    fn name(&self) -> &'static str {
        "seed"
    }

    async fn run(&self, work: &Work) -> Result<(), StepError> {
        let tenant = work.tenant_row().await?;
        let slug = tenant.slug.parse().map_err(|_| StepError::refused("the tenant's slug is damaged: change it"))?;
        let tenant = NewTenant { id: work.tenant(), slug, name: tenant.name, admin_email: tenant.admin_email };
        work.entered().await?.seed(work.plane.schema.as_ref(), &tenant).await?;
        Ok(())
    }
}
