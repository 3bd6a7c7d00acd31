//! Listening sockets.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// Connections the kernel may hold for one listener before it drops a SYN. Capped by `net.core.somaxconn`.
pub(crate) const BACKLOG: i32 = 4096;

/// Unsent bytes that the kernel may hold for a client that does not read (`TCP_NOTSENT_LOWAT`). Without it the send buffer
/// grows to megabytes, all of it tokens that nobody has asked to be produced that far ahead.
pub(crate) const UNSENT_BYTES_MAX: u32 = 128 * 1024;

/// A bound, listening socket that no runtime owns yet. Every core has one of its own for the same address.
pub(crate) struct Bound {
    socket: Socket,
    address: SocketAddr,
}

impl Bound {
    /// Binds `address` with `SO_REUSEPORT`. Port 0 takes a free port: bind the first with 0 and the others with the
    /// [`Bound::address`] of the first.
    pub(crate) fn new(address: SocketAddr) -> io::Result<Bound> {
        Bound::bind(address, true)
    }

    /// Binds `address` for one listener alone.
    pub(crate) fn new_alone(address: SocketAddr) -> io::Result<Bound> {
        Bound::bind(address, false)
    }

    fn bind(address: SocketAddr, shared: bool) -> io::Result<Bound> {
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(shared)?;
        // Accepted sockets inherit both, which saves a system call for each connection.
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let address = socket.local_addr()?.as_socket().unwrap_or(address);
        Ok(Bound { socket, address })
    }

    /// A listening socket that somebody else has bound.
    pub(crate) fn inherited(fd: OwnedFd) -> io::Result<Bound> {
        let socket = Socket::from(fd);
        let address = socket.local_addr()?.as_socket();
        let (Some(address), true) = (address, socket.is_listener()?) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it does not listen for TCP connections",
            ));
        };
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
        Ok(Bound { socket, address })
    }

    /// Another hold on the same socket and its queue.
    pub(crate) fn share(&self) -> io::Result<Bound> {
        Ok(Bound { socket: self.socket.try_clone()?, address: self.address })
    }

    /// The same, for a process that is started while it is held.
    pub(crate) fn heritable(&self) -> io::Result<OwnedFd> {
        Ok(rustix::io::dup(&self.socket)?)
    }

    /// Spreads inherited sockets over `count` cores: every one of them is read by some core, and every core reads one. Where
    /// there are more cores than sockets the others bind the same address, or, if whoever bound it did not allow for that,
    /// read from a socket that another core reads as well.
    pub(crate) fn spread(inherited: Vec<Bound>, count: usize) -> io::Result<Vec<Vec<Bound>>> {
        let mut cores: Vec<Vec<Bound>> = (0..count).map(|_| Vec::new()).collect();
        let mut more = Vec::new();
        for index in inherited.len()..count {
            let same = &inherited[index % inherited.len()];
            more.push(Bound::new(same.address).or_else(|_| same.share())?);
        }
        for (index, bound) in inherited.into_iter().chain(more).enumerate() {
            cores[index % count].push(bound);
        }
        Ok(cores)
    }

    /// Binds `count` sockets to one address.
    pub(crate) fn many(address: SocketAddr, count: usize) -> io::Result<Vec<Bound>> {
        // Another process may hold the port with SO_REUSEPORT as well, and would silently share the connections; a
        // socket without the option tells.
        if address.port() != 0 {
            drop(Bound::new_alone(address)?);
        }
        let first = Bound::new(address)?;
        let address = first.address();
        let mut all = vec![first];
        for _ in 1..count {
            all.push(Bound::new(address)?);
        }
        Ok(all)
    }

    /// Where it listens, with the port that the kernel chose.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Hands the socket to the current runtime.
    pub(crate) fn into_tokio(self) -> io::Result<TcpListener> {
        TcpListener::from_std(self.socket.into())
    }
}
