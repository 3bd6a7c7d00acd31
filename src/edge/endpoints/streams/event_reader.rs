//! The task of a reader of events: all that is kept of a connection while it follows streams.
//!
//! ```text
//!  connection ──a read of events──► works ──told all──► waits ──news that others were told too──┐
//!      ▲                              ▲                  │ │ ▲─────────written─────────────────┘
//!      └── last chunk, kept ──ended───┴──────behind──────┘ └─► gone, too late, going down
//! ```
//!
//! The task of a connection has room for a relayed answer, and its request for all fields: a reader that is left to it holds
//! three times what it needs. So what a reader is (a seat, a position, what its line in the log says) moves into a task of its
//! own, and back when the answer is over and the connection can carry another.
//!
//! While it waits it is polled by hand, and for what is told to many at once that is the whole course: one look at the stream
//! under its lock, one write. Whatever happens to one reader alone (catching up, the head, the end, compression, several
//! streams) is work in a box, gone when it is done.
//!
//! What may never happen: that it waits without its seat knowing its waker; a heartbeat while a chunk is on its way.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::awaited::Awaited;
use super::compression::Coded;
use super::live::{self, Follower, Odd};
use super::multi_stream::Followers;
use super::{Visit, authority, outcome, read};
use crate::downstream::connection::Client;
use crate::downstream::deadlines::Timeout;
use crate::downstream::outbox::Beat;
use crate::edge::{Lodging, go_on};
use crate::proto::http1::Version;
use crate::relay::context::Core;
use crate::relay::exchange::{After, millis};
use crate::relay::pump::Framing;
use crate::relay::request_summary::Memo;
use crate::relay::response_head;
use crate::streams::fanout::events::payload;
use crate::streams::{Look, Streams};
use crate::upstream::client::Stop;

/// Who is told, and where.
pub(crate) struct Reader {
    pub(crate) client: Rc<Client>,
    pub(crate) core: Rc<Core>,
    pub(crate) framing: Framing,
    /// What was told so far: events, and bytes of them.
    pub(crate) told: Cell<(u64, u64)>,
}

impl Reader {
    pub(crate) fn streams(&self) -> &Arc<Streams> {
        &self.core.shared.streams
    }

    pub(crate) fn count(&self, events: u64, bytes: u64) {
        let (all, sum) = self.told.get();
        self.told.set((all + events, sum + bytes));
    }
}

/// How an answer with events begins.
pub(crate) struct Start {
    pub(crate) head: Vec<u8>,
    pub(crate) coded: Option<Box<Coded>>,
}

/// Whom it is about.
pub(crate) enum Who {
    One(Follower, Odd),
    Several(Followers),
    Awaited(Awaited),
}

/// A reader that is to be left to a task of its own.
pub(crate) struct Held(Box<Inner>);

struct Inner {
    memo: Box<Memo>,
    opened: Opened,
}

/// An answer with events that is ready to begin.
pub(crate) struct Opened {
    who: Who,
    start: Start,
    framing: Framing,
    keep: bool,
}

impl Opened {
    /// To `visit`.
    pub(crate) fn new(visit: &Visit<'_>, who: Who) -> Opened {
        let framing = match visit.request.version {
            Version::Http10 => Framing::Close,
            Version::Http11 => Framing::Chunked,
        };
        let keep = visit.keeps(framing, false);
        let coded = Coded::of_events(visit);
        let stream = match &who {
            Who::One(follower, _) => Some(&**follower.seat.stream()),
            Who::Several(_) | Who::Awaited(_) => None,
        };
        let lines = read::events_head(visit, stream, coded.as_deref());
        let head = response_head::begin(200, &lines, None, framing, visit.request, keep, visit.core);
        Opened { who, start: Start { head, coded }, framing, keep }
    }

    /// All that is left of the request is `memo`.
    pub(crate) fn held(self, memo: Box<Memo>) -> Held {
        Held(Box::new(Inner { memo, opened: self }))
    }
}

/// What came of a piece of work: a reader that has been told all and waits, or the end.
pub(crate) type Worked = Result<Option<Follower>, Stop>;

enum State {
    Works(Pin<Box<dyn Future<Output = (Worked, u64, u64)>>>),
    Waits(Follower),
    /// Only while it changes from one to another.
    Changes,
}

