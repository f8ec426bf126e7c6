//! How a folder of databases is looked at. There are no roles in it: who may enter is the file system's to say.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};

use super::{FILE, Sqlite, close};
use crate::engine::inspect::{self, Examination, Identity, Inspect, Inventory, Login};
use crate::engine::{DatabaseName, Engine as _, EngineError, Slot};

/// What the folder of a database and the file in it let others do.
const OTHERS: u32 = 0o077;

#[async_trait]
impl Inspect for Sqlite {
    async fn answers(&self) -> Result<(), EngineError> {
        Ok(fs::read_dir(&self.folder).map(drop)?)
    }

    async fn inventory(&self) -> Result<Inventory, EngineError> {
        let mut inventory = Inventory::default();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            inventory.databases.extend(name.to_str().and_then(|name| name.parse::<DatabaseName>().ok()));
        }
        Ok(inventory)
    }

    async fn identify(&self, database: &DatabaseName) -> Result<Option<Identity>, EngineError> {
        if !self.home(database).try_exists()? {
            return Ok(None);
        }
        if !self.home(database).join(FILE).try_exists()? {
            // Whoever began to make it came no further than the folder.
            return Ok(Some(Identity { stamp: None, schema_version: 0, is_seeded: false, is_entered: false }));
        }
        let db = self.open(database).await?;
        let identity = inspect::identity(&db).await;
        close(db).await?;
        identity.map(Some).map_err(|error| EngineError::of("read the database's identity", error))
    }

    async fn examine(&self, database: &DatabaseName, _: Slot, _: u32) -> Result<Option<Examination>, EngineError> {
        let (home, file) = (self.home(database), self.home(database).join(FILE));
        if !file.try_exists()? {
            return Ok(None);
        }
        let Some(identity) = self.identify(database).await? else { return Ok(None) };
        let mut drifts = Vec::new();
        for (what, path) in [("folder", home), ("file", file)] {
            let mode = fs::metadata(path)?.mode() & 0o777;
            if mode & OTHERS != 0 {
                drifts.push(format!("its {what} has mode {mode:o} and lets others in"));
            }
        }
        Ok(Some(Examination { identity, in_use: Login::Open, other: Login::Absent, drifts }))
    }

    fn leads_to(&self, url: &SecretString, database: &DatabaseName, slot: Slot) -> bool {
        self.url(database, slot, &SecretString::default()).expose_secret() == url.expose_secret()
    }

    async fn admits(&self, _: &SecretString) -> Result<bool, EngineError> {
        Ok(true)
    }

    async fn restore_privileges(&self, database: &DatabaseName, _: Slot, _: u32) -> Result<(), EngineError> {
        for path in [self.home(database), self.home(database).join(FILE)] {
            let mode = fs::metadata(&path)?.mode() & 0o777 & !OTHERS;
            fs::set_permissions(path, Permissions::from_mode(mode))?;
        }
        Ok(())
    }

    async fn drop_role(&self, _: &DatabaseName, _: Slot) -> Result<(), EngineError> {
        Ok(())
    }

    async fn missing(&self, databases: &[DatabaseName], _: Option<Slot>) -> Result<Vec<DatabaseName>, EngineError> {
        // A folder whose disk is not mounted has lost nothing.
        self.answers().await?;
        let mut missing = Vec::new();
        for database in databases {
            if !self.home(database).join(FILE).try_exists()? {
                missing.push(database.clone());
            }
        }
        Ok(missing)
    }

    async fn limits_drifted(
        &self,
        _: &[DatabaseName],
        _: Slot,
        _: u32,
    ) -> Result<Vec<(DatabaseName, i32)>, EngineError> {
        Ok(Vec::new())
    }

    async fn limit_role(&self, _: &DatabaseName, _: Slot, _: u32) -> Result<(), EngineError> {
        Ok(())
    }
}
