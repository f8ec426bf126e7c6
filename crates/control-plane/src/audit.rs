//! The audit trail: what operators do and data planes notice, written in the transaction of what it tells of.
//!
//! Records are only ever added. An operator's change without a deed does not commit, so that no call forgets it.

mod account;
mod chain;
mod deed;
mod intake;
mod refusals;
mod sign;

pub(crate) use account::{Account, changes_nothing};
pub(crate) use chain::{append, checkpoint_of, lock, record_of};
pub(crate) use deed::Deed;
pub(crate) use intake::take;
pub(crate) use refusals::Refusals;
pub(crate) use sign::run;
