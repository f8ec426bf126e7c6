//! A request that got no answer: what to check.

use std::fmt;
use std::io::ErrorKind;
use std::time::Duration;

use ureq::{Error, Timeout};

/// No answer came.
#[derive(Debug)]
pub(crate) struct Lost {
    what: String,
    /// The request may have arrived, and done its work.
    pub(super) has_left: bool,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Lost {}

impl Lost {
    /// What stands between here and the control plane answered in its place.
    pub(super) fn on_the_way(what: String) -> Self {
        Self { what, has_left: true }
    }

    pub(super) fn of(error: &Error, method: &str, url: &str, limit: Duration) -> Self {
        let seconds = limit.as_secs_f64().ceil();
        let (has_left, what) = match error {
            Error::Io(io) if io.kind() == ErrorKind::ConnectionRefused => (
                false,
                format!(
                    "nothing listens at {url}\n  Start the control plane (on this machine: cargo xtask dev), or check --url."
                ),
            ),
            Error::Io(io) if matches!(io.kind(), ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable) => {
                (false, format!("there is no way to {url}: {io}\n  Check --url and this machine's network."))
            }
            error if is_nameless(error) => {
                (false, format!("the host of {url} is not known here\n  Check --url, and that names are resolved."))
            }
            Error::Timeout(Timeout::Resolve | Timeout::Connect) => {
                (false, format!("{url} took no connection in time\n  Check --url, and what filters the way to it."))
            }
            Error::Timeout(_) => (
                true,
                format!(
                    "{url} did not answer within {seconds} s\n  {}",
                    after(method, "Check the control plane's health.")
                ),
            ),
            Error::Tls(reason) => (false, untrusted(url, reason)),
            Error::Rustls(reason) => (false, untrusted(url, &reason.to_string())),
            Error::Io(io) if tls(io) => (false, untrusted(url, &io.to_string())),
            Error::ConnectProxyFailed(reason) => (
                false,
                format!(
                    "the proxy on the way to {url} refused: {reason}\n  Check HTTPS_PROXY, HTTP_PROXY and NO_PROXY."
                ),
            ),
            Error::Protocol(reason) => (
                true,
                format!(
                    "{url} answered what is no HTTP: {reason}\n  Check --url: does it want https, or another port?"
                ),
            ),
            error => (
                true,
                format!("the connection to {url} broke: {error}\n  {}", after(method, "Check --url, and try again.")),
            ),
        };
        Self { what, has_left }
    }
}

/// What was asked for may have happened.
fn after(method: &str, otherwise: &str) -> String {
    if method == "GET" {
        otherwise.to_owned()
    } else {
        format!("What was asked for may have happened: look at the tenant before you repeat it. {otherwise}")
    }
}

fn untrusted(url: &str, reason: &str) -> String {
    format!(
        "no safe connection to {url}: {reason}\n  \
         Check --url: does it speak https? A certificate authority of your own is named by SSL_CERT_FILE."
    )
}

/// The system's resolver tells this in words alone.
fn is_nameless(error: &Error) -> bool {
    match error {
        Error::HostNotFound => true,
        Error::Io(io) => io.to_string().starts_with("failed to lookup address"),
        _ => false,
    }
}

/// A TLS error of the handshake comes as one of the connection.
fn tls(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::InvalidData && error.get_ref().is_some()
}
