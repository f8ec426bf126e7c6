//! Tokens against an issuer that is a real server, with the time as an argument.

mod counts;
mod issuer;

use chrono::{TimeDelta, TimeZone as _};
use opentelemetry::metrics::{MeterProvider as _, noop::NoopMeterProvider};
use serde_json::{Value, json};

use super::*;
use issuer::{Key, TestIssuer};

fn at(second: i64) -> DateTime<Utc> {
    Utc.timestamp_opt(1_000_000 + second, 0).unwrap()
}

fn tokens(allow_private: bool) -> Tokens {
    // Whoever comes first installs it for all tests of the process.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = TokensConfig { allow_private_issuers: allow_private, ..TokensConfig::default() };
    Tokens::new(&config, &["read"], &NoopMeterProvider::new().meter("test")).unwrap()
}

fn trusted(url: &str) -> Trusted {
    let issuer = Issuer {
        issuer: "https://idp.test".into(),
        jwks_url: url.into(),
        audience: "pets".into(),
        scopes: vec!["read".into()],
        scope_claim: "scope".into(),
        default_scopes: Vec::new(),
    };
    Trusted { issuer, speaks_for: SpeaksFor::Claimed("tenant".into()) }
}

#[allow(clippy::needless_pass_by_value, reason = "it is written where it is passed")]
fn claims(changes: Value) -> Value {
    let mut claims = json!({
        "iss": "https://idp.test", "aud": "pets", "sub": "ann", "scope": "read", "tenant": "acme",
        "iat": at(0).timestamp(), "exp": at(600).timestamp(),
    });
    claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    claims
}

async fn prove(tokens: &Tokens, url: &str, token: &str, now: DateTime<Utc>) -> Result<Arc<Proven>, NotProven> {
    tokens.prove(&Unproven::read(token).expect("a token"), trusted(url), now).await
}

#[tokio::test]
async fn a_token_is_proven_by_its_issuer_its_audience_and_its_time() {
    let key = Key::new("k1");
    let idp = TestIssuer::start([&key]).await;
    let tokens = tokens(true);
    let proven = prove(&tokens, &idp.url, &key.sign(&claims(json!({}))), at(1)).await.unwrap();
    assert_eq!((proven.subject.as_str(), &proven.scopes), ("jwt:https://idp.test|ann", &vec!["read".to_owned()]));
    let second = |second: i64| at(second).timestamp();
    for (changes, is_proven) in [
        (json!({ "aud": ["other", "pets"] }), true),
        (json!({ "aud": "other" }), false),
        (json!({ "aud": ["other"] }), false),
        (json!({ "aud": null }), false),
        (json!({ "aud": 7 }), false),
        (json!({ "iss": "https://other.test" }), false),
        (json!({ "sub": null }), false),
        (json!({ "exp": null }), false),
        (json!({ "exp": "soon" }), false),
        // Thirty seconds are forgiven, both ways.
        (json!({ "exp": second(100 - 29) }), true),
        (json!({ "exp": second(100 - 30) }), false),
        (json!({ "nbf": second(100 + 30) }), true),
        (json!({ "nbf": second(100 + 31) }), false),
        (json!({ "iat": second(100 + 31) }), false),
        (json!({ "iat": null }), true),
    ] {
        let token = key.sign(&claims(changes.clone()));
        assert_eq!(prove(&tokens, &idp.url, &token, at(100)).await.is_ok(), is_proven, "{changes}");
    }
    // Somebody else's key of the same id; a signature of another token; none that is whole.
    let forged = Key::new("k1").sign(&claims(json!({})));
    let (head, _) = forged.rsplit_once('.').unwrap();
    let other = key.sign(&claims(json!({ "sub": "bob" })));
    let (body, signature) = other.rsplit_once('.').unwrap();
    for bad in [&forged, &format!("{head}.{signature}"), &format!("{body}.{}", &signature[..40]), &format!("{body}.AA")]
    {
        assert!(matches!(prove(&tokens, &idp.url, bad, at(100)).await, Err(NotProven::Wrong(_))), "{bad}");
    }
}

