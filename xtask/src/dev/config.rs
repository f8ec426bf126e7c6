//! One configuration file for each process, written anew on every run from flags and secrets.

use std::collections::BTreeMap;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use super::addresses::{Addresses, Listeners};
use super::folder::Folder;
use super::secrets::Secrets;

/// Long enough for every request in flight; the planes are killed when it has passed twice.
pub(super) const DRAIN: Duration = Duration::from_secs(10);

/// Tenants are named under it.
const BASE_DOMAIN: &str = "localhost";
const REGISTRY_DATABASE: &str = "freehold_registry";
const KEY_ID: &str = "dev";
/// The folder inside of dev's that mails are written to.
pub(super) const MAIL: &str = "mail";

/// Where registry and tenants are kept.
pub(super) enum Store {
    /// Files in dev's folder.
    Sqlite,
    /// A Postgres server, by its admin's URL.
    Postgres { admin_url: String },
}

/// One process to start.
pub(super) struct Process {
    /// As its log lines begin: `control-1`.
    pub(super) name: String,
    pub(super) binary: &'static str,
    pub(super) config: PathBuf,
    pub(super) listeners: Listeners,
}

impl Store {
    /// Checks a Postgres URL, and that something listens there, before anything is built.
    pub(super) fn of(postgres: Option<&str>) -> Result<Self> {
        let Some(url) = postgres else {
            return Ok(Self::Sqlite);
        };
        let host = postgres_host(url)
            .context("--postgres wants a URL like postgres://admin:password@127.0.0.1:5432/postgres")?;
        if !is_reached(&host) {
            bail!("no Postgres answers on {host}; start it, or change --postgres");
        }
        Ok(Self::Postgres { admin_url: url.to_owned() })
    }
}

/// Where data planes share their limits.
#[derive(Clone, Serialize)]
pub(super) struct Redis {
    url: String,
}

impl Redis {
    /// Checks the URL, and that something listens there, before anything is built.
    pub(super) fn of(url: String) -> Result<Self> {
        let host =
            host(&url, &["redis://", "rediss://"], 6379).context("--redis wants a URL like redis://127.0.0.1:6379")?;
        if !is_reached(&host) {
            bail!("no Redis answers on {host}; start it, or change --redis");
        }
        Ok(Self { url })
    }
}

fn is_reached(host: &str) -> bool {
    let addresses = host.to_socket_addrs().ok();
    let mut addresses = addresses.into_iter().flatten();
    addresses.any(|address| TcpStream::connect_timeout(&address, Duration::from_secs(3)).is_ok())
}

/// Writes a file for each process, control planes first.
pub(super) fn write(
    folder: &Folder,
    addresses: &Addresses,
    secrets: &Secrets,
    store: &Store,
    redis: Option<&Redis>,
) -> Result<Vec<Process>> {
    let mut processes = Vec::new();
    for (index, listeners) in addresses.control.iter().enumerate() {
        let config = control(folder, listeners, &addresses.data[0], secrets, store)?;
        let name = format!("control-{}", index + 1);
        processes.push(process(folder, name, "petstore-control-plane", *listeners, &config)?);
    }
    for (index, listeners) in addresses.data.iter().enumerate() {
        let name = format!("data-{}", index + 1);
        // Spread over the replicas, as a balancer would.
        let control = &addresses.control[index % addresses.control.len()];
        let config = DataConfig {
            listen: Listen::of(listeners),
            control: Control { url: control.api_url(), node_token: secrets.node_token.clone() },
            seal: BTreeMap::from([("tenants", Ring::of(&secrets.tenants_key))]),
            node: Node { state_dir: folder.folder(&name)? },
            names: Names { base_domain: BASE_DOMAIN },
            telemetry: READABLE,
            lifecycle: Lifecycle::default(),
            redis: redis.cloned(),
        };
        processes.push(process(folder, name, "petstore-data-plane", *listeners, &config)?);
    }
    Ok(processes)
}

