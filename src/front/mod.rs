//! The front door: connections are accepted here, one listener a core, and live in [`connection`] until they end.
//!
//! A door is public, where requests are relayed, or the admin's, where only answers of our own are given; the admin's has a
//! core of its own, so that it answers when the others are busy.

pub mod connection;
pub mod local;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::net::listener::Bound;
use crate::net::stream::{Stream, set_nodelay};
use crate::observe::Refusal;
use crate::relay::client::Client;
use crate::relay::core::Core;
use crate::relay::exchange::millis;
use crate::shard::clock::Millis;

/// How long accepting rests when the process is out of descriptors: long enough to cost nothing, short enough to be back
/// before anyone gives up.
const NO_DESCRIPTOR_REST_MS: Millis = 200;

/// Who is let in, and to what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Door {
    /// Everyone the configuration admits; requests are relayed.
    Public,
    /// Operators: health and metrics.
    Admin,
}

/// Accepts on `bound` until the process goes down and the last client has left, or its time is over.
pub async fn serve(core: Rc<Core>, bound: Bound, door: Door) -> io::Result<()> {
    let listener = bound.into_tokio()?;
    while !core.shared.is_draining() || door == Door::Admin {
        tokio::select! {
            accepted = listener.accept() => admit(&core, accepted, door).await,
            () = core.draining.notified() => break,
        }
    }
    drop(listener);
    core.pool.clear();
    while core.clients() > 0 && door == Door::Public {
        core.draining.notified().await;
    }
    core.flush_log();
    Ok(())
}

async fn admit(core: &Rc<Core>, accepted: io::Result<(TcpStream, SocketAddr)>, door: Door) {
    match accepted {
        Ok((socket, peer)) => {
            core.metrics.connections_accepted.inc();
            let open = core.shared.connections.fetch_add(1, Ordering::Relaxed);
            if door == Door::Public && open >= core.shared.settings.load().config.limits.max_connections {
                core.shared.connections.fetch_sub(1, Ordering::Relaxed);
                core.metrics.connection_refused(Refusal::Limit);
                return;
            }
            set_nodelay(&socket);
            tokio::task::spawn_local(welcome(Rc::clone(core), socket, peer, door));
        }
        // The peer gave up while it waited; nothing to do with us.
        Err(error) if is_of_one_connection(&error) => {}
        Err(_) => {
            core.metrics.connection_refused(Refusal::NoFd);
            core.shard.pause(NO_DESCRIPTOR_REST_MS).await;
        }
    }
}

async fn welcome(core: Rc<Core>, socket: TcpStream, peer: SocketAddr, door: Door) {
    let settings = core.settings();
    let stream = match settings.server_tls.as_ref().filter(|_| door == Door::Public) {
        None => Stream::Plain(socket),
        Some(config) => {
            let limit = Millis::from(millis(settings.config.timeouts.tls));
            // Boxed: the handshake's state is large and gone after it.
            let handshake = Box::pin(TlsAcceptor::from(Arc::clone(config)).accept(socket));
            let session = tokio::select! {
                session = handshake => session.ok(),
                () = core.shard.pause(limit) => None,
            };
            let Some(session) = session else {
                core.shared.connections.fetch_sub(1, Ordering::Relaxed);
                core.metrics.connection_refused(Refusal::TlsFailed);
                return;
            };
            Stream::Tls(Box::new(session.into()))
        }
    };
    drop(settings);
    let client = Client::new(stream, &core.shard);
    let present = core.enter(&client);
    connection::run(&client, &core, peer.ip(), door).await;
    drop(present);
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}
