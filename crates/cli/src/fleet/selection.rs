//! Whom a rollout or a verification is about, as it is typed.

use serde_json::{Map, Value, json};

/// Which tenants; all of them unless told.
#[derive(clap::Args)]
pub(crate) struct Selection {
    /// Only these tenants, by slug or id
    #[arg(long, value_name = "TENANT,…", value_delimiter = ',')]
    only: Vec<String>,
    /// Only tenants on this plan
    #[arg(long)]
    plan: Option<String>,
    /// Only tenants on servers in this region
    #[arg(long)]
    region: Option<String>,
    /// Only tenants on this server
    #[arg(long)]
    server: Option<String>,
}

impl Selection {
    /// As the API takes it.
    pub(super) fn select(&self) -> Map<String, Value> {
        let only = (!self.only.is_empty()).then(|| json!(self.only));
        let named = [("plan", &self.plan), ("region", &self.region), ("server", &self.server)];
        let named = named.into_iter().filter_map(|(name, value)| Some((name, json!(value.as_ref()?))));
        only.map(|only| ("tenants", only)).into_iter().chain(named).map(|(name, is)| (name.to_owned(), is)).collect()
    }
}
