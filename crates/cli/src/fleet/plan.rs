//! `freehold fleet plan`.

use std::fmt::Write as _;

use anyhow::Result;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::order::Options;
use super::rehearsal;
use crate::client::{Client, path};
use crate::output::Output;
use crate::table::Table;

#[derive(Deserialize)]
struct Plan {
    version: u32,
    #[serde(default)]
    down: bool,
    already: u64,
    found: Vec<Found>,
    waves: Vec<Wave>,
}

#[derive(Deserialize)]
struct Found {
    version: u32,
    tenants: u64,
    migrations: Vec<String>,
}

#[derive(Deserialize)]
struct Wave {
    kind: String,
    size: u64,
}

pub(super) fn run(client: &Client, output: Output, options: &Options) -> Result<()> {
    let body = options.body()?;
    let answer = client.post(&path(["rollouts", "plan"]), Some(&body))?;
    let plan: Plan = answer.json("plan")?;
    let mut whole: Map<String, Value> = answer.json("plan")?;
    let text = match rehearsal::ask(client, &body) {
        Ok((rehearsals, told)) => {
            whole.extend(told.json::<Map<String, Value>>("rehearsal")?);
            rehearsals.text()
        }
        Err(error) => {
            whole.insert("rehearsals".to_owned(), Value::Null);
            format!("{}\n", rehearsal::missed(&error).line())
        }
    };
    output.show_all(&whole, || plan.text(&text))
}

impl Plan {
    /// With what the migrations do.
    fn text(&self, rehearsals: &str) -> String {
        let targets: u64 = self.found.iter().map(|found| found.tenants).sum();
        if targets == 0 {
            return format!("Nothing to do: {} tenants have version {} already.", self.already, self.version);
        }
        let mut text = format!("{targets} tenants to version {}; {} have it already.\n\n", self.version, self.already);
        let what = if self.down { "TAKEN BACK, IN THIS ORDER" } else { "APPLIED, IN THIS ORDER" };
        let mut found = Table::of(["HAVE VERSION", "TENANTS", what]);
        for it in &self.found {
            found.row([&it.version.to_string(), &it.tenants.to_string(), &it.migrations.join(", ")]);
        }
        let mut waves = Table::of(["WAVE", "KIND", "TENANTS"]);
        for (number, wave) in self.waves.iter().enumerate() {
            waves.row([&number.to_string(), &wave.kind, &wave.size.to_string()]);
        }
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "{found}\n{waves}\n{}Nothing was changed. `freehold fleet migrate` with the same options does it.",
            if rehearsals.is_empty() { String::new() } else { format!("{rehearsals}\n") }
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_shown_wave_by_wave() {
        let plan = r#"{"version":3,"down":false,"already":7,"found":[{"version":1,"tenants":2,"migrations":["m2","m3"]},
            {"version":2,"tenants":90,"migrations":["m3"]}],"waves":[{"kind":"canary","size":1},{"kind":"wave","size":91}],"new":1}"#;
        let plan: Plan = serde_json::from_str(plan).unwrap();
        insta::assert_snapshot!(plan.text("From version 1:\n  m2\n"), @r"
        92 tenants to version 3; 7 have it already.

        HAVE VERSION  TENANTS  APPLIED, IN THIS ORDER
        1             2        m2, m3
        2             90       m3

        WAVE  KIND    TENANTS
        0     canary  1
        1     wave    91

        From version 1:
          m2

        Nothing was changed. `freehold fleet migrate` with the same options does it.
        ");
        let nothing = Plan { found: Vec::new(), waves: Vec::new(), ..plan };
        assert_eq!(nothing.text(""), "Nothing to do: 7 tenants have version 3 already.");
    }
}
