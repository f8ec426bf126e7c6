//! `[mail]`: who writes to tenants' admins, and by which way.

use std::path::PathBuf;

use lettre::message::Mailbox;
use secrecy::SecretString;
use serde::Deserialize;
use service::config::{Invalid, Validate};
use url::Url;

use super::smtp::Relay;
use super::transport::Transport;

/// `[mail]`: how tenants' admins are written to. Without this section nobody is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailConfig {
    /// Who writes: `Pet Store <hello@pets.example>`. Message ids end with its domain.
    pub from: String,
    /// A folder that mails are written to as `.eml` files, instead of sending them. One of `folder` and `smtp` is set.
    #[serde(default)]
    pub folder: Option<PathBuf>,
    /// A mail server: `smtps://user:password@host:465`, or `smtp://user:password@host:587?tls=required` for STARTTLS.
    /// `smtp://host:25` is not encrypted, and takes a password on this machine alone. A path is the name that we greet with.
    #[serde(default)]
    pub smtp: Option<SecretString>,
    /// How a tenant is reached, `https://{slug}.pets.example`, where `{slug}` is replaced. Told by path and header unless set.
    #[serde(default)]
    pub link: Option<String>,
}

impl MailConfig {
    pub(super) fn from(&self) -> Result<Mailbox, Invalid> {
        let is_one_line = !self.from.chars().any(char::is_control);
        let mailbox = self.from.parse::<Mailbox>().ok().filter(|_| is_one_line);
        mailbox.ok_or_else(|| Invalid::new("from", "must be an address, such as Pet Store <hello@pets.example>"))
    }

    pub(super) fn transport(&self) -> Result<Transport, Invalid> {
        match (&self.folder, &self.smtp) {
            (Some(folder), None) if folder.as_os_str().is_empty() => {
                Err(Invalid::new("folder", "must be the path of a folder"))
            }
            (Some(folder), None) => Ok(Transport::Folder(folder.clone())),
            (None, Some(url)) => {
                let relay = Relay::of(url).map_err(|reason| Invalid::new("smtp", reason))?;
                Ok(Transport::Smtp(Box::new(relay)))
            }
            (None, None) => Err(Invalid::new("smtp", "is missing: set it, or `mail.folder`")),
            (Some(_), Some(_)) => Err(Invalid::new("folder", "cannot be set beside `mail.smtp`")),
        }
    }
}

impl Validate for MailConfig {
    fn validate(&self) -> Result<(), Invalid> {
        self.from()?;
        self.transport()?;
        if let Some(link) = &self.link {
            let url = Url::parse(&link.replace("{slug}", "acme")).ok();
            let is_sound = url.is_some_and(|url| matches!(url.scheme(), "http" | "https"));
            if !is_sound || link.chars().any(|c| c.is_control() || c.is_whitespace()) {
                return Err(Invalid::new("link", "must be an http or https URL, such as https://{slug}.pets.example"));
            }
        }
        Ok(())
    }
}
