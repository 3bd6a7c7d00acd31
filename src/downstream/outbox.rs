//! What is written to a client: blocks of an answer, bytes that somebody else keeps, heartbeats; and what is left where the socket
//! does not take all of it.
//!
//! At most one block waits for a client, boxed, and the last bytes of one heartbeat; nothing else is written before them.

use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::task::{Context, Poll, Waker, ready};

use super::connection::Client;
use crate::runtime::Shard;
use crate::runtime::block::{Block, Span};
use crate::upstream::client::Stop;

/// A lone comment line as a chunk of its own; see [`crate::proto::sse::HEARTBEAT`].
const HEARTBEAT_CHUNK: &[u8] = b"2\r\n:\n\r\n";

/// Whether, and how, a heartbeat may be written now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Beat {
    /// Not now: no event stream, or in the middle of an event.
    Hold,
    /// Between two chunks and two events.
    Chunk,
    /// Between two events of a body that ends by close.
    Bare,
}

/// Bytes that were accepted for the client and not written yet.
pub(crate) struct Unwritten {
    block: Block,
    span: Span,
}

/// The last bytes of a heartbeat.
#[derive(Clone, Copy)]
pub(crate) struct Unbeaten {
    of: Beat,
    bytes: u8,
}

impl Unbeaten {
    pub(crate) const NOTHING: Unbeaten = Unbeaten { of: Beat::Hold, bytes: 0 };

    fn bytes(self) -> &'static [u8] {
        let whole = self.of.bytes();
        &whole[whole.len() - usize::from(self.bytes)..]
    }
}

impl Beat {
    fn bytes(self) -> &'static [u8] {
        match self {
            Beat::Hold => &[],
            Beat::Chunk => HEARTBEAT_CHUNK,
            Beat::Bare => crate::proto::sse::HEARTBEAT,
        }
    }
}

impl Client {
    /// Writes `block[range]`. If the socket does not take all of it, the block is kept, nothing more may be sent until
    /// [`Client::poll_pending`] is ready, and `block` is left empty.
    pub(crate) fn send(
        &self,
        cx: &mut Context<'_>,
        block: &mut Option<Block>,
        range: Range<usize>,
    ) -> io::Result<()> {
        debug_assert!(
            self.unwritten.borrow().is_none() && self.unbeaten.get().bytes == 0,
            "sent while blocked"
        );
        let mut stream = self.stream.borrow_mut();
        let Some(bytes) = block.as_deref().map(|block| &block[range.clone()]) else { return Ok(()) };
        let wanted = bytes.len();
        let mut written = 0;
        while written < wanted {
            match stream.poll_write(cx, &bytes[written..]) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(more)) => written += more,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        let is_flushed = !stream.is_tls() || stream.poll_flush(cx)?.is_ready();
        self.unflushed.set(!is_flushed);
        if written < wanted {
            let span = Span::new(range.start + written, range.end);
            *self.unwritten.borrow_mut() = block.take().map(|block| Box::new(Unwritten { block, span }));
        }
        if written < wanted || !is_flushed {
            self.deadlines.blocked(self.shard.clock.millis());
            self.arm();
        }
        Ok(())
    }

