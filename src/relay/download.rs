//! The pump: an upstream's answer on its way to the client. This loop is what sedge exists for.
//!
//! One read and one write for each segment that arrives, whatever it holds. The bytes are looked at where they lie and
//! leave as they came: whole chunks untouched, anything else framed anew around the same payload. While the client does not
//! take its bytes the upstream is not read, so that TCP slows it down; the one block that could not be written is all that
//! is kept. Only an answer that becomes a durable stream is read on meanwhile, into that (see [`super::laggard`]).
//!
//! ```text
//!            segment            nothing to read
//!   ┌─────────────────────┐   ┌───────────────┐
//!   ▼                     │   ▼               │
//! READ ──── framed ──── WRITE ────────────► WAIT    wheel: heartbeats, limits
//!   │                     │ socket full       ▲
//!   │ end of body         ▼                   │
//!   ├──► last chunk    BLOCKED ─ writable ────┘
//!   │                     │ stall limit, client gone
//!   ▼                     ▼
//! cut: error event, no last chunk            everything dropped, the upstream with it
//! ```

use std::io;
use std::ops::Range;
use std::task::{Context, Poll, ready};

use super::client::Client;
use super::core::Core;
use super::deadline::Timeout;
use super::framing::{self, HEAD_ROOM, TAIL_ROOM};
use super::tee::Tee;
use super::upload::Upload;
use super::writing::Beat;
use crate::http::body::BodyDecoder;
use crate::http::chunked;
use crate::net::stream::Stream;
use crate::openai::{ApiError, Sideband};
use crate::shard::block::Block;
use crate::shard::clock::Micros;
use crate::sse::Scanner;

/// How the client is told where the body ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// There is no body.
    None,
    /// By its length, which went into the head.
    Length,
    /// In chunks, so that a missing last one tells of a cut.
    Chunked,
    /// By closing: HTTP/1.0.
    Close,
}

impl Framing {
    /// How a heartbeat is written between two events of such a body.
    pub fn beat(self) -> Beat {
        match self {
            Framing::Chunked => Beat::Chunk,
            Framing::Close => Beat::Bare,
            Framing::None | Framing::Length => Beat::Hold,
        }
    }

    /// An event of our own, as such a body carries it; one whose length is told already has no room for it.
    pub fn event(self, event: &[u8]) -> Vec<u8> {
        match self.beat() {
            Beat::Hold => Vec::new(),
            Beat::Chunk => [format!("{:x}\r\n", event.len()).as_bytes(), event, b"\r\n"].concat(),
            Beat::Bare => event.to_vec(),
        }
    }
}

/// What an answer is, as far as its bytes are looked at.
pub enum Look {
    /// An event stream in the clear.
    Events(Scanner, Sideband),
    /// A JSON document in the clear.
    Json(Sideband),
    /// Anything else, compressed streams included.
    Opaque,
}

/// How an answer ended.
#[derive(Debug)]
pub enum Ending {
    /// With its body complete, and all of it written.
    Finished,
    /// The upstream broke off.
    Cut(Cut),
    /// The durable stream that it was written to has been deleted.
    Deleted,
    /// The durable stream that it was written to has been closed by a client.
    Stopped,
    /// Not at all: the client does not read, and gets the rest from the durable stream.
    Behind,
    /// The client left.
    Gone,
    /// A limit passed.
    Timeout(Timeout),
}

/// How an upstream broke off.
#[derive(Debug)]
pub enum Cut {
    /// It closed the connection before the end of the body.
    Closed,
    /// It reset the connection, or the network did.
    Reset(io::Error),
    /// Its framing broke.
    Malformed(&'static str),
}

impl Cut {
    /// What its client is told.
    pub fn error(&self) -> ApiError {
        match self {
            Cut::Closed | Cut::Reset(_) => ApiError::upstream_closed(),
            Cut::Malformed(why) => ApiError::upstream_invalid_response(why),
        }
    }
}

/// An answer in flight.
pub struct Download {
    upstream: Stream,
    decoder: BodyDecoder,
    framing: Framing,
    look: Look,
    /// A stream of a kind that says when it is over; one that ends by close without having said so was cut.
    says_end: bool,
    ended: bool,
    /// The upstream said more than its answer.
    surplus: bool,
    last: Micros,
    /// The durable stream that it becomes. Boxed: most become none.
    pub(super) tee: Option<Box<Tee>>,
    /// Payload bytes so far.
    pub bytes: u64,
    /// Events so far.
    pub events: u64,
}

impl Download {
    /// An answer whose head has been read at `now`.
    pub fn new(
        upstream: Stream,
        decoder: BodyDecoder,
        framing: Framing,
        look: Look,
        says_end: bool,
        now: Micros,
    ) -> Download {
        let ended = decoder.finished();
        Download {
            upstream,
            decoder,
            framing,
            look,
            says_end,
            ended,
            surplus: false,
            last: now,
            tee: None,
            bytes: 0,
            events: 0,
        }
    }

