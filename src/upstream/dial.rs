//! A new connection to an upstream: resolve, connect, TLS. Each step's limit is set by the caller, who is told when a step
//! begins; a dial that is given up is dropped.
//!
//! A name's addresses compete for the connection ([`race`](super::race)), in an order that spreads the load and tries last what
//! has failed lately ([`addresses`](super::addresses)). A handshake that breaks off at one address is tried at the next, since
//! nothing was sent yet; one that fails for its certificate fails for good.

use std::cell::RefCell;
use std::fmt;
use std::fmt::Write;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::addresses::Addresses;
use super::race::{ATTEMPT_DELAY_MS, Move, Race};
use super::resolver::Resolver;
use super::target::Target;
use crate::runtime::Shard;
use crate::runtime::clock::Millis;
use crate::runtime::net::stream::{Stream, set_keepalive, set_nodelay};

/// Most handshakes for one connection: one, and others where it broke off.
const HANDSHAKES_MAX: usize = 3;

/// A handshake that is given up after this long tells that its address is better tried last.
const HANDSHAKE_SLOW_MS: Millis = 1000;

/// Most addresses that are named where a connection has failed.
const TRIED_NAMED_MAX: usize = 8;

/// Steps of a dial that have limits of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Name look-up and TCP.
    Connect,
    /// TLS handshake.
    Tls,
}

/// Why there is no connection. Its text names no address: a client may read it. [`Tried`] does, for operators.
#[derive(Debug)]
#[non_exhaustive]
pub(crate) enum DialError {
    /// The name has no address.
    Resolve(String, io::Error),
    /// No address took the connection; how many were tried, and the last one's error.
    Connect(usize, io::Error),
    /// All its addresses are link-local: a machine's metadata service listens there, and no model does.
    Forbidden(String, IpAddr),
    /// None of its addresses may be connected to for this purpose.
    NotAllowed(String),
    /// The handshake failed: an unknown CA, a wrong name, no TLS at all.
    Tls(String, io::Error),
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DialError::Resolve(host, error) => write!(f, "the name {host} could not be resolved: {error}"),
            DialError::Forbidden(host, address) => write!(
                f,
                "the name {host} leads to the link-local address {address}; if that is meant, put the address itself into the URL"
            ),
            DialError::NotAllowed(host) => {
                write!(f, "{host} leads to an address that may not be connected to")
            }
            DialError::Connect(1, error) => write!(f, "{error}"),
            DialError::Connect(tried, error) => {
                write!(f, "{tried} addresses were tried, the last error is: {error}")
            }
            DialError::Tls(host, error) => write!(f, "TLS with {host} failed: {error}"),
        }
    }
}

impl std::error::Error for DialError {}

impl DialError {
    /// Whether it tells nothing about the upstream: this process, or this machine, has no descriptor or port left.
    pub(crate) fn is_ours(&self) -> bool {
        let (DialError::Resolve(_, error) | DialError::Connect(_, error) | DialError::Tls(_, error)) = self
        else {
            return false;
        };
        is_ours(error)
    }
}

fn is_ours(error: &io::Error) -> bool {
    let ours = [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOBUFS, Errno::NOMEM];
    error.raw_os_error().is_some_and(|code| ours.iter().any(|errno| errno.raw_os_error() == code))
}

/// The addresses at which a connection has failed, and why, for operators.
#[derive(Debug, Default)]
pub(crate) struct Tried(RefCell<(usize, String)>);

impl Tried {
    fn note(&self, address: SocketAddr, why: impl fmt::Display) {
        let (count, text) = &mut *self.0.borrow_mut();
        *count += 1;
        let separator = if text.is_empty() { "" } else { "; " };
        let _ = match *count {
            ..=TRIED_NAMED_MAX => write!(text, "{separator}{address} {why}"),
            _ => Ok(()),
        };
    }

    /// All of them as a text, if there are any.
    pub(crate) fn take(&self) -> Option<String> {
        let (count, mut text) = self.0.take();
        if count > TRIED_NAMED_MAX {
            let _ = write!(text, "; and {} more", count - TRIED_NAMED_MAX);
        }
        (count > 0).then_some(text)
    }
}

