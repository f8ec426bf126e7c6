//! The folder that all of dev's state lives in: entered by its owner alone, used by one dev at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::cargo;

/// Held for as long as dev runs.
pub(super) struct Folder {
    path: PathBuf,
    /// Its lock goes with the process, however that ends.
    _lock: File,
}

impl Folder {
    pub(super) fn open(dir: Option<&Path>) -> Result<Self> {
        let path = dir.map_or_else(|| cargo::root().join(".freehold"), Path::to_owned);
        make(&path)?;
        let path = path.canonicalize().with_context(|| format!("could not find {}", path.display()))?;
        if path.to_str().is_none_or(|text| text.contains(['?', '#', '%', ' '])) {
            bail!(
                "{} cannot be a part of a database URL; choose a folder without spaces, ?, # and % with --dir",
                path.display()
            );
        }
        let lock = lock(&path)?;
        Ok(Self { path, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A folder inside, as closed as this one.
    pub(super) fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.join(name);
        make(&path)?;
        Ok(path)
    }

    /// The text of a file, if it is there.
    pub(super) fn read(&self, name: &str) -> Result<Option<String>> {
        match fs::read_to_string(self.join(name)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("could not read {}", self.join(name).display())),
        }
    }

    /// Replaces a file in one step; nobody else can read it, from its first byte on.
    pub(super) fn write_private(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.join(name);
        let write = || -> std::io::Result<()> {
            // Made with mode 0600.
            let mut file = tempfile::NamedTempFile::new_in(&self.path)?;
            file.write_all(text.as_bytes())?;
            file.write_all(b"\n")?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            Ok(())
        };
        write().with_context(|| format!("could not write {}", path.display()))?;
        Ok(path)
    }
}

fn make(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o700)))
        .with_context(|| format!("could not make {}", path.display()))
}

fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("could not open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.read_to_string(&mut holder).unwrap_or_default();
            bail!(
                "another `cargo xtask dev` (process {}) runs on {}; stop it, or choose another folder with --dir",
                holder.trim(),
                folder.display()
            );
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("could not lock {}", path.display()));
        }
    }
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_dev_on_one_folder_is_told_so() {
        let dir = tempfile::tempdir().unwrap();
        let first = Folder::open(Some(dir.path())).unwrap();
        let error = Folder::open(Some(dir.path())).err().unwrap().to_string();
        assert!(error.contains("another `cargo xtask dev`"), "{error}");
        drop(first);
        assert!(Folder::open(Some(dir.path())).is_ok());
    }

    #[test]
    fn what_is_written_is_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("state");
        let folder = Folder::open(Some(&inner)).unwrap();
        let file = folder.write_private("secrets.json", "{}").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&inner), mode(&file)), (0o700, 0o600));
        assert_eq!(folder.read("secrets.json").unwrap().as_deref(), Some("{}\n"));
        assert_eq!(folder.read("nothing").unwrap(), None);
    }
}
