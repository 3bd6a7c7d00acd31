//! A client's connection, as the task that serves it and the core's wheel both see it.
//!
//! It owns the socket, what was read from it and not used yet, what could not be written to it yet, and every deadline of
//! the connection. The task polls; the wheel fires between polls, on the same core, so cells are all the synchronisation
//! there is and no borrow outlives a call.
//!
//! What may never happen:
//! - a heartbeat inside a chunk or an event: the wheel writes one only while nothing is pending and the pump has said that
//!   the stream stands between events;
//! - a second block held for a client that does not read: while bytes are pending the pump does not read its upstream;
//! - a buffer held by a silent connection: the inbound block goes back when it is empty.

use std::cell::{Cell, RefCell, RefMut};
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use crate::net::stream::Stream;
use crate::shard::Shard;
use crate::shard::block::{Block, Span};
use crate::shard::clock::Millis;
use crate::shard::wheel::{Timed, Timer};

use super::ask::Stop;
use super::deadline::{Deadlines, Due, Timeout};
use super::ear::Ear;
use super::inbound::Inbound;

/// A lone comment line as a chunk of its own; see [`crate::sse::HEARTBEAT`].
const HEARTBEAT_CHUNK: &[u8] = b"2\r\n:\n\r\n";

/// The connection.
pub struct Client {
    stream: RefCell<Stream>,
    inbound: RefCell<Inbound>,
    pending: RefCell<Pending>,
    waker: RefCell<Option<Waker>>,
    ear: RefCell<Option<(Arc<Ear>, Waker)>>,
    /// The ear's waker is the one that the socket calls when there is something to read.
    listening: Cell<bool>,
    shard: Rc<Shard>,
    timer: Timer,
    /// Every time limit of the connection.
    pub deadlines: Deadlines,
    beat: Cell<Beat>,
    beats: Cell<u32>,
    leaving: Cell<bool>,
}

/// Whether, and how, a heartbeat may be written now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Beat {
    /// Not now: no event stream, or in the middle of an event.
    Hold,
    /// Between two chunks and two events.
    Chunk,
    /// Between two events of a body that ends by close.
    Bare,
}

/// Bytes that were accepted for the client and not written yet.
#[derive(Default)]
struct Pending {
    block: Option<Block>,
    span: Span,
    /// What is left of a heartbeat that the socket took a part of.
    beat: &'static [u8],
    /// A TLS session still holds ciphertext.
    flush: bool,
}

impl Client {
    /// Takes a connection in.
    pub fn new(stream: Stream, shard: &Rc<Shard>) -> Rc<Client> {
        Rc::new_cyclic(|weak: &Weak<Client>| Client {
            stream: RefCell::new(stream),
            inbound: RefCell::default(),
            pending: RefCell::default(),
            waker: RefCell::default(),
            ear: RefCell::default(),
            listening: Cell::new(false),
            shard: Rc::clone(shard),
            timer: shard.wheel.timer(weak.clone()),
            deadlines: Deadlines::default(),
            beat: Cell::new(Beat::Hold),
            beats: Cell::new(0),
            leaving: Cell::new(false),
        })
    }

