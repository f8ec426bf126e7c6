//! What is believed of proxies, and of those who only say that they are.

use axum::body::Body;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

fn settled(header: ForwardedBy, peer: &str, headers: &[(&str, &str)]) -> (String, Vec<String>) {
    let proxies = ProxiesConfig { trusted: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()], header };
    let mut request = Request::builder().uri("http://own.test/path?q").header("host", "own.test");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(Body::empty()).unwrap();
    request.extensions_mut().insert(ConnectInfo(SocketAddr::new(peer.parse().unwrap(), 4711)));
    let client = proxies.settle(&mut request).unwrap().to_string();
    assert_eq!(request.uri().path_and_query().unwrap(), "/path?q");
    let authority = request.uri().authority().map(ToString::to_string);
    let hosts = request.headers().get_all("host").iter().map(|host| host.to_str().unwrap().to_owned());
    (client, authority.into_iter().chain(hosts).collect())
}

#[test]
fn only_trusted_proxies_say_where_a_request_comes_from() {
    let client = |peer: &str, said: &str| settled(ForwardedBy::XForwarded, peer, &[("x-forwarded-for", said)]).0;
    for (peer, said, expected) in [
        ("192.0.2.9", "198.51.100.1", "192.0.2.9"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1, 10.2.2.2", "198.51.100.1"),
        // The client wrote the first itself.
        ("10.0.0.1", "1.1.1.1, 198.51.100.1, 10.2.2.2", "198.51.100.1"),
        ("10.0.0.1", "10.9.9.9, 10.2.2.2", "10.9.9.9"),
        ("10.0.0.1", "198.51.100.1:8080", "198.51.100.1"),
        ("fd00::1", "2001:db8::7", "2001:db8::7"),
        ("10.0.0.1", "[2001:db8::7]:443", "2001:db8::7"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "unknown, 10.2.2.2", "10.2.2.2"),
        ("10.0.0.1", "198.51.100.1, what, 10.2.2.2", "10.2.2.2"),
    ] {
        assert_eq!(client(peer, said), expected, "{said:?} by {peer}");
    }
    let lines = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "198.51.100.1")];
    assert_eq!(settled(ForwardedBy::XForwarded, "10.0.0.1", &lines).0, "198.51.100.1");
    let many = vec!["10.1.1.1"; 100].join(",");
    assert_eq!(client("10.0.0.1", &format!("198.51.100.1,{many}")), "10.1.1.1");
}

#[test]
fn forwarded_is_read_where_it_is_what_proxies_set() {
    let said = r#"for=1.1.1.1;host=forged.test, For="[2001:db8::7]:443";proto=https;host="pets.test:8800;,", for=10.2.2.2;Host=acme.test"#;
    let headers = [("forwarded", said), ("x-forwarded-for", "9.9.9.9"), ("x-forwarded-host", "other.test")];
    let (client, hosts) = settled(ForwardedBy::Forwarded, "10.0.0.1", &headers);
    assert_eq!((client.as_str(), hosts), ("2001:db8::7", vec!["acme.test".to_owned()]));
    let (client, hosts) = settled(ForwardedBy::XForwarded, "10.0.0.1", &headers);
    assert_eq!((client.as_str(), hosts), ("9.9.9.9", vec!["other.test".to_owned()]));
    let hidden = settled(ForwardedBy::Forwarded, "10.0.0.1", &[("forwarded", "for=_hidden, for=unknown")]);
    assert_eq!(hidden.0, "10.0.0.1");
}

#[test]
fn only_trusted_proxies_say_the_host() {
    let hosts = |peer: &str, said: &str| settled(ForwardedBy::XForwarded, peer, &[("x-forwarded-host", said)]).1;
    assert_eq!(hosts("192.0.2.9", "acme.test"), ["own.test", "own.test"]);
    assert_eq!(hosts("10.0.0.1", "acme.test"), ["acme.test"]);
    assert_eq!(hosts("10.0.0.1", "acme.test, globex.test"), ["acme.test", "globex.test"]);
}

/// What the proxy at 10.0.0.1 makes of these lines: client and host.
fn forwarded(lines: &[&str]) -> (String, String) {
    let headers: Vec<_> = lines.iter().map(|line| ("forwarded", *line)).collect();
    let (client, hosts) = settled(ForwardedBy::Forwarded, "10.0.0.1", &headers);
    (client, hosts.last().unwrap().clone())
}

/// The proxy's own address, and the request's own host.
const NOTHING: (&str, &str) = ("10.0.0.1", "own.test");
/// What the proxy appends.
const APPENDED: &str = "for=198.51.100.7;host=acme.test";
const BELIEVED: (&str, &str) = ("198.51.100.7", "acme.test");

