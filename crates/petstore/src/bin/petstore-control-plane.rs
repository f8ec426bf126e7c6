//! The pet store's control plane.

use std::process::ExitCode;
use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    service::run("petstore-control-plane", async |config: control_plane::Config, service| {
        control_plane::start(config, petstore::product(), Arc::new(petstore::Schema), service).await
    })
}
