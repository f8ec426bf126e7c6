//! The pet store's data plane.

use std::process::ExitCode;

/// A request is many small pieces of memory, made on one thread and freed on another.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    service::run("petstore-data-plane", async |config: data_plane::Config, service| {
        data_plane::start(config, petstore::product(), petstore::handlers(), service).await
    })
}
