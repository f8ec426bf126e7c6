//! The pet store's data plane.

use std::process::ExitCode;

fn main() -> ExitCode {
    service::run("petstore-data-plane", async |config: data_plane::Config, service| {
        data_plane::start(config, petstore::product(), petstore::handlers(), service).await
    })
}