/// What is to be done about a reader that waited.
enum Step {
    /// There is news that is not ready to be sent to everyone.
    Behind,
    /// It is over.
    Over(Result<(), Stop>),
}

const _: () =
    assert!(size_of::<Following>() <= 152, "with what a task has besides it is 256 bytes, and 512 with more");

/// The task.
pub(crate) struct Following {
    state: State,
    client: Rc<Client>,
    core: Rc<Core>,
    memo: Option<Box<Memo>>,
    /// What was told so far, and bytes of that.
    events: u64,
    bytes_out: u64,
    lodging: Option<Lodging>,
    framing: Framing,
    keep: bool,
}

impl Following {
    /// For the connection `client`, which has that lodging.
    pub(crate) fn new(held: Held, client: Rc<Client>, core: Rc<Core>, lodging: Lodging) -> Following {
        let Inner { memo, opened: Opened { who, start, framing, keep } } = *held.0;
        let mut following = Following {
            state: State::Changes,
            client,
            core,
            memo: Some(memo),
            events: 0,
            bytes_out: 0,
            lodging: Some(lodging),
            framing,
            keep,
        };
        following.state = match who {
            Who::One(follower, odd) => following
                .work(async move |reader: &Reader| live::tell(follower, odd, Some(start), reader).await),
            Who::Awaited(awaited) => {
                following.work(async move |reader: &Reader| awaited.run(start, reader).await)
            }
            Who::Several(followers) => {
                following.work(async move |reader: &Reader| followers.run(start, reader).await.map(|()| None))
            }
        };
        following
    }

    fn work(&self, work: impl AsyncFnOnce(&Reader) -> Worked + 'static) -> State {
        let reader = Reader {
            client: Rc::clone(&self.client),
            core: Rc::clone(&self.core),
            framing: self.framing,
            told: Cell::default(),
        };
        self.client.set_beat(Beat::Hold);
        State::Works(Box::pin(async move {
            let worked = work(&reader).await;
            let (events, bytes) = reader.told.get();
            (worked, events, bytes)
        }))
    }

    /// It has been told all: heartbeats are the wheel's from here.
    fn wait(&mut self, mut follower: Follower, cx: &Context<'_>) {
        follower.seat.listen(cx);
        let client = &self.client;
        let every = millis(self.core.shared.settings.load().config.heartbeat);
        client.deadlines.heartbeat(self.core.shard.clock.millis(), every);
        client.arm();
        follower.left = None;
        match follower.is_within() {
            true => client.set_beat(Beat::Hold),
            false => self.beat(),
        }
        self.state = State::Waits(follower);
    }

    fn beat(&self) {
        self.client.set_beat(if self.framing == Framing::Close { Beat::Bare } else { Beat::Chunk });
    }

