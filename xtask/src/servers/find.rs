//! Where the machine keeps Postgres, Redis and PgBouncer. Packages put Postgres' programs in folders of their
//! own that are on nobody's PATH, one for each version.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use super::install;
use crate::stop::Stop;

/// The oldest Postgres that Freehold supports.
const OLDEST_POSTGRES: u32 = 15;

/// What the throwaway servers are started with.
pub(super) struct Programs {
    pub(super) postgres: PostgresPrograms,
    pub(super) redis: PathBuf,
    /// Tests that need it are not tried without it.
    pub(super) pgbouncer: Option<PathBuf>,
}

/// One version of Postgres.
#[derive(Debug)]
pub(super) struct PostgresPrograms {
    pub(super) initdb: PathBuf,
    pub(super) postgres: PathBuf,
    pub(super) major: u32,
}

/// Finds both; installs what is missing if it may, and otherwise says what to install.
pub(super) fn or_install(stop: &Stop) -> Result<Programs> {
    let missing: Vec<_> =
        [(postgres().is_none(), install::Package::Postgres), (redis().is_none(), install::Package::Redis)]
            .into_iter()
            .filter_map(|(is_missing, package)| is_missing.then_some(package))
            .collect();
    if !missing.is_empty() {
        install::packages(&missing, stop)?;
    }
    if pgbouncer().is_none()
        && let Err(error) = install::packages(&[install::Package::Pgbouncer], stop)
    {
        eprintln!("  Going on without PgBouncer: {error:#}");
    }
    match (postgres(), redis()) {
        (Some(postgres), Some(redis)) => Ok(Programs { postgres, redis, pgbouncer: pgbouncer() }),
        (None, _) => bail!(
            "no Postgres {OLDEST_POSTGRES} or newer (initdb and postgres) on this machine, and the \
             package manager's is none; install one from https://www.postgresql.org/download/"
        ),
        (_, None) => bail!("no redis-server or valkey-server on this machine; install one of them"),
    }
}

/// The first on the PATH if it is new enough, else the newest of the packages' folders.
fn postgres() -> Option<PostgresPrograms> {
    let mut candidates = path_folders();
    let mut packaged: Vec<PathBuf> =
        ["/usr/lib/postgresql", "/usr/libexec", "/usr", "/opt/homebrew/opt", "/usr/local/opt"]
            .iter()
            .filter_map(|parent| std::fs::read_dir(parent).ok())
            .flat_map(|entries| entries.filter_map(Result::ok))
            .filter(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                name.starts_with(|first: char| first.is_ascii_digit())
                    || name.starts_with("postgres")
                    || name.starts_with("pgsql")
            })
            .flat_map(|entry| [entry.path().join("bin"), entry.path()])
            .collect();
    packaged.sort_by_key(|folder| std::cmp::Reverse(version_in(folder)));
    candidates.append(&mut packaged);
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        candidates.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    candidates.iter().find_map(|folder| programs_in(folder))
}

fn programs_in(folder: &Path) -> Option<PostgresPrograms> {
    let (initdb, postgres) = (folder.join("initdb"), folder.join("postgres"));
    if !initdb.is_file() || !postgres.is_file() {
        return None;
    }
    let output = Command::new(&postgres).arg("--version").output().ok()?;
    let major = major_version(&String::from_utf8_lossy(&output.stdout))?;
    (major >= OLDEST_POSTGRES).then_some(PostgresPrograms { initdb, postgres, major })
}

/// `postgres (PostgreSQL) 15.16 (Debian 15.16-0+deb12u1)` is 15; so is `15beta1`.
fn major_version(text: &str) -> Option<u32> {
    let version = text.split(')').nth(1)?.trim_start();
    let end = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..end].parse().ok()
}

/// The number in a package's folder name, as in `postgresql/16/bin` or `postgresql@17/bin`.
fn version_in(folder: &Path) -> u32 {
    folder
        .to_string_lossy()
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .next_back()
        .unwrap_or(0)
}

fn pgbouncer() -> Option<PathBuf> {
    on_path("pgbouncer")
}

fn redis() -> Option<PathBuf> {
    ["redis-server", "valkey-server"].iter().find_map(|name| on_path(name))
}

/// The first executable of that name on the PATH, or where administrators keep theirs.
pub(super) fn on_path(name: &str) -> Option<PathBuf> {
    path_folders().into_iter().map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn path_folders() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(["/usr/sbin", "/sbin", "/usr/local/bin", "/opt/homebrew/bin"].map(PathBuf::from));
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_whatever_the_packager_adds() {
        let debian = "postgres (PostgreSQL) 15.16 (Debian 15.16-0+deb12u1)\n";
        assert_eq!(major_version(debian), Some(15));
        assert_eq!(major_version("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_version("sh: postgres: not found"), None);
    }

    #[test]
    fn a_packages_folder_tells_its_version() {
        assert_eq!(version_in(Path::new("/usr/lib/postgresql/9/bin")), 9);
        assert_eq!(version_in(Path::new("/opt/homebrew/opt/postgresql@17/bin")), 17);
        assert_eq!(version_in(Path::new("/opt/homebrew/opt/postgresql/bin")), 0);
    }
}
