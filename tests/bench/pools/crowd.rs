//! Load for many tenants: clients that ask one request after the other, or at a fixed rate, each time for the tenant whose turn
//! it is.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{HeaderName, HeaderValue};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::replay::Times;
use crate::report::quantile;

/// No answer within this time is a failure.
const PATIENCE: Duration = Duration::from_secs(20);

/// Who is asked, and what names each tenant.
#[derive(Clone)]
pub(super) struct Asked {
    /// `http://host:port` of each node; clients are spread over them.
    pub(super) nodes: Vec<String>,
    /// Of each tenant.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

/// How requests come.
#[derive(Clone, Copy)]
pub(super) enum Pace {
    /// So many clients, each with one request at a time.
    Clients(usize),
    /// So many requests in a second, whatever the answers.
    Rate(f64),
    /// Each request of the trace once, one after the other.
    Once,
}

/// What came of it, after the warming.
#[derive(Default)]
pub(super) struct Told {
    /// Answered with 200, in a second.
    pub(super) throughput: f64,
    /// Requests, all of them.
    pub(super) requests: usize,
    /// Answered with 503 `server-busy`.
    pub(super) busy: usize,
    /// All others: what was answered, and how often.
    pub(super) failed: BTreeMap<String, usize>,
    /// Of what was served, in milliseconds.
    pub(super) latencies: Vec<f64>,
    /// Tenants that were served.
    pub(super) tenants: usize,
    /// Where in the trace the measured part began and ended.
    pub(super) part: std::ops::Range<usize>,
}

impl Told {
    pub(super) fn failures(&self) -> usize {
        self.failed.values().sum()
    }

    /// The time in milliseconds within which 99 of 100 requests were served. A refused request counts as never served.
    pub(super) fn p99(&self) -> f64 {
        let refused = std::iter::repeat_n(f64::INFINITY, self.busy + self.failures());
        quantile(&self.latencies.iter().copied().chain(refused).collect::<Vec<f64>>(), 0.99)
    }
}

/// A client at work, and what it has seen.
struct Seen {
    begun: Instant,
    times: Times,
    served: RefCell<Vec<bool>>,
    told: RefCell<Told>,
}

impl Seen {
    fn note(&self, tenant: usize, asked: Instant, answer: Answer) {
        if !(self.times.warming..self.times.warming + self.times.measured).contains(&self.begun.elapsed()) {
            return;
        }
        let mut told = self.told.borrow_mut();
        told.requests += 1;
        match answer {
            Answer::Served => {
                self.served.borrow_mut()[tenant] = true;
                told.latencies.push(asked.elapsed().as_secs_f64() * 1_000.0);
            }
            Answer::Busy => told.busy += 1,
            Answer::Failed(how) => *told.failed.entry(how).or_default() += 1,
        }
    }
}

enum Answer {
    Served,
    Busy,
    Failed(String),
}

/// Asks for the tenants of a trace, from its begin; it must be long enough.
pub(super) async fn ask(asked: &Asked, trace: &[usize], pace: Pace, times: Times) -> Told {
    let begun = Instant::now();
    let until = times.warming + times.measured;
    let served = RefCell::new(vec![false; asked.headers.len()]);
    let seen = Seen { begun, times, served, told: RefCell::default() };
    let (next, first_measured) = (Cell::new(0), Cell::new(0));
    let turn = || {
        let at = next.replace(next.get() + 1);
        if begun.elapsed() < times.warming {
            first_measured.set(at + 1);
        }
        trace[at % trace.len()]
    };
    let clients = match pace {
        Pace::Clients(clients) => clients,
        Pace::Rate(_) => 128,
        Pace::Once => 1,
    };
    let work = (0..clients).map(async |client| {
        let node = &asked.nodes[client % asked.nodes.len()];
        // What is timed of a request that is the first for its tenant is not that its client is new, too.
        let mut connection = if matches!(pace, Pace::Once) { connect(node).await.ok() } else { None };
        for round in 0_u32.. {
            let due = match pace {
                Pace::Clients(_) | Pace::Once => Duration::ZERO,
                #[allow(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
                Pace::Rate(rate) => {
                    let number = f64::from(round) * clients as f64 + client as f64;
                    Duration::from_secs_f64(number / rate)
                }
            };
            let is_done = matches!(pace, Pace::Once) && next.get() >= trace.len();
            if is_done || due >= until || begun.elapsed() >= until {
                break;
            }
            tokio::time::sleep_until((begun + due).into()).await;
            // What comes late at a fixed rate has waited, too.
            let from = if due.is_zero() { Instant::now() } else { begun + due };
            let tenant = turn();
            let answer = tokio::time::timeout(PATIENCE, one(&mut connection, node, &asked.headers[tenant])).await;
            let answer = answer.unwrap_or_else(|_| Answer::Failed("no answer".to_owned()));
            if matches!(answer, Answer::Failed(_)) {
                connection = None;
            }
            seen.note(tenant, from, answer);
        }
    });
    join_all(work).await;
    let mut told = seen.told.into_inner();
    #[allow(clippy::cast_precision_loss, reason = "a count of requests")]
    let answered = told.latencies.len() as f64;
    told.throughput = answered / times.measured.as_secs_f64();
    told.tenants = seen.served.borrow().iter().filter(|served| **served).count();
    told.part = first_measured.get()..next.get();
    told
}

type Connection = SendRequest<Empty<Bytes>>;

async fn one(connection: &mut Option<Connection>, node: &str, name: &(HeaderName, HeaderValue)) -> Answer {
    let tried = async {
        let sender = match connection {
            Some(open) => open,
            closed => closed.insert(connect(node).await?),
        };
        let request = Request::get("/api/pets?limit=10").header("host", node.trim_start_matches("http://"));
        let request = request.header(name.0.clone(), name.1.clone()).body(Empty::new())?;
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok::<_, Box<dyn std::error::Error>>((status, body))
    };
    match tried.await {
        Ok((status, _)) if status == 200 => Answer::Served,
        Ok((status, body)) => {
            let text = String::from_utf8_lossy(&body);
            if status == 503 && text.contains("urn:freehold:problem:server-busy") {
                return Answer::Busy;
            }
            let kind = text.split("urn:freehold:problem:").nth(1).and_then(|rest| rest.split('"').next());
            Answer::Failed(format!("{status} {}", kind.unwrap_or_default()))
        }
        Err(error) => Answer::Failed(error.to_string()),
    }
}

async fn connect(node: &str) -> Result<Connection, Box<dyn std::error::Error>> {
    let stream = TcpStream::connect(node.trim_start_matches("http://")).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}
