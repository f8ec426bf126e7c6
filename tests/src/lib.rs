//! Real planes as processes, on real databases, through real sockets. Faults are real kills and real files gone.
//!
//! Each test has planes of its own on free ports, with a registry of its own, on SQLite and on Postgres.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::missing_panics_doc,
    reason = "tests may panic, and tell why"
)]

pub mod bed;
pub mod idp;
pub mod pgbouncer;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod redis;
pub mod under_load;
pub mod way;

#[cfg(test)]
mod admission;
#[cfg(test)]
mod anchors;
#[cfg(test)]
mod api;
#[cfg(test)]
mod audit;
#[cfg(test)]
mod bad_requests;
#[cfg(test)]
mod budget;
#[cfg(test)]
mod busy;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod converge;
#[cfg(test)]
mod deadlines;
#[cfg(test)]
mod dev;
#[cfg(test)]
mod domains;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod fleet;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod kills;
#[cfg(test)]
mod life;
#[cfg(test)]
#[allow(clippy::cast_precision_loss, reason = "counts of a test are small")]
mod limits;
#[cfg(test)]
mod microchips;
#[cfg(test)]
mod moved;
#[cfg(test)]
mod news;
#[cfg(test)]
mod night_shift;
#[cfg(test)]
mod notes;
#[cfg(test)]
mod operators;
#[cfg(test)]
mod pets;
#[cfg(test)]
mod pooler;
#[cfg(test)]
mod pools;
#[cfg(test)]
mod races;
#[cfg(test)]
mod read_only;
#[cfg(test)]
mod reconnect;
#[cfg(test)]
mod restored;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod sick;
#[cfg(test)]
mod slugs;
#[cfg(test)]
mod tokens;

/// Runs a test on each engine: `on_both!(behaviour, control planes, data planes)`.
#[macro_export]
macro_rules! on_both {
    ($name:ident, $control:expr, $data:expr) => {
        mod $name {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_sqlite() {
                super::$name($crate::bed::Bed::start($crate::bed::Store::Sqlite, $control, $data).await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_postgres() {
                super::$name($crate::bed::Bed::start($crate::bed::Store::Postgres, $control, $data).await).await;
            }
        }
    };
}
