//! SQLite: a server is a folder, a database a folder in it that only we may enter. There are no roles.

mod inspect;

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use sea_orm::sqlx::sqlite::SqliteJournalMode;
use sea_orm::{ConnectOptions, ConnectionTrait, DatabaseConnection};
use secrecy::{ExposeSecret, SecretString};
use service::pool;
use uuid::Uuid;

use super::database::{DatabaseName, Slot};
use super::{Engine, EngineError, Entered, Made, Patience};

/// Where nobody else is at work; so long a write of somebody who is there all the same is waited for.
const ALONE: Patience = Patience { lock: Duration::from_secs(5), ..Patience::ALONE };
const FILE: &str = "database.db";
/// Begins the name of a copy that is not whole yet.
const COPY: &str = "database.copy-";

/// A folder of databases.
pub(super) struct Sqlite {
    folder: PathBuf,
}

impl Sqlite {
    pub(super) fn new(admin_url: &SecretString) -> Result<Self, EngineError> {
        let path = admin_url.expose_secret().strip_prefix("sqlite://").filter(|path| path.starts_with('/'));
        let path = path.filter(|path| !path.contains(['?', '#', '%']));
        path.map(|path| Self { folder: path.into() }).ok_or_else(|| {
            EngineError::refused("the admin URL of a SQLite server is sqlite:// and the absolute path of a folder")
        })
    }

    fn home(&self, database: &DatabaseName) -> PathBuf {
        self.folder.join(database.as_str())
    }

    /// Not the server's folder itself: one that is gone, as when its disk is not mounted, is not made anew.
    fn make_home(&self, database: &DatabaseName) -> Result<(), EngineError> {
        match DirBuilder::new().mode(0o700).create(self.home(database)) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Removes what was left by copies that were not made to the end. Who made one and wakes up writes to no file that has a name.
    fn clear_copies(&self, database: &DatabaseName) -> Result<(), EngineError> {
        for entry in fs::read_dir(self.home(database))? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(COPY) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    async fn open(&self, database: &DatabaseName) -> Result<DatabaseConnection, EngineError> {
        self.open_for(database, ALONE.lock).await
    }

    /// Waits for so long for somebody else's write.
    async fn open_for(&self, database: &DatabaseName, patience: Duration) -> Result<DatabaseConnection, EngineError> {
        let file = self.home(database).join(FILE);
        let mut options = ConnectOptions::new(format!("sqlite://{}", file.display()));
        options
            .max_connections(1)
            // A file does not hang up.
            .test_before_acquire(false)
            .sqlx_logging(false)
            .map_sqlx_sqlite_opts(move |options| {
                options
                    // A file that is gone is not replaced by an empty one.
                    .create_if_missing(false)
                    .journal_mode(SqliteJournalMode::Wal)
                    .busy_timeout(patience)
                    .foreign_keys(true)
            });
        service::pool::open(options).await.map_err(|error| match file.try_exists() {
            Ok(false) => {
                EngineError::unavailable("could not open the database: its file is gone; put it back from a backup")
            }
            _ => EngineError::of("open the database", error),
        })
    }
}

impl super::Anchors for Sqlite {}

#[async_trait]
impl Engine for Sqlite {
    async fn check(&self) -> Result<(), EngineError> {
        // Of our own: other replicas look at the same time.
        let probe = self.folder.join(format!(".freehold-probe-{}", uuid::Uuid::new_v4()));
        fs::write(&probe, b"").and_then(|()| fs::remove_file(&probe)).map_err(|error| {
            EngineError::refused(format!("the folder cannot be written to ({error}): make it, and give us the right"))
        })
    }

    async fn set_admin_password(&self, _: &SecretString) -> Result<(), EngineError> {
        Ok(())
    }

    fn admin_url_with(&self, _: &SecretString) -> Option<SecretString> {
        None
    }

    async fn create_database(&self, database: &DatabaseName) -> Result<(), EngineError> {
        self.make_home(database)?;
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(self.home(database).join(FILE))?;
        close(self.open(database).await?).await
    }

    async fn create_role(&self, _: &DatabaseName, _: Slot, _: &SecretString, _: u32) -> Result<(), EngineError> {
        Ok(())
    }

    async fn disable_role(&self, _: &DatabaseName, _: Slot) -> Result<(), EngineError> {
        Ok(())
    }

    async fn enter(&self, database: &DatabaseName) -> Result<Entered, EngineError> {
        Ok(Entered::new(self.open(database).await?, false, ALONE))
    }

    async fn enter_among_others(&self, database: &DatabaseName, patience: Patience) -> Result<Entered, EngineError> {
        // Whoever leaves it last puts its log away, and keeps it from others so long.
        let db = patience.retry(|| self.open_for(database, patience.lock)).await?;
        Ok(Entered::new(db, false, patience))
    }

    async fn make_template(&self, database: &DatabaseName) -> Result<(), EngineError> {
        // Whole in its one file: what is in the log beside it would not be copied.
        let db = self.open(database).await?;
        db.execute_unprepared("PRAGMA wal_checkpoint(TRUNCATE)")
            .await
            .map_err(|error| EngineError::of("close the template", error))?;
        close(db).await
    }

    async fn copy_database(&self, template: &DatabaseName, database: &DatabaseName) -> Result<Made, EngineError> {
        self.make_home(database)?;
        let file = self.home(database).join(FILE);
        if file.exists() {
            return Ok(Made::Before);
        }
        self.clear_copies(database)?;
        // Of our own, and whole or not there at all. It takes nobody's place: whoever was frozen here and wakes up finds a database
        // that may be in use by now.
        let copy = self.home(database).join(format!("{COPY}{}", Uuid::new_v4()));
        fs::copy(self.home(template).join(FILE), &copy)?;
        fs::set_permissions(&copy, Permissions::from_mode(0o600))?;
        let linked = fs::hard_link(&copy, &file);
        fs::remove_file(&copy)?;
        match linked {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(Made::Before),
            linked => linked?,
        }
        Ok(Made::Anew)
    }

    async fn has_database(&self, database: &DatabaseName) -> Result<bool, EngineError> {
        Ok(self.home(database).join(FILE).try_exists()?)
    }

    async fn is_invalid(&self, database: &DatabaseName) -> Result<bool, EngineError> {
        // Made on a disk that was full by then: there is no stamp in it to be read, and to look takes room.
        let is_empty = |name: &str| fs::metadata(self.home(database).join(name)).map(|file| file.len() == 0);
        let has_log = is_empty(&format!("{FILE}-wal")).is_ok_and(|is_empty| !is_empty);
        Ok(!has_log && is_empty(FILE)?)
    }

    async fn drop_database(&self, database: &DatabaseName) -> Result<(), EngineError> {
        match fs::remove_dir_all(self.home(database)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    async fn end_sessions_of(&self, _: Uuid) -> Result<(), EngineError> {
        Ok(())
    }

    fn url(&self, database: &DatabaseName, _: Slot, _: &SecretString) -> SecretString {
        format!("sqlite://{}", self.home(database).join(FILE).display()).into()
    }
}

async fn close(db: DatabaseConnection) -> Result<(), EngineError> {
    pool::close(db).await.map_err(|error| EngineError::of("close the database", error))
}
