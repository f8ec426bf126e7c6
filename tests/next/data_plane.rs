//! The pet store's data plane as of a later release, which needs the newest schema version: whose database is behind is told to
//! come again.

use std::process::ExitCode;

use control_plane::TenantSchema as _;
use tenancy::Product;

fn main() -> ExitCode {
    service::run("next-data-plane", async |config: data_plane::Config, service| {
        let newest = u32::try_from(petstore::Schema.migrations().len())?;
        let product = Product { schema_version: newest, ..petstore::product() };
        data_plane::start(config, product, petstore::handlers(), service).await
    })
}