#[tokio::test]
async fn a_proven_token_is_known_until_it_expires_or_its_key_is_gone() {
    let (key, next) = (Key::new("k1"), Key::new("k2"));
    let idp = TestIssuer::start([&key]).await;
    let tokens = tokens(true);
    let token = key.sign(&claims(json!({})));
    assert!(tokens.known(&token, at(0)).is_none());
    prove(&tokens, &idp.url, &token, at(0)).await.unwrap();
    assert!(tokens.known(&token, at(629)).is_some());
    assert!(tokens.known(&token, at(630)).is_none(), "it has expired");
    // The next key is asked for when it is first met, and the one that is shown no longer is gone.
    idp.show([&next]);
    prove(&tokens, &idp.url, &next.sign(&claims(json!({}))), at(20)).await.unwrap();
    assert!(tokens.known(&token, at(21)).is_none(), "its key is gone");
    assert!(matches!(prove(&tokens, &idp.url, &token, at(21)).await, Err(NotProven::NoSuchKey)));
}

#[tokio::test]
async fn invented_key_ids_cost_an_issuer_one_question_in_ten_seconds() {
    let key = Key::new("k1");
    let idp = TestIssuer::start([&key]).await;
    let tokens = tokens(true);
    for (number, second) in (0..50).zip([0, 9].into_iter().cycle()) {
        for id in [format!("invented-{number}"), "../../keys".to_owned(), "https://evil.test/keys".to_owned()] {
            let token = Key::new(&id).sign(&claims(json!({})));
            assert!(matches!(prove(&tokens, &idp.url, &token, at(second)).await, Err(NotProven::NoSuchKey)));
        }
    }
    assert_eq!(idp.questions(), 1);
    let token = Key::new("invented").sign(&claims(json!({})));
    assert!(prove(&tokens, &idp.url, &token, at(10)).await.is_err());
    assert_eq!(idp.questions(), 2);
}

#[tokio::test]
async fn an_issuer_that_is_away_locks_nobody_out_for_a_day() {
    let key = Key::new("k1");
    let idp = TestIssuer::start([&key]).await;
    let tokens = tokens(true);
    let lasting = |sub: &str| key.sign(&claims(json!({ "sub": sub, "exp": at(10_000_000).timestamp() })));
    prove(&tokens, &idp.url, &lasting("ann"), at(0)).await.unwrap();
    idp.show([]);
    for (hour, is_kept) in [(1, true), (23, true), (24, false)] {
        let now = at(0) + TimeDelta::hours(hour);
        let proven = prove(&tokens, &idp.url, &lasting(&format!("of hour {hour}")), now).await;
        assert_eq!(proven.is_ok(), is_kept, "after {hour} hours");
    }
    assert!(matches!(
        prove(&tokens, &idp.url, &lasting("bob"), at(0) + TimeDelta::hours(24)).await,
        Err(NotProven::KeysUnreachable)
    ));
    idp.show([&key]);
    prove(&tokens, &idp.url, &lasting("bob"), at(20) + TimeDelta::hours(24)).await.unwrap();
}

#[tokio::test]
async fn concurrent_first_tokens_ask_their_issuer_once() {
    let key = Key::new("k1");
    let idp = TestIssuer::start([&key]).await;
    let tokens = tokens(true);
    let all = (0..64).map(|number| key.sign(&claims(json!({ "sub": format!("user-{number}") }))));
    let proven = futures_util::future::join_all(all.map(|token| {
        let (tokens, url) = (tokens.clone(), idp.url.clone());
        async move { prove(&tokens, &url, &token, at(0)).await.is_ok() }
    }));
    assert!(proven.await.into_iter().all(|is_proven| is_proven));
    assert_eq!(idp.questions(), 1);
}

#[tokio::test]
async fn keys_are_not_asked_for_where_they_must_not_be() {
    let key = Key::new("k1");
    let idp = TestIssuer::start([&key]).await;
    let token = key.sign(&claims(json!({})));
    // Its own name leads into this machine.
    let named = idp.url.replace("127.0.0.1", "localhost").replace("http:", "https:");
    for url in [&idp.url, &idp.url.replace("http:", "https:"), &named] {
        assert!(matches!(prove(&tokens(false), url, &token, at(0)).await, Err(NotProven::KeysUnreachable)), "{url}");
    }
    assert_eq!(idp.questions(), 0);
    // Where it may be asked: an answer that leads elsewhere, one that is too large, one that is none.
    for path in ["/redirect", "/large", "/nonsense", "/missing"] {
        let url = idp.url.replace("/keys", path);
        assert!(matches!(prove(&tokens(true), &url, &token, at(0)).await, Err(NotProven::KeysUnreachable)), "{path}");
    }
}
