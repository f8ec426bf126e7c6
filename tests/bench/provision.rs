//! What a new tenant costs: from the call until its database is there, against the bare statements that make one.

use std::ops::Range;
use std::time::{Duration, Instant};

use end_to_end::bed::{Bed, Store};
use futures_util::StreamExt as _;
use futures_util::stream;
use sea_orm::{ConnectOptions, ConnectionTrait as _, DatabaseConnection, Statement};
use serde_json::json;

use crate::Effort;
use crate::report::{Report, median, quantile};

/// Who creates at the same time, where many do.
const CLIENTS: usize = 32;

/// The statements that a tenant's database needs at the least, on connections that are open already.
struct Bare {
    admin: DatabaseConnection,
    template: String,
}

impl Bare {
    async fn make(&self) -> Duration {
        self.make_named().await.1
    }

    async fn make_named(&self) -> (String, Duration) {
        let name = format!("bare_{}", uuid::Uuid::new_v4().simple());
        let begun = Instant::now();
        for statement in [
            format!("CREATE DATABASE {name} OWNER freehold_owner TEMPLATE {}", self.template),
            format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC"),
            format!(
                "CREATE ROLE {name}_a LOGIN CONNECTION LIMIT 20 PASSWORD 'SCRAM-SHA-256$1:c2FsdHNhbHRzYWx0c2FsdA==$\
                 WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU='; \
                 ALTER ROLE {name}_a SET statement_timeout = '30s'; \
                 ALTER ROLE {name}_a SET idle_in_transaction_session_timeout = '30s'; \
                 GRANT freehold_rw TO {name}_a; GRANT CONNECT ON DATABASE {name} TO {name}_a"
            ),
        ] {
            self.admin.execute_unprepared(&statement).await.unwrap();
        }
        (name, begun.elapsed())
    }

    /// With what no tenant can do without either: one login, and the stamp.
    async fn make_and_stamp(&self) -> Duration {
        let begun = Instant::now();
        let (name, _) = self.make_named().await;
        let url = std::env::var("FREEHOLD_TEST_POSTGRES_URL").unwrap();
        let mut options = ConnectOptions::new(format!("{}/{name}", url.rsplit_once('/').unwrap().0));
        options.max_connections(1).sqlx_logging(false);
        let db = service::pool::open(options).await.unwrap();
        let id = uuid::Uuid::new_v4();
        db.execute_unprepared(&format!("INSERT INTO freehold_stamp VALUES (1, '{id}')")).await.unwrap();
        let took = begun.elapsed();
        db.close().await.unwrap();
        took
    }

    /// How many are made in a second by so many at once.
    async fn rate(&self, at_once: usize, count: usize) -> f64 {
        rate_of(at_once, count, || self.make()).await
    }

    /// As [`Self::rate`], with a login and the stamp.
    async fn stamped_rate(&self, at_once: usize, count: usize) -> f64 {
        rate_of(at_once, count, || self.make_and_stamp()).await
    }

    async fn count(&self, sql: &str) -> i64 {
        let row = self.admin.query_one_raw(Statement::from_string(self.admin.get_database_backend(), sql));
        row.await.unwrap().unwrap().try_get_by_index(0).unwrap()
    }
}

async fn rate_of<F: Future>(at_once: usize, count: usize, make: impl Fn() -> F) -> f64 {
    let begun = Instant::now();
    stream::iter(0..count)
        .for_each_concurrent(at_once, |_| async {
            drop(make().await);
        })
        .await;
    per_second(count, begun.elapsed())
}

