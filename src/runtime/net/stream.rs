//! A connection, plain or TLS.
//!
//! Only poll functions: the task that owns a connection polls it, and the core's wheel may write a heartbeat between two
//! polls. `poll_read` and `poll_write` clear readiness after a short transfer, so that the next poll costs no system call;
//! `try_read` and `try_write` do not, and are banned by lint.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::ioctl::{Getter, Opcode, ioctl};
use rustix::net::RecvFlags;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// A connected socket.
pub(crate) enum Stream {
    /// Bytes as they are.
    Plain(TcpStream),
    /// Bytes through rustls. Boxed: the session is large, and plain connections should not pay for it.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Reads what is there, up to `room`. `Ok(0)` is the end of the stream.
    #[allow(clippy::inline_always, reason = "measured: on every segment's way, and a call otherwise")]
    #[inline(always)]
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut into = ReadBuf::new(room);
        let done = match self {
            Stream::Plain(socket) => Pin::new(socket).poll_read(cx, &mut into),
            Stream::Tls(session) => Pin::new(session.as_mut()).poll_read(cx, &mut into),
        };
        match ready!(done) {
            Ok(()) => Poll::Ready(Ok(into.filled().len())),
            // A TLS peer that closes without close_notify has cut the stream; the caller decides what that means from
            // its own framing, as it does for a bare TCP close.
            Err(error) if self.is_tls() && error.kind() == io::ErrorKind::UnexpectedEof => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, error)))
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Writes as much of `bytes` as the socket takes.
    #[allow(clippy::inline_always, reason = "measured: on every segment's way, and a call otherwise")]
    #[inline(always)]
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Stream::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Stream::Tls(session) => Pin::new(session.as_mut()).poll_write(cx, bytes),
        }
    }

    /// Pushes out what a TLS session still holds; nothing to do for a plain socket.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Plain(_) => Poll::Ready(Ok(())),
            Stream::Tls(session) => Pin::new(session.as_mut()).poll_flush(cx),
        }
    }

    /// Tells the peer that no more bytes follow (FIN, after TLS's close_notify).
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Stream::Tls(session) => Pin::new(session.as_mut()).poll_shutdown(cx),
        }
    }

    /// Ready when bytes, an end or an error wait to be read. Costs no system call.
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket().poll_read_ready(cx)
    }

    /// Whether bytes, an end or an error may wait to be read, by what the last `epoll_wait` brought. A look at a flag: while it
    /// says no, whoever has polled for reading last is still known, and woken.
    #[inline]
    pub(crate) fn may_be_read(&self) -> bool {
        self.socket().try_io(Interest::READABLE, || Ok(())).is_ok()
    }

    /// Whether nothing has arrived, asked of the kernel: readiness only tells of what the last `epoll_wait` brought, and an end
    /// may have come since.
    pub(crate) fn is_silent(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        matches!(rustix::net::recv(self.socket(), &mut [0u8; 1], flags), Err(Errno::WOULDBLOCK))
    }

    /// Bytes that were written and that the peer has not acknowledged. Nothing, where the kernel does not say.
    pub(crate) fn unacknowledged(&self) -> Option<u64> {
        // SIOCOUTQ of linux/sockios.h, which is TIOCOUTQ.
        const OUTQ: Opcode = 0x5411;
        #[expect(unsafe_code, reason = "system calls live here")]
        // SAFETY: the opcode is Linux's on all targets that are built for, and takes a pointer to an int that it writes.
        let read = unsafe { ioctl(self.socket(), Getter::<OUTQ, std::ffi::c_int>::new()) };
        read.ok()?.try_into().ok()
    }

    /// The address that it leads to, asked of the kernel.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.socket().peer_addr().ok()
    }

    /// Whether the session is encrypted.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self, Stream::Tls(_))
    }

    /// Makes the coming close a reset, so that a peer whose body ends by close cannot take a cut for an end.
    pub(crate) fn reset_on_close(&self) {
        let _ = SockRef::from(self.socket()).set_linger(Some(Duration::ZERO));
    }

    /// Resets the connection now, while it is still held: the peer learns of it, and the kernel forgets what it has not sent.
    pub(crate) fn reset(&self) {
        let _ = rustix::net::connect_unspec(self.socket());
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Stream::Plain(socket) => socket,
            Stream::Tls(session) => session.get_ref().0,
        }
    }
}

/// Sends small writes at once: a token that waits for an acknowledgement is a token late.
pub(crate) fn set_nodelay(socket: &TcpStream) {
    let _ = socket.set_nodelay(true);
}

/// Makes the kernel ask a silent peer whether it is still there: one that has vanished is noticed after some 90 s, however long it
/// may be silent.
pub(crate) fn set_keepalive(socket: &TcpStream) {
    let probes = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(15))
        .with_retries(4);
    let _ = SockRef::from(socket).set_tcp_keepalive(&probes);
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Read;
    use std::net::{Shutdown, TcpListener as Listener, TcpStream as Peer};

    use super::*;

    async fn connected() -> (Stream, Peer) {
        let listener = Listener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Stream::Plain(ours), listener.accept().unwrap().0)
    }

    /// Writes, and waits until the peer has ended its side or reset the connection; what reading said.
    async fn write_and_read(ours: &mut Stream, bytes: &[u8]) -> io::Result<usize> {
        assert_eq!(poll_fn(|cx| ours.poll_write(cx, bytes)).await.unwrap(), bytes.len());
        poll_fn(|cx| ours.poll_read(cx, &mut [0; 16])).await
    }

    #[tokio::test]
    async fn what_a_peer_that_has_closed_is_sent_is_not_acknowledged() {
        let (mut ours, theirs) = connected().await;
        drop(theirs);
        let read = write_and_read(&mut ours, b"request").await;
        // The end, or that the connection was reset after it.
        assert!(matches!(&read, Ok(0)) || read.is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe));
        assert_eq!(ours.unacknowledged(), Some(7));
    }

    #[tokio::test]
    async fn what_a_peer_has_taken_before_it_closes_is_acknowledged() {
        let (mut ours, mut theirs) = connected().await;
        let peer = std::thread::spawn(move || {
            theirs.read_exact(&mut [0; 7]).unwrap();
            theirs.shutdown(Shutdown::Both).unwrap();
        });
        assert_eq!(write_and_read(&mut ours, b"request").await.unwrap(), 0);
        peer.join().unwrap();
        assert_eq!(ours.unacknowledged(), Some(0));
    }

    #[tokio::test]
    async fn a_peer_that_leaves_something_unread_resets_and_that_is_no_end() {
        let (mut ours, mut theirs) = connected().await;
        let peer = std::thread::spawn(move || theirs.read_exact(&mut [0; 3]).unwrap());
        let read = write_and_read(&mut ours, b"request").await;
        peer.join().unwrap();
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}