    /// The socket itself, for closing it.
    pub fn stream(&self) -> RefMut<'_, Stream> {
        self.stream.borrow_mut()
    }

    /// What was read and not used yet.
    pub fn inbound(&self) -> RefMut<'_, Inbound> {
        self.inbound.borrow_mut()
    }

    /// Its place is wanted: after the next answer of our own it has to leave.
    pub fn only_one_answer(&self) {
        self.leaving.set(true);
    }

    /// Whether it has to leave after an answer of our own.
    pub fn is_to_leave(&self) -> bool {
        self.leaving.get()
    }

    /// Makes the wheel look at the deadlines no later than the nearest of them.
    pub fn arm(&self) {
        if let Some(at) = self.deadlines.next() {
            self.timer.arm(at);
        }
    }

    /// The phase that begins now must be over in `limit` milliseconds; 0 is no limit. The wheel has been told of every other
    /// deadline: whoever sets one of them calls [`Client::arm`].
    #[inline]
    pub fn phase(&self, timeout: Timeout, now: Millis, limit: u32) {
        self.deadlines.phase(timeout, now, limit);
        if limit > 0 {
            self.timer.arm(now + Millis::from(limit));
        }
    }

    /// Says who is to be woken when a deadline passes, and which one has passed already.
    #[allow(clippy::inline_always, reason = "measured: on every segment's way, and a call otherwise")]
    #[inline(always)]
    pub fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<Timeout> {
        if let Some(timeout) = self.deadlines.expired.take() {
            return Poll::Ready(timeout);
        }
        let mut waker = self.waker.borrow_mut();
        match &mut *waker {
            Some(known) => known.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Whether `waker` is the one that is woken when a deadline passes.
    pub fn is_known(&self, waker: &Waker) -> bool {
        self.waker.borrow().as_ref().is_some_and(|known| known.will_wake(waker))
    }

    /// Reads more into [`Client::inbound`], up to `limit` bytes held there. `Ok(0)` is the end, or a buffer that is full.
    pub fn poll_fill(&self, cx: &mut Context<'_>, limit: usize) -> Poll<io::Result<usize>> {
        self.listening.set(false);
        self.fill(cx, limit)
    }

    fn fill(&self, cx: &mut Context<'_>, limit: usize) -> Poll<io::Result<usize>> {
        let mut inbound = self.inbound.borrow_mut();
        let room = inbound.room(&self.shard, limit);
        if room.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let read = self.stream.borrow_mut().poll_read(cx, room);
        match read {
            Poll::Ready(Ok(read)) => inbound.filled(read),
            _ => inbound.release_if_empty(),
        }
        read
    }

    /// Waits for the rest of a head without holding a block for its beginning.
    pub fn park(&self) {
        self.inbound.borrow_mut().park(&self.shard);
    }

    /// Ready when the client has left: its end of stream counts, as it does for nginx and Go's server, because a close and
    /// a half-close look alike until it is too late. Bytes of a next request are kept, one block of them.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut ears = self.ear.borrow_mut();
        let (ear, waker) = match &mut *ears {
            Some((ear, waker)) if ear.is_of(cx.waker()) => (ear, waker),
            none => {
                let ear = Ear::new(cx.waker());
                let (ear, waker) = none.insert((Arc::clone(&ear), Waker::from(ear)));
                (ear, waker)
            }
        };
        if !ear.take() && self.listening.get() {
            return Poll::Pending;
        }
        let cx = &mut Context::from_waker(waker);
        self.listening.set(true);
        loop {
            if self.stream.borrow().poll_read_ready(cx).is_pending() {
                return Poll::Pending;
            }
            if self.inbound.borrow().is_full() {
                ear.keep();
                return Poll::Pending;
            }
            match ready!(self.fill(cx, usize::MAX)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
    }

    /// Writes `block[range]`. If the socket does not take all of it, the block is kept, nothing more may be sent until
    /// [`Client::poll_pending`] is ready, and `block` is left empty.
    pub fn send(
        &self,
        cx: &mut Context<'_>,
        block: &mut Option<Block>,
        range: Range<usize>,
    ) -> io::Result<()> {
        let mut pending = self.pending.borrow_mut();
        debug_assert!(pending.block.is_none() && pending.beat.is_empty(), "sent while blocked");
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
        pending.flush = stream.is_tls() && stream.poll_flush(cx)?.is_pending();
        if written < wanted {
            pending.span = Span::new(range.start + written, range.end);
            pending.block = block.take();
        }
        if written < wanted || pending.flush {
            self.deadlines.blocked(self.shard.clock.millis());
            self.arm();
        }
        Ok(())
    }

    /// Writes bytes that somebody else keeps, after what waits to be written: says how many of them the socket took.
    pub fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
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
            self.pending.borrow_mut().flush |= written.is_ready();
            self.deadlines.blocked(self.shard.clock.millis());
            self.arm();
        }
        written
    }

    /// Nobody will read what waits to be written.
    pub fn forget_pending(&self) {
        *self.pending.borrow_mut() = Pending::default();
        self.deadlines.unblocked(self.shard.clock.millis());
    }

    /// Whether something waits to be written.
    pub fn is_blocked(&self) -> bool {
        let pending = self.pending.borrow();
        pending.block.is_some() || pending.flush || !pending.beat.is_empty()
    }

    /// Ready when everything that was sent has been written.
    pub fn poll_pending(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pending = self.pending.borrow_mut();
        let mut stream = self.stream.borrow_mut();
        while !pending.beat.is_empty() {
            let written = ready!(stream.poll_write(cx, pending.beat))?;
            pending.beat = &pending.beat[written..];
        }
        while let Some(block) = &pending.block {
            let written = ready!(stream.poll_write(cx, &block[pending.span.range()]))?;
            self.deadlines.blocked(self.shard.clock.millis());
            pending.span = Span::new(pending.span.start() + written, pending.span.end());
            if pending.span.is_empty() {
                pending.block = None;
            }
        }
        if pending.flush {
            ready!(stream.poll_flush(cx))?;
            pending.flush = false;
        }
        if self.deadlines.unblocked(self.shard.clock.millis()) {
            // The wheel may have been set to the client's limit, which lies behind the upstream's.
            self.arm();
        }
        Poll::Ready(Ok(()))
    }

    /// Says whether the wheel may write a heartbeat from now on.
    pub fn set_beat(&self, beat: Beat) {
        self.beat.set(beat);
    }

    /// Heartbeats that were written since the last call.
    pub fn take_beats(&self) -> u32 {
        self.beats.take()
    }

    fn write_heartbeat(&self) {
        let bytes = match self.beat.get() {
            Beat::Hold => return,
            Beat::Chunk => HEARTBEAT_CHUNK,
            Beat::Bare => crate::sse::HEARTBEAT,
        };
        if self.is_blocked() {
            return;
        }
        let mut cx = Context::from_waker(Waker::noop());
        let mut stream = self.stream.borrow_mut();
        // The waker is a no-op and may stay registered for writing: whoever has bytes to write polls, and registers, anew.
        match stream.poll_write(&mut cx, bytes) {
            Poll::Ready(Ok(written)) => {
                let flush = stream.is_tls() && !matches!(stream.poll_flush(&mut cx), Poll::Ready(Ok(())));
                let mut pending = self.pending.borrow_mut();
                (pending.beat, pending.flush) = (&bytes[written..], flush);
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

    /// Makes the task look around.
    pub fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

impl Timed for Client {
    fn fire(&self, now: Millis) {
        match self.deadlines.check(now) {
            Some(Due::Timeout(timeout)) => {
                self.deadlines.expired.set(Some(timeout));
                self.wake();
                return;
            }
            Some(Due::Early) => {
                self.deadlines.early_due.set(true);
                self.wake();
            }
            Some(Due::Heartbeat) => self.write_heartbeat(),
            None => {}
        }
        self.arm();
    }
}

/// Writes `bytes` and waits until they are written, a limit passes or the socket breaks.
pub async fn write_all(client: &Client, shard: &Shard, bytes: &[u8]) -> Result<(), Stop> {
    let mut block = Some(shard.blocks.take_large(bytes.len()));
    if let Some(block) = &mut block {
        block[..bytes.len()].copy_from_slice(bytes);
    }
    poll_fn(|cx| {
        if let Poll::Ready(timeout) = client.poll_expired(cx) {
            return Poll::Ready(Err(Stop::Timeout(timeout)));
        }
        if ready!(client.poll_pending(cx)).is_err() {
            return Poll::Ready(Err(Stop::Gone));
        }
        if block.is_some() && client.send(cx, &mut block, 0..bytes.len()).is_err() {
            return Poll::Ready(Err(Stop::Gone));
        }
        block = None;
        client.poll_pending(cx).map_err(|_| Stop::Gone)
    })
    .await
}
