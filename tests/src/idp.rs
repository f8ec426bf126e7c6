//! An identity provider: it shows its public keys at a URL, and signs tokens.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair};
use axum::Router;
use axum::routing::get;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

/// The bytes of PKCS #8 before the key of 2048 bits that it wraps.
const PKCS8_HEAD: usize = 26;

/// A provider with a key of each algorithm that is taken.
pub struct Idp {
    /// What its tokens say in `iss`.
    pub issuer: String,
    /// Where its keys are.
    pub jwks_url: String,
    /// Its keys, by algorithm.
    pub keys: Vec<Key>,
}

/// A key that signs, and what is shown of it.
pub struct Key {
    /// What it signs by.
    pub algorithm: Algorithm,
    /// Its private half.
    pub signing: EncodingKey,
    /// Its public half.
    pub shown: Jwk,
}

impl Key {
    fn new(algorithm: Algorithm) -> Self {
        let signing = match algorithm {
            Algorithm::RS256 => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
                let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
                EncodingKey::from_rsa_der(&der.as_ref()[PKCS8_HEAD..])
            }
            Algorithm::ES256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
                EncodingKey::from_ec_der(pair.to_pkcs8v1().unwrap().as_ref())
            }
            _ => EncodingKey::from_ed_der(Ed25519KeyPair::generate().unwrap().to_pkcs8v1().unwrap().as_ref()),
        };
        let mut shown = Jwk::from_encoding_key(&signing, algorithm).unwrap();
        shown.common.key_id = Some(format!("key-{algorithm:?}"));
        Self { algorithm, signing, shown }
    }

    /// Signs claims.
    pub fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: self.shown.common.key_id.clone(), ..Header::new(self.algorithm) };
        encode(&header, claims, &self.signing).unwrap()
    }
}

impl Idp {
    /// Starts one, which shows its keys until the test ends.
    pub async fn start() -> Self {
        let keys: Vec<Key> = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA].map(Key::new).into();
        let shown: Vec<Jwk> = keys.iter().map(|key| key.shown.clone()).collect();
        let body = json!({ "keys": shown }).to_string();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().route("/keys", get(async move || body));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { issuer: base.clone(), jwks_url: format!("{base}/keys"), keys }
    }

    /// How an operator describes it.
    pub fn described(&self) -> Value {
        let scopes = ["pets:read", "pets:write"];
        json!({ "issuer": self.issuer, "jwks_url": self.jwks_url, "audience": "pets", "scopes": scopes })
    }

    /// Claims that are in order, with some of them set otherwise.
    #[allow(clippy::needless_pass_by_value, reason = "it is written where it is passed")]
    pub fn claims(&self, changes: Value) -> Value {
        let now = seconds_now();
        let mut claims = json!({
            "iss": self.issuer, "aud": "pets", "sub": "ann", "scope": "pets:read pets:write",
            "iat": now, "exp": now + 600,
        });
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        claims
    }

    /// A token in order, with some claims set otherwise.
    pub fn token(&self, changes: Value) -> String {
        self.keys[1].sign(&self.claims(changes))
    }
}

/// Seconds since 1970.
pub fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
