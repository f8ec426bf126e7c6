//! A tenant is welcomed once, whoever dies; and no mail server, however dead, is waited for.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::sea_query::Expr;
use sea_orm::{ActiveModelTrait, ActiveValue::Set, ColumnTrait, EntityTrait, QueryFilter};
use tenancy::Status;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::stage::{Stage, on_both};
use crate::mail::tests::by_smtp;
use crate::mail::tests::post_office::{Manner, PostOffice, closed};
use crate::mail::{MailConfig, Pace, run_at, send_due};
use crate::provision::faults::{Fault, Faults, Side};
use crate::registry::entities::{operations, outbox, tenants};

on_both! {
    a_tenant_is_welcomed_once_though_its_creation_was_retried,
    a_tenant_without_an_admin_is_not_written_to,
    a_dead_mail_server_delays_no_activation_and_the_mail_waits,
    a_mail_that_was_cut_off_arrives_with_the_same_message_id,
    two_senders_send_each_mail_once,
    a_dead_senders_mail_is_taken_over_when_its_lease_lapses,
    a_mail_is_given_up_after_days_of_attempts_and_not_before,
    an_activation_wakes_the_sender_and_the_mail_is_a_file,
}

/// Nothing but a bell wakes such a sender.
const UNTIL_RUNG: Pace = Pace { scan: Duration::from_hours(1), attempt: Duration::from_secs(30) };

/// Every test's tenants are welcomed into a folder.
pub(super) fn mail_into(folder: &Path) -> MailConfig {
    MailConfig {
        from: "Notes <hello@notes.example>".to_owned(),
        folder: Some(folder.join("mail")),
        smtp: None,
        link: Some("https://{slug}.notes.example".to_owned()),
    }
}

impl Stage {
    /// An active tenant.
    async fn active(&self, slug: &str) -> operations::Model {
        let operation = self.create(slug, None).await;
        assert_eq!(self.work_until_ended(&operation, &Faults::default()).await.state, "done");
        operation
    }

    /// A tenant's only mail.
    async fn welcome(&self, operation: &operations::Model) -> outbox::Model {
        let mut mail = self.mail(operation).await;
        assert_eq!(mail.len(), 1);
        mail.remove(0)
    }

    /// Another mail of an active tenant.
    async fn write(&self, operation: &operations::Model, created_at: DateTime<Utc>, attempts: i32) -> Uuid {
        let mail = outbox::ActiveModel {
            id: Set(Uuid::now_v7()),
            tenant_id: Set(operation.tenant_id.unwrap()),
            kind: Set("welcome".to_owned()),
            recipient: Set("admin@example.org".to_owned()),
            attempts: Set(attempts),
            error: Set(None),
            run_after: Set(created_at),
            lease_holder: Set(None),
            lease_until: Set(None),
            created_at: Set(created_at),
            sent_at: Set(None),
        };
        mail.insert(self.plane.registry.db()).await.unwrap().id
    }
}

fn message_id(mail: &str) -> String {
    mail.lines().find_map(|line| line.strip_prefix("Message-ID: ")).expect("a mail has an id").to_owned()
}

async fn a_tenant_is_welcomed_once_though_its_creation_was_retried(stage: &Stage) {
    let faults = Faults::new(|point| {
        let fails = point.step == "activate" && !point.is_undo && point.side == Side::Effect;
        if fails { Fault::Refuse } else { Fault::None }
    });
    let operation = stage.create("acme", None).await;
    assert_eq!(stage.work_until_ended(&operation, &faults).await.state, "failed");
    assert!(stage.mail(&operation).await.is_empty(), "nobody is welcomed to what is not there");
    stage.retry(operation.id).await.unwrap();
    assert_eq!(stage.work_until_ended(&operation, &Faults::default()).await.state, "done");
    let mail = stage.welcome(&operation).await;
    assert_eq!((mail.kind.as_str(), mail.recipient.as_str(), mail.attempts), ("welcome", "admin@example.org", 0));
    let rotation = stage.rotate(&operation, false).await;
    assert_eq!(stage.work_until_ended(&rotation, &Faults::default()).await.state, "done");
    assert_eq!(stage.welcome(&operation).await, mail);
}