    /// Tells one who waits what all are told.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        let over = |stop| Poll::Ready(Step::Over(Err(stop)));
        let State::Waits(follower) = &mut self.state else { return over(Stop::Gone) };
        let (client, core) = (&*self.client, &*self.core);
        // One waker serves the seat and the connection: who knows one knows both.
        if !client.is_known(cx.waker()) {
            follower.seat.listen(cx);
        }
        if let Poll::Ready(timeout) = client.poll_expired(cx) {
            return over(Stop::Timeout(timeout));
        }
        let mut wrote = false;
        if let Some(mut left) = follower.left.take() {
            match poll_write(client, cx, &mut left) {
                Poll::Ready(Ok(())) => wrote = true,
                Poll::Ready(Err(())) => return over(Stop::Gone),
                Poll::Pending => {
                    follower.left = Some(left);
                    return Poll::Pending;
                }
            }
        }
        match follower.seat.stream().look(follower.view as usize, follower.position, follower.floor) {
            Look::Nothing => {}
            // The first is told when to come again, and the last that it is the last.
            Look::Frame(frame) if !frame.closed && !follower.is_apart() => {
                self.events += 1;
                self.bytes_out += frame.bytes.len() as u64;
                core.metrics.stream_deliveries.add(frame.appends.into());
                follower.position = frame.next;
                client.deadlines.active(core.shard.clock.millis());
                let bytes = match self.framing {
                    Framing::Close => frame.bytes.slice(payload(&frame.bytes)),
                    _ => frame.bytes,
                };
                let mut left = (bytes, 0);
                match poll_write(client, cx, &mut left) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(())) => return over(Stop::Gone),
                    Poll::Pending => {
                        client.set_beat(Beat::Hold);
                        follower.left = Some(Box::new(left));
                        return Poll::Pending;
                    }
                }
            }
            _ => return Poll::Ready(Step::Behind),
        }
        if core.shared.is_draining() {
            // Between two events, and to be told apart from an end: it comes back and reads on.
            let stop = if client.is_blocked() { Err(Stop::Timeout(Timeout::Drain)) } else { Ok(()) };
            return Poll::Ready(Step::Over(stop));
        }
        // A heartbeat, or a record of TLS, of which the socket has not taken all.
        if (wrote || client.is_blocked()) && ready!(client.poll_pending(cx)).is_err() {
            return over(Stop::Gone);
        }
        if wrote {
            self.beat();
        }
        self.client.poll_gone(cx).map(|()| Step::Over(Err(Stop::Gone)))
    }

    /// What is still to be told to one that waited and may read no more, if it can be.
    fn last_words(&mut self, ended: Result<(), Stop>) -> Result<State, Result<(), Stop>> {
        let over = ended.as_ref().err().and_then(authority::over);
        let (Some(over), State::Waits(follower)) = (over, &self.state) else { return Err(ended) };
        if follower.is_within() || follower.left.is_some() || self.client.is_blocked() {
            return Err(ended);
        }
        let view = Some(follower.view);
        Ok(self.work(async move |reader: &Reader| authority::part(view, over, reader).await))
    }

    /// The books are closed, and the connection goes on, if it does.
    fn close(&mut self, written: Result<(), Stop>) {
        let (client, core) = (Rc::clone(&self.client), Rc::clone(&self.core));
        core.metrics.heartbeats.add(client.take_beats().into());
        client.set_beat(Beat::Hold);
        client.deadlines.reset();
        if let (Some(memo), Some(lodging)) = (self.memo.take(), self.lodging.take()) {
            let peer = memo.peer();
            memo.close(outcome(&written, true, None), (self.events, self.bytes_out), &core);
            let after = match &written {
                // It was told why, and misses a last chunk: a reset might take the reason with it.
                Err(stop) if authority::over(stop).is_some() && self.framing == Framing::Chunked => {
                    After::Close
                }
                written => After::written(written, self.keep),
            };
            go_on(after, client, core, peer, lodging);
        }
    }
}

/// Writes what is left of bytes that others are told too.
fn poll_write(client: &Client, cx: &mut Context<'_>, left: &mut (Bytes, usize)) -> Poll<Result<(), ()>> {
    let (bytes, written) = left;
    while *written < bytes.len() {
        match ready!(client.poll_write(cx, &bytes[*written..])) {
            Ok(more) => *written += more,
            Err(_) => return Poll::Ready(Err(())),
        }
    }
    Poll::Ready(Ok(()))
}

impl Future for Following {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            let ended = match &mut this.state {
                State::Waits(_) => match ready!(this.poll_waiting(cx)) {
                    Step::Over(ended) => match this.last_words(ended) {
                        Ok(work) => {
                            this.state = work;
                            continue;
                        }
                        Err(ended) => ended,
                    },
                    Step::Behind => {
                        let State::Waits(follower) = std::mem::replace(&mut this.state, State::Changes)
                        else {
                            return Poll::Ready(());
                        };
                        this.state = this.work(async move |reader: &Reader| {
                            live::tell(follower, Odd::default(), None, reader).await
                        });
                        continue;
                    }
                },
                State::Works(work) => {
                    let (worked, events, bytes) = ready!(work.as_mut().poll(cx));
                    (this.events, this.bytes_out) = (this.events + events, this.bytes_out + bytes);
                    match worked {
                        Ok(Some(follower)) => {
                            this.wait(follower, cx);
                            continue;
                        }
                        Ok(None) => {
                            this.close(Ok(()));
                            return Poll::Ready(());
                        }
                        Err(stop) => Err(stop),
                    }
                }
                State::Changes => return Poll::Ready(()),
            };
            if ended.is_ok() && this.framing == Framing::Chunked {
                this.state = this.work(async |reader: &Reader| live::end(None, reader).await.map(|()| None));
                continue;
            }
            this.close(ended);
            return Poll::Ready(());
        }
    }
}