/// Time, as the runtime that dials has it.
pub(crate) trait Time {
    /// Now, on the monotonic clock.
    fn millis(&self) -> Millis;
    /// Waits for so long.
    fn pause(&self, ms: Millis) -> Pause;
}

impl Time for Rc<Shard> {
    fn millis(&self) -> Millis {
        self.clock.millis()
    }

    fn pause(&self, ms: Millis) -> Pause {
        let shard = Rc::clone(self);
        Box::pin(async move { shard.as_ref().pause(ms).await })
    }
}

/// What a dial needs of the core that it runs on.
#[derive(Clone, Copy)]
pub(crate) struct Dialer<'a> {
    /// Its memory of names.
    pub(crate) resolver: &'a Rc<Resolver>,
    /// Its time.
    pub(crate) time: &'a dyn Time,
    /// Where failures are noted, by address.
    pub(crate) tried: &'a Tried,
}

/// Somewhere to connect to.
pub(crate) struct Place<'a> {
    /// A name, or an address.
    pub(crate) host: &'a str,
    /// Port.
    pub(crate) port: u16,
    /// TLS, with the name that the certificate must bear.
    pub(crate) tls: Option<&'a (Arc<ClientConfig>, ServerName<'static>)>,
    /// Which addresses may be connected to, whatever name led to them.
    pub(crate) allows: &'a dyn Fn(IpAddr) -> bool,
    /// The address of a name whose turn it is, if that is known.
    pub(crate) first: Option<SocketAddr>,
}

/// A connection that has come about.
pub(crate) struct Dialed {
    /// The connection.
    pub(crate) stream: Stream,
    /// The addresses of the name that led to it, if it was a name.
    pub(crate) addresses: Option<Rc<Addresses>>,
}

/// Dials `target`, at `first` before its other addresses. `step` is told what begins.
pub(crate) async fn dial(
    target: &Target,
    first: Option<SocketAddr>,
    dialer: Dialer<'_>,
    step: impl FnMut(Step),
) -> Result<Dialed, DialError> {
    let tls = target.tls.as_ref();
    let place = Place { host: &target.host, port: target.port, tls, allows: &|_| true, first };
    dial_place(&place, dialer, step).await
}

/// Dials a place. `step` is told what begins.
pub(crate) async fn dial_place(
    place: &Place<'_>,
    dialer: Dialer<'_>,
    mut step: impl FnMut(Step),
) -> Result<Dialed, DialError> {
    step(Step::Connect);
    let (mut order, addresses) = find(place, dialer).await?;
    let mut handshakes = 0;
    loop {
        let connected = Attempts::new(&order, dialer, addresses.as_deref()).run().await;
        if let (Err(DialError::Connect(_, error)), Some(_)) = (&connected, &addresses)
            && !is_ours(error)
        {
            dialer.resolver.renew(place.host, place.port, dialer.time.millis());
        }
        let (socket, address, untried) = connected?;
        set_nodelay(&socket);
        set_keepalive(&socket);
        let Some((config, name)) = place.tls else {
            return Ok(Dialed { stream: Stream::Plain(socket), addresses });
        };
        step(Step::Tls);
        handshakes += 1;
        let mut handshake =
            Handshake { address, dialer, addresses: addresses.as_deref(), began: dialer.time.millis() };
        let session = TlsConnector::from(config.clone()).connect(name.clone(), socket).await;
        handshake.began = Millis::MAX;
        match session {
            Ok(session) => {
                drop(handshake);
                return Ok(Dialed { stream: Stream::Tls(Box::new(session.into())), addresses });
            }
            Err(error) => {
                handshake.failed(&error);
                if handshakes == HANDSHAKES_MAX || untried.is_empty() || !is_of_the_connection(&error) {
                    return Err(DialError::Tls(place.host.into(), error));
                }
            }
        }
        order = untried;
        step(Step::Connect);
    }
}

