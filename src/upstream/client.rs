//! Asking an upstream: a connection, the request on it, and the head of its answer.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use super::dial::{DialError, Dialed, Step, Tried, dial};
use super::head_reader::{HeadReader, ReadHead};
use super::target::Target;
use crate::config::Timeouts;
use crate::downstream::connection::Client;
use crate::downstream::deadlines::Timeout;
use crate::proto::http1::response::{CheckedHead, ResponseHead};
use crate::relay::context::Core;
use crate::relay::request::body::{Upload, UploadError};
use crate::runtime::block::Block;
use crate::runtime::clock::Millis;
use crate::runtime::net::stream::Stream;
use crate::streams::Stopped;

/// What stands in the way of an answer.
pub(crate) enum Stop {
    /// The client left.
    Gone,
    /// A limit passed.
    Timeout(Timeout),
    /// No connection.
    Dial(DialError),
    /// The request's body did not get through.
    Upload(UploadError),
    /// The upstream closed or reset the connection before it had answered anything.
    Closed {
        /// Nothing of the request can have reached it.
        untouched: bool,
    },
    /// The upstream's answer cannot be passed on.
    Invalid(&'static str),
    /// A client has ended the stream that the answer was to be kept in.
    Stopped(Stopped),
}

/// The head of an answer, complete, and what came with it.
pub(crate) struct Answered {
    /// The block it was read into.
    pub(crate) block: Block,
    /// Where the head begins in it.
    pub(crate) start: usize,
    /// What the head is, seen that it is one.
    pub(crate) checked: CheckedHead,
    /// What follows it, right behind.
    pub(crate) rest: Range<usize>,
    /// It is a stream whose first word is an error.
    pub(crate) failed: bool,
}

impl Answered {
    /// Its status.
    pub(crate) fn status(&self) -> u16 {
        self.checked.status
    }

    /// Its head, laid open.
    pub(crate) fn head(&self) -> ResponseHead<'_> {
        self.checked.over(&self.block[self.start..self.rest.start])
    }
}

/// Waits for more of a request's body, or for a limit.
pub(crate) async fn receive_more(client: &Client, core: &Core, upload: &mut Upload) -> Result<(), Stop> {
    poll_fn(|cx| {
        if let Poll::Ready(timeout) = client.poll_expired(cx) {
            return Poll::Ready(Err(Stop::Timeout(timeout)));
        }
        upload.poll_receive(cx, client, &core.shard).map_err(Stop::Upload)
    })
    .await
}

