//! Mail to tenants' admins: written into the outbox in the commit of what it tells of, and sent by a task of its own.
//!
//! No operation waits for a mail server, and none fails because of one. A mail is sent at least once: whoever dies between
//! sending it and writing that down leaves it to be sent again, with the same message id, by which the reader's mail
//! program can tell. Without `[mail]` nothing is written into the outbox; what was before stays there until it is back.

mod config;
pub(crate) mod outbox;
mod sender;
mod smtp;
#[cfg(test)]
pub(crate) mod tests;
mod transport;

use std::sync::Arc;
use std::time::SystemTime;

use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message, SinglePart};
use service::config::Invalid;
use tenancy::Product;

pub(crate) use config::MailConfig;
pub(crate) use sender::run;
#[cfg(test)]
pub(crate) use sender::{Pace, run_at, send_due};

use crate::registry::entities::{outbox as mails, tenants};
use transport::Transport;

/// How mail is written and sent; clones share it.
#[derive(Clone)]
pub(crate) struct Mail(Arc<Parts>);

struct Parts {
    from: Mailbox,
    link: Option<String>,
    product: &'static str,
    mount: &'static str,
    transport: Transport,
}

/// Why a mail was not sent. The text is public: it goes into the registry and into the log, and has no secret in it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unsent(String);

impl Mail {
    /// The mail of a product, as it is configured. Makes the folder that mails go to.
    pub(crate) fn of(config: &MailConfig, product: &Product) -> Result<Self, Invalid> {
        let transport = config.transport().map_err(|error| error.within("mail"))?;
        if let Transport::Folder(folder) = &transport {
            transport::make(folder)
                .map_err(|error| Invalid::new("mail.folder", format!("cannot be made or entered: {error}")))?;
        }
        Ok(Self(Arc::new(Parts {
            from: config.from().map_err(|error| error.within("mail"))?,
            link: config.link.clone(),
            product: product.name,
            mount: product.mount,
            transport,
        })))
    }

    /// Tells the tenant's admin that the tenant is there. All of its headers are the same at every attempt, unless the
    /// tenant was renamed in between.
    fn welcome(&self, mail: &mails::Model, tenant: &tenants::Model) -> Result<Message, Unsent> {
        let Parts { from, link, product, mount, .. } = &*self.0;
        let recipient = mail
            .recipient
            .parse()
            .map_err(|_| Unsent("the tenant's admin_email is no address that mail can be sent to".to_owned()))?;
        let (name, slug) = (one_line(&tenant.name), one_line(&tenant.slug));
        let reach = match link {
            Some(link) => format!("You reach it at {}", link.replace("{slug}", &slug)),
            None => {
                format!("Name it in your requests by the path /{slug}{mount}\nor by the header X-Tenant-ID: {slug}")
            }
        };
        let text = format!(
            "Welcome to {product}.\n\n{name} is ready to be used.\n\n    Name: {name}\n    Slug: {slug}\n\n{reach}\n\n\
             You get this mail because you were named as its administrator."
        );
        Message::builder()
            .message_id(Some(format!("<{}@{}>", mail.id, from.email.domain())))
            .date(SystemTime::from(mail.created_at))
            .from(from.clone())
            .to(Mailbox::new(None, recipient))
            .subject(format!("Welcome to {product}: {name} is ready"))
            // RFC 3834: no out-of-office note is wanted back.
            .raw_header(HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned()))
            .singlepart(SinglePart::plain(text))
            .map_err(|error| Unsent(format!("the mail cannot be composed: {error}")))
    }
}

/// Names are people's: a line break in one is no line of the mail's own.
fn one_line(text: &str) -> String {
    let is_break = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    text.split(is_break).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}
