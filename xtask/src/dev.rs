//! `cargo xtask dev`: both planes on this machine, two demo tenants, and commands to try.
//!
//! The walk: addresses → lock → build → secrets and configuration → processes → health → tenants →
//! `dev.json` → wait. What is there from an earlier run is gone on with, never overwritten.

mod addresses;
mod api;
mod config;
mod demo;
mod folder;
mod planes;
mod secrets;
mod tour;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::cargo;
use crate::stop::Stop;
use addresses::Addresses;
use folder::Folder;
use planes::Planes;
use secrets::Secrets;

/// What is typed after `cargo xtask dev`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Keep the registry and the tenants on this Postgres instead of SQLite; the role needs CREATEDB and CREATEROLE
    #[arg(long, value_name = "ADMIN_URL")]
    postgres: Option<String>,
    /// Share rate limits of all data planes over this Redis or Valkey; without it each keeps to its share of them
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// Build with optimizations
    #[arg(long)]
    release: bool,
    /// Where the control plane listens; its ops listener is on the next port, further replicas ten ports on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8700")]
    control: String,
    /// Where the data plane listens; its ops listener is on the next port, further nodes ten ports on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8800")]
    data: String,
    /// How many data planes
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    data_planes: u16,
    /// How many control planes, all on one registry
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    control_planes: u16,
    /// Where all state lives [default: .freehold in the workspace]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Start the planes' programs in this folder as they are, and build nothing
    #[arg(long, value_name = "DIR", conflicts_with = "release")]
    planes: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if options.planes.is_none() {
        cargo::ensure_tools()?;
    }
    let addresses = Addresses::of(options)?;
    addresses.ensure_free()?;
    let store = config::Store::of(options.postgres.as_deref())?;
    let redis = options.redis.clone().map(config::Redis::of).transpose()?;
    let folder = Folder::open(options.dir.as_deref())?;
    let stop = Stop::on_signals()?;

    let built = programs(options, &stop)?;

    let mut secrets = Secrets::of(&folder)?;
    let configs = config::write(&folder, &addresses, &secrets, &store, redis.as_ref())?;
    let mut planes = Planes::start(&built, configs)?;
    let outcome = serve(&mut planes, &addresses, &mut secrets, &folder, &stop);
    eprintln!("  Stopping both planes");
    planes.stop();
    // An answer that broke off because of Ctrl-C is no failure.
    if stop.is_wanted() {
        return Ok(ExitCode::SUCCESS);
    }
    outcome.map(|()| ExitCode::FAILURE)
}

/// Where each plane's program is: built anew, or in the folder that was told.
fn programs(options: &Options, stop: &Stop) -> Result<BTreeMap<String, PathBuf>> {
    let Some(folder) = &options.planes else {
        let mut packages = vec!["-p", "petstore"];
        packages.extend(options.release.then_some("--release"));
        eprintln!("  Building both planes (the first time takes minutes)");
        return cargo::build(&packages, stop);
    };
    let found = ["petstore-control-plane", "petstore-data-plane"].map(|name| (name.to_owned(), folder.join(name)));
    if let Some((_, missing)) = found.iter().find(|(_, program)| !program.is_file()) {
        bail!("there is no {}; build it (cargo build -p petstore), or leave --planes out", missing.display());
    }
    Ok(BTreeMap::from(found))
}

/// From started processes until Ctrl-C, or until one of them ends.
fn serve(
    planes: &mut Planes,
    addresses: &Addresses,
    secrets: &mut Secrets,
    folder: &Folder,
    stop: &Stop,
) -> Result<()> {
    planes.wait_until_ready(stop)?;
    demo::operator(addresses, secrets, folder)?;
    let tenants = demo::ensure(addresses, secrets, folder, stop)?;
    let dev = demo::Dev::new(addresses, secrets, tenants);
    folder.write_private("dev.json", &serde_json::to_string_pretty(&dev)?)?;
    tour::print(&dev, folder);
    while !stop.wait(Duration::from_millis(200)) {
        planes.ensure_alive()?;
    }
    bail!("stopped on request")
}
