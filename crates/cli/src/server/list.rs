//! `freehold server list`.

use anyhow::{Context as _, Result};
use serde_json::value::RawValue;

use super::Server;
use crate::client::{Client, path};
use crate::output::{Output, note};
use crate::table::Table;

pub(super) fn run(client: &Client, output: Output) -> Result<()> {
    let items = client.list(&path(["servers"]), None)?;
    if output.is_json {
        return output.show_all(&items, String::new);
    }
    let servers = servers(&items)?;
    if servers.is_empty() {
        note("There is no server yet. Add one: freehold server add --help");
    }
    output.show("", || table(&servers).to_string())
}

fn servers(items: &[Box<RawValue>]) -> Result<Vec<Server>> {
    let servers = items.iter().map(|item| serde_json::from_str(item.get())).collect::<Result<_, _>>();
    servers.context("the server answered a list of something else than servers; check --url")
}

fn table(servers: &[Server]) -> Table {
    let mut table = Table::of(["NAME", "ENGINE", "REGION", "STATE", "CAPACITY", "BUDGET", "RATE", "WARM"]);
    for it in servers {
        let [capacity, budget, rate, warm] =
            [it.capacity, it.connection_budget, it.connect_rate, it.warm].map(|number| number.to_string());
        table.row([&it.name, &it.engine, &it.region, &it.state, &capacity, &budget, &rate, &warm]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_shown_in_columns_also_those_of_another_version() {
        let items = [
            r#"{"id":"01a2","name":"local","engine":"postgres","region":"here","state":"open","capacity":1000,
                "connection_budget":73,"connect_rate":200,"warm":2,"created_at":"x","new":[]}"#,
            r#"{"name":"files","engine":"sqlite"}"#,
        ];
        let items: Vec<_> = items.into_iter().map(|item| RawValue::from_string(item.to_owned()).unwrap()).collect();
        insta::assert_snapshot!(table(&servers(&items).unwrap()).to_string(), @r"
        NAME   ENGINE    REGION  STATE  CAPACITY  BUDGET  RATE  WARM
        local  postgres  here    open   1000      73      200   2
        files  sqlite    -       -      0         0       0     0
        ");
        assert!(servers(&[RawValue::from_string("{}".to_owned()).unwrap()]).is_err());
    }
}
