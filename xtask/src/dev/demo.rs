//! The demo tenants: made through the API as an operator would, if they are not there, each with a
//! key that works. What is told of them to other tools is `dev.json`.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::addresses::{Addresses, Listeners};
use super::api::Client;
use super::folder::Folder;
use super::secrets::Secrets;
use crate::stop::Stop;

/// A custom domain of the first tenant, to try; `.test` is never a real one (RFC 2606).
pub(super) const DOMAIN: &str = "pets.acme.test";

/// A tenant becomes active, and its key known to the data plane, well within this.
const PATIENCE: Duration = Duration::from_mins(1);

/// `dev.json`, as the contract has it.
#[derive(Serialize, Deserialize)]
pub(super) struct Dev {
    pub(super) control_url: String,
    pub(super) control_ops_url: String,
    pub(super) data_url: String,
    pub(super) data_urls: Vec<String>,
    pub(super) data_ops_urls: Vec<String>,
    pub(super) operator_token: String,
    pub(super) tenants: Vec<Tenant>,
}

/// A demo tenant and its key.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Tenant {
    pub(super) slug: String,
    pub(super) id: String,
    pub(super) api_key: String,
}

impl Dev {
    pub(super) fn new(addresses: &Addresses, secrets: &Secrets, tenants: Vec<Tenant>) -> Self {
        Self {
            control_url: addresses.control[0].api_url(),
            control_ops_url: addresses.control[0].ops_url(),
            data_url: addresses.data[0].api_url(),
            data_urls: addresses.data.iter().map(Listeners::api_url).collect(),
            data_ops_urls: addresses.data.iter().map(Listeners::ops_url).collect(),
            operator_token: secrets.operator_token.clone(),
            tenants,
        }
    }
}

/// The operator that dev is: made by the bootstrap token on the first run, and kept.
pub(super) fn operator(addresses: &Addresses, secrets: &mut Secrets, folder: &Folder) -> Result<()> {
    let url = addresses.control[0].api_url();
    let is_known = !secrets.operator_token.is_empty()
        && Client::new(url.clone(), &secrets.operator_token).get("/v1/operators")?.status == 200;
    if is_known {
        return Ok(());
    }
    let admin = json!({ "name": "dev", "role": "admin" });
    let made = Client::new(url, &secrets.bootstrap_token)
        .post("/v1/operators", &admin)?
        .ok("could not make the operator that dev is; remove dev's folder to begin anew")?;
    made["token"].as_str().context("the new operator has no token")?.clone_into(&mut secrets.operator_token);
    secrets.keep(folder)
}

/// Both tenants, with what is there already kept.
pub(super) fn ensure(addresses: &Addresses, secrets: &Secrets, folder: &Folder, stop: &Stop) -> Result<Vec<Tenant>> {
    let operator = Client::new(addresses.control[0].api_url(), &secrets.operator_token);
    let data_url = addresses.data[0].api_url();
    // Another version's file is as good as none: only keys are lost, and new ones are made.
    let known: Vec<Tenant> = folder
        .read("dev.json")?
        .and_then(|text| serde_json::from_str::<Dev>(&text).ok())
        .map(|dev| dev.tenants)
        .unwrap_or_default();

    let mut tenants = Vec::new();
    for (slug, name, plan) in [("acme", "Acme", "premium"), ("globex", "Globex", "free")] {
        let tenant = tenant(&operator, slug, name, plan, stop)?;
        let id = tenant["id"].as_str().context("the tenant has no id")?.to_owned();
        let before = known.iter().find(|it| it.slug == slug && it.id == id);
        let api_key = if tenant["status"] == "active" {
            key(&operator, &data_url, slug, before.map(|it| it.api_key.as_str()), stop)?
        } else {
            eprintln!("      Note {slug} is {}, and is not served", tenant["status"]);
            before.map(|it| it.api_key.clone()).unwrap_or_default()
        };
        tenants.push(Tenant { slug: slug.to_owned(), id, api_key });
    }
    let domain = operator.post("/v1/tenants/acme/domains", &json!({ "host": DOMAIN }))?;
    // 409: from an earlier run.
    if domain.status != 409 {
        domain.ok("could not give acme a custom domain")?;
    }
    Ok(tenants)
}

/// The tenant, created if it is not there, and waited for while it is being provisioned.
fn tenant(operator: &Client, slug: &str, name: &str, plan: &str, stop: &Stop) -> Result<Value> {
    let path = format!("/v1/tenants/{slug}");
    if operator.get(&path)?.status == 404 {
        eprintln!("  Creating tenant {slug} ({plan})");
        let wanted = json!({ "slug": slug, "name": name, "plan": plan, "admin_email": format!("admin@{slug}.test") });
        operator.post("/v1/tenants", &wanted)?.ok(&format!("could not create {slug}"))?;
    }
    let deadline = Instant::now() + PATIENCE;
    let mut has_retried = false;
    loop {
        let answer = operator.get(&path)?.ok(&format!("could not read {slug}"))?;
        // Some answers wrap the tenant beside its operation.
        let tenant = answer.get("tenant").cloned().unwrap_or(answer);
        match tenant["status"].as_str() {
            Some("provisioning") if Instant::now() < deadline => {}
            Some("failed") if !has_retried => {
                has_retried = true;
                retry(operator, slug)?;
            }
            Some(status @ ("provisioning" | "failed")) => {
                bail!("{slug} is still {status}; see GET /v1/operations for what its steps say")
            }
            _ => return Ok(tenant),
        }
        stop.pause(Duration::from_millis(100))?;
    }
}

/// The last run may have ended in the middle of it.
fn retry(operator: &Client, slug: &str) -> Result<()> {
    let listed = operator.get("/v1/operations?limit=100")?.ok("could not list operations")?;
    let failed = listed["items"].as_array().into_iter().flatten().find(|it| {
        let tenant = &it["tenant"];
        let is_its = tenant == slug || tenant["slug"] == slug || it["tenant_slug"] == slug;
        is_its && it["state"] == "failed"
    });
    if let Some(id) = failed.and_then(|it| it["id"].as_str()) {
        operator.post(&format!("/v1/operations/{id}/retry"), &json!({}))?;
    }
    Ok(())
}

/// The key from before if the data plane still takes it for this tenant, else a new one that it does.
fn key(operator: &Client, data_url: &str, slug: &str, before: Option<&str>, stop: &Stop) -> Result<String> {
    if let Some(key) = before
        && works(data_url, slug, key)?
    {
        return Ok(key.to_owned());
    }
    let made = operator
        .post(&format!("/v1/tenants/{slug}/keys"), &json!({ "name": "dev" }))?
        .ok(&format!("could not make a key for {slug}"))?;
    let key = made["api_key"].as_str().context("the new key has no api_key")?.to_owned();
    let deadline = Instant::now() + PATIENCE;
    while !works(data_url, slug, &key)? {
        if Instant::now() > deadline {
            bail!("the data plane does not take {slug}'s new key; its log above says why");
        }
        stop.pause(Duration::from_millis(100))?;
    }
    Ok(key)
}

/// Too many requests is a yes: only who is known gets that far.
fn works(data_url: &str, slug: &str, key: &str) -> Result<bool> {
    let answer = Client::new(data_url.to_owned(), key).get(&format!("/{slug}/api/me"))?;
    Ok(answer.status == 200 || answer.status == 429)
}
