//! The registry's clock, by which leases and keys expire: Postgres' own; where the registry is a file, this machine's.
//!
//! A lease is written and compared by the statement itself, so that processes whose clocks differ agree on it to the
//! microsecond. All else goes by this process' clock, put right by what was last seen of the registry's.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use sea_orm::sea_query::{Expr, ExprTrait as _, Func, Query, SimpleExpr};
use sea_orm::{ConnectionTrait, DbBackend, DbErr};

use super::Registry;

/// What is known of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Clock {
    /// Microseconds that it is ahead of this process'.
    ahead: Arc<AtomicI64>,
    /// How wrong this process' own is.
    #[cfg(test)]
    wrong: TimeDelta,
}

impl Clock {
    #[cfg_attr(not(test), allow(clippy::unused_self, reason = "a test's may be wrong"))]
    fn of_process(&self) -> DateTime<Utc> {
        #[cfg(test)]
        return Utc::now() + self.wrong;
        #[cfg(not(test))]
        Utc::now()
    }
}

impl Registry {
    fn is_postgres(&self) -> bool {
        self.db.get_database_backend() == DbBackend::Postgres
    }

    /// The moment of a statement, or of the change that it is in.
    pub(crate) fn present(&self) -> SimpleExpr {
        if self.is_postgres() { Expr::current_timestamp() } else { Expr::value(self.now()) }
    }

    /// So long after it.
    pub(crate) fn after(&self, pause: Duration) -> SimpleExpr {
        if !self.is_postgres() {
            return Expr::value(self.now() + pause);
        }
        // Of years, months, weeks, days, hours and minutes none; and seconds.
        let none = std::iter::repeat_n(Expr::value(0), 6);
        let length = Func::cust("make_interval").args(none.chain([Expr::value(pause.as_secs_f64())]));
        self.present().add(length)
    }

    /// Now, as precise as the registry keeps it.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        let ahead = TimeDelta::microseconds(self.clock.ahead.load(Ordering::Relaxed));
        // Postgres keeps microseconds; what is answered is what will be read again.
        (self.clock.of_process() + ahead).trunc_subsecs(6)
    }

    /// Looks how far the registry's clock is from this process'.
    pub(crate) async fn set_clock(&self) -> Result<(), DbErr> {
        if !self.is_postgres() {
            return Ok(());
        }
        let asked = self.clock.of_process();
        let query = Query::select().expr(Expr::current_timestamp()).to_owned();
        let row = self.db.query_one(&query).await?;
        let said: DateTime<Utc> =
            row.ok_or_else(|| DbErr::RecordNotFound("the registry told no time".to_owned()))?.try_get_by_index(0)?;
        // Somewhere on the way there and back.
        let heard = self.clock.of_process();
        let ahead = said - (asked + (heard - asked) / 2);
        self.clock.ahead.store(ahead.num_microseconds().unwrap_or_default(), Ordering::Relaxed);
        Ok(())
    }
}

/// How a test has a process whose clock is wrong.
#[cfg(test)]
impl Registry {
    /// The same registry, by a process that is so far off and has not looked yet.
    pub(crate) fn seen_by_a_clock_that_is_wrong_by(&self, wrong: TimeDelta) -> Self {
        Self { clock: Clock { ahead: Arc::default(), wrong }, ..self.clone() }
    }
}
