//! An issuer for tests: a server that shows its keys, and what they sign.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::signature::Ed25519KeyPair;
use axum::Router;
use axum::response::Redirect;
use axum::routing::get;
use http::StatusCode;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

/// A key that signs.
pub(super) struct Key {
    signing: EncodingKey,
    shown: Jwk,
}

impl Key {
    pub(super) fn new(id: &str) -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let signing = EncodingKey::from_ed_der(pair.to_pkcs8v1().unwrap().as_ref());
        let mut shown = Jwk::from_encoding_key(&signing, Algorithm::EdDSA).unwrap();
        shown.common.key_id = Some(id.to_owned());
        Self { signing, shown }
    }

    pub(super) fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: self.shown.common.key_id.clone(), ..Header::new(Algorithm::EdDSA) };
        encode(&header, claims, &self.signing).unwrap()
    }
}

/// A server that shows keys.
pub(super) struct TestIssuer {
    pub(super) url: String,
    shown: Arc<Mutex<Vec<Jwk>>>,
    questions: Arc<AtomicUsize>,
}

impl TestIssuer {
    pub(super) async fn start<'a>(keys: impl IntoIterator<Item = &'a Key>) -> Self {
        let (shown, questions) = (Arc::<Mutex<Vec<Jwk>>>::default(), Arc::<AtomicUsize>::default());
        let (seen, counted) = (Arc::clone(&shown), Arc::clone(&questions));
        let answer = async move || {
            counted.fetch_add(1, Ordering::SeqCst);
            let keys = seen.lock().unwrap().clone();
            // Without keys it is away.
            if keys.is_empty() { Err(StatusCode::BAD_GATEWAY) } else { Ok(json!({ "keys": keys }).to_string()) }
        };
        let router = Router::new()
            .route("/keys", get(answer))
            .route("/redirect", get(async || Redirect::temporary("/keys")))
            .route("/large", get(async || format!("{{\"keys\":[{}]}}", " ".repeat(300_000))))
            .route("/nonsense", get(async || "no keys"));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let issuer = Self { url, shown, questions };
        issuer.show(keys);
        issuer
    }

    /// Shows these keys from now on, or is away if there is none.
    pub(super) fn show<'a>(&self, keys: impl IntoIterator<Item = &'a Key>) {
        *self.shown.lock().unwrap() = keys.into_iter().map(|key| key.shown.clone()).collect();
    }

    /// How often it was asked for its keys.
    pub(super) fn questions(&self) -> usize {
        self.questions.load(Ordering::SeqCst)
    }
}
