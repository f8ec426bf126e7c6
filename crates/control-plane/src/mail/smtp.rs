//! The conversation with a mail server: lettre speaks it, here is in which order and what of it counts.
//!
//! A mail is sent when the server has said so. lettre's own transport waits for the answer to our goodbye before it says
//! so, and a server that never gives that answer would get the same mail again and again.

use std::time::Duration;

use lettre::address::Envelope;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::timeout;
use url::{Host, Url};

use super::Unsent;

/// How long each of the host's addresses has to answer.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the answer to our goodbye is waited for.
const GOODBYE: Duration = Duration::from_secs(1);
/// Characters of an error that are kept.
const LONGEST_ERROR: usize = 300;

/// A mail server that takes our mail.
pub(super) struct Relay {
    host: String,
    port: u16,
    security: Security,
    hello: ClientId,
    credentials: Option<Credentials>,
}

enum Security {
    None,
    /// Encrypted from the first byte.
    Tls(TlsParameters),
    /// Encrypted once the server was asked to, or not spoken with.
    StartTls(TlsParameters),
}

impl Relay {
    /// The server of a URL, in the form that lettre takes: `smtps://user:password@host:port/name` or
    /// `smtp://user:password@host:port/name?tls=required`. An error says what is wrong, and nothing of what the URL says.
    pub(super) fn of(url: &SecretString) -> Result<Self, &'static str> {
        let url = Url::parse(url.expose_secret()).map_err(|_| "must be a URL, such as smtps://user:password@host")?;
        let host = match url.host().ok_or("must name the mail server's host")? {
            Host::Ipv6(address) => address.to_string(),
            host => host.to_string(),
        };
        let tls = || TlsParameters::new(host.clone()).map_err(|_| "cannot be used: TLS could not be set up");
        let (security, port) = match (url.scheme(), url.query()) {
            ("smtps", None) => (Security::Tls(tls()?), 465),
            ("smtp", Some("tls=required")) => (Security::StartTls(tls()?), 587),
            ("smtp", None) => (Security::None, 25),
            _ => {
                return Err("must begin with smtps:// or smtp://, with nothing behind but ?tls=required after smtp://");
            }
        };
        let credentials = match url.password() {
            Some(password) => Some(Credentials::new(plain(url.username())?, plain(password)?)),
            None if url.username().is_empty() => None,
            None => return Err("has a user and no password"),
        };
        let is_local = matches!(host.as_str(), "localhost" | "127.0.0.1" | "::1");
        if credentials.is_some() && matches!(security, Security::None) && !is_local {
            return Err("would send its password unencrypted: use smtps://, or add ?tls=required");
        }
        let hello = match url.path().trim_matches('/') {
            "" => ClientId::default(),
            name => ClientId::Domain(name.to_owned()),
        };
        Ok(Self { port: url.port().unwrap_or(port), host, security, hello, credentials })
    }

    /// Hands a mail over, within a time.
    pub(super) async fn deliver(&self, envelope: &Envelope, mail: &[u8], at_most: Duration) -> Result<(), Unsent> {
        let Ok(sent) = timeout(at_most, self.converse(envelope, mail)).await else {
            return Err(Unsent("the mail server did not answer in time".to_owned()));
        };
        // It has the mail, whatever it says now.
        let _ = timeout(GOODBYE, sent?.quit()).await;
        Ok(())
    }

    async fn converse(&self, envelope: &Envelope, mail: &[u8]) -> Result<AsyncSmtpConnection, Unsent> {
        let tls = match &self.security {
            Security::Tls(tls) => Some(tls.clone()),
            Security::None | Security::StartTls(_) => None,
        };
        let server = (self.host.as_str(), self.port);
        let mut connection = AsyncSmtpConnection::connect_tokio1(server, Some(CONNECT), &self.hello, tls, None)
            .await
            .map_err(|error| said("the mail server cannot be reached", &error))?;
        if let Security::StartTls(tls) = &self.security {
            connection
                .starttls(tls.clone(), &self.hello)
                .await
                .map_err(|error| said("the mail server cannot be spoken with over TLS", &error))?;
        }
        if let Some(credentials) = &self.credentials {
            connection.auth(DEFAULT_MECHANISMS, credentials).await.map_err(|error| refused_login(&error))?;
        }
        connection.send(envelope, mail).await.map_err(|error| said("the mail server did not take the mail", &error))?;
        Ok(connection)
    }
}

fn plain(text: &str) -> Result<String, &'static str> {
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| "has a user or password that is not UTF-8")?;
    Ok(decoded.into_owned())
}

/// What was attempted, and what the server said to it.
fn said(what: &str, error: &Error) -> Unsent {
    let text = format!("{what}: {error}");
    Unsent(text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST_ERROR).collect())
}

/// The server may have answered with the very line that the password was in: of its answer the number alone is told.
fn refused_login(error: &Error) -> Unsent {
    let number = error.status().map(|code| format!(" ({code})")).unwrap_or_default();
    Unsent(format!("the mail server did not take our user and password{number}: see `mail.smtp`"))
}
