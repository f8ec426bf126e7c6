//! The secrets of a development set-up: made once, kept between runs, since what they sealed is kept
//! too. Never printed but for the operator token, which the commands to try need.

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use super::folder::Folder;

const FILE: &str = "secrets.json";

/// Tokens, and one 32-byte key in base64 for each ring.
#[derive(Serialize, Deserialize)]
pub(super) struct Secrets {
    /// Makes the first operator, and is good for nothing else.
    pub(super) bootstrap_token: String,
    /// The operator that dev is; empty before it was made.
    #[serde(default)]
    pub(super) operator_token: String,
    pub(super) node_token: String,
    pub(super) tenants_key: String,
    pub(super) servers_key: String,
    /// Signs the audit trail; empty in a file of before it was.
    #[serde(default)]
    pub(super) audit_key: String,
}

impl Secrets {
    /// Reads them, or makes them. A file that cannot be read is an error and is not replaced:
    /// without its keys, no tenant's URL in the registry opens.
    pub(super) fn of(folder: &Folder) -> Result<Self> {
        if let Some(text) = folder.read(FILE)? {
            let mut kept: Self = serde_json::from_str(&text).with_context(|| {
                format!(
                    "{} is damaged; without it the databases beside it cannot be opened: repair it, or \
                     remove the folder to begin anew",
                    folder.join(FILE).display()
                )
            })?;
            if kept.audit_key.is_empty() {
                kept.audit_key = STANDARD.encode(random()?);
                kept.keep(folder)?;
            }
            return Ok(kept);
        }
        let made = Self {
            bootstrap_token: format!("bootstrap_{}", URL_SAFE_NO_PAD.encode(random()?)),
            operator_token: String::new(),
            node_token: format!("node_{}", URL_SAFE_NO_PAD.encode(random()?)),
            tenants_key: STANDARD.encode(random()?),
            servers_key: STANDARD.encode(random()?),
            audit_key: STANDARD.encode(random()?),
        };
        made.keep(folder)?;
        Ok(made)
    }

    /// Writes them for the next run.
    pub(super) fn keep(&self, folder: &Folder) -> Result<()> {
        folder.write_private(FILE, &serde_json::to_string_pretty(self)?).map(drop)
    }
}

fn random() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_kept_between_runs_and_a_damaged_file_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(Some(dir.path())).unwrap();
        let first = Secrets::of(&folder).unwrap();
        assert_eq!(Secrets::of(&folder).unwrap().tenants_key, first.tenants_key);
        assert_eq!(STANDARD.decode(first.servers_key).unwrap().len(), 32);
        assert_eq!(STANDARD.decode(first.audit_key).unwrap().len(), 32);
        folder.write_private(FILE, "{").unwrap();
        assert!(Secrets::of(&folder).is_err());
        assert_eq!(folder.read(FILE).unwrap().as_deref(), Some("{\n"));
    }
}