/// Waits for `poll`, for a limit or for the client to leave, whichever comes first.
pub(crate) fn guarded<T>(
    client: &Client,
    poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> impl Future<Output = Result<T, Stop>> {
    guarded_if(client, true, poll)
}

/// The same; a client that leaves counts only if `present` says that it has not left yet.
pub(crate) fn guarded_if<T>(
    client: &Client,
    present: bool,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> impl Future<Output = Result<T, Stop>> {
    // An async fn would keep what it is given twice.
    poll_fn(move |cx| {
        if let Poll::Ready(timeout) = client.poll_expired(cx) {
            return Poll::Ready(Err(Stop::Timeout(timeout)));
        }
        if let Poll::Ready(done) = poll(cx) {
            return Poll::Ready(Ok(done));
        }
        if !present {
            return Poll::Pending;
        }
        client.poll_gone(cx).map(|()| Err(Stop::Gone))
    })
}

/// A connection to an upstream.
pub(crate) struct Connected {
    /// The connection.
    pub(crate) stream: Stream,
    /// How long it was idle, if it was used before.
    pub(crate) reused: Option<Millis>,
}

/// A connection to `target` that was used before.
///
/// # Errors
/// If there is none: with the address whose turn it is, if its name has several.
pub(crate) fn pooled(core: &Core, target: &Target) -> Result<Connected, Option<SocketAddr>> {
    let pooled = core.pool.take(target, core.shard.clock.millis())?;
    core.metrics.upstream_reused.inc();
    Ok(Connected { stream: pooled.stream, reused: Some(pooled.idle_for) })
}

/// A new connection to `target`, within `limits`, at the address `first` if that is known. The addresses at which it failed are noted
/// in `tried`. A client that leaves counts only if it is `present`. To be boxed: its state is large, and a new connection is rare.
pub(crate) async fn open(
    (client, present): (&Client, bool),
    core: &Core,
    target: &Target,
    first: Option<SocketAddr>,
    limits: &Timeouts,
    tried: &Tried,
) -> Result<Connected, Stop> {
    let step = |step| {
        let (timeout, limit) = match step {
            Step::Connect => (Timeout::Connect, limits.connect),
            Step::Tls => (Timeout::UpstreamTls, limits.tls),
        };
        client.deadlines.phase(timeout, core.shard.clock.micros() / 1000, limit.as_millis() as u32);
        client.arm();
    };
    let mut dialing = pin!(dial(target, first, core.dialer(tried), step));
    let dialed = guarded_if(client, present, |cx| dialing.as_mut().poll(cx)).await?.map_err(Stop::Dial)?;
    Ok(opened(core, target, dialed))
}

/// A connection to `target` for which somebody else keeps the time.
pub(crate) async fn connect_alone(
    core: &Core,
    target: &Target,
    tried: &Tried,
) -> Result<Connected, DialError> {
    match pooled(core, target) {
        Ok(connected) => Ok(connected),
        Err(first) => {
            let dialed = Box::pin(dial(target, first, core.dialer(tried), |_| {})).await?;
            Ok(opened(core, target, dialed))
        }
    }
}

fn opened(core: &Core, target: &Target, dialed: Dialed) -> Connected {
    core.metrics.upstream_opened.inc();
    core.pool.learn(target, dialed.addresses, core.shard.clock.millis());
    Connected { stream: dialed.stream, reused: None }
}

/// A request on its way, up to the head of its answer.
pub(crate) struct Asking<'a> {
    /// The upstream's connection.
    pub(crate) stream: Stream,
    head: &'a [u8],
    written: usize,
    flushed: bool,
    reader: HeadReader,
    /// The connection was reset while the request was written.
    reset: bool,
    first_byte: u32,
    waiting: bool,
}

impl<'a> Asking<'a> {
    /// Sends `head`, which may already hold the body.
    pub(crate) fn new(stream: Stream, head: &'a [u8], first_byte: u32) -> Asking<'a> {
        let reader = HeadReader::default();
        Asking { stream, head, written: 0, flushed: false, reader, reset: false, first_byte, waiting: false }
    }

    /// The same for a request without a body, for which somebody else keeps the time.
    pub(crate) fn poll_alone(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core,
        to_head: bool,
    ) -> Poll<Result<Answered, Stop>> {
        match ready!(self.poll_send_head(cx)) {
            Ok(()) => self.poll_head(cx, core, Some(0), to_head),
            Err(_) => Poll::Ready(Err(Stop::Closed { untouched: false })),
        }
    }

    /// Ready with the answer's head, or with what came between.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &Client,
        core: &Core,
        upload: &mut Upload,
        to_head: bool,
    ) -> Poll<Result<Answered, Stop>> {
        if let Poll::Ready(Err(error)) = self.poll_send(cx, client, core, upload) {
            match error {
                // It may have answered before it closed: 413, mostly. What it said counts more than that it left.
                UploadError::Upstream(error) if self.written > 0 => {
                    self.reset |= error.kind() == io::ErrorKind::ConnectionReset;
                    upload.give_up();
                }
                UploadError::Upstream(_) => return Poll::Ready(Err(Stop::Closed { untouched: true })),
                other => return Poll::Ready(Err(Stop::Upload(other))),
            }
        }
        self.poll_head(cx, core, upload.written(), to_head)
    }

    /// `body` is how much of the request's body was written beside the head, if that is known.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core,
        body: Option<u64>,
        to_head: bool,
    ) -> Poll<Result<Answered, Stop>> {
        loop {
            let read = self.reader.head(to_head).map_err(|reject| Stop::Invalid(reject.message))?;
            if let Some(ReadHead { block, start, checked, rest }) = read {
                return Poll::Ready(Ok(Answered { block, start, checked, rest, failed: false }));
            }
            match ready!(self.poll_read(cx, core)) {
                Ok(0) => return Poll::Ready(Err(self.closed(!self.reset, body))),
                // A reset that comes after the peer's end is told as a broken pipe.
                Err(error) => {
                    return Poll::Ready(Err(self.closed(error.kind() == io::ErrorKind::BrokenPipe, body)));
                }
                Ok(_) => {}
            }
        }
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        client: &Client,
        core: &Core,
        upload: &mut Upload,
    ) -> Poll<Result<(), UploadError>> {
        ready!(self.poll_send_head(cx)).map_err(UploadError::Upstream)?;
        if !upload.sent {
            ready!(upload.poll_transmit(cx, &mut self.stream, client, &core.shard))?;
        }
        if !self.waiting {
            self.waiting = true;
            client.phase(Timeout::FirstByte, core.shard.clock.millis(), self.first_byte);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_send_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.head.len() {
            self.written += ready!(self.stream.poll_write(cx, &self.head[self.written..]))?;
        }
        if !self.flushed {
            ready!(self.stream.poll_flush(cx))?;
            self.flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, core: &Core) -> Poll<io::Result<usize>> {
        // No buffer while the upstream thinks.
        if !self.reader.holds() {
            ready!(self.stream.poll_read_ready(cx))?;
        }
        let read = self.stream.poll_read(cx, self.reader.room(&core.shard.blocks));
        match &read {
            Poll::Ready(Ok(read)) => self.reader.filled(*read),
            _ => self.reader.release(),
        }
        read
    }

    /// `ended` says that the peer has ended its side (FIN), and did not only reset the connection.
    fn closed(&self, ended: bool, body: Option<u64>) -> Stop {
        if self.reader.has_begun() {
            return Stop::Invalid("it broke off within its head");
        }
        let untouched = self.written == 0 || ended && body.is_some_and(|body| self.is_untaken(body));
        Stop::Closed { untouched }
    }

    /// Whether the peer's kernel has acknowledged nothing of the request, of whose body so much was written beside the head.
    ///
    /// A peer that ends its side acknowledges with that all that it has received. If none of the request is acknowledged, the
    /// request came after the end, and nobody reads it there: no response could follow (RFC 9112, 9.6).
    fn is_untaken(&self, body: u64) -> bool {
        let written = self.written as u64 + body;
        let Some(unacknowledged) = self.stream.unacknowledged() else { return false };
        match self.stream.is_tls() {
            false => unacknowledged >= written,
            // Ciphertext is longer; by how much is not known, but all of it is more than the text.
            true => unacknowledged > written,
        }
    }
}