async fn a_tenant_without_an_admin_is_not_written_to(stage: &Stage) {
    let operation = stage.create("acme", None).await;
    tenants::Entity::update_many()
        .col_expr(tenants::Column::AdminEmail, Expr::value(None::<String>))
        .filter(tenants::Column::Id.eq(operation.tenant_id.unwrap()))
        .exec(stage.plane.registry.db())
        .await
        .unwrap();
    assert_eq!(stage.work_until_ended(&operation, &Faults::default()).await.state, "done");
    assert!(stage.mail(&operation).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_mail_in_the_configuration_nothing_is_written() {
    let mut stage = Stage::sqlite().await;
    stage.plane.parts_mut().mail = None;
    let operation = stage.active("acme").await;
    assert!(stage.mail(&operation).await.is_empty());
}

async fn a_dead_mail_server_delays_no_activation_and_the_mail_waits(stage: &Stage) {
    let (dead, stopping) = (by_smtp(&closed().await), CancellationToken::new());
    let sender = tokio::spawn(run_at(stage.plane.clone(), dead.clone(), UNTIL_RUNG, stopping.clone()));
    let operation = stage.active("acme").await;
    assert_eq!(stage.status(&operation).await, Status::Active);
    let failed = loop {
        let mail = stage.welcome(&operation).await;
        if mail.attempts > 0 {
            break mail;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    stopping.cancel();
    sender.await.unwrap();
    let error = failed.error.unwrap();
    assert!(error.starts_with("the mail server cannot be reached: Connection error"), "{error}");
    assert_eq!((failed.attempts, failed.sent_at, failed.lease_holder, failed.lease_until), (1, None, None, None));

    let (registry, soon) = (&stage.plane.registry, failed.run_after - TimeDelta::milliseconds(1));
    assert_eq!(send_due(registry, &dead, Pace::default(), soon).await.unwrap(), 0, "it is put off");
    assert_eq!(send_due(registry, &dead, Pace::default(), failed.run_after).await.unwrap(), 1);
    let again = stage.welcome(&operation).await;
    let pause = again.run_after - failed.run_after;
    assert!(again.attempts == 2 && pause >= TimeDelta::seconds(20) && pause < TimeDelta::minutes(1), "{pause}");
    let office = PostOffice::open(Manner::Polite).await;
    let alive = by_smtp(&office.address);
    assert_eq!(send_due(registry, &alive, Pace::default(), again.run_after).await.unwrap(), 1);
    let sent = stage.welcome(&operation).await;
    assert!(sent.sent_at.is_some() && sent.error.is_none() && sent.attempts == 3);
    assert_eq!(office.received().len(), 1);
    assert_eq!(send_due(registry, &alive, Pace::default(), again.run_after + TimeDelta::days(9)).await.unwrap(), 0);
}

async fn a_mail_that_was_cut_off_arrives_with_the_same_message_id(stage: &Stage) {
    let operation = stage.active("acme").await;
    let office = PostOffice::open(Manner::DiesInTheMail).await;
    let mail = by_smtp(&office.address);
    let try_it = async || {
        let due = stage.welcome(&operation).await.run_after;
        assert_eq!(send_due(&stage.plane.registry, &mail, Pace::default(), due).await.unwrap(), 1);
        stage.welcome(&operation).await
    };
    assert!(try_it().await.sent_at.is_none());
    assert_eq!(office.received().len(), 0);
    office.behave(Manner::DiesBeforeItsAnswer);
    assert!(try_it().await.sent_at.is_none(), "the server has it, and nobody knows");
    office.behave(Manner::Polite);
    let sent = try_it().await;
    assert!(sent.sent_at.is_some() && sent.error.is_none());
    let received = office.received();
    let expected = format!("<{}@pets.example>", sent.id);
    assert_eq!(received.iter().map(|mail| message_id(mail)).collect::<Vec<_>>(), [expected.as_str(); 2]);
    assert_eq!(received[0], received[1]);
}

async fn two_senders_send_each_mail_once(stage: &Stage) {
    let (operation, now) = (stage.active("acme").await, Utc::now() + TimeDelta::minutes(1));
    for _ in 1..30 {
        stage.write(&operation, now, 0).await;
    }
    let office = PostOffice::open(Manner::Polite).await;
    let sender = || {
        let (registry, mail) = (stage.plane.registry.clone(), by_smtp(&office.address));
        tokio::spawn(async move {
            let mut sent = 0;
            loop {
                match send_due(&registry, &mail, Pace::default(), now).await.unwrap() {
                    0 => return sent,
                    some => sent += some,
                }
            }
        })
    };
    let (one, other) = (sender(), sender());
    assert_eq!(one.await.unwrap() + other.await.unwrap(), 30);
    let received = office.received();
    let ids: BTreeSet<_> = received.iter().map(|mail| message_id(mail)).collect();
    assert_eq!((received.len(), ids.len()), (30, 30));
    assert!(stage.mail(&operation).await.iter().all(|mail| mail.attempts == 1 && mail.sent_at.is_some()));
}

async fn a_dead_senders_mail_is_taken_over_when_its_lease_lapses(stage: &Stage) {
    let operation = stage.active("acme").await;
    let office = PostOffice::open(Manner::NeverGreets).await;
    let (registry, mail) = (stage.plane.registry.clone(), by_smtp(&office.address));
    let (begun, now) = (mail.clone(), Utc::now() + TimeDelta::minutes(1));
    let dies = tokio::spawn(async move { send_due(&registry, &begun, UNTIL_RUNG, now).await });
    let until = loop {
        if let Some(until) = stage.welcome(&operation).await.lease_until {
            break until;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    dies.abort();
    assert!(dies.await.unwrap_err().is_cancelled());
    office.behave(Manner::Polite);
    let registry = &stage.plane.registry;
    assert_eq!(send_due(registry, &mail, Pace::default(), until).await.unwrap(), 0, "it may be alive");
    let lapsed = until + TimeDelta::microseconds(1);
    assert_eq!(send_due(registry, &mail, Pace::default(), lapsed).await.unwrap(), 1);
    assert_eq!(office.received().len(), 1);
}

async fn a_mail_is_given_up_after_days_of_attempts_and_not_before(stage: &Stage) {
    let (operation, now) = (stage.active("acme").await, Utc::now() + TimeDelta::minutes(1));
    let young = stage.write(&operation, now - TimeDelta::days(3) + TimeDelta::minutes(1), 500).await;
    let rarely_tried = stage.write(&operation, now - TimeDelta::days(30), 1).await;
    let old = stage.write(&operation, now - TimeDelta::days(3), 20).await;
    let dead = by_smtp(&closed().await);
    let registry = &stage.plane.registry;
    assert_eq!(send_due(registry, &dead, Pace::default(), now).await.unwrap(), 4);
    // The registry's clock went on by as much as the attempts took: far less than these.
    let far = now + TimeDelta::days(20);
    assert_eq!(send_due(registry, &dead, Pace::default(), far).await.unwrap(), 3);
    let rows = stage.mail(&operation).await;
    let row = |id: Uuid| rows.iter().find(|mail| mail.id == id).unwrap();
    assert_eq!((row(young).attempts, row(rarely_tried).attempts, row(old).attempts), (502, 3, 21));
    assert!(row(old).error.is_some() && row(old).sent_at.is_none(), "why it was given up is kept");
    assert!(row(young).error.is_some());
    let century = now + TimeDelta::days(36_500);
    assert_eq!(send_due(registry, &dead, Pace::default(), century).await.unwrap(), 2, "the young one has grown old");
}

async fn an_activation_wakes_the_sender_and_the_mail_is_a_file(stage: &Stage) {
    let first = stage.active("globex").await;
    let (mail, stopping) = (stage.plane.mail.clone().unwrap(), CancellationToken::new());
    let sender = tokio::spawn(run_at(stage.plane.clone(), mail, UNTIL_RUNG, stopping.clone()));
    let sent = async |operation: &operations::Model| loop {
        let mail = stage.welcome(operation).await;
        if mail.sent_at.is_some() {
            break mail;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    // Its first look is over with this.
    sent(&first).await;
    let operation = stage.active("acme").await;
    let row = sent(&operation).await;
    stopping.cancel();
    sender.await.unwrap();
    let folder = stage.folder.path().join("mail");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2);
    let text = std::fs::read_to_string(folder.join(format!("{}.eml", row.id))).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    assert_eq!(header("Message-ID").unwrap(), format!("<{}@notes.example>", row.id));
    assert_eq!(header("To"), Some("admin@example.org"));
    assert_eq!(header("Subject"), Some("Welcome to Notes: A tenant is ready"));
    let date = DateTime::parse_from_rfc2822(header("Date").unwrap()).unwrap();
    assert_eq!(date.timestamp(), row.created_at.timestamp());
    assert!(body.contains("Slug: acme\r\n") && body.contains("at https://acme.notes.example\r\n"), "{body}");
}
