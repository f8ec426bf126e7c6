//! Who this node is: an id that it keeps in its `state_dir` across restarts, and shares with no other process.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use service::problem::BoxError;
use tenancy::id::NodeId;
use uuid::Uuid;

/// A node's identity, held for as long as it runs.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    /// This process: a greater one after each start. What it has open on servers is its own.
    pub(crate) holder: Uuid,
    /// Its lock goes with the process, however that ends.
    _file: File,
}

impl Node {
    /// Reads the id, or makes one.
    pub(crate) fn open(state_dir: &Path) -> Result<Self, BoxError> {
        let path = state_dir.join("node-id");
        let told = |what: &str, error: &dyn std::fmt::Display| format!("cannot {what} {}: {error}", path.display());
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state_dir)
            .map_err(|error| told("make the folder of", &error))?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| told("open", &error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(
                    told("use", &"another data plane runs with it; give each a `node.state_dir` of its own").into()
                );
            }
            Err(TryLockError::Error(error)) => return Err(told("lock", &error).into()),
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(|error| told("read", &error))?;
        // A crash may have left it empty; anything else that is no id is somebody's, and stays.
        let id = if text.trim().is_empty() {
            let id = NodeId::generate();
            writeln!(file, "{id}").and_then(|()| file.sync_all()).map_err(|error| told("write", &error))?;
            id
        } else {
            text.trim().parse().map_err(|_| told("understand", &"it holds no node's id; remove it for a new one"))?
        };
        let holder = holder(&state_dir.join("starts"))?;
        Ok(Self { id, holder, _file: file })
    }
}

/// A process' id, which begins with how often this node was started: no clock that is set back makes it less than one before.
fn holder(path: &Path) -> Result<Uuid, BoxError> {
    let told = |what: &str, error: &dyn std::fmt::Display| format!("cannot {what} {}: {error}", path.display());
    let before: u64 = match fs::read_to_string(path) {
        Ok(text) => text.trim().parse().map_err(|error| told("understand", &error))?,
        Err(error) if error.kind() == ErrorKind::NotFound => 0,
        Err(error) => return Err(told("read", &error).into()),
    };
    // Another file in its place: a crash leaves the one or the other.
    let next = path.with_extension("next");
    let mut file = File::create(&next).map_err(|error| told("write", &error))?;
    writeln!(file, "{}", before + 1).and_then(|()| file.sync_all()).map_err(|error| told("write", &error))?;
    fs::rename(&next, path).map_err(|error| told("write", &error))?;
    let [starts, chance] = [before + 1, rand::random()].map(u64::to_be_bytes);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&starts);
    bytes[8..].copy_from_slice(&chance);
    Ok(Uuid::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_keeps_its_id_and_shares_it_with_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let first = Node::open(&state).unwrap();
        assert!(Node::open(&state).unwrap_err().to_string().contains("another data plane"));
        let (id, holder) = (first.id, first.holder);
        drop(first);
        let second = Node::open(&state).unwrap();
        assert_eq!(second.id, id);
        assert!(second.holder > holder, "each process has one of its own, and a later one a greater");
        drop(second);
        std::fs::write(state.join("node-id"), "damaged").unwrap();
        assert!(Node::open(&state).is_err());
    }
}