/// The addresses of a place that may be connected to, in their order; and all of its name's, if it is one.
async fn find(
    place: &Place<'_>,
    dialer: Dialer<'_>,
) -> Result<(Vec<SocketAddr>, Option<Rc<Addresses>>), DialError> {
    if let Ok(address) = place.host.parse::<IpAddr>() {
        return match (place.allows)(address) {
            true => Ok((vec![SocketAddr::new(address, place.port)], None)),
            false => Err(DialError::NotAllowed(place.host.into())),
        };
    }
    let addresses = dialer.resolver.resolve(place.host, place.port, || dialer.time.millis()).await?;
    let mut order = addresses.order(place.first, dialer.time.millis());
    let first = order.first().map(SocketAddr::ip);
    // The very addresses that are then connected to: a name may lead anywhere, and elsewhere the next time.
    order.retain(|address| (place.allows)(address.ip()));
    match (first, order.is_empty()) {
        (Some(_), true) => Err(DialError::NotAllowed(place.host.into())),
        _ => Ok((order, Some(addresses))),
    }
}

/// Whether a handshake has failed for its connection, which another address may do better, and not for what the peer is.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionReset
            | Kind::ConnectionAborted
            | Kind::BrokenPipe
            | Kind::UnexpectedEof
            | Kind::TimedOut
    )
}

/// A handshake under way. One that is dropped after a while was too slow.
struct Handshake<'a> {
    address: SocketAddr,
    dialer: Dialer<'a>,
    addresses: Option<&'a Addresses>,
    began: Millis,
}

impl Handshake<'_> {
    fn failed(&self, why: impl fmt::Display) {
        self.dialer.tried.note(self.address, format_args!("TLS: {why}"));
        if let Some(addresses) = self.addresses {
            addresses.failed(self.address, self.dialer.time.millis());
        }
    }
}

impl Drop for Handshake<'_> {
    fn drop(&mut self) {
        if self.dialer.time.millis().saturating_sub(self.began) >= HANDSHAKE_SLOW_MS {
            self.failed("no answer");
        }
    }
}

/// A wait.
pub(crate) type Pause = Pin<Box<dyn Future<Output = ()>>>;

/// A connection that comes about, or does not.
type Connecting = Pin<Box<dyn Future<Output = io::Result<TcpStream>>>>;

/// The attempts of one race, under way.
struct Attempts<'a> {
    race: Race,
    under_way: Vec<(SocketAddr, Millis, Connecting)>,
    /// Until when the next attempt waits.
    pause: Option<(Millis, Pause)>,
    dialer: Dialer<'a>,
    addresses: Option<&'a Addresses>,
    failed: usize,
    last: Option<io::Error>,
}

