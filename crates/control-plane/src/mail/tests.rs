//! What a mail says, whatever a tenant is called; which configurations are taken; how mail servers are spoken with.

pub(crate) mod post_office;

use std::os::unix::fs::PermissionsExt as _;

use chrono::{DateTime, TimeDelta, Utc};
use service::config::{Validate, load_from};
use std::time::Duration;
use uuid::Uuid;

use super::*;
use post_office::{Manner, PostOffice};

/// Longer than any test takes that is not broken.
const PATIENCE: Duration = Duration::from_secs(20);

fn config() -> MailConfig {
    MailConfig {
        from: "Pet Store <hello@pets.example>".to_owned(),
        folder: None,
        smtp: Some("smtp://localhost".into()),
        link: None,
    }
}

/// Mail by a server at this address.
pub(crate) fn by_smtp(address: &str) -> Mail {
    let config = MailConfig { smtp: Some(format!("smtp://{address}").into()), ..config() };
    Mail::of(&config, &product()).unwrap()
}

fn product() -> Product {
    Product { name: "Pet store", mount: "/api", schema_version: 1, scopes: &[], config_keys: Vec::new() }
}

fn row(recipient: &str) -> mails::Model {
    let at: DateTime<Utc> = "2026-03-01T12:30:15Z".parse().unwrap();
    mails::Model {
        id: Uuid::from_u128(7),
        tenant_id: Uuid::from_u128(8),
        kind: "welcome".to_owned(),
        recipient: recipient.to_owned(),
        attempts: 0,
        error: None,
        run_after: at,
        lease_holder: None,
        lease_until: None,
        created_at: at,
        sent_at: None,
    }
}

fn tenant(name: &str) -> tenants::Model {
    tenants::Model {
        id: Uuid::from_u128(8),
        slug: "acme".to_owned(),
        name: name.to_owned(),
        status: "active".to_owned(),
        plan: "free".to_owned(),
        region: None,
        admin_email: None,
        server_id: None,
        schema_version: 1,
        generation: 1,
        sealed_url: None,
        revision: 1,
        version: 1,
        status_before: None,
        created_at: DateTime::UNIX_EPOCH,
        updated_at: DateTime::UNIX_EPOCH,
        delete_after: None,
        tokens_from: None,
        limits: None,
        slug_since: None,
        reconnects: 0,
        reconnected_at: None,
    }
}

fn text_of(mail: &Message) -> String {
    String::from_utf8(mail.formatted()).unwrap()
}

#[test]
fn a_welcome_says_who_where_and_how() {
    let mail = Mail::of(&config(), &product()).unwrap();
    let text = text_of(&mail.welcome(&row("ann@acme.example"), &tenant("Acme")).unwrap());
    let expected = "Message-ID: <00000000-0000-0000-0000-000000000007@pets.example>
Date: Sun, 01 Mar 2026 12:30:15 +0000
From: \"Pet Store\" <hello@pets.example>
To: ann@acme.example
Subject: Welcome to Pet store: Acme is ready
Auto-Submitted: auto-generated
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 7bit

Welcome to Pet store.

Acme is ready to be used.

    Name: Acme
    Slug: acme

Name it in your requests by the path /acme/api
or by the header X-Tenant-ID: acme

You get this mail because you were named as its administrator.
";
    assert_eq!(text, expected.replace('\n', "\r\n"));
    let config = MailConfig { link: Some("https://{slug}.pets.example/".to_owned()), ..config() };
    let mail = Mail::of(&config, &product()).unwrap();
    let text = text_of(&mail.welcome(&row("ann@acme.example"), &tenant("Acme")).unwrap());
    assert!(text.contains("You reach it at https://acme.pets.example/\r\n"), "{text}");
}

