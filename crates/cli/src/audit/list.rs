//! `freehold audit list`.

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::client::{Client, path, query};
use crate::output::{Output, moment, note};
use crate::table::{Table, or_nothing};

/// What is typed after `freehold audit list`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// About this tenant or aimed at it, by slug or id
    #[arg(long)]
    tenant: Option<String>,
    /// With this action; what ends in a dot is the beginning of several: `security.`
    #[arg(long)]
    action: Option<String>,
    /// By this operator or principal
    #[arg(long)]
    actor: Option<String>,
    /// Of this request
    #[arg(long, value_name = "ID")]
    request: Option<String>,
    /// Then or later: 2026-11-25T09:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Before
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// The newest N
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

#[derive(Deserialize)]
struct Record {
    payload: Event,
}

#[derive(Deserialize)]
struct Event {
    at: String,
    action: String,
    actor: String,
    from: Option<String>,
    request_id: Option<String>,
    tenant: Option<String>,
    target: Option<String>,
    subject: Option<String>,
    count: Option<u64>,
}

pub(super) fn run(client: &Client, output: Output, options: &Options) -> Result<()> {
    let filter = query([
        ("tenant", options.tenant.as_deref()),
        ("action", options.action.as_deref()),
        ("actor", options.actor.as_deref()),
        ("request_id", options.request.as_deref()),
        ("since", options.since.as_deref()),
        ("until", options.until.as_deref()),
    ]);
    let items = client.list(&(path(["audit"]) + &filter), options.limit.try_into().ok())?;
    if output.is_json {
        return output.show_all(&items, String::new);
    }
    if items.is_empty() {
        note("There is no such record.");
    }
    let table = table(&items)?;
    output.show("", || table.to_string())
}

fn table(items: &[Box<RawValue>]) -> Result<Table> {
    let records = items.iter().map(|item| serde_json::from_str(item.get())).collect::<Result<Vec<Record>, _>>();
    let records = records.context("the server answered a list of something else than audit records; check --url")?;
    let mut table = Table::of(["AT", "ACTION", "ACTOR", "TENANT", "ABOUT", "COUNT", "FROM", "REQUEST"]);
    for Record { payload: it } in &records {
        let about = it.target.as_deref().or(it.subject.as_deref());
        let count = it.count.map(|count| count.to_string());
        table.row([
            &moment(&it.at),
            &it.action,
            &it.actor,
            or_nothing(it.tenant.as_deref()),
            or_nothing(about),
            or_nothing(count.as_deref()),
            or_nothing(it.from.as_deref()),
            or_nothing(it.request_id.as_deref()),
        ]);
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_shown_in_columns_also_those_of_another_version() {
        let items = [
            r#"{"chain":"platform","seq":2,"payload":{"at":"2026-11-25T09:00:00.123456Z","action":"security.cross-tenant-attempt",
                "actor":"key:abc","from":"192.0.2.7","request_id":"r1","tenant":"01a2","target":"01a3","named":["globex"]}}"#,
            r#"{"payload":{"at":"2026-11-25T09:00:00Z","action":"plan.set","actor":"ada","subject":"free","new":1}}"#,
        ];
        let items: Vec<_> = items.into_iter().map(|item| RawValue::from_string(item.to_owned()).unwrap()).collect();
        insta::assert_snapshot!(table(&items).unwrap().to_string(), @r"
        AT                    ACTION                         ACTOR    TENANT  ABOUT  COUNT  FROM       REQUEST
        2026-11-25T09:00:00Z  security.cross-tenant-attempt  key:abc  01a2    01a3   -      192.0.2.7  r1
        2026-11-25T09:00:00Z  plan.set                       ada      -       free   -      -          -
        ");
        assert!(table(&[RawValue::from_string("{}".to_owned()).unwrap()]).is_err());
    }
}
