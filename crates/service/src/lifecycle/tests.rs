//! What those who wait for a service's end see.

use std::future::pending;

use axum::routing::get;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, oneshot},
};

use super::*;

const LONG: Duration = Duration::from_hours(1);

async fn free_listener() -> (TcpListener, SocketAddr) {
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0)), "listen.address").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn get_root(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    stream
}

#[tokio::test]
async fn a_running_request_and_task_finish_and_new_connections_are_refused() {
    let lifecycle = Lifecycle::new(LONG);
    let (listener, address) = free_listener().await;
    let (entered, mut has_entered) = mpsc::channel(1);
    let (release, released) = oneshot::channel::<()>();
    let released = released.shared();
    let router = Router::new().route(
        "/",
        get(async move || {
            entered.send(()).await.unwrap();
            released.await.unwrap();
            "done"
        }),
    );
    let (task_done, is_task_done) = oneshot::channel();
    let (stopping, drained) = (lifecycle.stopping(), lifecycle.drained());
    lifecycle.spawn("test", async move {
        stopping.cancelled().await;
        task_done.send(()).unwrap();
        drained.cancelled().await;
    });
    let drained = lifecycle.drained();
    let served = tokio::spawn({
        let lifecycle = lifecycle.clone();
        async move { lifecycle.serve(vec![(listener, router)]).await }
    });
    let mut stream = get_root(address).await;
    has_entered.recv().await.unwrap();

    lifecycle.stop();
    is_task_done.await.unwrap();
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!drained.is_cancelled(), "a request is at work");
    release.send(()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("done"), "{answer}");
    assert_eq!(served.await.unwrap().unwrap(), Drain::Complete);
}

#[tokio::test]
async fn what_never_finishes_is_cut_off_at_the_deadline() {
    let lifecycle = Lifecycle::new(Duration::from_millis(50));
    let (listener, address) = free_listener().await;
    let (entered, mut has_entered) = mpsc::channel(1);
    let router = Router::new().route(
        "/",
        get(async move || {
            entered.send(()).await.unwrap();
            pending::<()>().await;
        }),
    );
    lifecycle.spawn("stubborn", pending());
    let served = tokio::spawn({
        let lifecycle = lifecycle.clone();
        async move { lifecycle.serve(vec![(listener, router)]).await }
    });
    let _stream = get_root(address).await;
    has_entered.recv().await.unwrap();
    lifecycle.stop();
    let drain = tokio::time::timeout(Duration::from_secs(10), served).await.unwrap();
    assert_eq!(drain.unwrap().unwrap(), Drain::CutShort);
    lifecycle.0.tasks.wait().await;
}

#[tokio::test]
async fn a_task_that_panics_stops_the_service_and_is_named() {
    let lifecycle = Lifecycle::new(LONG);
    let (listener, _) = free_listener().await;
    lifecycle.spawn("feed", async { panic!("on purpose") });
    let error = lifecycle.serve(vec![(listener, Router::new())]).await.unwrap_err();
    assert_eq!(error.to_string(), "the task `feed` panicked");
}

#[tokio::test]
async fn a_taken_port_says_which_and_what_to_do() {
    let (_listener, address) = free_listener().await;
    let error = bind(address, "listen.address").await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot listen on {address}: ")), "{error}");
    assert!(error.ends_with("choose another address with `listen.address`."), "{error}");
}