    /// Writes bytes that somebody else keeps, after what waits to be written: says how many of them the socket took.
    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_pending(cx))?;
        let mut stream = self.stream.borrow_mut();
        let written = stream.poll_write(cx, bytes);
        let full = match &written {
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(_)) => stream.is_tls() && stream.poll_flush(cx)?.is_pending(),
            Poll::Ready(Err(_)) => false,
            Poll::Pending => true,
        };
        if full {
            self.unflushed.set(self.unflushed.get() || written.is_ready());
            self.deadlines.blocked(self.shard.clock.millis());
            self.arm();
        }
        written
    }

    /// Nobody will read what waits to be written.
    pub(crate) fn forget_pending(&self) {
        *self.unwritten.borrow_mut() = None;
        self.unbeaten.set(Unbeaten::NOTHING);
        self.unflushed.set(false);
        self.deadlines.unblocked(self.shard.clock.millis());
    }

    /// Gives up a client that does not read: it is reset now, whatever its task has to do yet.
    pub(crate) fn let_go(&self) {
        self.forget_pending();
        self.stream.borrow().reset();
    }

    /// Whether something waits to be written.
    pub(crate) fn is_blocked(&self) -> bool {
        self.unwritten.borrow().is_some() || self.unflushed.get() || self.unbeaten.get().bytes > 0
    }

    /// Ready when everything that was sent has been written.
    pub(crate) fn poll_pending(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut stream = self.stream.borrow_mut();
        while self.unbeaten.get().bytes > 0 {
            let Unbeaten { of, bytes } = self.unbeaten.get();
            let written = ready!(stream.poll_write(cx, self.unbeaten.get().bytes()))?;
            self.unbeaten.set(Unbeaten { of, bytes: bytes - written as u8 });
        }
        let mut unwritten = self.unwritten.borrow_mut();
        while let Some(Unwritten { block, span }) = unwritten.as_deref_mut() {
            let written = ready!(stream.poll_write(cx, &block[span.range()]))?;
            self.deadlines.blocked(self.shard.clock.millis());
            *span = Span::new(span.start() + written, span.end());
            if span.is_empty() {
                *unwritten = None;
            }
        }
        if self.unflushed.get() {
            ready!(stream.poll_flush(cx))?;
            self.unflushed.set(false);
        }
        if self.deadlines.unblocked(self.shard.clock.millis()) {
            // The wheel may have been set to the client's limit, which lies behind the upstream's.
            self.arm();
        }
        Poll::Ready(Ok(()))
    }

    /// Says whether the wheel may write a heartbeat from now on.
    pub(crate) fn set_beat(&self, beat: Beat) {
        self.beat.set(beat);
    }

    /// Whether a heartbeat has been written since the last call of [`Client::take_beats`].
    pub(crate) fn has_beaten(&self) -> bool {
        self.beats.get() > 0
    }

    /// Heartbeats that were written since the last call.
    pub(crate) fn take_beats(&self) -> u32 {
        self.beats.take()
    }

    pub(crate) fn write_heartbeat(&self) {
        let of = self.beat.get();
        let bytes = of.bytes();
        if bytes.is_empty() || self.is_blocked() {
            return;
        }
        let mut cx = Context::from_waker(Waker::noop());
        let mut stream = self.stream.borrow_mut();
        // The waker is a no-op and may stay registered for writing: whoever has bytes to write polls, and registers, anew.
        match stream.poll_write(&mut cx, bytes) {
            Poll::Ready(Ok(written)) => {
                let flush = stream.is_tls() && !matches!(stream.poll_flush(&mut cx), Poll::Ready(Ok(())));
                self.unbeaten.set(Unbeaten { of, bytes: (bytes.len() - written) as u8 });
                self.unflushed.set(flush);
                self.beats.set(self.beats.get() + 1);
                if written < bytes.len() || flush {
                    self.deadlines.blocked(self.shard.clock.millis());
                    self.wake();
                }
            }
            // A full socket has enough to read; a broken one is found by its task.
            Poll::Pending => {}
            Poll::Ready(Err(_)) => self.wake(),
        }
    }
}

/// Writes `bytes` and waits until they are written, a limit passes or the socket breaks.
pub(crate) async fn write_all(client: &Client, shard: &Shard, bytes: &[u8]) -> Result<(), Stop> {
    let mut block = shard.blocks.take_large(bytes.len());
    block[..bytes.len()].copy_from_slice(bytes);
    write_block(client, block, bytes.len()).await
}

/// The same with the first `length` bytes of a block.
pub(crate) async fn write_block(client: &Client, block: Block, length: usize) -> Result<(), Stop> {
    let mut block = Some(block);
    poll_fn(|cx| {
        if let Poll::Ready(timeout) = client.poll_expired(cx) {
            return Poll::Ready(Err(Stop::Timeout(timeout)));
        }
        if ready!(client.poll_pending(cx)).is_err() {
            return Poll::Ready(Err(Stop::Gone));
        }
        if block.is_some() && client.send(cx, &mut block, 0..length).is_err() {
            return Poll::Ready(Err(Stop::Gone));
        }
        block = None;
        client.poll_pending(cx).map_err(|_| Stop::Gone)
    })
    .await
}
