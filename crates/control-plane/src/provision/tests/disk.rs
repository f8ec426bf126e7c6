//! A small disk that a test fills, where the machine lets it mount one.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};
use uuid::Uuid;

/// A disk of its own and of a settable size. It goes with the value.
pub(crate) struct Disk(PathBuf);

impl Disk {
    /// Or why this machine lets us mount none.
    pub(crate) fn of(kibibytes: u32) -> Result<Self, String> {
        let folder = std::env::temp_dir().join(format!("freehold-disk-{}", Uuid::new_v4().simple()));
        std::fs::create_dir(&folder).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={kibibytes}k"), "none"])
            .arg(&folder)
            .output();
        match mounted {
            Ok(output) if output.status.success() => Ok(Self(folder)),
            other => {
                std::fs::remove_dir(&folder).unwrap();
                Err(format!("to mount one takes root's rights, and this machine refuses: {other:?}"))
            }
        }
    }

    /// For a test on SQLite, by its module's path and its name. Where this machine lets us mount none, the test is run again as the
    /// root of a user namespace of its own, if it allows that, and there is nothing left to do here.
    pub(crate) fn or_within_a_namespace(kibibytes: u32, module: &str, test: &str) -> Option<Self> {
        Self::of(kibibytes).map_err(|why| again_within_a_namespace(module, test, &why)).ok()
    }

    /// Leaves no byte free.
    pub(crate) fn fill(&self) {
        let mut filler = std::fs::File::create(self.filler()).unwrap();
        while std::io::Write::write_all(&mut filler, &[7; 4096]).is_ok() {}
    }

    pub(crate) fn make_room(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Also while a file in it is open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// A small disk as a tablespace of the Postgres server of tests.
pub(crate) struct Tablespace {
    pub(crate) disk: Disk,
    superuser: DatabaseConnection,
    name: String,
}

impl Tablespace {
    /// None where this machine lets us mount no disk, which is told. The server would have to be within the same namespace: without
    /// root's rights there is no other way.
    pub(crate) async fn or_not_tried(kibibytes: u32, what: &str) -> Option<Self> {
        let disk = Disk::of(kibibytes).map_err(|why| not_tried(what, &why)).ok()?;
        let superuser = std::env::var("FREEHOLD_TEST_POSTGRES_SUPERUSER_URL").unwrap();
        let superuser = service::pool::open(superuser).await.unwrap();
        let data = Statement::from_string(superuser.get_database_backend(), "SHOW data_directory");
        let data: String = superuser.query_one_raw(data).await.unwrap().unwrap().try_get_by_index(0).unwrap();
        let files = std::fs::metadata(data).unwrap();
        std::os::unix::fs::chown(disk.path(), Some(files.uid()), Some(files.gid())).unwrap();
        let name = format!("small_{}", Uuid::new_v4().simple());
        let made = format!("CREATE TABLESPACE {name} LOCATION '{}'", disk.path().display());
        superuser.execute_unprepared(&made).await.unwrap();
        Some(Self { disk, superuser, name })
    }

    /// Moves a database there; a copy goes where what it is copied from is.
    pub(crate) async fn take(&self, database: &str) {
        let moved = format!("ALTER DATABASE \"{database}\" SET TABLESPACE {}", self.name);
        self.superuser.execute_unprepared(&moved).await.unwrap();
    }

    /// When no database is there any more.
    pub(crate) async fn remove(self) {
        self.superuser.execute_unprepared(&format!("DROP TABLESPACE {}", self.name)).await.unwrap();
        self.superuser.close().await.unwrap();
    }
}

/// Says aloud what was not tried, and writes it where `cargo xtask test` sums it up.
#[allow(clippy::print_stderr, reason = "what was not tried is told to whoever runs the tests")]
pub(crate) fn not_tried(what: &str, why: &str) {
    eprintln!("NOT TRIED: {what}: {why}");
    if let Some(file) = std::env::var_os("FREEHOLD_TEST_NOT_TRIED") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(file).unwrap();
        std::io::Write::write_all(&mut file, format!("{what}: {why}\n").as_bytes()).unwrap();
    }
}

/// Set where a test runs again as the root of a namespace of its own.
const WITHIN: &str = "FREEHOLD_TEST_WITHIN_A_NAMESPACE";

/// Runs a test again as the root of a user namespace of its own, where it may mount what nobody else sees. Many machines allow
/// that to anybody.
fn again_within_a_namespace(module: &str, test: &str, why: &str) {
    assert!(std::env::var_os(WITHIN).is_none(), "{why}");
    let is_allowed = Command::new("unshare").args(["-rm", "sh", "-c", "mount -t tmpfs none /mnt"]).output();
    if !is_allowed.as_ref().is_ok_and(|output| output.status.success()) {
        return not_tried(test, &format!("{why}; nor in a user namespace: {is_allowed:?}"));
    }
    // Test programs leave the crate's name out.
    let (_, module) = module.split_once("::").unwrap();
    let name = format!("{module}::{test}");
    let own = std::env::current_exe().unwrap();
    let again = Command::new("unshare").arg("-rm").arg(own).args(["--exact", &name]).env(WITHIN, "1").output().unwrap();
    let said = String::from_utf8_lossy(&again.stdout);
    assert!(again.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&again.stderr));
}
