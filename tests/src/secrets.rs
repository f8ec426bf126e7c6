//! Invariant 3 over a whole run: with every line logged that can be, what must stay secret is in no log, answer, file of a
//! plane's, or registry.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use crate::bed::{Answer, Bed, Store, Tuning, send};
use crate::cli::freehold;
use crate::idp::Idp;

const PLANTED: &str = "planted-password-of-nobody";

/// How the planes are told, with a folder for mail.
fn tuning(mail: &Path) -> Tuning {
    let sections = format!("[mail]\nfrom = \"Pets <pets@example.org>\"\nfolder = \"{}\"\n", mail.display());
    // A test's own, for as long as the tests run.
    Tuning { sections: String::leak(sections), ..TUNING }
}

const TUNING: Tuning = Tuning { tenants: "grace_seconds = 0\n", telemetry: "filter = \"trace\"\n", ..Tuning::DEFAULT };

/// All that was answered, but for the answers that tell a new key once.
#[derive(Default)]
struct Said(String);

impl Said {
    fn note(&mut self, answer: &Answer) {
        let _ = writeln!(self.0, "{answer:?}");
    }

    async fn call(&mut self, bed: &Bed, method: &str, path: &str, body: Option<Value>) -> Answer {
        let answer = bed.operator(method, path, body).await;
        self.note(&answer);
        answer
    }
}

fn files_below(folder: &Path, found: &mut String) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            files_below(&entry.path(), found);
        } else if entry.path().extension().is_none_or(|extension| extension != "toml") {
            // The configuration is where secrets come from.
            let _ = writeln!(found, "{}", entry.path().display());
            found.push_str(&String::from_utf8_lossy(&fs::read(entry.path()).unwrap()));
        }
    }
}

/// The password of a URL.
fn password(url: &str) -> Option<String> {
    let (user, _) = url.split_once("://")?.1.rsplit_once('@')?;
    Some(user.split_once(':')?.1.to_owned()).filter(|password| !password.is_empty())
}

/// Signed tokens, good and bad, on every way that they take: admitted, refused, and noticed while the control plane is away, so
/// that the event stays in the spool. Answers what of them must be nowhere.
async fn tokens_are_shown(bed: &mut Bed, said: &mut Said) -> Vec<String> {
    let idp = Idp::start().await;
    said.call(bed, "PUT", "/v1/tenants/acme/issuers/okta", Some(idp.described())).await;
    said.call(bed, "GET", "/v1/tenants/acme/issuers/okta", None).await;
    let good: Vec<String> = idp.keys.iter().map(|key| key.sign(&idp.claims(json!({ "scope": "pets:read" })))).collect();
    let deadline = std::time::Instant::now() + crate::bed::PATIENCE;
    for token in &good {
        loop {
            let answer = send(bed.request(0, "GET", "/api/me").bearer_auth(token)).await;
            said.note(&answer);
            if answer.status == 200 {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "{answer:?}");
        }
    }
    let mut bad = vec![
        idp.token(json!({ "exp": 1 })),
        idp.token(json!({ "aud": "cats" })),
        idp.token(json!({ "iss": "https://strangers.test" })),
    ];
    let (signed, signature) = good[0].rsplit_once('.').unwrap();
    bad.push(format!("{signed}.{}", signature.chars().rev().collect::<String>()));
    // A token of one tenant's at the control plane is no operator's.
    let url = format!("{}/v1/tenants", bed.control[0].url);
    for token in good.iter().chain(&bad) {
        said.note(&send(bed.client.get(&url).bearer_auth(token)).await);
    }
    bed.control[0].kill();
    for _ in 0..4 {
        for token in &bad {
            let refused = send(bed.request(0, "GET", "/api/pets").bearer_auth(token)).await;
            assert!([401, 429, 503].contains(&refused.status), "{refused:?}");
            said.note(&refused);
        }
        for token in &good {
            let refused = send(bed.request(0, "GET", "/elsewhere/api/pets").bearer_auth(token)).await;
            assert_eq!(refused.status, 404, "{refused:?}");
            said.note(&refused);
        }
    }
    let mut spool = String::new();
    files_below(&bed.folder.path().join("node-0/audit"), &mut spool);
    assert!(spool.contains("cross-tenant-attempt") && spool.contains("jwt:"), "it was noticed: {spool}");
    // Whole, and each part that a signature or claims could be told by.
    let parts =
        |token: &String| token.split('.').skip(1).chain([token.as_str()]).map(str::to_owned).collect::<Vec<_>>();
    good.iter().chain(&bad).flat_map(parts).collect()
}