#[test]
fn no_name_and_no_recipient_adds_a_header_or_a_reader() {
    let mail = Mail::of(&config(), &product()).unwrap();
    let headers = |text: &str| -> Vec<String> {
        let head = text.split_once("\r\n\r\n").unwrap().0.replace("\r\n ", " ").replace("\r\n\t", " ");
        head.split("\r\n").map(|line| line.split_once(':').expect("a header has a name").0.to_owned()).collect()
    };
    let expected = headers(&text_of(&mail.welcome(&row("ann@acme.example"), &tenant("Acme")).unwrap()));
    let long = "é\"\\, ".repeat(40);
    for name in [
        "Evil\r\nBcc: victim@example.org",
        "Evil\nBcc: victim@example.org\n\nand a body",
        "Evil\rBcc: victim@example.org",
        "\r\n.\r\nMAIL FROM:<x@y.example>",
        "\u{2028}Bcc: victim@example.org\u{85}X: y",
        "\"quoted\" <victim@example.org>, \\",
        "=?utf-8?q?=0D=0ABcc:_victim@example.org?=",
        long.as_str(),
    ] {
        let composed = mail.welcome(&row("ann@acme.example"), &tenant(name)).unwrap();
        let text = text_of(&composed);
        assert_eq!(headers(&text), expected, "{name:?}\n{text}");
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let is_bare = |part: &str| part.replace("\r\n", "").contains(['\r', '\n']);
        assert!(!is_bare(head) && !is_bare(body) && !body.contains("\r\n.\r\n"), "{name:?}\n{text}");
        assert!(text.lines().all(|line| line.len() <= 998), "{name:?}\n{text}");
        assert_eq!(composed.envelope().to(), ["ann@acme.example".parse().unwrap()]);
    }
    for recipient in
        ["a@b.example\r\nBcc: c@d.example", "a@b.example, c@d.example", "A <a@b.example>", "a@b.example>", ""]
    {
        let unsent = mail.welcome(&row(recipient), &tenant("Acme")).unwrap_err().to_string();
        assert_eq!(unsent, "the tenant's admin_email is no address that mail can be sent to", "{recipient:?}");
    }
}

#[test]
fn every_attempt_has_the_same_message_id_and_date() {
    let mail = Mail::of(&config(), &product()).unwrap();
    let first = text_of(&mail.welcome(&row("ann@acme.example"), &tenant("Acme")).unwrap());
    let tried = mails::Model {
        attempts: 5,
        error: Some("the mail server cannot be reached".to_owned()),
        run_after: row("").run_after + TimeDelta::hours(5),
        ..row("ann@acme.example")
    };
    assert_eq!(text_of(&mail.welcome(&tried, &tenant("Acme")).unwrap()), first);
}

#[test]
fn a_mail_is_put_off_twice_as_long_each_time_up_to_a_bound() {
    let seconds = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 33, i32::MAX].map(|attempts| outbox::put_off(attempts).as_secs());
    assert_eq!(seconds, [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600, 3600]);
}

#[test]
fn each_bad_field_is_named_and_no_password_is_printed() {
    let bad = |change: fn(&mut MailConfig)| {
        let mut config = config();
        change(&mut config);
        config.validate().expect_err("it is bad").field
    };
    assert!(config().validate().is_ok());
    for from in [
        "",
        "Pet Store",
        "a@b.example\nBcc: c@d.example",
        "a@b.example, c@d.example",
        "Pet Store <a@b.example> and more",
        "Pet Store <a@b.example>\n",
        "\"Pet\r\nBcc: x\" <a@b.example>",
    ] {
        let refused = MailConfig { from: from.to_owned(), ..config() }.validate().expect_err(from);
        assert_eq!(refused.field, "from");
    }
    assert_eq!(bad(|it| it.smtp = None), "smtp");
    assert_eq!(bad(|it| it.folder = Some("mail".into())), "folder");
    assert_eq!(bad(|it| (it.smtp, it.folder) = (None, Some("".into()))), "folder");
    assert_eq!(bad(|it| it.link = Some("{slug}.pets.example".to_owned())), "link");
    assert_eq!(bad(|it| it.link = Some("https://{slug}.pets.example\nx".to_owned())), "link");
    for url in [
        "nonsense",
        "http://user:hunter2@pets.example",
        "smtps://user:hunter2@pets.example?tls=maybe",
        "smtp://user:hunter2@pets.example?tls=opportunistic",
        "smtp://user:hunter2@pets.example",
        "smtps://hunter2@pets.example",
        "smtps:///hunter2",
    ] {
        let refused = MailConfig { smtp: Some(url.into()), ..config() }.validate().expect_err(url);
        assert_eq!(refused.field, "smtp");
        assert!(!refused.to_string().contains("hunter2"), "{refused}");
    }
    for url in [
        "smtps://user:p%40ss@pets.example",
        "smtp://user:hunter2@pets.example:2525?tls=required",
        "smtp://user:hunter2@localhost",
        "smtps://[::1]:465/our-name",
    ] {
        let taken = MailConfig { smtp: Some(url.into()), ..config() };
        taken.validate().expect(url);
        assert!(!format!("{taken:?}").contains("hunter2"));
    }
}

