//! Requests that no honest client sends: each has its exact answer, with a credential and without.

use std::fmt::Write as _;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::bed::Bed;
use crate::on_both;

/// What the server answers: the status, and the problem's kind if it is one.
type Told = (u16, String);

/// What it must be.
type Expected = (u16, &'static str);

async fn told(address: &str, request: &[u8]) -> Told {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may answer and close before it has read all of it.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let kind = answer.split("urn:freehold:problem:").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
    (status, kind.to_owned())
}

/// What comes back where a request cannot even be read, or leads to no path of the product.
const UNREADABLE: Expected = (400, "");
const NO_PATH: Expected = (404, "not-found");
const NOT_YOURS: Expected = (404, "tenant-not-found");
const TWO_NAMES: Expected = (400, "ambiguous-tenant");
const SERVED: Expected = (200, "");
const STRANGER: Expected = (401, "unauthorized");

on_both!(each_bad_request_gets_its_own_answer, 1, 1);
async fn each_bad_request_gets_its_own_answer(bed: Bed) {
    let acme = bed.tenant("acme").await;
    bed.until(&acme, "/api/me", 200).await;
    let address = bed.data[0].url.trim_start_matches("http://").to_owned();
    let long = "x".repeat(64 * 1024);
    let names = "x-tenant-id: acme\r\n".repeat(40);
    let to = |target: &str| format!("GET {target} HTTP/1.1\r\nhost: acme.pets.test\r\n").into_bytes();
    let host = |host: &[u8]| [b"GET /api/me HTTP/1.1\r\nhost: ", host, b"\r\n"].concat();
    let with = |headers: &[u8]| [b"GET /api/me HTTP/1.1\r\nhost: acme.pets.test\r\n", headers].concat();
    // What is asked, what its tenant's key gets, and what nobody's gets.
    #[rustfmt::skip]
    let rows: Vec<(&str, Vec<u8>, Expected, Expected)> = vec![
        ("a good one", to("/api/me"), SERVED, STRANGER),
        // The path.
        ("its own name in the path", to("/acme/api/me"), SERVED, STRANGER),
        ("dots", to("/../api/me"), TWO_NAMES, STRANGER),
        ("dots behind the tenant", to("/acme/../api/me"), NO_PATH, NO_PATH),
        ("dots to another tenant", to("/acme/api/../../globex/api/me"), NO_PATH, NO_PATH),
        ("encoded dots", to("/%2e%2e/api/me"), TWO_NAMES, STRANGER),
        ("an encoded slash", to("/acme%2fapi/me"), NO_PATH, NO_PATH),
        ("an encoded letter", to("/%61cme/api/me"), TWO_NAMES, STRANGER),
        ("an empty segment", to("//api/me"), NO_PATH, NO_PATH),
        ("an empty segment behind the tenant", to("/acme//api/me"), NO_PATH, NO_PATH),
        ("upper case in the path", to("/ACME/api/me"), TWO_NAMES, STRANGER),
        ("an encoded NUL", to("/acme/api/pets/%00"), NO_PATH, STRANGER),
        ("bytes that are no text", [b"GET /\xff\xfe/api/me HTTP/1.1\r\nhost: a\r\n".as_slice()].concat(), UNREADABLE, UNREADABLE),
        ("64 KiB of path", to(&format!("/{long}/api/me")), (414, ""), (414, "")),
        // The target.
        ("an absolute target", to("http://acme.pets.test/api/me"), SERVED, STRANGER),
        ("an absolute target of another", to("http://globex.pets.test/api/me"), NOT_YOURS, STRANGER),
        ("an absolute target with a user", to("http://acme:x@acme.pets.test/api/me"), SERVED, STRANGER),
        ("no target", to("*"), NO_PATH, NO_PATH),
        // The host.
        ("upper case, a trailing dot and a port", host(b"ACME.Pets.Test.:8800"), SERVED, STRANGER),
        ("a second trailing dot", host(b"acme.pets.test.."), NOT_YOURS, STRANGER),
        ("a port that is none", host(b"acme.pets.test:http"), NOT_YOURS, STRANGER),
        ("an IDN as bytes", host("\u{e4}cme.pets.test".as_bytes()), NOT_YOURS, STRANGER),
        ("an IDN as ASCII", host(b"xn--cme-pla.pets.test"), NOT_YOURS, STRANGER),
        ("a host of a host", host(b"x.acme.pets.test"), NOT_YOURS, STRANGER),
        ("a host that is no text", host(b"\xff\xfe"), NOT_YOURS, STRANGER),
        ("an address", host(b"127.0.0.1:8800"), SERVED, STRANGER),
        ("an empty host", host(b""), SERVED, STRANGER),
        ("two hosts", [host(b"acme.pets.test"), b"host: acme.pets.test\r\n".to_vec()].concat(), NOT_YOURS, STRANGER),
        ("64 KiB of host", host(long.as_bytes()), NOT_YOURS, STRANGER),
        // The header.
        ("an empty name", with(b"x-tenant-id:\r\n"), TWO_NAMES, STRANGER),
        ("a name twice", with(b"x-tenant-id: acme\r\nx-tenant-id: acme\r\n"), SERVED, STRANGER),
        ("two names", with(b"x-tenant-id: acme\r\nx-tenant-id: globex\r\n"), TWO_NAMES, STRANGER),
        ("a list of names", with(b"x-tenant-id: acme, acme\r\n"), TWO_NAMES, STRANGER),
        ("a name that is no text", with(b"x-tenant-id: \xff\r\n"), TWO_NAMES, STRANGER),
        ("64 KiB of name", with(format!("x-tenant-id: {long}\r\n").as_bytes()), TWO_NAMES, STRANGER),
        ("forty names", with(names.as_bytes()), TWO_NAMES, STRANGER),
        // The credential.
        ("a second credential", with(b"authorization: Bearer fh_x\r\n"), STRANGER, STRANGER),
        ("64 KiB of another header", with(format!("x-other: {long}\r\n").as_bytes()), SERVED, STRANGER),
        ("a header that is no text", with(b"x-other: \xff\xfe\r\n"), SERVED, STRANGER),
    ];
    let mut wrong = String::new();
    for (what, request, with_key, without) in rows {
        let key = format!("authorization: Bearer {}\r\n", acme.key);
        for (credential, expected) in [(key.as_str(), with_key), ("", without)] {
            let request = [request.as_slice(), credential.as_bytes(), b"connection: close\r\n\r\n"].concat();
            let got = told(&address, &request).await;
            if (got.0, got.1.as_str()) != expected {
                let credential = if credential.is_empty() { "without" } else { "with" };
                writeln!(wrong, "{what}, {credential} a credential: {got:?} and not {expected:?}").unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    for bad in ["Bearer", "Bearer ", "Basic YTpi", "bearer  ", "Bearer\tx", &format!("Bearer {long}"), "Bearer \u{e4}"]
    {
        let request =
            [with(format!("authorization: {bad}\r\n").as_bytes()), b"connection: close\r\n\r\n".to_vec()].concat();
        assert_eq!(
            told(&address, &request).await,
            (STRANGER.0, STRANGER.1.to_owned()),
            "{:?}",
            &bad[..bad.len().min(20)]
        );
    }
}

const JSON: &str = "application/json";

/// Method and path, media type, body, and what comes back: the status, the kind, and the field that is to blame.
type Row<'a> = (&'a str, &'a str, &'a str, u16, &'a str, &'a str);

on_both!(each_bad_body_and_query_is_a_problem_of_its_own_type_and_changes_nothing, 1, 1);
async fn each_bad_body_and_query_is_a_problem_of_its_own_type_and_changes_nothing(bed: Bed) {
    let acme = bed.tenant("acme").await;
    bed.until(&acme, "/api/pets", 200).await;
    let before = bed.get(0, &acme, "/api/pets").await.json();
    let id = before["items"][0]["id"].as_str().unwrap();
    let (create, update) = ("POST /api/pets", format!("PATCH /api/pets/{id}"));
    let good = r#"{"name":"Rex","species":"dog"}"#;
    let twice = format!("{good} {good}");
    let deep = format!("{{\"name\":{}", "[".repeat(100_000));
    let numbers = r#"{"name":"Rex","species":"dog","microchip_id":985141006580319}"#;
    let delete = format!("DELETE /api/pets/{}", uuid::Uuid::now_v7());
    #[rustfmt::skip]
    let rows: Vec<Row<'_>> = vec![
        // The body.
        (create, JSON, "{\"name\":", 400, "malformed-json", ""),
        (create, JSON, "", 400, "malformed-json", ""),
        (create, JSON, "name=Rex", 400, "malformed-json", ""),
        (create, JSON, &twice, 400, "malformed-json", ""),
        (create, JSON, "{\"name\":\"\u{1}\"}", 400, "malformed-json", ""),
        (&update, JSON, "{", 400, "malformed-json", ""),
        (create, JSON, "[]", 422, "invalid-body", ""),
        (create, JSON, "null", 422, "invalid-body", ""),
        (create, JSON, &deep, 422, "invalid-body", "name"),
        (create, JSON, r#"{"name":"Rex"}"#, 422, "invalid-body", "species"),
        (create, JSON, r#"{"name":"Rex","species":"dog","legs":4}"#, 422, "invalid-body", "legs"),
        (create, JSON, r#"{"name":"Rex","species":"dog","name":"Max"}"#, 422, "invalid-body", "name"),
        (create, JSON, r#"{"name":7,"species":"dog"}"#, 422, "invalid-body", "name"),
        (create, JSON, r#"{"name":null,"species":"dog"}"#, 422, "invalid-body", "name"),
        (create, JSON, numbers, 422, "invalid-body", "microchip_id"),
        (create, JSON, r#"{"name":"","species":"dog"}"#, 422, "invalid-body", "name"),
        (create, JSON, r#"{"name":"Rex\u0000","species":"dog"}"#, 422, "invalid-body", "name"),
        (&update, JSON, r#"{"legs":4}"#, 422, "invalid-body", "legs"),
        (&update, JSON, r#"{"species":null}"#, 422, "invalid-body", "species"),
        (create, "text/plain", good, 415, "unsupported-media-type", ""),
        (create, "application/x-www-form-urlencoded", "name=Rex", 415, "unsupported-media-type", ""),
        (create, "", good, 415, "unsupported-media-type", ""),
        (&update, "text/json", good, 415, "unsupported-media-type", ""),
        // The query.
        ("GET /api/pets?limit=0", "", "", 400, "invalid-query", "limit"),
        ("GET /api/pets?limit=101", "", "", 400, "invalid-query", "limit"),
        ("GET /api/pets?limit=-1", "", "", 400, "invalid-query", "limit"),
        ("GET /api/pets?limit=many", "", "", 400, "invalid-query", "limit"),
        ("GET /api/pets?limit=5&limit=6", "", "", 400, "invalid-query", "limit"),
        ("GET /api/pets?cursor=here", "", "", 400, "invalid-query", "cursor"),
        ("GET /api/pets?cursor=", "", "", 400, "invalid-query", "cursor"),
        ("GET /api/pets?sort=name", "", "", 400, "invalid-query", "sort"),
        ("GET /api/pets?species=%00", "", "", 400, "invalid-query", ""),
        // The path and the method.
        ("GET /api/pets/no-id", "", "", 404, "not-found", ""),
        (&delete, "", "", 404, "pet-not-found", ""),
        ("PUT /api/pets", JSON, good, 405, "method-not-allowed", ""),
        ("DELETE /api/pets", "", "", 405, "method-not-allowed", ""),
        ("POST /api/me", JSON, "{}", 405, "method-not-allowed", ""),
        ("POST /acme/api/me", JSON, "{}", 405, "method-not-allowed", ""),
        ("QUERY /api/pets", "", "", 405, "method-not-allowed", ""),
    ];
    let mut wrong = String::new();
    for (target, media, body, status, kind, field) in rows {
        let (method, path) = target.split_once(' ').unwrap();
        let mut request = bed.request(0, method, path).bearer_auth(&acme.key).body(body.to_owned());
        if !media.is_empty() {
            request = request.header("content-type", media);
        }
        let answer = crate::bed::send(request).await;
        let problem = answer.json();
        let blamed = problem["errors"][0]["field"].as_str().unwrap_or_default();
        let is_so = (answer.status, answer.kind().as_str(), blamed) == (status, kind, field);
        let is_whole = answer.header("content-type") == "application/problem+json"
            && problem["status"] == status
            && problem["detail"].as_str().is_some_and(|detail| !detail.is_empty())
            && problem["request_id"] == answer.header("x-request-id");
        if !is_so || !is_whole {
            let body = &body[..body.len().min(60)];
            writeln!(wrong, "{target} {media} {body}: {answer:?} and not {status} {kind} {field:?}").unwrap();
        }
        if status == 405 {
            let expected = if path.ends_with("/me") { "GET,HEAD" } else { "GET,HEAD,POST" };
            let allow = answer.header("allow").replace(' ', "");
            let mut allowed: Vec<_> = allow.split(',').collect();
            allowed.sort_unstable();
            assert_eq!(allowed.join(","), expected, "{target}: {answer:?}");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    // A byte more than 1 MiB is refused by what the headers say, before any of it is sent.
    let address = bed.data[0].url.trim_start_matches("http://");
    for target in [create, &update] {
        let headers = format!(
            "{target} HTTP/1.1\r\nhost: acme.pets.test\r\nauthorization: Bearer {}\r\ncontent-type: {JSON}\r\nconnection: close\r\n",
            acme.key
        );
        let told_before = format!("{headers}content-length: {}\r\n\r\n", (1 << 20) + 1);
        assert_eq!(told(address, told_before.as_bytes()).await, (413, "body-too-large".to_owned()), "{target}");
    }
    assert_eq!(bed.get(0, &acme, "/api/pets").await.json(), before, "nothing changed");
}
