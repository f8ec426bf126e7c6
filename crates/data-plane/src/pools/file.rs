//! Which file a SQLite pool has open: a deleted one is still served by open handles.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a look at a file counts: asking the disk for each request is a fifth of the whole walk.
const LOOKED_FOR: Duration = Duration::from_millis(10);

/// A file as it was when it was opened.
#[derive(Debug)]
pub(super) struct OpenFile {
    path: PathBuf,
    identity: (u64, u64),
    /// Until when it is taken to be there, in microseconds after the pools were made.
    looked_until: AtomicU64,
}

impl OpenFile {
    pub(super) fn of(path: PathBuf) -> std::io::Result<Self> {
        let found = fs::metadata(&path)?;
        Ok(Self { identity: (found.dev(), found.ino()), path, looked_until: AtomicU64::new(0) })
    }

    /// Whether the path still leads to it. `now` is the time since the pools were made.
    pub(super) fn is_there(&self, now: Duration) -> bool {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        if micros(now) < self.looked_until.load(Ordering::Relaxed) {
            return true;
        }
        let is_there = fs::metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if is_there {
            self.looked_until.store(micros(now + LOOKED_FOR), Ordering::Relaxed);
        }
        is_there
    }
}
