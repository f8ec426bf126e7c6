//! A bad line between a node and its control plane: answers are lost, late, or come twice.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::{Router, body};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use reqwest::Client;
use tokio::net::TcpListener;

/// The line; it goes with the test's runtime.
#[derive(Clone)]
pub struct Proxy(Arc<Inner>);

struct Inner {
    to: String,
    client: Client,
    is_bad: AtomicBool,
    is_cut: AtomicBool,
    rng: Mutex<StdRng>,
    /// Answers of the feed, to be told again.
    told: Mutex<Vec<Bytes>>,
    faults: [AtomicUsize; 3],
}

enum Fault {
    Lose,
    Delay(Duration),
    Repeat(Bytes),
}

impl Proxy {
    /// A line to this URL, and its own URL. It is good until it is made bad.
    pub async fn start(to: &str, seed: u64) -> (Self, String) {
        let proxy = Self(Arc::new(Inner {
            to: to.to_owned(),
            client: Client::builder().no_proxy().build().unwrap(),
            is_bad: AtomicBool::new(false),
            is_cut: AtomicBool::new(false),
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            told: Mutex::default(),
            faults: Default::default(),
        }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(pass).with_state(proxy.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (proxy, url)
    }

    /// From now on answers are lost, late, or come twice; or each arrives, once and in time.
    pub fn make_bad(&self, is_bad: bool) {
        self.0.is_bad.store(is_bad, Ordering::SeqCst);
    }

    /// From now on nothing passes, in either direction, until it passes again.
    pub fn cut(&self, is_cut: bool) {
        self.0.is_cut.store(is_cut, Ordering::SeqCst);
    }

    /// How many answers were lost, late, and told again.
    pub fn faults(&self) -> [usize; 3] {
        self.0.faults.each_ref().map(|count| count.load(Ordering::SeqCst))
    }

    fn fault(&self, is_feed: bool) -> Option<Fault> {
        if !self.0.is_bad.load(Ordering::SeqCst) {
            return None;
        }
        let mut rng = self.0.rng.lock().unwrap();
        let (at, fault) = match rng.random_range(0..8) {
            0 | 1 => (0, Fault::Lose),
            2 | 3 => (1, Fault::Delay(Duration::from_millis(rng.random_range(1..150)))),
            4 | 5 if is_feed => {
                let told = self.0.told.lock().unwrap();
                let again = told.get(rng.random_range(0..told.len().max(1)))?;
                (2, Fault::Repeat(again.clone()))
            }
            _ => return None,
        };
        self.0.faults[at].fetch_add(1, Ordering::SeqCst);
        Some(fault)
    }
}

async fn pass(State(proxy): State<Proxy>, request: Request) -> Response {
    let is_cut = || proxy.0.is_cut.load(Ordering::SeqCst);
    if is_cut() {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let (parts, body) = request.into_parts();
    let url = format!("{}{}", proxy.0.to, parts.uri);
    let body = body::to_bytes(body, 1 << 20).await.unwrap();
    let mut call = proxy.0.client.request(parts.method, url).body(body);
    for name in ["authorization", "content-type"] {
        if let Some(value) = parts.headers.get(name) {
            call = call.header(name, value);
        }
    }
    let Ok(answer) = call.send().await else { return StatusCode::BAD_GATEWAY.into_response() };
    let status = answer.status();
    let Ok(bytes) = answer.bytes().await else { return StatusCode::BAD_GATEWAY.into_response() };
    if is_cut() {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let is_feed = parts.uri.path() == "/v1/feed" && status.is_success();
    let bytes = match proxy.fault(is_feed) {
        // It took effect at the control plane, and nobody hears of it.
        Some(Fault::Lose) => return StatusCode::BAD_GATEWAY.into_response(),
        Some(Fault::Delay(time)) => {
            tokio::time::sleep(time).await;
            bytes
        }
        Some(Fault::Repeat(again)) => again,
        None => bytes,
    };
    if is_feed {
        proxy.0.told.lock().unwrap().push(bytes.clone());
    }
    Response::builder().status(status).header("content-type", "application/json").body(Body::from(bytes)).unwrap()
}
