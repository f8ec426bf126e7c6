//! Who the servers run as: ourselves, or an unprivileged user when we are root, since Postgres
//! refuses to run as root.

use std::fmt;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

/// Another user than ours.
#[derive(Clone, Copy)]
pub(super) struct Account {
    uid: u32,
    gid: u32,
}

impl Account {
    /// None when we are not root. The packages' own user is preferred: it exists wherever Postgres
    /// was installed by a package.
    pub(super) fn for_servers() -> Result<Option<Self>> {
        if !we_are_root()? {
            return Ok(None);
        }
        let users = fs::read_to_string("/etc/passwd").context("could not read /etc/passwd")?;
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| Self::named(name, &users))
            .map(Some)
            .context("running as root, and there is no user `postgres` or `nobody` to run the servers as")
    }

    fn named(name: &str, users: &str) -> Option<Self> {
        users.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next()? == name).then_some(())?;
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            (uid != 0).then_some(Self { uid, gid })
        })
    }

    /// Lets a command run as this user. Supplementary groups are dropped by the standard library.
    pub(super) fn dress(self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    /// Makes this user the owner of a file or folder.
    pub(super) fn hand_over(self, path: &Path) -> Result<()> {
        chown(path, Some(self.uid), Some(self.gid)).with_context(|| format!("could not hand over {}", path.display()))
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

/// Whether we may do anything: a new file belongs to the effective user.
pub(super) fn we_are_root() -> Result<bool> {
    let probe = tempfile::tempfile().context("could not write to the temporary folder")?;
    Ok(probe.metadata()?.uid() == 0)
}

/// A temporary folder that `account` owns and nobody else enters.
pub(super) fn folder(account: Option<&Account>) -> Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("freehold-").tempdir().context("could not make a temporary folder")?;
    if let Some(account) = account {
        account.hand_over(folder.path())?;
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_name_and_is_never_root() {
        let users = "root:x:0:0::/:/bin/sh\nnobody:x:65534:65533:nobody:/:/bin/false\npostgres:x:0:0::/:\n";
        let nobody = Account::named("nobody", users).unwrap();
        assert_eq!((nobody.uid, nobody.gid), (65534, 65533));
        assert!(Account::named("postgres", users).is_none());
        assert!(Account::named("redis", users).is_none());
    }
}
