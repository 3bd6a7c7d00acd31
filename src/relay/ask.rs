//! Asking an upstream: a connection, the request on it, and the head of its answer.

use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::task::{Context, Poll, ready};

use super::client::Client;
use super::core::Core;
use super::deadline::Timeout;
use super::head_reader::{HeadReader, ReadHead};
use super::upload::{Upload, UploadError};
use crate::config::Timeouts;
use crate::http::response::{CheckedHead, ResponseHead};
use crate::net::stream::Stream;
use crate::shard::block::Block;
use crate::upstream::dial::{DialError, Step, dial};
use crate::upstream::target::Target;

/// What stands in the way of an answer.
pub enum Stop {
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
    /// The stream was to be begun before the upstream has answered, and it is time.
    Early,
}

/// The head of an answer, complete, and what came with it.
pub struct Answered {
    /// The block it was read into.
    pub block: Block,
    /// Where the head begins in it.
    pub start: usize,
    /// What the head is, seen that it is one.
    pub checked: CheckedHead,
    /// What follows it, right behind.
    pub rest: Range<usize>,
    /// It is a stream whose first word is an error.
    pub failed: bool,
}

impl Answered {
    /// Its status.
    pub fn status(&self) -> u16 {
        self.checked.status
    }

    /// Its head, laid open.
    pub fn head(&self) -> ResponseHead<'_> {
        self.checked.over(&self.block[self.start..self.rest.start])
    }
}

/// Waits for more of a request's body, or for a limit.
pub async fn receive_more(client: &Client, core: &Core, upload: &mut Upload) -> Result<(), Stop> {
    poll_fn(|cx| {
        if let Poll::Ready(timeout) = client.poll_expired(cx) {
            return Poll::Ready(Err(Stop::Timeout(timeout)));
        }
        upload.poll_receive(cx, client, &core.shard).map_err(Stop::Upload)
    })
    .await
}

/// Waits for `poll`, for a limit or for the client to leave, whichever comes first.
pub async fn guarded<T>(client: &Client, poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Result<T, Stop> {
    guarded_if(client, true, poll).await
}

/// The same; a client that leaves counts only if `present` says that it has not left yet.
pub async fn guarded_if<T>(
    client: &Client,
    present: bool,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Result<T, Stop> {
    poll_fn(|cx| {
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
    .await
}

/// A connection to `target`, and whether it has been used before.
pub async fn connect(
    client: &Client,
    core: &Core,
    target: &Target,
    limits: &Timeouts,
) -> Result<(Stream, bool), Stop> {
    if let Some(stream) = core.pool.take(target, core.shard.clock.millis()) {
        core.metrics.upstream_reused.inc();
        return Ok((stream, true));
    }
    let step = |step| {
        let (timeout, limit) = match step {
            Step::Connect => (Timeout::Connect, limits.connect),
            Step::Tls => (Timeout::UpstreamTls, limits.tls),
        };
        client.deadlines.phase(timeout, core.shard.clock.micros() / 1000, limit.as_millis() as u32);
        client.arm();
    };
    // Boxed: a dial is rare and its state large, and it would be part of every connection's task for good.
    let mut dialing = Box::pin(dial(target, &core.resolver, core.shard.clock.millis(), step));
    let stream = guarded(client, |cx| dialing.as_mut().poll(cx)).await?.map_err(Stop::Dial)?;
    core.metrics.upstream_opened.inc();
    Ok((stream, false))
}

/// A request on its way, up to the head of its answer.
pub struct Asking<'a> {
    /// The upstream's connection.
    pub stream: Stream,
    head: &'a [u8],
    written: usize,
    flushed: bool,
    reader: HeadReader,
    first_byte: u32,
    waiting: bool,
}

impl<'a> Asking<'a> {
    /// Sends `head`, which may already hold the body.
    pub fn new(stream: Stream, head: &'a [u8], first_byte: u32) -> Asking<'a> {
        let reader = HeadReader::default();
        Asking { stream, head, written: 0, flushed: false, reader, first_byte, waiting: false }
    }

    /// The same for a request without a body, for which somebody else keeps the time.
    pub fn poll_alone(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core,
        to_head: bool,
    ) -> Poll<Result<Answered, Stop>> {
        match ready!(self.poll_send_head(cx)) {
            Ok(()) => self.poll_head(cx, core, to_head),
            Err(_) => Poll::Ready(Err(Stop::Closed { untouched: false })),
        }
    }

    /// Ready with the answer's head, or with what came between.
    pub fn poll(
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
                UploadError::Upstream(_) if self.written > 0 => upload.give_up(),
                UploadError::Upstream(_) => return Poll::Ready(Err(Stop::Closed { untouched: true })),
                other => return Poll::Ready(Err(Stop::Upload(other))),
            }
        }
        self.poll_head(cx, core, to_head)
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core,
        to_head: bool,
    ) -> Poll<Result<Answered, Stop>> {
        loop {
            let read = self.reader.head(to_head).map_err(|reject| Stop::Invalid(reject.message))?;
            if let Some(ReadHead { block, start, checked, rest }) = read {
                return Poll::Ready(Ok(Answered { block, start, checked, rest, failed: false }));
            }
            match ready!(self.poll_read(cx, core)) {
                Ok(0) | Err(_) => return Poll::Ready(Err(self.closed())),
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

    fn closed(&self) -> Stop {
        match self.reader.has_begun() {
            false => Stop::Closed { untouched: self.written == 0 },
            true => Stop::Invalid("it broke off within its head"),
        }
    }
}