#[allow(clippy::cast_precision_loss, reason = "a count of tenants")]
fn per_second(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

fn millis(took: Duration) -> f64 {
    took.as_secs_f64() * 1_000.0
}

async fn create(bed: &Bed, slug: &str) -> Duration {
    let begun = Instant::now();
    let body = json!({ "slug": slug, "name": slug, "plan": "test", "admin_email": "admin@example.org" });
    let made = bed.operator("POST", "/v1/tenants", Some(body)).await;
    assert_eq!(made.status, 201, "{made:?}");
    begun.elapsed()
}

async fn until_ready(bed: &Bed, count: u64) {
    let deadline = Instant::now() + Duration::from_mins(2);
    while bed.done("GET", "/v1/servers/local", None).await["ready"] != count {
        assert!(Instant::now() < deadline, "the stock is not filled up");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn measure(effort: Effort) -> Report {
    let mut report = Report::new("provision");
    let mut bed = Bed::start(Store::Postgres, 1, 0).await;
    let server = |change: serde_json::Value| bed.done("PATCH", "/v1/servers/local", Some(change));
    server(json!({ "capacity": 100_000, "warm": 4 })).await;
    until_ready(&bed, 4).await;
    let mut options = ConnectOptions::new(std::env::var("FREEHOLD_TEST_POSTGRES_URL").unwrap());
    options.max_connections(16).sqlx_logging(false);
    let bare = Bare { admin: service::pool::open(options).await.unwrap(), template: bed.template().await };

    // Each while the stock is full, as sign-ups come that are not in a rush.
    let mut warm = Vec::new();
    for number in 0..effort.either(200, 20) {
        warm.push(millis(create(&bed, &format!("warm-{number}")).await));
        until_ready(&bed, 4).await;
    }
    report.at_most("warm claim through the API", ("p50", "ms"), median(&warm), Some(20.0));
    report.at_most("warm claim through the API", ("p99", "ms"), quantile(&warm, 0.99), Some(60.0));
    eprintln!("warm: {} tenants", warm.len());

    server(json!({ "warm": 0 })).await;
    until_ready(&bed, 0).await;
    let (mut cold, mut statements, mut stamped) = (Vec::new(), Vec::new(), Vec::new());
    let mut ratios = Vec::new();
    for number in 0..effort.either(100, 10) {
        let slug = format!("cold-{number}");
        // In pairs, each first in its turn.
        let (one, other) = if number % 2 == 0 {
            let other = millis(bare.make().await);
            (millis(create(&bed, &slug).await), other)
        } else {
            (millis(create(&bed, &slug).await), millis(bare.make().await))
        };
        stamped.push(millis(bare.make_and_stamp().await));
        ratios.push(one / other);
        cold.push(one);
        statements.push(other);
    }
    let case = "cold, against the bare statements";
    let medians = (median(&cold), median(&statements), median(&ratios));
    report.at_most_ratio(case, ("p50", "ms"), medians, 1.3);
    report.compared(case, ("p99", "ms"), quantile(&cold, 0.99), quantile(&statements, 0.99), None);
    let case = "cold, against the bare statements, a login and the stamp";
    report.compared(case, ("p50", "ms"), median(&cold), median(&stamped), None);
    eprintln!("cold: {} tenants", cold.len());

    let (many, case) = sustained(&bed, &bare, &mut report, effort).await;

    // Each has exactly one, and nothing is left over.
    let tenants = warm.len() + cold.len() + many;
    let databases = bed.registry_number("SELECT count(*) FROM databases").await;
    let templates = bed.registry_number("SELECT count(*) FROM templates").await;
    let on_server = bare.count("SELECT count(*) FROM pg_database WHERE datname LIKE 'fh\\_%'").await;
    let roles = bare.count("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'fh\\_%' AND rolcanlogin").await;
    assert_eq!(databases, tenants, "each tenant has exactly one database");
    assert_eq!(usize::try_from(roles).unwrap(), tenants, "each has exactly one login role");
    // Less than nothing, were one missing.
    let left_over = on_server - i64::try_from(tenants + templates).unwrap();
    assert!(left_over >= 0, "{} tenants have no database on the server", -left_over);
    #[allow(clippy::cast_precision_loss, reason = "a count of databases")]
    report.at_most(&case, ("left over", "databases"), left_over as f64, Some(0.0));
    // Each rotation waits for both.
    let control = bed.control[0].url.clone();
    for nodes in 1..=2 {
        bed.add_node(&control);
        until_nodes(&bed, nodes).await;
    }
    rotate(&bed, &mut report, effort).await;
    rewrap(&bed, &mut report, effort).await;
    report
}

/// Tenants by many clients in rounds, against the bare statements in the same rounds: the server has more to look after with
/// each database, and is slower then for both. Answers how many tenants were made, and of what case.
async fn sustained(bed: &Bed, bare: &Bare, report: &mut Report, effort: Effort) -> (usize, String) {
    const ROUNDS: usize = 5;
    let each = effort.either(200, 20);
    let mut best = (1, 0.0);
    for at_once in [1, 2, 3, 4, 6, 8] {
        let rate = bare.rate(at_once, effort.either(100, 10)).await;
        eprintln!("bare statements, {at_once} at once: {rate:.1} a second");
        if rate > best.1 {
            best = (at_once, rate);
        }
    }
    let (mut rates, mut statements, mut stamped, mut ratios) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let tenants = round * each..(round + 1) * each;
        let (rate, baseline, with_stamp) = if round % 2 == 0 {
            let baseline = bare.rate(best.0, each).await;
            let rate = rush(bed, tenants).await;
            (rate, baseline, bare.stamped_rate(best.0, each).await)
        } else {
            let with_stamp = bare.stamped_rate(best.0, each).await;
            let rate = rush(bed, tenants).await;
            (rate, bare.rate(best.0, each).await, with_stamp)
        };
        eprintln!(
            "round {round}: {rate:.1} tenants a second; {baseline:.1} by the bare statements, {with_stamp:.1} with a login \
             and the stamp: {:.2}, {:.2}",
            rate / baseline,
            rate / with_stamp
        );
        rates.push(rate);
        statements.push(baseline);
        stamped.push(with_stamp);
        ratios.push(rate / baseline);
    }
    let count = ROUNDS * each;
    let case = format!("{count} tenants by {CLIENTS} clients, against bare, a login and the stamp");
    report.compared(&case, ("throughput", "tenants/s"), median(&rates), median(&stamped), None);
    let case = format!("{count} tenants by {CLIENTS} clients, against bare");
    let medians = (median(&rates), median(&statements), median(&ratios));
    report.at_least_ratio(&case, ("throughput", "tenants/s"), medians, 0.8);
    (count, case)
}

/// Tenants of these numbers, as fast as many clients get them; how many a second.
async fn rush(bed: &Bed, numbers: Range<usize>) -> f64 {
    let (begun, count) = (Instant::now(), numbers.len());
    stream::iter(numbers)
        .for_each_concurrent(CLIENTS, |number| async move {
            let _ = create(bed, &format!("many-{number}")).await;
        })
        .await;
    per_second(count, begun.elapsed())
}

async fn until_nodes(bed: &Bed, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while bed.done("GET", "/v1/nodes", None).await["items"].as_array().map(Vec::len) != Some(count) {
        assert!(Instant::now() < deadline, "a data plane does not report");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn rotate(bed: &Bed, report: &mut Report, effort: Effort) {
    let count = effort.either(500, 50);
    let begun = Instant::now();
    stream::iter(0..count)
        .for_each_concurrent(CLIENTS, |number| async move {
            let path = format!("/v1/tenants/many-{number}/rotate-credentials");
            let rotated = bed.operator("POST", &path, None).await;
            assert_eq!(rotated.status, 200, "{rotated:?}");
        })
        .await;
    let case = format!("{count} rotations on one server, two data planes, {CLIENTS} clients");
    report.at_least(&case, ("throughput", "tenants/s"), per_second(count, begun.elapsed()), 50.0);
}

async fn rewrap(bed: &Bed, report: &mut Report, effort: Effort) {
    let count = effort.either(100_000, 5_000);
    bed.plant_old_urls(count).await;
    let begun = Instant::now();
    let mut rewrapped = 0;
    loop {
        let done = bed.done("POST", "/v1/rewrap", Some(json!({}))).await;
        rewrapped += done["rewrapped"].as_u64().unwrap();
        if done["remaining"] == 0 {
            break;
        }
    }
    let took = begun.elapsed().as_secs_f64();
    assert_eq!(usize::try_from(rewrapped).unwrap(), count, "each once");
    report.at_most(&format!("rewrap of {count} URLs"), ("time", "s"), took, Some(10.0));
}
