//! Two sockets of this process, connected to each other: a client of its own, who goes through the same door as all others.

use std::io;

use socket2::{Domain, Socket, Type};
use tokio::net::TcpStream;

/// Bytes that the kernel may hold in each direction: what one end does not read, the other soon cannot write.
const BUFFER_BYTES: usize = 32 * 1024;

/// Both ends. They are of the Unix domain, and for all that a connection is used for here (read, write, readiness, shutdown)
/// like those of TCP, so that they need no case of their own wherever bytes flow; there is no reset, and closing is an end.
pub(crate) fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let (one, other) = Socket::pair(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    for socket in [&one, &other] {
        socket.set_send_buffer_size(BUFFER_BYTES)?;
    }
    Ok((TcpStream::from_std(one.into())?, TcpStream::from_std(other.into())?))
}
