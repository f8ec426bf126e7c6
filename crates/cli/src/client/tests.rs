//! The client against servers that misbehave: real sockets on this machine, each with what it answers in turn.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::*;

/// What the server does with a connection.
pub(crate) enum Act {
    /// Sends this head and body.
    Say(&'static str, &'static str),
    /// Closes without a word.
    Hang,
    /// Keeps silent for a while.
    Sleep(Duration),
}

/// Takes as many connections as there are acts, one after the other, and returns what it was asked.
pub(crate) fn server(acts: Vec<Act>) -> (Client, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = std::thread::spawn(move || {
        acts.into_iter()
            .map(|act| {
                let (mut stream, _) = listener.accept().unwrap();
                let request = read(&mut stream);
                match act {
                    Act::Say(head, body) => {
                        let length = body.len();
                        let answer =
                            format!("HTTP/1.1 {head}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
                        stream.write_all(answer.as_bytes()).unwrap();
                    }
                    Act::Hang => {}
                    Act::Sleep(time) => std::thread::sleep(time),
                }
                request
            })
            .collect()
    });
    (client(&url), asked)
}

fn client(url: &str) -> Client {
    Client::new(Access {
        url: url.to_owned(),
        token: "top-secret".into(),
        token_from: "FREEHOLD_TOKEN".to_owned(),
        is_here: true,
    })
}

/// A request's head; its body is in the same segment or of no interest.
fn read(stream: &mut TcpStream) -> String {
    let mut bytes = vec![0; 4096];
    let mut length = 0;
    while !bytes[..length].windows(4).any(|it| it == b"\r\n\r\n") {
        let more = stream.read(&mut bytes[length..]).unwrap();
        if more == 0 {
            break;
        }
        length += more;
    }
    String::from_utf8(bytes[..length].to_vec()).unwrap()
}

fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    request.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

const YES: Act = Act::Say("201 Created\r\ncontent-type: application/json", "{\"a\":1.0}");

fn error(acts: Vec<Act>, ask: impl FnOnce(&Client) -> Result<Answer>) -> String {
    let (client, asked) = server(acts);
    let port = client.base().to_owned();
    let error = ask(&client).err().expect("it is refused").to_string();
    asked.join().unwrap();
    assert!(!error.contains("top-secret"), "{error}");
    error.replace(&port, "URL")
}

#[test]
fn a_post_whose_answer_was_lost_is_repeated_with_the_same_key() {
    let in_progress = Act::Say(
        "409 Conflict\r\ncontent-type: application/problem+json\r\nretry-after: 0",
        r#"{"type":"urn:freehold:problem:request-in-progress","detail":"wait","status":409}"#,
    );
    let unavailable = Act::Say("503 Service Unavailable\r\ncontent-type: text/plain", "later");
    let (client, asked) = server(vec![Act::Hang, in_progress, unavailable, YES]);
    let answer = client.post("/v1/tenants", Some("{}")).unwrap();
    assert_eq!(answer.text(), "{\"a\":1.0}");
    let asked = asked.join().unwrap();
    let key = header(&asked[0], "idempotency-key").unwrap();
    assert_eq!(key.len(), 32);
    assert!(asked.iter().all(|request| header(request, "idempotency-key") == Some(key)), "{asked:?}");
    assert_ne!(idempotency_key().unwrap(), idempotency_key().unwrap());
}

#[test]
fn a_delete_that_may_have_happened_is_not_repeated() {
    let told = error(vec![Act::Hang], |client| client.delete("/v1/tenants/acme"));
    assert!(told.contains("look at the tenant before you repeat it"), "{told}");
}

#[test]
fn a_redirect_is_told_and_the_token_does_not_follow() {
    let elsewhere = Act::Say("302 Found\r\nlocation: https://login.test/", "");
    insta::assert_snapshot!(error(vec![elsewhere], |client| client.get("/v1/tenants")), @r"
    URL points to https://login.test/ (302)
      Give the control plane's own URL with --url.
    ");
}

#[test]
fn what_is_no_control_plane_is_told() {
    let page = || Act::Say("200 OK\r\ncontent-type: text/html; charset=utf-8", "<html>");
    insta::assert_snapshot!(error(vec![page()], |client| client.get("/v1/tenants")), @r"
    URL is no control plane: it answered text/html, not JSON
      Check --url.
    ");
    let missing = Act::Say("404 Not Found\r\ncontent-type: text/html", "<html>");
    insta::assert_snapshot!(error(vec![missing], |client| client.get("/v1/tenants")), @r"
    URL answered 404 with text/html, as no control plane does
      Check --url, and what stands between here and the control plane.
    ");
}

#[test]
fn a_problem_is_told_with_its_fields_and_its_request_id() {
    let problem = Act::Say(
        "422 Unprocessable Entity\r\ncontent-type: application/problem+json",
        r#"{"type":"urn:freehold:problem:slug-invalid","title":"Slug invalid","status":422,"detail":"The slug is not valid.",
            "request_id":"01a2","errors":[{"field":"slug","detail":"is too\u001b[2J short"}]}"#,
    );
    insta::assert_snapshot!(error(vec![problem], |client| client.post("/v1/tenants", Some("{}"))), @r"
    The slug is not valid.
      slug: is too [2J short
      request id: 01a2
    ");
    let unknown = Act::Say(
        "401 Unauthorized\r\ncontent-type: application/problem+json",
        r#"{"type":"urn:freehold:problem:unauthorized","status":401,"detail":"Send a token."}"#,
    );
    insta::assert_snapshot!(error(vec![unknown], |client| client.get("/v1/tenants")), @r"
    Send a token.
      The token is from FREEHOLD_TOKEN.
    ");
    let older = Act::Say(
        "404 Not Found\r\ncontent-type: application/problem+json",
        r#"{"type":"urn:freehold:problem:not-found","status":404,"detail":"There is nothing here."}"#,
    );
    insta::assert_snapshot!(error(vec![older], |client| client.post("/v1/doctor", Some("{}"))), @r"
    URL does not know POST /v1/doctor.
      Check that --url is the API of a control plane, and no data plane's or ops listener's, and that it is not older than this freehold (0.1.0).
    ");
}

#[test]
fn a_silent_server_is_given_up_in_time() {
    let begun = Instant::now();
    let silent = Act::Sleep(Duration::from_millis(1500));
    let told = error(vec![silent], |client| client.within(Duration::from_millis(300)).get("/v1/tenants"));
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(told.contains("did not answer within"), "{told}");
}

#[test]
fn a_closed_port_is_told() {
    // Of an address of its own: a port that was given back is another test's in no time.
    let port = TcpListener::bind("127.99.0.1:0").unwrap().local_addr().unwrap();
    let told = client(&format!("http://{port}")).delete("/v1/tenants/a").err().unwrap().to_string();
    assert!(told.starts_with("nothing listens at"), "{told}");
}

#[test]
fn all_pages_are_read_and_circles_are_noticed() {
    let page = |body| Act::Say("200 OK\r\ncontent-type: application/json", body);
    let (client, asked) =
        server(vec![page(r#"{"items":[1,2],"next_cursor":"a&"}"#), page(r#"{"items":[3.0],"next_cursor":null}"#)]);
    let items = client.list("/v1/tenants?q=x", None).unwrap();
    assert_eq!(serde_json::to_string(&items).unwrap(), "[1,2,3.0]");
    let asked = asked.join().unwrap();
    assert!(asked[0].starts_with("GET /v1/tenants?q=x&limit=200 HTTP/1.1"), "{asked:?}");
    assert!(asked[1].starts_with("GET /v1/tenants?q=x&limit=200&cursor=a%26 HTTP/1.1"), "{asked:?}");

    let again = || page(r#"{"items":[1],"next_cursor":"a"}"#);
    let (client, asked) = server(vec![again(), again()]);
    assert!(client.list("/v1/tenants", None).unwrap_err().to_string().contains("in circles"));
    asked.join().unwrap();

    let (client, asked) = server(vec![page(r#"{"items":[1,2,3],"next_cursor":"a"}"#)]);
    assert_eq!(client.list("/v1/tenants", Some(2)).unwrap().len(), 2);
    assert!(asked.join().unwrap()[0].starts_with("GET /v1/tenants?limit=2 "));
}
