//! The front door: connections are accepted here, one listener a core, and live in [`connection`] until they end. Where another
//! core has clearly fewer they are handed to it, once, before the first byte.
//!
//! A door is public, where requests are relayed, or the admin's, where only answers of our own are given; the admin's has a
//! core of its own, so that it answers when the others are busy.

pub(crate) mod connection;
pub(crate) mod cors;
pub(crate) mod endpoints;
pub(crate) mod head;
pub(crate) mod path;
pub(crate) mod request_body;

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::admission::connection_slots::Seat;
use crate::downstream::connection::Client;
use crate::relay::context::{Arrival, Core, Present};
use crate::relay::exchange::{After, millis};
use crate::runtime::catch_panic::kept_up;
use crate::runtime::clock::Millis;
use crate::runtime::net::listener::Bound;
use crate::runtime::net::pair::pair;
use crate::runtime::net::reserve::Reserve;
use crate::runtime::net::stream::Stream;
use crate::subscriptions::worker;
use crate::telemetry::Refusal;
use crate::upstream::probe;

/// How long accepting rests when the process is out of descriptors: long enough to cost nothing, short enough to be back
/// before anyone gives up.
const NO_DESCRIPTOR_REST_MS: Millis = 200;

/// How long a service that has failed rests before it starts again: a bug that comes back at once must not take the core.
const SERVICE_REST_MS: Millis = 1000;

/// Who is let in, and to what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Door {
    /// Everyone the configuration admits; requests are relayed.
    Public,
    /// Operators: health and metrics.
    Admin,
}

/// How long a client may stay.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visit {
    /// As long as it keeps its limits.
    Stay,
    /// For one answer: its descriptor is the last one.
    One,
}

/// Accepts on all of `bound` until the process goes down and the last client has left, or its time is over.
pub(crate) async fn serve(core: Rc<Core>, bound: Vec<Bound>, door: Door) -> io::Result<()> {
    if core.shard.index == 0 && door == Door::Public {
        keep_up(&core, "the health checker", probe::run);
        keep_up(&core, "the subscription worker", worker::run);
        keep_up(&core, "the sweep of durable streams", endpoints::streams::sweep);
    }
    keep_up(&core, "the notifier of readers", async |core| core.hub.run().await);
    if door == Door::Public {
        keep_up(&core, "the receiver of connections from other cores", receive);
    }
    let accept = |bound| tokio::task::spawn_local(accept(Rc::clone(&core), bound, door));
    for accepting in bound.into_iter().map(accept).collect::<Vec<_>>() {
        accepting.await??;
    }
    if door == Door::Public {
        core.shared.inboxes[core.shard.index].close().into_iter().for_each(|arrival| settle(&core, arrival));
    }
    core.pool.clear();
    while core.clients() > 0 && door == Door::Public {
        core.draining.notified().await;
    }
    core.flush_log();
    Ok(())
}

/// Runs a service of a core in a task of its own, again after each panic.
fn keep_up(core: &Rc<Core>, what: &'static str, run: impl AsyncFn(Rc<Core>) + 'static) {
    let core = Rc::clone(core);
    tokio::task::spawn_local(async move {
        let rest = async || core.shard.pause(SERVICE_REST_MS).await;
        // Boxed: the state of each is large, and there is one of it.
        kept_up(what, || Box::pin(run(Rc::clone(&core))), rest).await;
    });
}

async fn accept(core: Rc<Core>, bound: Bound, door: Door) -> io::Result<()> {
    let listener = bound.into_tokio()?;
    let reserve = Rc::new(Reserve::default());
    // The admin's door is open to the end, unless there is another process behind it by now.
    let is_open = || !core.shared.is_draining() || door == Door::Admin && !core.shared.is_succeeded();
    let mut draining = pin!(core.draining.notified());
    let mut is_heard = false;
    while is_open() {
        let accepted = poll_fn(|cx| {
            if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                return Poll::Ready(Some(accepted));
            }
            // Once is enough until the process goes down: who is accepted need not pay for it.
            while !is_heard || core.shared.is_draining() {
                is_heard = true;
                if draining.as_mut().poll(cx).is_pending() {
                    break;
                }
                draining.set(core.draining.notified());
                is_heard = false;
            }
            if is_open() { Poll::Pending } else { Poll::Ready(None) }
        });
        match accepted.await {
            Some(Ok((socket, peer))) => {
                let visit = if reserve.hold() || door == Door::Public { Visit::Stay } else { Visit::One };
                admit(&core, socket, peer, door, visit, &reserve);
            }
            // The peer gave up while it waited; nothing to do with us.
            Some(Err(error)) if is_of_one_connection(&error) => {}
            Some(Err(_)) => shed(&core, &listener, &reserve, door).await,
            None => {}
        }
    }
    Ok(())
}

fn admit(
    core: &Rc<Core>,
    socket: TcpStream,
    peer: SocketAddr,
    door: Door,
    visit: Visit,
    reserve: &Rc<Reserve>,
) {
    core.metrics.connections_accepted.inc();
    let Some(mut seat) =
        core.shared.seats.take(peer.ip(), &core.settings().config.limits, door == Door::Admin)
    else {
        core.metrics.connection_refused(Refusal::Limit);
        return;
    };
    if door == Door::Public {
        let own = core.shard.index;
        let at = if visit == Visit::Stay { core.shared.seats.lighter(own, core.chance()) } else { own };
        seat.at(at);
        if at != own {
            return hand(core, at, socket, peer, seat);
        }
    }
    // Boxed: tokio moves a task about when it begins and when it ends, and this one is large.
    let welcome = Box::pin(welcome(Rc::clone(core), socket, peer, seat, door, visit));
    if visit == Visit::Stay {
        tokio::task::spawn_local(welcome);
        return;
    }
    let reserve = Rc::clone(reserve);
    tokio::task::spawn_local(async move {
        welcome.await;
        // At once: the public door waits for any descriptor as well.
        reserve.hold();
    });
}

