//! The pet store's data plane.

use std::process::ExitCode;

/// A sixth more requests than with the system's allocator: `cargo xtask bench route` without this line.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    service::run("petstore-data-plane", async |config: data_plane::Config, service| {
        data_plane::start(config, petstore::product(), petstore::handlers(), service).await
    })
}