    /// Moves what can be moved.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &Client,
        core: &Core,
        upload: &mut Upload,
    ) -> Poll<Ending> {
        if let Poll::Ready(timeout) = client.poll_expired(cx) {
            return Poll::Ready(Ending::Timeout(timeout));
        }
        if let Some(ending) = self.tee.as_ref().and_then(|tee| tee.stopped(cx)) {
            return Poll::Ready(ending);
        }
        let mut spare: Option<Block> = None;
        loop {
            if client.is_blocked() {
                match client.poll_pending(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(Ending::Gone),
                    Poll::Pending if self.tee.as_ref().is_some_and(|tee| tee.can_lend()) => {
                        return Poll::Ready(Ending::Behind);
                    }
                    Poll::Pending => break,
                }
            }
            if self.ended {
                return Poll::Ready(Ending::Finished);
            }
            let block = spare.get_or_insert_with(|| core.shard.blocks.take());
            let room = block.len() - TAIL_ROOM;
            let framed = match self.upstream.poll_read(cx, &mut block[HEAD_ROOM..room]) {
                Poll::Pending => break,
                Poll::Ready(Ok(read)) if read > 0 => {
                    self.segment(block, HEAD_ROOM..HEAD_ROOM + read, client, core)
                }
                Poll::Ready(Ok(_)) => self.closed(block),
                Poll::Ready(Err(error)) => Err(Cut::Reset(error)),
            };
            let out = match framed {
                Ok(out) => out,
                Err(cut) => return Poll::Ready(Ending::Cut(cut)),
            };
            if client.send(cx, &mut spare, out).is_err() {
                return Poll::Ready(Ending::Gone);
            }
        }
        drop(spare);
        self.transmit(cx, client, core, upload);
        client.poll_gone(cx).map(|()| Ending::Gone)
    }

    /// Sends what is left of the request.
    #[inline]
    pub(super) fn transmit(
        &mut self,
        cx: &mut Context<'_>,
        client: &Client,
        core: &Core,
        upload: &mut Upload,
    ) {
        if !upload.sent
            && upload.poll_transmit(cx, &mut self.upstream, client, &core.shard).map(|sent| sent.is_err())
                == Poll::Ready(true)
        {
            // An upstream that has begun its answer may stop reading; a client that broke off its own request has left.
            upload.give_up();
        }
    }

    /// Looks at a segment and frames it for the client. Returns what to write.
    pub fn segment(
        &mut self,
        block: &mut [u8],
        read: Range<usize>,
        client: &Client,
        core: &Core,
    ) -> Result<Range<usize>, Cut> {
        let now = core.shard.clock.micros();
        client.deadlines.active(now / 1000);
        let before = (self.bytes, self.events);
        let out = self.frame(block, read)?;
        if self.events > before.1 {
            core.metrics.time_per_output_token.observe_us(now - self.last);
            core.metrics.events_relayed.add(self.events - before.1);
            self.last = now;
        }
        core.metrics.bytes_to_clients.add(self.bytes - before.0);
        client.set_beat(self.beat());
        Ok(out)
    }

    // Also called to read on for nobody; a function of its own for that would cost the pump 40 instructions a segment.
    #[allow(clippy::inline_always, reason = "measured: with a mere hint it is a call")]
    #[inline(always)]
    fn frame(&mut self, block: &mut [u8], read: Range<usize>) -> Result<Range<usize>, Cut> {
        if self.framing == Framing::Chunked
            && let Some(whole) = self.decoder.whole(&block[read.clone()])
        {
            self.ended = whole.ended;
            for payload in chunked::payloads(&block[read.clone()]) {
                self.look(payload);
            }
            return Ok(read);
        }
        let end = read.end;
        let segment = framing::decode(&mut self.decoder, block, read);
        let segment = segment.map_err(|error| Cut::Malformed(error.message()))?;
        self.ended = segment.ended;
        self.surplus = segment.ended && segment.consumed < end;
        self.look(&block[segment.payload.clone()]);
        Ok(match self.framing {
            Framing::Chunked => framing::chunk(block, segment.payload, segment.ended),
            _ => segment.payload,
        })
    }

