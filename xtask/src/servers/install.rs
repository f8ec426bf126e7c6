//! Installing what the tests need, by the system's package manager, if we may without asking for a
//! password. It never starts a service: the tests start servers of their own.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use super::account::we_are_root;
use super::find::on_path;
use crate::leash::{Leash, Manners};
use crate::stop::Stop;

/// What may be missing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Package {
    Postgres,
    Redis,
    Pgbouncer,
}

/// How one package manager is worked.
struct Manager {
    program: &'static str,
    needs_root: bool,
    postgres: &'static str,
    redis: &'static str,
    pgbouncer: &'static str,
    /// Gets the packages as its arguments.
    script: &'static str,
    /// What a person would type in front of the packages.
    typed: &'static str,
}

/// Debian's packages start their services when installed, unless this file says no (Debian policy,
/// "invoke-rc.d"); it is there only while we install.
const APT: &str = r#"
set -e
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
fi
apt-get update -q
apt-get install -q -y --no-install-recommends "$@"
"#;

const MANAGERS: [Manager; 4] = [
    Manager {
        program: "apt-get",
        needs_root: true,
        postgres: "postgresql",
        redis: "redis-server",
        pgbouncer: "pgbouncer",
        script: APT,
        typed: "apt-get install",
    },
    Manager {
        program: "dnf",
        needs_root: true,
        postgres: "postgresql-server",
        redis: "/usr/bin/redis-server",
        pgbouncer: "pgbouncer",
        script: r#"dnf install -y "$@""#,
        typed: "dnf install",
    },
    Manager {
        program: "apk",
        needs_root: true,
        postgres: "postgresql",
        redis: "redis",
        pgbouncer: "pgbouncer",
        script: r#"apk add --no-cache "$@""#,
        typed: "apk add",
    },
    Manager {
        program: "brew",
        needs_root: false,
        postgres: "postgresql@17",
        redis: "redis",
        pgbouncer: "pgbouncer",
        script: r#"brew install "$@""#,
        typed: "brew install",
    },
];

/// Installs, or says exactly what to install.
pub(super) fn packages(missing: &[Package], stop: &Stop) -> Result<()> {
    let Some(manager) = MANAGERS.iter().find(|it| on_path(it.program).is_some()) else {
        let names: Vec<_> = missing.iter().map(|it| it.in_words()).collect();
        bail!("the tests need {}; install it, and run this again", names.join(" and "));
    };
    let names: Vec<_> = missing
        .iter()
        .map(|package| match package {
            Package::Postgres => manager.postgres,
            Package::Redis => manager.redis,
            Package::Pgbouncer => manager.pgbouncer,
        })
        .collect();
    let typed = format!("{} {}", manager.typed, names.join(" "));

    let mut command = if !manager.needs_root || we_are_root()? {
        Command::new("sh")
    } else if may_sudo() {
        let mut command = Command::new("sudo");
        command.args(["-n", "sh"]);
        command
    } else {
        bail!("the tests need more than is on this machine; run `sudo {typed}`, and this again");
    };
    eprintln!("  Installing {} ({typed})", names.join(" "));
    command.args(["-c", manager.script, "install"]).args(&names);
    let status = Leash::spawn(&command, Manners::default(), |shell| {
        // What the package manager tells is for its user, not for a pipe behind us.
        shell.stdout(std::io::stderr());
    })?
    .wait(stop)?;
    if !status.success() {
        bail!("`{typed}` failed; install it by hand, and run this again");
    }
    Ok(())
}

fn may_sudo() -> bool {
    Command::new("sudo")
        .args(["-n", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

impl Package {
    fn in_words(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL 15 or newer (initdb and postgres)",
            Self::Redis => "redis-server or valkey-server",
            Self::Pgbouncer => "pgbouncer",
        }
    }
}
