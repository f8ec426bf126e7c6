//! The file descriptors that this process may have: sockets, and databases that are files.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of descriptors as far as the system allows it, and says what it is then.
pub fn raise() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // No limit at all is more than any system has.
    let most = maximum.unwrap_or(u64::from(u32::MAX));
    if current.is_some_and(|current| current < most) {
        match setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum }) {
            Ok(()) => tracing::info!(before = current, now = most, "raised the limit of open files"),
            Err(error) => tracing::warn!(%error, limit = current, "could not raise the limit of open files"),
        }
    }
    limit()
}

/// How many descriptors this process may have now.
pub fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::from(u32::MAX))
}