fn process(
    folder: &Folder,
    name: String,
    binary: &'static str,
    listeners: Listeners,
    config: &impl Serialize,
) -> Result<Process> {
    let text = toml::to_string(config).context("could not write a configuration")?;
    Ok(Process { config: folder.write_private(&format!("{name}.toml"), &text)?, name, binary, listeners })
}

fn control(
    folder: &Folder,
    listeners: &Listeners,
    data: &Listeners,
    secrets: &Secrets,
    store: &Store,
) -> Result<ControlConfig> {
    let (registry, server) = match store {
        Store::Sqlite => {
            let registry = Registry {
                url: format!("sqlite://{}?mode=rwc", folder.join("registry.db").display()),
                create_from: None,
            };
            let tenants = folder.folder("tenants")?;
            let server = Server::new("sqlite", format!("sqlite://{}", tenants.display()), 10_000);
            (registry, server)
        }
        Store::Postgres { admin_url } => {
            let registry =
                Registry { url: with_database(admin_url, REGISTRY_DATABASE), create_from: Some(admin_url.clone()) };
            let server = Server::new("postgres", admin_url.clone(), 10_000);
            (registry, server)
        }
    };
    Ok(ControlConfig {
        listen: Listen::of(listeners),
        registry,
        tokens: Tokens { bootstrap: secrets.bootstrap_token.clone(), node: secrets.node_token.clone() },
        seal: BTreeMap::from([
            ("servers", Ring::of(&secrets.servers_key)),
            ("tenants", Ring::of(&secrets.tenants_key)),
        ]),
        audit: Audit { signing: Ring::of(&secrets.audit_key) },
        telemetry: READABLE,
        lifecycle: Lifecycle::default(),
        domains: Domains { proof: "none", base_domain: BASE_DOMAIN },
        mail: Mail::into(folder.folder(MAIL)?, data.api.port()),
        servers: vec![server],
    })
}

/// `host:port` of a Postgres URL; None if it is none. A socket folder cannot be reached by TCP and
/// is not supported here.
fn postgres_host(url: &str) -> Option<String> {
    host(url, &["postgres://", "postgresql://"], 5432)
}

/// `host:port` of a URL with one of these schemes; None if it is none.
fn host(url: &str, schemes: &[&str], port: u16) -> Option<String> {
    let rest = schemes.iter().find_map(|scheme| url.strip_prefix(scheme))?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next().filter(|host| !host.is_empty())?;
    let has_port = host.rsplit(']').next().is_some_and(|after_brackets| after_brackets.contains(':'));
    Some(if has_port { host.to_owned() } else { format!("{host}:{port}") })
}

/// The same server and role, another database.
fn with_database(url: &str, database: &str) -> String {
    let (base, query) = url.split_once('?').map_or((url, None), |(base, query)| (base, Some(query)));
    let begin = base.find("://").map_or(0, |at| at + 3);
    let end = base[begin..].find('/').map_or(base.len(), |at| begin + at);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{}/{database}{query}", &base[..end])
}

#[derive(Serialize)]
struct ControlConfig {
    listen: Listen,
    registry: Registry,
    tokens: Tokens,
    seal: BTreeMap<&'static str, Ring>,
    audit: Audit,
    telemetry: Telemetry,
    lifecycle: Lifecycle,
    domains: Domains,
    mail: Mail,
    servers: Vec<Server>,
}

#[derive(Serialize)]
struct Domains {
    /// Nobody writes DNS records for a try.
    proof: &'static str,
    base_domain: &'static str,
}

#[derive(Serialize)]
struct DataConfig {
    listen: Listen,
    control: Control,
    seal: BTreeMap<&'static str, Ring>,
    node: Node,
    names: Names,
    telemetry: Telemetry,
    lifecycle: Lifecycle,
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<Redis>,
}

#[derive(Serialize)]
struct Audit {
    signing: Ring,
}

#[derive(Serialize)]
struct Listen {
    address: String,
    ops_address: String,
}

impl Listen {
    fn of(listeners: &Listeners) -> Self {
        Self { address: listeners.api.to_string(), ops_address: listeners.ops.to_string() }
    }
}