impl<'a> Attempts<'a> {
    fn new(order: &[SocketAddr], dialer: Dialer<'a>, addresses: Option<&'a Addresses>) -> Attempts<'a> {
        let race = Race::new(order.iter().copied());
        Attempts { race, under_way: Vec::new(), pause: None, dialer, addresses, failed: 0, last: None }
    }

    /// The first connection that comes about, where it leads to, and the addresses that have not failed.
    async fn run(mut self) -> Result<(TcpStream, SocketAddr, Vec<SocketAddr>), DialError> {
        let (socket, address) = poll_fn(|cx| self.poll(cx)).await?;
        if let Some(addresses) = self.addresses {
            addresses.connected(address);
        }
        let untried = self.under_way.iter().map(|(address, ..)| *address).chain(self.race.untried());
        Ok((socket, address, untried.collect()))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(TcpStream, SocketAddr), DialError>> {
        loop {
            let now = self.dialer.time.millis();
            let until = match self.race.step(now) {
                Move::Start(address) => {
                    self.under_way.push((address, now, Box::pin(TcpStream::connect(address))));
                    continue;
                }
                Move::Wait(until) => until,
                Move::Lost => {
                    let last = self.last.take().unwrap_or_else(|| io::Error::other("it has no address"));
                    return Poll::Ready(Err(DialError::Connect(self.failed.max(1), last)));
                }
            };
            if let Some(connected) = self.poll_under_way(cx) {
                return Poll::Ready(Ok(connected));
            }
            if self.race.step_is_due(self.dialer.time.millis()) {
                continue;
            }
            match until {
                None => return Poll::Pending,
                Some(until) => {
                    if self.poll_pause(cx, until).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// The first that has come about. Those that have failed are taken out.
    fn poll_under_way(&mut self, cx: &mut Context<'_>) -> Option<(TcpStream, SocketAddr)> {
        let mut at = 0;
        while at < self.under_way.len() {
            match self.under_way[at].2.as_mut().poll(cx) {
                Poll::Pending => at += 1,
                Poll::Ready(Ok(socket)) => {
                    let (address, ..) = self.under_way.remove(at);
                    return Some((socket, address));
                }
                Poll::Ready(Err(error)) => {
                    let (address, ..) = self.under_way.remove(at);
                    self.failed += 1;
                    self.dialer.tried.note(address, &error);
                    let now = self.dialer.time.millis();
                    if let Some(addresses) = self.addresses.filter(|_| !is_ours(&error)) {
                        addresses.failed(address, now);
                    }
                    self.last = Some(error);
                    self.race.failed(now);
                }
            }
        }
        None
    }

    fn poll_pause(&mut self, cx: &mut Context<'_>, until: Millis) -> Poll<()> {
        if self.pause.as_ref().is_none_or(|(at, _)| *at != until) {
            let left = until.saturating_sub(self.dialer.time.millis());
            self.pause = Some((until, self.dialer.time.pause(left)));
        }
        match &mut self.pause {
            Some((_, pause)) => {
                let over = pause.as_mut().poll(cx);
                if over.is_ready() {
                    self.pause = None;
                }
                over
            }
            None => Poll::Ready(()),
        }
    }
}

impl Drop for Attempts<'_> {
    /// Those that are given up after a while were silent: they have lost the race, or the time for all is over.
    fn drop(&mut self) {
        let now = self.dialer.time.millis();
        for (address, began, _) in &self.under_way {
            if now.saturating_sub(*began) >= ATTEMPT_DELAY_MS {
                self.dialer.tried.note(*address, "no answer");
                if let Some(addresses) = self.addresses {
                    addresses.failed(*address, now);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Still;

    impl Time for Still {
        fn millis(&self) -> Millis {
            0
        }

        fn pause(&self, _: Millis) -> Pause {
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test]
    async fn what_is_not_allowed_is_not_connected_to_whatever_name_leads_there() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (resolver, tried) = (Resolver::new(1), Tried::default());
        let dialer = Dialer { resolver: &resolver, time: &Still, tried: &tried };
        let all = async {
            for host in ["127.0.0.1", "localhost"] {
                let place = |allows| Place { host, port, tls: None, allows, first: None };
                let refused = dial_place(&place(&|address| !address.is_loopback()), dialer, |_| {}).await;
                assert!(matches!(refused, Err(DialError::NotAllowed(name)) if name == host), "{host}");
                assert!(dial_place(&place(&|_| true), dialer, |_| {}).await.is_ok(), "{host}");
            }
        };
        tokio::task::LocalSet::new().run_until(all).await;
    }

    #[tokio::test]
    async fn operators_are_told_the_addresses_and_clients_are_not() {
        let refuses = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (resolver, tried) = (Resolver::new(1), Tried::default());
        let dialer = Dialer { resolver: &resolver, time: &Still, tried: &tried };
        let place =
            Place { host: "127.0.0.1", port: refuses.port(), tls: None, allows: &|_| true, first: None };
        let Err(error) = dial_place(&place, dialer, |_| {}).await else { panic!("nobody listens there") };
        let (told, noted) = (error.to_string(), tried.take().unwrap());
        assert!(!told.contains("127.0.0.1") && told.contains("refused"), "{told}");
        assert!(noted.starts_with(&format!("{refuses} Connection refused")), "{noted}");
        (0..20).for_each(|_| tried.note(refuses, "no answer"));
        assert!(tried.take().unwrap().ends_with("; and 12 more"));
        assert!(tried.take().is_none());
    }
}
