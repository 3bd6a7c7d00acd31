//! A client's connection, as the task that serves it and the core's wheel both see it.
//!
//! It owns the socket, what was read from it and not used yet, what could not be written to it yet, and every deadline of
//! the connection. The task polls; the wheel fires between polls, on the same core, so cells are all the synchronisation
//! there is and no borrow outlives a call.
//!
//! What may never happen:
//! - a heartbeat inside a chunk or an event: the wheel writes one only while nothing is pending and the pump has said that
//!   the stream stands between events;
//! - a second block held for a client that does not read: while bytes are pending the pump does not read its upstream, and
//!   what is read on of an answer that is kept goes to its stream;
//! - a buffer held by a silent connection: the inbound block goes back when it is empty.
//!
//! Every connection has one of these for as long as it is open, so what is rare is boxed, and what can be told from something
//! else is not kept: with the counts of its `Rc` it is 256 bytes, a class of the allocator's.

use std::cell::{Cell, RefCell, RefMut};
use std::io;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};

use tokio::task::coop::has_budget_remaining;

use super::deadlines::{Deadlines, Due, Timeout};
use super::outbox::{Beat, Unbeaten, Unwritten};
use super::read_buffer::Inbound;
use crate::runtime::Shard;
use crate::runtime::clock::Millis;
use crate::runtime::net::stream::Stream;
use crate::runtime::wheel::{Timed, Timer};

/// The connection.
pub(crate) struct Client {
    pub(crate) stream: RefCell<Stream>,
    inbound: RefCell<Inbound>,
    /// What waits to be written. Boxed: nearly every client reads what it gets.
    pub(crate) unwritten: RefCell<Option<Box<Unwritten>>>,
    /// What is left of a heartbeat that the socket took a part of.
    pub(crate) unbeaten: Cell<Unbeaten>,
    /// A TLS session still holds ciphertext.
    pub(crate) unflushed: Cell<bool>,
    waker: Cell<Option<Waker>>,
    /// The socket knows `waker`, and calls it when there is something to read.
    listening: Cell<bool>,
    pub(crate) shard: Rc<Shard>,
    timer: Timer,
    /// Every time limit of the connection.
    pub(crate) deadlines: Deadlines,
    pub(crate) beat: Cell<Beat>,
    pub(crate) beats: Cell<u32>,
    leaving: Cell<bool>,
}

const _: () = assert!(size_of::<Client>() <= 240, "with two counts it fits a class of the allocator's");

impl Client {
    /// Takes a connection in.
    pub(crate) fn new(stream: Stream, shard: &Rc<Shard>) -> Rc<Client> {
        Rc::new_cyclic(|weak: &Weak<Client>| Client {
            stream: RefCell::new(stream),
            inbound: RefCell::default(),
            unwritten: RefCell::default(),
            unbeaten: Cell::new(Unbeaten::NOTHING),
            unflushed: Cell::new(false),
            waker: Cell::default(),
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
    pub(crate) fn stream(&self) -> RefMut<'_, Stream> {
        self.stream.borrow_mut()
    }

    /// What was read and not used yet.
    pub(crate) fn inbound(&self) -> RefMut<'_, Inbound> {
        self.inbound.borrow_mut()
    }

    /// Its place is wanted: after the next answer of our own it has to leave.
    pub(crate) fn only_one_answer(&self) {
        self.leaving.set(true);
    }

    /// Whether it has to leave after an answer of our own.
    pub(crate) fn is_to_leave(&self) -> bool {
        self.leaving.get()
    }

    /// Makes the wheel look at the deadlines no later than the nearest of them.
    pub(crate) fn arm(&self) {
        if let Some(at) = self.deadlines.next(self.shard.ends_at.get()) {
            self.timer.arm(at);
        }
    }

    /// The phase that begins now must be over in `limit` milliseconds; 0 is no limit. The wheel has been told of every other
    /// deadline: whoever sets one of them calls [`Client::arm`].
    #[inline]
    pub(crate) fn phase(&self, timeout: Timeout, now: Millis, limit: u32) {
        self.deadlines.phase(timeout, now, limit);
        if limit > 0 {
            self.timer.arm(now + Millis::from(limit));
        }
    }

    /// Says who is to be woken when a deadline passes, and which one has passed already.
    #[allow(clippy::inline_always, reason = "measured: on every segment's way, and a call otherwise")]
    #[inline(always)]
    pub(crate) fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<Timeout> {
        if let Some(timeout) = self.deadlines.expired.take() {
            return Poll::Ready(timeout);
        }
        let known = self.waker.take().filter(|known| known.will_wake(cx.waker()));
        self.waker.set(Some(known.unwrap_or_else(|| {
            self.listening.set(false);
            cx.waker().clone()
        })));
        Poll::Pending
    }

    /// Whether `waker` is the one that is woken when a deadline passes.
    pub(crate) fn is_known(&self, waker: &Waker) -> bool {
        let known = self.waker.take();
        let is_known = known.as_ref().is_some_and(|known| known.will_wake(waker));
        self.waker.set(known);
        is_known
    }

    /// Reads more into [`Client::inbound`], up to `limit` bytes held there. `Ok(0)` is the end, or a buffer that is full.
    pub(crate) fn poll_fill(&self, cx: &mut Context<'_>, limit: usize) -> Poll<io::Result<usize>> {
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
    pub(crate) fn park(&self) {
        self.inbound.borrow_mut().park(&self.shard);
    }

    /// Ready when the client has left: its end of stream counts, as it does for nginx and Go's server, because a close and
    /// a half-close look alike until it is too late. Bytes of a next request are kept, one block of them. To be asked after
    /// [`Client::poll_expired`], for the same task.
    ///
    /// A stream's task is woken by two sockets and cannot tell by which. Polling the client's on every wake would cost a tenth
    /// of a relayed segment, to learn nearly always that it is silent: while it has nothing to say it still knows whom to call.
    #[inline]
    pub(crate) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.listening.get() && !self.stream.borrow().may_be_read() {
            return Poll::Pending;
        }
        let gone = self.listen(cx);
        // Without budget the task was only told to come again, and the socket may know nobody.
        self.listening.set(has_budget_remaining());
        gone
    }

    fn listen(&self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.stream.borrow().poll_read_ready(cx).is_pending() {
                return Poll::Pending;
            }
            // It stays readable, and is looked at again.
            if self.inbound.borrow().is_full() {
                return Poll::Pending;
            }
            match ready!(self.fill(cx, usize::MAX)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
    }

    /// Makes the task look around.
    pub(crate) fn wake(&self) {
        let waker = self.waker.take();
        if let Some(waker) = &waker {
            waker.wake_by_ref();
        }
        self.waker.set(waker);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // A response that ends by close would look whole.
        if std::thread::panicking() {
            self.stream.get_mut().reset_on_close();
        }
    }
}

impl Timed for Client {
    fn fire(&self, now: Millis) {
        match self.deadlines.check(now, self.shard.ends_at.get()) {
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