#[test]
fn forwarded_is_read_by_its_grammar() {
    let escaped = r#"for="\1\98.51.100.7";host="ac\me.test""#;
    for (said, expected) in [
        (APPENDED, BELIEVED),
        (escaped, BELIEVED),
        ("FOR=198.51.100.7;by=_hidden;Host=acme.test;secret=x", BELIEVED),
        (";;for=198.51.100.7;;host=acme.test;", BELIEVED),
        (" \t for=203.0.113.66;host=globex.test\t , \tfor=198.51.100.7;host=acme.test ", BELIEVED),
        (r#"for="[2001:db8::7]:443";host="acme.test:8443""#, ("2001:db8::7", "acme.test:8443")),
        (r#"for="[2001:db8::7]""#, ("2001:db8::7", "own.test")),
        (
            r#"for=203.0.113.66;host=globex.test;by="a\", for=203.0.113.66;b=\"\\", for=198.51.100.7;host=acme.test"#,
            BELIEVED,
        ),
        // The quotation mark within the quotes is escaped, and does not end them.
        (r#"for=203.0.113.66;host=globex.test;by="\"", for=198.51.100.7;host=acme.test"#, BELIEVED),
        // A machine that cannot say for whom it forwards, and one that says nothing: no other is asked.
        ("for=203.0.113.66, for=unknown;host=acme.test", ("10.0.0.1", "acme.test")),
        ("for=203.0.113.66, for=_hidden;host=acme.test", ("10.0.0.1", "acme.test")),
        ("for=203.0.113.66;host=globex.test, proto=https", NOTHING),
        ("for=203.0.113.66;host=globex.test,", NOTHING),
        ("for=203.0.113.66;host=globex.test, ,", NOTHING),
        ("", NOTHING),
    ] {
        let (client, host) = forwarded(&[said]);
        assert_eq!((client.as_str(), host.as_str()), expected, "{said:?}");
    }
}

#[test]
fn forwarded_that_breaks_its_grammar_says_nothing() {
    let many = |count: usize| (0..count).map(|number| format!("p{number}=1")).collect::<Vec<_>>().join(";");
    let long = format!("for=203.0.113.66;host={}, {APPENDED}", "a".repeat(8_192));
    for broken in [
        r#"for=203.0.113.66;host=globex.test;by=", for=198.51.100.7;host=acme.test"#,
        r#"for=203.0.113.66;host=globex.test;by="\, for=198.51.100.7;host=acme.test"#,
        r#"for=203.0.113.66;host=globex.test;by="x"y, for=198.51.100.7;host=acme.test"#,
        r#"by=", for="[2001:db8::7]:443";host="acme.test""#,
        "for=203.0.113.66;FOR=203.0.113.67, for=198.51.100.7;host=acme.test",
        "for=198.51.100.7;host=acme.test;host=globex.test",
        "by=1;x=2;BY=3, for=198.51.100.7;host=acme.test",
        "for=198.51.100.7:80;host=acme.test",
        "for=[2001:db8::7];host=acme.test",
        "for=198.51.100.7; host=acme.test",
        "for = 198.51.100.7;host=acme.test",
        "for=;host=acme.test",
        "=198.51.100.7, for=198.51.100.7;host=acme.test",
        "for, for=198.51.100.7;host=acme.test",
        "198.51.100.7",
        &format!("{}, {APPENDED}", many(17)),
        &long,
    ] {
        let (client, host) = forwarded(&[broken]);
        assert_eq!((client.as_str(), host.as_str()), NOTHING, "{broken:?}");
        let (client, host) = forwarded(&[broken, APPENDED]);
        assert_eq!((client.as_str(), host.as_str()), NOTHING, "{broken:?}, and a line that is sound");
    }
    let (client, host) = forwarded(&[&format!("{}, {APPENDED}", many(16))]);
    assert_eq!((client.as_str(), host.as_str()), BELIEVED);
}

#[test]
fn several_lines_of_forwarded_are_one_list() {
    let lines = ["for=203.0.113.66;host=globex.test", "for=10.3.3.3, for=10.2.2.2", "for=10.1.1.1;host=acme.test"];
    assert_eq!(forwarded(&lines), ("203.0.113.66".to_owned(), "acme.test".to_owned()));
    // No quotes reach from one line into the next.
    assert_eq!(forwarded(&[r#"for=203.0.113.66;by="x"#, r#"y";host=globex.test, for=198.51.100.7"#]).0, NOTHING.0);
    let many = vec!["for=10.1.1.1"; 100].join(",");
    assert_eq!(forwarded(&["for=203.0.113.66", &many]).0, "10.1.1.1");
}

proptest! {
    #[test]
    fn of_forwarded_nothing_is_believed_but_what_the_proxy_appended(
        pieces in vec(prop_oneof![
            5 => select(&["\"", "\\", ",", ";", "=", " ", "\t", "for=203.0.113.66", "host=globex.test", "by=", "for=", "for"]),
            1 => select(&["\u{e9}", "unknown", "[", "]", ":", "10.0.0.2", "\\\"", "\"\"", ", "]),
        ], 0..24),
        is_own_line: bool,
    ) {
        let written = pieces.concat();
        let lines = if is_own_line { vec![written, APPENDED.to_owned()] } else { vec![format!("{written}, {APPENDED}")] };
        let (client, host) = forwarded(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        let said = (client.as_str(), host.as_str());
        prop_assert!(said == BELIEVED || said == NOTHING, "{said:?} of {lines:?}");
    }
}