async fn no_secret_leaves_its_process(store: Store) {
    let mail = tempfile::tempdir().unwrap();
    let mut bed = Bed::start_with(store, 1, 1, tuning(mail.path())).await;
    let mut said = Said::default();
    let mut secrets: Vec<String> = vec![
        bed.token.clone(),
        crate::bed::BOOTSTRAP.to_owned(),
        PLANTED.to_owned(),
        "node-token-of-the-tests".to_owned(),
    ];
    secrets.extend(
        ["dGVuYW50cy1rZXktb2YtdGhlLXRlc3RzLTMyLWJ5dGU", "c2VydmVycy1rZXktb2YtdGhlLXRlc3RzLTMyLWJ5dGU"].map(Into::into),
    );
    secrets.extend(["tenants-key-of-the-tests-32-byte", "servers-key-of-the-tests-32-byte"].map(Into::into));
    // Both as they are written and as they are: a key is told in either.
    secrets.extend([
        crate::bed::SIGNING_KEY.trim_end_matches('=').to_owned(),
        "audit-key-of-the-tests-of-32-byt".to_owned(),
    ]);
    if store == Store::Postgres {
        secrets.push(password(&std::env::var("FREEHOLD_TEST_POSTGRES_URL").unwrap()).unwrap());
        // Two databases that wait for a tenant, whose passwords nobody has used yet.
        bed.done("PATCH", "/v1/servers/local", Some(json!({ "warm": 2 }))).await;
        let deadline = std::time::Instant::now() + crate::bed::PATIENCE;
        while bed.warm_urls().await.len() < 2 {
            assert!(std::time::Instant::now() < deadline, "no database is made ready");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        secrets.extend(bed.warm_urls().await.iter().filter_map(|url| password(url)));
    }
    let (acme, gone) = (bed.tenant("acme").await, bed.tenant("gone").await);
    // `fh_<id>_<secret>`; a secret may have an underscore of its own.
    secrets.extend([&acme, &gone].map(|tenant| tenant.key.splitn(3, '_').nth(2).unwrap().to_owned()));
    let passwords = async |secrets: &mut Vec<String>| {
        let found: Vec<String> = bed.open_urls().await.iter().filter_map(|url| password(url)).collect();
        assert_eq!(found.len(), if store == Store::Postgres { 2 } else { 0 });
        secrets.extend(found);
    };
    passwords(&mut secrets).await;
    for tenant in [&acme, &gone] {
        bed.until(tenant, "/api/pets", 200).await;
        said.note(&bed.get(0, tenant, "/api/me").await);
    }
    said.call(&bed, "POST", "/v1/tenants/acme/rotate-credentials", None).await;
    passwords(&mut secrets).await;
    if store == Store::Postgres {
        secrets.extend(bed.warm_urls().await.iter().filter_map(|url| password(url)));
    }
    bed.until(&acme, "/api/pets", 200).await;
    for (method, path, body) in [
        ("GET", "/v1/tenants", None),
        ("GET", "/v1/tenants/acme", None),
        ("GET", "/v1/tenants/acme/keys", None),
        ("GET", "/v1/servers/local", None),
        ("GET", "/v1/operations", None),
        ("GET", "/openapi.json", None),
        ("POST", "/v1/rewrap", Some(json!({}))),
        ("POST", "/v1/doctor", Some(json!({}))),
        ("POST", "/v1/tenants", Some(json!({ "slug": "acme", "name": "Taken" }))),
        ("POST", "/v1/tenants", Some(json!({ "slug": "x", "name": PLANTED, "password": 1 }))),
        ("DELETE", "/v1/tenants/gone", None),
    ] {
        // A name is no secret, even where it is refused.
        let answer = said.call(&bed, method, path, body).await;
        assert!(answer.status < 500, "{answer:?}");
    }
    said.0 = said.0.replace(PLANTED, "a name");
    // Admin URLs that cannot be used, each with a password in it.
    for url in [
        format!("postgres://admin:{PLANTED}@127.0.0.1:1/postgres"),
        format!("postgres://admin:{PLANTED}@127.0.0.1:1/postgres?user=other&password={PLANTED}"),
        format!("postgres://admin:{PLANTED}@[bad/postgres"),
        format!("mysql://admin:{PLANTED}@127.0.0.1/x"),
    ] {
        let body = json!({ "name": "bad", "engine": "postgres", "region": "here", "admin_url": url, "capacity": 1,
                           "connection_budget": 1 });
        let refused = said.call(&bed, "POST", "/v1/servers", Some(body)).await;
        assert_eq!(refused.status, 422, "{refused:?}");
    }
    for credential in [format!("fh_aaaaaaaaaaaaaaaaaaaa_{PLANTED}"), PLANTED.to_owned()] {
        let refused = send(bed.request(0, "GET", "/api/pets").bearer_auth(&credential)).await;
        said.note(&refused);
        let url = format!("{}/v1/tenants?q=a", bed.control[0].url);
        said.note(&send(bed.client.get(url).bearer_auth(&credential)).await);
    }
    let mailed = json!({ "slug": "mailed", "name": "Mailed", "plan": "test", "admin_email": "admin@example.org" });
    assert_eq!(said.call(&bed, "POST", "/v1/tenants", Some(mailed)).await.status, 201);
    let spool = |found: &mut String| {
        found.clear();
        files_below(mail.path(), found);
        found.contains("admin@example.org")
    };
    let (mut mails, deadline) = (String::new(), std::time::Instant::now() + crate::bed::PATIENCE);
    while !spool(&mut mails) {
        assert!(std::time::Instant::now() < deadline, "no mail was written: {mails}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    // The command line tells a new key once, and it alone.
    let made = freehold(&bed, &["tenant", "key", "create", "mailed", "--json"]).await;
    let made: Value = serde_json::from_slice(&made.stdout).unwrap_or_else(|_| panic!("{made:?}"));
    secrets.push(made["api_key"].as_str().unwrap().splitn(3, '_').nth(2).unwrap().to_owned());
    secrets.extend(bed.open_urls().await.iter().filter_map(|url| password(url)));
    let mut typed = 0;
    for arguments in [
        &["tenant", "list"][..],
        &["tenant", "list", "--json"],
        &["tenant", "show", "mailed"],
        &["tenant", "show", "mailed", "--json"],
        &["tenant", "key", "list", "mailed"],
        &["tenant", "rotate", "mailed"],
        &["tenant", "rewrap"],
        &["tenant", "doctor", "--fix"],
        &["tenant", "create", "acme"],
        &["tenant", "show", "nobody"],
        &["tenant", "list", "--token", PLANTED],
        &["tenant", "list", "--url", "http://127.0.0.1:1"],
        &["tenant", "delete", "mailed", "--yes"],
    ] {
        let output = freehold(&bed, arguments).await;
        typed += output.stdout.len() + output.stderr.len();
        let _ =
            writeln!(said.0, "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    }
    assert!(typed > 1_000, "the command line said something: {}", said.0);
    bed.assert_healthy().await;
    let tokens = tokens_are_shown(&mut bed, &mut said).await;
    secrets.extend(tokens);
    let mut everything = said.0;
    everything.push_str(&mails);
    for process in bed.control.iter().chain(&bed.data) {
        let log = process.log();
        assert!(log.contains("TRACE") || log.contains("trace"), "everything is logged");
        everything.push_str(&log);
    }
    everything.push_str(&bed.dump_registry().await);
    // What a data plane keeps, and among it what it noticed and could not bring away.
    files_below(&bed.folder.path().join("node-0"), &mut everything);
    if store == Store::Postgres {
        // The tenants' own databases are no plane's files; on SQLite they are pets, and no secrets either.
        files_below(bed.folder.path(), &mut everything);
    }
    assert!(secrets.iter().all(|secret| secret.len() >= 15), "each is long enough not to be found by chance");
    for secret in &secrets {
        if let Some(at) = everything.find(secret.as_str()) {
            let from = everything[..at].rfind('\n').map_or(0, |line| line + 1);
            panic!("{secret:?} is told: {}", &everything[from..everything.len().min(at + 300)]);
        }
    }
    let least = if store == Store::Postgres { 20 } else { 15 };
    assert!(secrets.len() >= least && everything.len() > 100_000, "there was something to be found");
}

/// A mail server that asks for a password and takes none; told is when it was shown one.
async fn refusing_mail_server() -> (String, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (shown, seen) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (lines, mut out) = stream.into_split();
            let mut lines = BufReader::new(lines).lines();
            let _ = out.write_all(b"220 mail.test\r\n").await;
            while let Ok(Some(line)) = lines.next_line().await {
                let answer: &[u8] = match line.split(' ').next().unwrap_or_default() {
                    "EHLO" => b"250-mail.test\r\n250 AUTH PLAIN\r\n",
                    "AUTH" => b"535 5.7.8 not with that\r\n",
                    _ => b"221 2.0.0 bye\r\n",
                };
                if line.starts_with("AUTH") {
                    let _ = shown.send(line.clone());
                }
                if out.write_all(answer).await.is_err() {
                    break;
                }
            }
        }
    });
    (address, seen)
}

async fn the_password_at_a_mail_server_is_told_nowhere(store: Store) {
    const SECRET: &str = "password-at-the-mail-server";
    let (address, mut seen) = refusing_mail_server().await;
    let sections = format!("[mail]\nfrom = \"Pets <pets@example.org>\"\nsmtp = \"smtp://pets:{SECRET}@{address}\"\n");
    let bed = Bed::start_with(store, 1, 0, Tuning { sections: String::leak(sections), ..TUNING }).await;
    let mailed = json!({ "slug": "mailed", "name": "Mailed", "plan": "test", "admin_email": "admin@example.org" });
    let made = bed.operator("POST", "/v1/tenants", Some(mailed)).await;
    assert_eq!(made.status, 201, "{made:?}");
    let shown = seen.recv().await.unwrap();
    let encoded = shown.split(' ').nth(2).unwrap().to_owned();
    assert_eq!(STANDARD.decode(&encoded).unwrap(), format!("\0pets\0{SECRET}").as_bytes());
    // What came of it is written down, and said after that.
    let deadline = std::time::Instant::now() + crate::bed::PATIENCE;
    while !bed.control[0].log().contains("a mail was not sent") {
        assert!(std::time::Instant::now() < deadline, "nothing is said: {}", bed.control[0].log());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let log = bed.control[0].log();
    assert!(bed.registry_number("SELECT count(*) FROM outbox WHERE attempts > 0").await > 0, "it is written down");
    let everything = [log, bed.dump_registry().await, format!("{made:?}")].concat();
    for secret in [SECRET, encoded.as_str()] {
        assert!(!everything.contains(secret), "{secret} is told");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite() {
    no_secret_leaves_its_process(Store::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres() {
    no_secret_leaves_its_process(Store::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_password_at_a_mail_server_is_told_nowhere_on_sqlite() {
    the_password_at_a_mail_server_is_told_nowhere(Store::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_password_at_a_mail_server_is_told_nowhere_on_postgres() {
    the_password_at_a_mail_server_is_told_nowhere(Store::Postgres).await;
}
