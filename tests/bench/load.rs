//! Load: so many connections, each with one request at a time, for so long. As light as can be, since it shares the machine
//! with what it measures.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// What is asked, again and again.
#[derive(Clone)]
pub(crate) struct Call {
    /// `http://host:port`
    pub(crate) url: String,
    pub(crate) path: String,
    pub(crate) credential: Option<String>,
    /// The process that answers.
    pub(crate) process: u32,
}

/// What came of it.
pub(crate) struct Measured {
    /// Requests answered in a second.
    pub(crate) throughput: f64,
    /// Of all requests, in milliseconds.
    pub(crate) latencies: Vec<f64>,
    /// Of the answering process for each request, in microseconds; where the system does not tell, not a number.
    pub(crate) cpu: f64,
}

/// The processor's time that a process has had, in microseconds (proc(5): utime and stime, in hundredths of a second).
fn cpu_time(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The second field is the program's name in brackets, and may have anything in it.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().skip(11).take(2);
    let ticks: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
    if ticks.len() == 2 { (ticks[0] + ticks[1]) * 10_000.0 } else { f64::NAN }
}

impl Call {
    /// The body of one answer.
    pub(crate) async fn once(&self) -> Bytes {
        let mut connection = self.connect().await;
        self.ask(&mut connection).await
    }

    /// Sends this many requests, one after another on one connection.
    pub(crate) async fn ask_in_turn(&self, times: usize) {
        let mut connection = self.connect().await;
        for _ in 0..times {
            self.ask(&mut connection).await;
        }
    }

    /// Asks on so many connections for so long.
    pub(crate) async fn load(&self, connections: usize, time: Duration) -> Measured {
        let expected = self.once().await.len();
        let senders = join_all((0..connections).map(|_| self.connect())).await;
        let (begun, cpu_before) = (Instant::now(), cpu_time(self.process));
        let work = senders.into_iter().map(|mut sender| async move {
            let mut latencies = Vec::new();
            while begun.elapsed() < time {
                let asked = Instant::now();
                let body = self.ask(&mut sender).await;
                assert_eq!(body.len(), expected, "an answer unlike the first");
                latencies.push(asked.elapsed().as_secs_f64() * 1_000.0);
            }
            latencies
        });
        let latencies: Vec<f64> = join_all(work).await.into_iter().flatten().collect();
        #[allow(clippy::cast_precision_loss, reason = "a count of requests")]
        let count = latencies.len() as f64;
        let throughput = count / begun.elapsed().as_secs_f64();
        Measured { throughput, latencies, cpu: (cpu_time(self.process) - cpu_before) / count }
    }

    async fn connect(&self) -> SendRequest<Empty<Bytes>> {
        let stream = TcpStream::connect(self.url.trim_start_matches("http://")).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    async fn ask(&self, sender: &mut SendRequest<Empty<Bytes>>) -> Bytes {
        let mut request = Request::get(&self.path).header("host", self.url.trim_start_matches("http://"));
        if let Some(credential) = &self.credential {
            request = request.header("authorization", format!("Bearer {credential}"));
        }
        sender.ready().await.unwrap();
        let response = sender.send_request(request.body(Empty::new()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        response.into_body().collect().await.unwrap().to_bytes()
    }
}
