//! Who listens where. Every address follows from two flags: replica `i` is ten ports on, and each
//! ops listener is on the port after its own plane's.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener};

use anyhow::{Context as _, Result, bail};

use super::Options;

/// One process' two listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listeners {
    pub(super) api: SocketAddr,
    pub(super) ops: SocketAddr,
}

/// All processes' listeners.
pub(super) struct Addresses {
    pub(super) control: Vec<Listeners>,
    pub(super) data: Vec<Listeners>,
}

impl Addresses {
    pub(super) fn of(options: &Options) -> Result<Self> {
        Ok(Self {
            control: row("--control", &options.control, options.control_planes)?,
            data: row("--data", &options.data, options.data_planes)?,
        })
    }

    /// All are bound at once, so that two flags that ask for one port are found too.
    pub(super) fn ensure_free(&self) -> Result<()> {
        let mut bound = Vec::new();
        for (flag, row) in [("--control", &self.control), ("--data", &self.data)] {
            for address in row.iter().flat_map(|it| [it.api, it.ops]) {
                match TcpListener::bind(address) {
                    Ok(listener) => bound.push(listener),
                    Err(error) if error.kind() == ErrorKind::AddrInUse => bail!(
                        "{address} is taken; stop what listens there, or choose other ports with \
                         `{flag} {}:PORT`",
                        in_url(row[0].api.ip())
                    ),
                    Err(error) => {
                        bail!("cannot listen on {address} ({error}); change it with `{flag} ADDR`")
                    }
                }
            }
        }
        Ok(())
    }
}

impl Listeners {
    pub(super) fn api_url(&self) -> String {
        url(self.api)
    }

    pub(super) fn ops_url(&self) -> String {
        url(self.ops)
    }
}

fn row(flag: &str, first: &str, count: u16) -> Result<Vec<Listeners>> {
    let first: SocketAddr = first.parse().ok().with_context(|| {
        format!("`{flag} {first}` is no address; write an IP address and a port, as in 127.0.0.1:8700")
    })?;
    (0..count)
        .map(|replica| {
            let port = |offset: u16| {
                let offset = (replica * 10).checked_add(offset)?;
                let port = first.port().checked_add(offset).filter(|_| first.port() > 0)?;
                Some(SocketAddr::new(first.ip(), port))
            };
            Some(Listeners { api: port(0)?, ops: port(1)? })
        })
        .collect::<Option<_>>()
        .with_context(|| format!("`{flag} {first}` leaves no room for the ports that follow from it"))
}

/// Where a client on this machine finds it: an unspecified address is every one, loopback too.
fn url(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        ip => ip,
    };
    format!("http://{}:{}", in_url(ip), address.port())
}

fn in_url(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_follow_from_the_first() {
        let row = row("--data", "127.0.0.1:8800", 2).unwrap();
        assert_eq!(row[1].api_url(), "http://127.0.0.1:8810");
        assert_eq!(row[1].ops_url(), "http://127.0.0.1:8811");
    }

    #[test]
    fn addresses_that_cannot_be_are_refused() {
        for bad in ["localhost", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65535"] {
            assert!(row("--data", bad, 1).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_taken_port_names_its_flag() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let api = taken.local_addr().unwrap();
        let addresses = Addresses { control: vec![], data: vec![Listeners { api, ops: api }] };
        let error = addresses.ensure_free().unwrap_err().to_string();
        assert!(error.contains("is taken") && error.contains("--data"), "{error}");
    }
}