#[test]
fn an_unknown_key_and_a_bad_section_are_refused_at_the_start() {
    let load = |flags: &[&str]| {
        let flags = flags.iter().flat_map(|flag| ["--set".into(), flag.into()]);
        let args = std::iter::once("test".into()).chain(flags);
        let ring = r#"{primary="k",keys={k="AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}}"#;
        let environment = [
            ("FREEHOLD_REGISTRY__URL", "sqlite:///r.db"),
            ("FREEHOLD_TOKENS__BOOTSTRAP", "operator-operator"),
            ("FREEHOLD_TOKENS__NODE", "node-node-node-node"),
            ("FREEHOLD_SEAL__TENANTS", ring),
            ("FREEHOLD_SEAL__SERVERS", ring),
            ("FREEHOLD_AUDIT__SIGNING", ring),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        load_from::<crate::Config>("test", args, environment)
    };
    let refused = |flags: &[&str]| load(flags).expect_err("it is bad").to_string();
    assert!(load(&[]).unwrap().mail.is_none());
    let mail = load(&["mail.from=a@b.example", "mail.folder=outgoing"]).unwrap().mail.unwrap();
    assert_eq!(mail.folder.as_deref(), Some("outgoing".as_ref()));
    assert!(refused(&["mail.from=a@b.example", "mail.foldr=x"]).contains("unknown configuration key `mail.foldr`"));
    assert!(refused(&["mail.from=a@b.example"]).contains("`mail.smtp` is missing"));
    assert!(refused(&["mail.folder=outgoing"]).contains("`mail.from`"));
}

#[tokio::test]
async fn a_folder_gets_whole_files_for_its_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("deep/mail");
    let config = MailConfig { smtp: None, folder: Some(inner.clone()), ..config() };
    let mail = Mail::of(&config, &product()).unwrap();
    let composed = mail.welcome(&row("ann@acme.example"), &tenant("Acme")).unwrap();
    // Twice, as when we die before it is written down; and the folder is taken away in between.
    for _ in 0..2 {
        mail.0.transport.deliver(Uuid::from_u128(7), &composed, PATIENCE).await.unwrap();
        let names: Vec<_> = std::fs::read_dir(&inner).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["00000000-0000-0000-0000-000000000007.eml"]);
        let file = inner.join(&names[0]);
        assert_eq!(std::fs::read(&file).unwrap(), composed.formatted());
        let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&inner), mode(&file)), (0o700, 0o600));
        std::fs::remove_dir_all(&inner).unwrap();
    }
    std::fs::write(&inner, "a file in its place").unwrap();
    let unsent = mail.0.transport.deliver(Uuid::from_u128(7), &composed, PATIENCE).await.unwrap_err();
    assert!(unsent.to_string().starts_with("the mail's file cannot be written"), "{unsent}");
    assert_eq!(Mail::of(&config, &product()).err().unwrap().field, "mail.folder");
}

/// Sends a mail with a password to a server of such a manner.
async fn sent_to(manner: Manner, at_most: Duration) -> (Result<(), Unsent>, PostOffice) {
    let office = PostOffice::open(manner).await;
    let mail = by_smtp(&format!("user:hunter2@{}", office.address));
    let composed = mail.welcome(&row("ann@acme.example"), &tenant(".Acme")).unwrap();
    let delivered = mail.0.transport.deliver(Uuid::from_u128(7), &composed, at_most);
    let outcome = tokio::time::timeout(PATIENCE, delivered).await.expect("it waits without end");
    (outcome, office)
}

#[tokio::test]
async fn a_mail_is_sent_once_the_server_said_so_whatever_follows() {
    for manner in [Manner::Polite, Manner::NeverSaysGoodbye] {
        let (outcome, office) = sent_to(manner, PATIENCE).await;
        outcome.unwrap();
        let mail = by_smtp("localhost").welcome(&row("ann@acme.example"), &tenant(".Acme")).unwrap();
        // A line break more, by which a mail ends on the line.
        assert_eq!(office.received(), [text_of(&mail) + "\r\n"]);
    }
}

#[tokio::test]
async fn an_error_says_what_went_wrong_and_nothing_secret() {
    let unsent = |manner, at_most| async move { sent_to(manner, at_most).await.0.unwrap_err().to_string() };
    let died = "the mail server did not take the mail: response error: incomplete response";
    assert_eq!(unsent(Manner::DiesInTheMail, PATIENCE).await, died);
    assert_eq!(unsent(Manner::DiesBeforeItsAnswer, PATIENCE).await, died);
    let refused = "the mail server did not take the mail: permanent error (550): nobody of that name";
    assert_eq!(unsent(Manner::Refuses, PATIENCE).await, refused);
    let login = "the mail server did not take our user and password (535): see `mail.smtp`";
    assert_eq!(unsent(Manner::EchoesLogins, PATIENCE).await, login);
    let late = "the mail server did not answer in time";
    assert_eq!(unsent(Manner::NeverGreets, Duration::from_millis(50)).await, late);
}
