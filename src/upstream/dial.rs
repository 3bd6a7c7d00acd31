//! A new connection to an upstream: resolve, connect, TLS. Each step's limit is set by the caller, who is told when a step
//! begins; a dial that is given up is dropped.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustix::io::Errno;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::target::Target;
use crate::net::stream::{Stream, set_nodelay};
use crate::shard::clock::Millis;

/// How long a looked-up address is used again on a core. The system's resolver keeps its own; this spares a thread hop for
/// each connection of a burst.
const RESOLVED_MS: Millis = 10_000;

/// Names whose addresses a core remembers.
const RESOLVED_MAX: usize = 256;

/// Steps of a dial that have limits of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Name look-up and TCP.
    Connect,
    /// TLS handshake.
    Tls,
}

/// Why there is no connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum DialError {
    /// The name has no address.
    Resolve(String, io::Error),
    /// No address took the connection; the last one's error.
    Connect(SocketAddr, io::Error),
    /// All its addresses are link-local: a machine's metadata service listens there, and no model does.
    Forbidden(String, IpAddr),
    /// None of its addresses may be connected to for this purpose.
    NotAllowed(String, IpAddr),
    /// The handshake failed: an unknown CA, a wrong name, no TLS at all.
    Tls(String, io::Error),
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DialError::Resolve(host, error) => write!(f, "the name {host} could not be resolved: {error}"),
            DialError::Forbidden(host, address) => write!(
                f,
                "the name {host} leads to {address}, a link-local address; if that is meant, put the address itself into the URL"
            ),
            DialError::NotAllowed(host, address) => {
                write!(f, "{host} leads to {address}, which is not an address that may be asked")
            }
            DialError::Connect(address, error) => write!(f, "no connection to {address}: {error}"),
            DialError::Tls(host, error) => write!(f, "TLS with {host} failed: {error}"),
        }
    }
}

impl std::error::Error for DialError {}

impl DialError {
    /// Whether it tells nothing about the upstream: this process, or this machine, has no descriptor or port left.
    pub fn is_ours(&self) -> bool {
        let (DialError::Resolve(_, error) | DialError::Connect(_, error) | DialError::Tls(_, error)) = self
        else {
            return false;
        };
        let ours = [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOBUFS, Errno::NOMEM];
        error.raw_os_error().is_some_and(|code| ours.iter().any(|errno| errno.raw_os_error() == code))
    }
}

/// Addresses, and until when they are used.
type Resolved = (Vec<SocketAddr>, Millis);

/// A core's memory of looked-up names.
#[derive(Default)]
pub struct Resolver {
    known: RefCell<HashMap<(String, u16), Resolved>>,
}

/// Somewhere to connect to.
pub struct Place<'a> {
    /// A name, or an address.
    pub host: &'a str,
    /// Port.
    pub port: u16,
    /// TLS, with the name that the certificate must bear.
    pub tls: Option<&'a (Arc<ClientConfig>, ServerName<'static>)>,
    /// Which addresses may be connected to, whatever name led to them.
    pub allows: &'a dyn Fn(IpAddr) -> bool,
}

/// Dials `target`. `step` is told what begins.
pub async fn dial(
    target: &Target,
    resolver: &Resolver,
    now: Millis,
    step: impl FnMut(Step),
) -> Result<Stream, DialError> {
    let place = Place { host: &target.host, port: target.port, tls: target.tls.as_ref(), allows: &|_| true };
    dial_place(&place, resolver, now, step).await
}

/// Dials a place. `step` is told what begins.
pub async fn dial_place(
    place: &Place<'_>,
    resolver: &Resolver,
    now: Millis,
    mut step: impl FnMut(Step),
) -> Result<Stream, DialError> {
    step(Step::Connect);
    let socket = match place.host.parse::<IpAddr>() {
        Ok(address) if (place.allows)(address) => connect(SocketAddr::new(address, place.port)).await?,
        Ok(address) => return Err(DialError::NotAllowed(place.host.into(), address)),
        Err(_) => {
            let mut addresses = resolver.resolve(place.host, place.port, now).await?;
            let first = addresses.first().copied();
            // The very addresses that are then connected to: a name may lead anywhere, and elsewhere the next time.
            addresses.retain(|address| (place.allows)(address.ip()));
            if let (Some(first), true) = (first, addresses.is_empty()) {
                return Err(DialError::NotAllowed(place.host.into(), first.ip()));
            }
            connect_any(place.host, &addresses).await?
        }
    };
    set_nodelay(&socket);
    let Some((config, name)) = place.tls else { return Ok(Stream::Plain(socket)) };
    step(Step::Tls);
    let session = TlsConnector::from(config.clone()).connect(name.clone(), socket).await;
    let session = session.map_err(|error| DialError::Tls(place.host.into(), error))?;
    Ok(Stream::Tls(Box::new(session.into())))
}

async fn connect(address: SocketAddr) -> Result<TcpStream, DialError> {
    TcpStream::connect(address).await.map_err(|error| DialError::Connect(address, error))
}

/// One address after the other, as the resolver ordered them.
async fn connect_any(host: &str, addresses: &[SocketAddr]) -> Result<TcpStream, DialError> {
    let mut last = DialError::Resolve(host.into(), io::Error::other("it has no address"));
    for &address in addresses {
        match connect(address).await {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl Resolver {
    async fn resolve(&self, host: &str, port: u16, now: Millis) -> Result<Vec<SocketAddr>, DialError> {
        let key = (host.to_owned(), port);
        if let Some((addresses, until)) = self.known.borrow().get(&key)
            && *until > now
        {
            return Ok(addresses.clone());
        }
        let found = tokio::net::lookup_host((host, port)).await;
        let mut addresses: Vec<_> = found.map_err(|error| DialError::Resolve(host.into(), error))?.collect();
        // Whoever controls the name must not choose this machine's metadata service. Checked after the look-up, on the very
        // addresses that are then connected to.
        if let Some(address) = addresses.iter().map(SocketAddr::ip).find(|&address| is_link_local(address)) {
            addresses.retain(|address| !is_link_local(address.ip()));
            if addresses.is_empty() {
                return Err(DialError::Forbidden(host.into(), address));
            }
        }
        let mut known = self.known.borrow_mut();
        if known.len() >= RESOLVED_MAX {
            known.retain(|_, (_, until)| *until > now);
        }
        if known.len() < RESOLVED_MAX {
            known.insert(key, (addresses.clone(), now + RESOLVED_MS));
        }
        Ok(addresses)
    }
}

/// 169.254.0.0/16 and fe80::/10, the first also as an IPv4-mapped address, and the metadata address that AWS has in IPv6.
fn is_link_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => {
            address.is_unicast_link_local() || address.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_not_allowed_is_not_connected_to_whatever_name_leads_there() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let resolver = Resolver::default();
        for host in ["127.0.0.1", "localhost"] {
            let place = |allows| Place { host, port, tls: None, allows };
            let refused = dial_place(&place(&|address| !address.is_loopback()), &resolver, 0, |_| {}).await;
            assert!(matches!(refused, Err(DialError::NotAllowed(name, _)) if name == host), "{host}");
            assert!(dial_place(&place(&|_| true), &resolver, 0, |_| {}).await.is_ok(), "{host}");
        }
    }

    #[test]
    fn metadata_services_are_known() {
        for address in ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "fd00:ec2::254"] {
            assert!(is_link_local(address.parse().unwrap()), "{address}");
        }
        for address in ["127.0.0.1", "10.0.0.1", "::1", "2001:db8::1"] {
            assert!(!is_link_local(address.parse().unwrap()), "{address}");
        }
    }
}
