//! Databases that are ready and were entered already: the first to enter a new database waits until the server has read its
//! catalogues, and a tenant that is waited for should not.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::engine::{DatabaseName, Entered};

/// Connections that are kept at most, on all servers together.
pub(crate) const MOST: usize = 32;

/// The connections, by the databases' names.
#[derive(Default)]
pub(crate) struct Kept(Mutex<HashMap<String, (i64, Entered)>>);

impl Kept {
    /// The connection into the database, if one is kept. It is the caller's now. One that was made when the server had another
    /// address leads to where the database was, and is closed.
    pub(crate) fn take(&self, name: &DatabaseName, address: i64) -> Option<Entered> {
        let (made_at, entered) = self.kept().remove(name.as_str())?;
        (made_at == address).then_some(entered)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.kept().contains_key(name)
    }

    pub(super) fn is_full(&self) -> bool {
        self.kept().len() >= MOST
    }

    pub(super) fn put(&self, name: &DatabaseName, address: i64, entered: Entered) {
        self.kept().insert(name.as_str().to_owned(), (address, entered));
    }

    /// Lets go of those that are not ready any more: others claimed them, or dropped them.
    pub(super) fn retain(&self, is_ready: impl Fn(&str) -> bool) {
        self.kept().retain(|name, _| is_ready(name));
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, HashMap<String, (i64, Entered)>> {
        // Each change is whole before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