#[derive(Serialize)]
struct Registry {
    url: String,
    /// The admin's URL by which the database is created when it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    create_from: Option<String>,
}

#[derive(Serialize)]
struct Mail {
    from: &'static str,
    folder: PathBuf,
    link: String,
}

impl Mail {
    /// `.test` is never a real domain (RFC 2606).
    fn into(folder: PathBuf, data_port: u16) -> Self {
        Self { from: "Pet Store <hello@petstore.test>", folder, link: format!("http://{{slug}}.localhost:{data_port}") }
    }
}

#[derive(Serialize)]
struct Tokens {
    bootstrap: String,
    node: String,
}

#[derive(Serialize)]
struct Ring {
    primary: &'static str,
    keys: BTreeMap<&'static str, String>,
}

impl Ring {
    fn of(key: &str) -> Self {
        Self { primary: KEY_ID, keys: BTreeMap::from([(KEY_ID, key.to_owned())]) }
    }
}

#[derive(Serialize)]
struct Server {
    name: &'static str,
    engine: &'static str,
    region: &'static str,
    admin_url: String,
    capacity: u32,
}

impl Server {
    fn new(engine: &'static str, admin_url: String, capacity: u32) -> Self {
        Self { name: "local", engine, region: "local", admin_url, capacity }
    }
}

#[derive(Serialize)]
struct Control {
    url: String,
    node_token: String,
}

#[derive(Serialize)]
struct Node {
    state_dir: PathBuf,
}

#[derive(Serialize)]
struct Names {
    base_domain: &'static str,
}

/// The planes write to a pipe here, but a person reads it.
const READABLE: Telemetry = Telemetry { format: "pretty" };

#[derive(Serialize)]
struct Telemetry {
    format: &'static str,
}

#[derive(Serialize)]
struct Lifecycle {
    drain_seconds: u64,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self { drain_seconds: DRAIN.as_secs() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_postgres_url_tells_its_host() {
        let host = |url| postgres_host(url);
        assert_eq!(host("postgres://a:b@db:6000/postgres").as_deref(), Some("db:6000"));
        assert_eq!(host("postgresql://db").as_deref(), Some("db:5432"));
        assert_eq!(host("postgres://a@[::1]/x?y=z").as_deref(), Some("[::1]:5432"));
        assert_eq!(host("mysql://db/x"), None);
        assert_eq!(host("postgres:///x"), None);
        let redis = |url| super::host(url, &["redis://", "rediss://"], 6379);
        assert_eq!(redis("rediss://:secret@cache/1").as_deref(), Some("cache:6379"));
        assert_eq!(redis("http://cache"), None);
    }

    #[test]
    fn the_registrys_database_is_on_the_same_server() {
        let url = with_database("postgres://a:b@db:6000/postgres?sslmode=disable", "r");
        assert_eq!(url, "postgres://a:b@db:6000/r?sslmode=disable");
        assert_eq!(with_database("postgres://a@db", "r"), "postgres://a@db/r");
    }

    #[test]
    fn a_control_planes_file_has_the_sections_that_it_reads() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(Some(dir.path())).unwrap();
        let secrets = Secrets::of(&folder).unwrap();
        let address = "127.0.0.1:8700".parse().unwrap();
        let listeners = Listeners { api: address, ops: address };
        let config = control(&folder, &listeners, &listeners, &secrets, &Store::Sqlite).unwrap();
        let table: toml::Table = toml::to_string(&config).unwrap().parse().unwrap();
        assert_eq!(table["seal"]["tenants"]["keys"]["dev"].as_str(), Some(secrets.tenants_key.as_str()));
        assert_eq!(table["servers"][0]["engine"].as_str(), Some("sqlite"));
        assert_eq!(table["audit"]["signing"]["primary"].as_str(), Some("dev"));
        assert!(table["registry"].get("create_from").is_none());
        assert_eq!(table["mail"]["link"].as_str(), Some("http://{slug}.localhost:8700"));
        assert!(folder.join(MAIL).is_dir());
    }
}