/// Hands a connection to the core at `at`, or keeps it if that one is going down.
fn hand(core: &Rc<Core>, at: usize, socket: TcpStream, peer: SocketAddr, seat: Seat) {
    // Fails only where the socket was not this runtime's.
    let Ok(socket) = socket.into_std() else { return };
    match core.shared.inboxes[at].put(Arrival { socket, peer, seat }) {
        Ok(()) => core.metrics.connections_handed.inc(),
        Err(mut arrival) => {
            arrival.seat.at(core.shard.index);
            settle(core, arrival);
        }
    }
}

/// Serves what other cores hand over.
async fn receive(core: Rc<Core>) {
    loop {
        let arrivals = core.shared.inboxes[core.shard.index].take().await;
        arrivals.into_iter().for_each(|arrival| settle(&core, arrival));
    }
}

/// Serves a connection that was accepted by another core.
fn settle(core: &Rc<Core>, arrival: Arrival) {
    let Arrival { socket, peer, seat } = arrival;
    match TcpStream::from_std(socket) {
        Ok(socket) => {
            let welcome = welcome(Rc::clone(core), socket, peer, seat, Door::Public, Visit::Stay);
            tokio::task::spawn_local(Box::pin(welcome));
        }
        // The kernel has no room to watch it.
        Err(_) => core.metrics.connection_refused(Refusal::NoFd),
    }
}

/// The process is out of descriptors. The public door uses its reserve to accept one client and close at once, so that it
/// learns now and not after its own time limit; the admin's answers it once, since an operator needs it now most of all, and
/// takes the descriptor back for the next.
async fn shed(core: &Rc<Core>, listener: &TcpListener, reserve: &Rc<Reserve>, door: Door) {
    core.metrics.connection_refused(Refusal::NoFd);
    if reserve.release() {
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(Ok((socket, peer))) = listener.poll_accept(&mut cx)
            && door == Door::Admin
        {
            admit(core, socket, peer, door, Visit::One, reserve);
        }
    }
    reserve.hold();
    core.shard.pause(NO_DESCRIPTOR_REST_MS).await;
}

/// A connection from within, for a request that the process makes to itself in the name of `peer`: its other end. It takes no
/// seat, since whoever asked for it sits in one.
fn inside(core: &Rc<Core>, peer: IpAddr) -> io::Result<Stream> {
    let (ours, theirs) = pair()?;
    let core = Rc::clone(core);
    tokio::task::spawn_local(async move {
        let client = Client::new(Stream::Plain(ours), &core.shard);
        let lodging = Lodging { _present: core.enter(&client), _seat: None };
        let held = connection::run(&client, &core, peer, Door::Public, None).await;
        leave(held, client, core, lodging);
    });
    Ok(Stream::Plain(theirs))
}

#[expect(
    clippy::manual_async_fn,
    reason = "an async fn keeps its arguments twice, and this one is kept by every connection"
)]
fn welcome(
    core: Rc<Core>,
    socket: TcpStream,
    peer: SocketAddr,
    seat: Seat,
    door: Door,
    visit: Visit,
) -> impl Future<Output = ()> {
    async move {
        let settings = core.settings();
        let stream = match settings.server_tls.as_ref().filter(|_| door == Door::Public) {
            None => Stream::Plain(socket),
            Some(config) => {
                let limit = Millis::from(millis(settings.config.timeouts.tls));
                let late = async {
                    match limit {
                        0 => std::future::pending().await,
                        limit => core.shard.pause(limit).await,
                    }
                };
                // Boxed: the handshake's state is large and gone after it.
                let handshake = Box::pin(TlsAcceptor::from(Arc::clone(config)).accept(socket));
                let session = tokio::select! {
                    session = handshake => session.ok(),
                    () = late => None,
                };
                let Some(session) = session else {
                    core.metrics.connection_refused(Refusal::TlsFailed);
                    return;
                };
                Stream::Tls(Box::new(session.into()))
            }
        };
        drop(settings);
        let client = Client::new(stream, &core.shard);
        if visit == Visit::One {
            client.only_one_answer();
        }
        let lodging = Lodging { _present: core.enter(&client), _seat: Some(seat) };
        let held = connection::run(&client, &core, peer.ip(), door, None).await;
        leave(held, client, core, lodging);
    }
}

/// A connection's place in the books and among those that may be open, for as long as it is, whichever task has it.
pub(crate) struct Lodging {
    _present: Present,
    _seat: Option<Seat>,
}

/// The connection's task is at its end: so is the connection, or it is left to the task of a reader.
fn leave(held: Option<endpoints::streams::Held>, client: Rc<Client>, core: Rc<Core>, lodging: Lodging) {
    if let Some(held) = held {
        tokio::task::spawn_local(endpoints::streams::Following::new(held, client, core, lodging));
    }
}

/// A reader's task is at its end: the connection goes on as it did before there was one. Only the public door leads to streams.
fn go_on(after: After, client: Rc<Client>, core: Rc<Core>, peer: IpAddr, lodging: Lodging) {
    if after == After::Abort {
        return client.stream().reset_on_close();
    }
    tokio::task::spawn_local(async move {
        let held = connection::run(&client, &core, peer, Door::Public, Some(after)).await;
        leave(held, client, core, lodging);
    });
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}