    #[allow(clippy::inline_always, reason = "measured: on every segment's way, and a call otherwise")]
    #[inline(always)]
    fn look(&mut self, payload: &[u8]) {
        self.bytes += payload.len() as u64;
        if let Some(tee) = &mut self.tee {
            tee.feed(payload);
        }
        match &mut self.look {
            Look::Events(scanner, sideband) => {
                self.events += u64::from(scanner.feed(payload));
                sideband.feed(payload);
            }
            Look::Json(sideband) => sideband.feed(payload),
            Look::Opaque => {}
        }
    }

    /// Reads a segment and looks at it, and sends it to nobody. Ready with how the answer has ended, if it has.
    #[cold]
    pub fn poll_unsent(
        &mut self,
        cx: &mut Context<'_>,
        client: &Client,
        core: &Core,
    ) -> Poll<Option<Ending>> {
        if let Some(ending) = self.tee.as_ref().and_then(|tee| tee.stopped(cx)) {
            return Poll::Ready(Some(ending));
        }
        if self.ended {
            return Poll::Ready(Some(Ending::Finished));
        }
        let mut block = core.shard.blocks.take();
        let room = block.len() - TAIL_ROOM;
        let framed = match ready!(self.upstream.poll_read(cx, &mut block[HEAD_ROOM..room])) {
            Ok(read) if read > 0 => {
                let (now, before) = (core.shard.clock.micros(), self.events);
                client.deadlines.active(now / 1000);
                let framed = self.frame(&mut block, HEAD_ROOM..HEAD_ROOM + read);
                self.last = if self.events > before { now } else { self.last };
                framed
            }
            Ok(_) => self.closed(&mut block),
            Err(error) => Err(Cut::Reset(error)),
        };
        Poll::Ready(framed.err().map(Ending::Cut))
    }

    /// The upstream has closed: the end of a body that ends so, a cut for any other.
    fn closed(&mut self, block: &mut [u8]) -> Result<Range<usize>, Cut> {
        let whole = match &self.look {
            Look::Events(scanner, _) => scanner.at_boundary() && (scanner.terminal() || !self.says_end),
            _ => true,
        };
        if !matches!(self.decoder, BodyDecoder::Close) || !whole {
            return Err(Cut::Closed);
        }
        self.ended = true;
        Ok(match self.framing {
            Framing::Chunked => framing::chunk(block, HEAD_ROOM..HEAD_ROOM, true),
            _ => HEAD_ROOM..HEAD_ROOM,
        })
    }

    /// Whether a heartbeat may follow what was written last.
    pub fn beat(&self) -> Beat {
        match (&self.look, self.framing) {
            (Look::Events(scanner, _), framing) if scanner.at_boundary() && !self.ended => framing.beat(),
            _ => Beat::Hold,
        }
    }

    /// The event that tells the client of a break, framed; none where it would stand in the middle of an event, or where
    /// there is no event stream. A last chunk never follows it.
    pub fn parting(&self, event: &[u8]) -> Vec<u8> {
        if self.beat() == Beat::Hold { Vec::new() } else { self.framing.event(event) }
    }

    /// How the events stand at its end, of an event stream in the clear.
    pub(super) fn scanner(&self) -> Scanner {
        match &self.look {
            Look::Events(scanner, _) => *scanner,
            Look::Json(_) | Look::Opaque => Scanner::default(),
        }
    }

    /// Whether all of it has been read.
    pub(super) fn is_whole(&self) -> bool {
        self.ended
    }

    /// Whether the stream has said that it is over, so that a client which then leaves has not missed anything.
    pub fn terminal(&self) -> bool {
        matches!(&self.look, Look::Events(scanner, _) if scanner.terminal())
    }

    /// Whether the upstream told of an error within its stream.
    pub fn error_seen(&self) -> bool {
        matches!(&self.look, Look::Events(scanner, sideband) if scanner.error_seen() || sideband.error_seen())
    }

    /// What the answer said of itself.
    pub fn sideband(&self) -> Option<&Sideband> {
        match &self.look {
            Look::Events(_, sideband) | Look::Json(sideband) => Some(sideband),
            Look::Opaque => None,
        }
    }

    /// Nobody wants what is left of it: the upstream learns that now, however long its client takes for what it is still told.
    pub(super) fn cancel(&self) {
        if !self.ended {
            self.upstream.reset();
        }
    }

    /// How the client is told where the body ends.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// The upstream's connection, if it stands right behind a complete answer.
    pub fn into_reusable(self) -> Option<Stream> {
        let complete = self.ended && !self.surplus && !matches!(self.decoder, BodyDecoder::Close);
        complete.then_some(self.upstream)
    }
}
