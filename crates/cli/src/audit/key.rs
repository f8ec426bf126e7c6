//! `freehold audit key`.

use anyhow::Result;
use serde::Deserialize;

use crate::client::{Client, path};
use crate::output::Output;

#[derive(Deserialize)]
struct Keys {
    items: Vec<Key>,
}

#[derive(Deserialize)]
struct Key {
    public_key: String,
}

/// A key a line, as `freehold audit verify --public-key` takes them.
pub(super) fn run(client: &Client, output: Output) -> Result<()> {
    let answer = client.get(&path(["audit", "keys"]))?;
    let keys: Keys = answer.json("list of public keys")?;
    let lines: Vec<String> = keys.items.into_iter().map(|key| key.public_key).collect();
    output.show(answer.text(), || lines.join("\n"))
}
