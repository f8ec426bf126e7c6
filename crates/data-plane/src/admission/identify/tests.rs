//! Names are read from requests of all kinds, and nothing that a client sends breaks the reading.

use axum::body::Body;
use proptest::prelude::*;

use super::*;

fn naming() -> Naming {
    Naming::new("pets.test", "/api")
}

fn identified(naming: &Naming, uri: &str, headers: &[(&str, &[u8])]) -> (Vec<Name>, String) {
    let mut request = Request::builder().uri(uri);
    for (name, value) in headers {
        request = request.header(*name, http::HeaderValue::from_bytes(value).unwrap());
    }
    let Ok(mut request) = naming.identify(request.body(Body::empty()).unwrap()) else {
        return (vec![], String::new());
    };
    let names = request.extensions_mut().remove::<Identified>().unwrap().names;
    (names, request.uri().to_string())
}

fn label(text: &str) -> Name {
    Name::Label(text.into())
}

fn host(text: &str) -> Name {
    Name::Host(text.into())
}

#[test]
fn a_host_names_a_tenant_by_its_label_or_as_its_own() {
    for (value, expected) in [
        ("acme.pets.test", vec![label("acme")]),
        ("ACME.pets.test.:8800", vec![label("acme")]),
        ("a.b.pets.test", vec![label("a.b")]),
        (".pets.test", vec![label("")]),
        ("acme.pets.test..", vec![host("acme.pets.test.")]),
        ("acmepets.test", vec![host("acmepets.test")]),
        ("Pets.Acme.Test:1", vec![host("pets.acme.test")]),
        ("pets.test", vec![]),
        ("localhost:8800", vec![]),
        ("127.0.0.1:8800", vec![]),
        ("[::1]:8800", vec![]),
        ("[::1]", vec![]),
        ("", vec![]),
    ] {
        assert_eq!(identified(&naming(), "/api/me", &[("host", value.as_bytes())]).0, expected, "{value:?}");
    }
    assert_eq!(identified(&naming(), "/api/me", &[("host", b"\xff")]).0, [host(NOBODY)]);
    assert_eq!(
        identified(&naming(), "/api/me", &[("host", b"acme.pets.test"), ("host", b"acme.pets.test")]).0,
        [host(NOBODY)]
    );
    let absolute = identified(&naming(), "http://acme.pets.test/api/me", &[("host", b"globex.pets.test")]);
    assert_eq!(absolute.0, [label("acme")], "the target is the host");
}

#[test]
fn a_path_names_a_tenant_by_the_segment_before_the_mount_and_nothing_else() {
    for (path, name, below) in [
        ("/acme/api/pets?limit=1", Some("acme"), "/pets?limit=1"),
        ("/acme/api", Some("acme"), "/"),
        ("/acme/api/", Some("acme"), "/"),
        ("/acme/api?x", Some("acme"), "/?x"),
        ("/%61cme/api/me", Some("%61cme"), "/me"),
        ("/api/api/me", None, "/api/me"),
        ("/api/me", None, "/me"),
        ("/api//me", None, "//me"),
        // No path of the product, and so nobody's.
        ("/acme/apis/me", None, ""),
        ("/acme/docs", None, ""),
        ("/pets", None, ""),
        ("//api/me", None, ""),
        ("/", None, ""),
        ("*", None, ""),
    ] {
        let (names, uri) = identified(&naming(), path, &[]);
        assert_eq!((names, uri.as_str()), (name.map(label).into_iter().collect(), below), "{path}");
    }
    let deep = Naming::new("pets.test", "/api/v2/");
    assert_eq!(identified(&deep, "/acme/api/v2/pets", &[]), (vec![label("acme")], "/pets".to_owned()));
    assert_eq!(identified(&deep, "/acme/api/v3/pets", &[]), (vec![], String::new()));
}

#[test]
fn headers_name_tenants_and_too_many_name_nobody() {
    let header = |text: &str| Name::Header(text.into());
    assert_eq!(identified(&naming(), "/api", &[("x-tenant-id", b" acme ")]).0, [header("acme")]);
    assert_eq!(identified(&naming(), "/api", &[("x-tenant-id", b"\xff")]).0, [header(NOBODY)]);
    let many: Vec<(&str, &[u8])> = vec![("x-tenant-id", b"acme"); 1_000];
    let (names, _) = identified(&naming(), "/acme/api", &many);
    assert_eq!((names.len(), names.last()), (MOST_NAMES, Some(&header(NOBODY))));
}

proptest! {
    #[test]
    fn nothing_that_a_client_sends_breaks_the_reading(
        path in "/(api|acme/api)?[!-~]{0,40}", host in prop::collection::vec(any::<u8>(), 0..40), header in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let values = [("host", host), ("x-tenant-id", header)];
        let mut request = Request::builder().uri(path);
        for (name, value) in values {
            if let Ok(value) = http::HeaderValue::from_bytes(&value) {
                request = request.header(name, value);
            }
        }
        if let Ok(request) = request.body(Body::empty()) {
            let Ok(mut request) = naming().identify(request) else { return Ok(()) };
            prop_assert!(request.extensions_mut().remove::<Identified>().unwrap().names.len() <= MOST_NAMES);
        }
    }
}
