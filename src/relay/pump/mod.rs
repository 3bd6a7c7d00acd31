//! The pump: an upstream's answer on its way to the client. This loop is what sedge exists for.
//!
//! One read and one write for each segment that arrives, whatever it holds. The bytes are looked at where they lie and
//! leave as they came: whole chunks untouched, anything else framed anew around the same payload. While the client does not
//! take its bytes the upstream is not read, so that TCP slows it down; the one block that could not be written is all that
//! is kept. Only an answer that becomes a durable stream is read on meanwhile, into that (see [`self::catch_up`]).
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

pub(crate) mod beginning;
pub(crate) mod catch_up;
pub(crate) mod cut;
pub(crate) mod observers;
pub(crate) mod rechunk;
pub(crate) mod recorder;

use std::ops::Range;
use std::task::{Context, Poll, ready};

use self::beginning::Beginning;
pub(crate) use self::cut::{Cut, Ending};
pub(crate) use self::observers::Look;
pub(crate) use self::rechunk::Framing;
use self::rechunk::{HEAD_ROOM, TAIL_ROOM};
use self::recorder::Tee;
use super::context::Core;
use super::request::body::Upload;
use crate::downstream::connection::Client;
use crate::downstream::outbox::Beat;
use crate::proto::http1::body::BodyDecoder;
use crate::proto::http1::chunked;
use crate::routing::call::Call;
use crate::runtime::block::Block;
use crate::runtime::clock::Micros;
use crate::runtime::net::stream::Stream;

/// A response in flight.
pub(crate) struct Download {
    upstream: Stream,
    /// The request that it answers, for the upstream's health.
    call: Call,
    decoder: BodyDecoder,
    framing: Framing,
    look: Look,
    /// A stream of a kind that says when it is over; one that ends without having said so was cut.
    says_end: bool,
    ended: bool,
    /// It has ended, and was cut all the same.
    unfinished: bool,
    /// The upstream said more than its answer.
    surplus: bool,
    last: Micros,
    beginning: Beginning,
    /// The durable stream that it becomes. Boxed: most become none.
    pub(crate) tee: Option<Box<Tee>>,
    /// Payload bytes so far.
    pub(crate) bytes: u64,
    /// Events so far.
    pub(crate) events: u64,
}

impl Download {
    /// A response to `call` whose head has been read at `now`.
    pub(crate) fn new(
        upstream: Stream,
        call: Call,
        decoder: BodyDecoder,
        framing: Framing,
        (look, says_end): (Look, bool),
        now: Micros,
    ) -> Download {
        let ended = decoder.finished();
        let is_stream = matches!(look, Look::Events(..));
        let beginning = if is_stream { Beginning::of_events() } else { Beginning::default() };
        // It has ended already if it has no body, and then there is nothing that could be missing.
        let unfinished = ended && framing != Framing::None && !look.is_finished(says_end);
        Download {
            upstream,
            call,
            decoder,
            framing,
            look,
            says_end,
            ended,
            unfinished,
            surplus: false,
            last: now,
            beginning,
            tee: None,
            bytes: 0,
            events: 0,
        }
    }

    /// Moves what can be moved.
    pub(crate) fn poll(
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
                return Poll::Ready(self.over());
            }
            let block = spare.get_or_insert_with(|| core.shard.blocks.take());
            let room = block.len() - TAIL_ROOM;
            let framed = match self.upstream.poll_read(cx, &mut block[HEAD_ROOM..room]) {
                Poll::Pending => break,
                Poll::Ready(Ok(read)) if read > 0 => {
                    self.segment(block, HEAD_ROOM..HEAD_ROOM + read, client, core)
                }
                Poll::Ready(Ok(_)) => self.closed(block),
                Poll::Ready(Err(_)) => Err(Cut::Reset),
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
    pub(crate) fn transmit(
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
    pub(crate) fn segment(
        &mut self,
        block: &mut [u8],
        read: Range<usize>,
        client: &Client,
        core: &Core,
    ) -> Result<Range<usize>, Cut> {
        let now = core.shard.clock.micros();
        client.deadlines.active(now / 1000);
        let before = (self.bytes, self.events);
        let awaited = self.beginning.is_awaited();
        let out = match awaited && client.has_beaten() && self.beginning.may_go_on_with_bom(self.bytes) {
            true => {
                let payload = self.decode(block, read)?;
                let payload = self.beginning.without_bom(block, payload);
                self.rechunk(block, payload)
            }
            false => self.frame(block, read)?,
        };
        if awaited {
            self.note_first(now, core);
        }
        if self.events > before.1 {
            if !awaited {
                core.metrics.time_per_output_token.observe_us(now - self.last);
            }
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
            let is_all = whole.ended && self.bytes == 0 && rechunk::is_one_chunk(&block[read.clone()]);
            for payload in chunked::payloads(&block[read.clone()]) {
                self.look(payload, is_all);
            }
            return Ok(if self.is_cut_short() { rechunk::without_last_chunk(block, read) } else { read });
        }
        let payload = self.decode(block, read)?;
        Ok(self.rechunk(block, payload))
    }

    #[allow(clippy::inline_always, reason = "measured: on every segment's way, and a call otherwise")]
    #[inline(always)]
    fn decode(&mut self, block: &mut [u8], read: Range<usize>) -> Result<Range<usize>, Cut> {
        let end = read.end;
        let segment = rechunk::decode(&mut self.decoder, block, read);
        let segment = segment.map_err(|error| Cut::Malformed(error.message()))?;
        self.ended = segment.ended;
        self.surplus = segment.ended && segment.consumed < end;
        self.look(&block[segment.payload.clone()], segment.ended && self.bytes == 0);
        Ok(segment.payload)
    }

    #[allow(clippy::inline_always, reason = "measured: on every segment's way, and a call otherwise")]
    #[inline(always)]
    fn rechunk(&mut self, block: &mut [u8], payload: Range<usize>) -> Range<usize> {
        let is_whole = self.ended && !self.is_cut_short();
        match self.framing {
            Framing::Chunked => rechunk::chunk(block, payload, is_whole),
            _ => payload,
        }
    }

    /// Looks at a payload; with `is_all` at the only one that there is.
    #[allow(clippy::inline_always, reason = "measured: on every segment's way, and a call otherwise")]
    #[inline(always)]
    fn look(&mut self, payload: &[u8], is_all: bool) {
        self.bytes += payload.len() as u64;
        if let Some(tee) = &mut self.tee {
            tee.feed(payload);
        }
        match &mut self.look {
            Look::Events(scanner, sideband) => {
                self.events += u64::from(scanner.feed(payload));
                sideband.feed(payload);
                if self.beginning.is_awaited() {
                    self.beginning.feed(payload);
                }
            }
            Look::Json(sideband, _) if is_all => sideband.feed_whole(payload),
            Look::Json(sideband, _) => sideband.feed(payload),
            Look::Opaque => {}
        }
    }

    /// Tells the upstream's health how long the first content took, if it has just come.
    #[inline(never)]
    fn note_first(&mut self, now: Micros, core: &Core) {
        if self.beginning.has_just_come(now) {
            self.call.first_content(now, core.chance());
        }
    }

    /// Whether it has ended and was cut all the same.
    #[allow(clippy::inline_always, reason = "on every segment's way")]
    #[inline(always)]
    fn is_cut_short(&mut self) -> bool {
        if self.ended && self.says_end {
            self.unfinished = !self.look.is_finished(true);
        }
        self.unfinished
    }

    /// How it has ended, once it has.
    fn over(&self) -> Ending {
        if self.unfinished { Ending::Cut(Cut::Unfinished) } else { Ending::Finished }
    }

    /// Reads a segment and looks at it, and sends it to nobody. Ready with how the answer has ended, if it has.
    #[cold]
    pub(crate) fn poll_unsent(
        &mut self,
        cx: &mut Context<'_>,
        client: &Client,
        core: &Core,
    ) -> Poll<Option<Ending>> {
        if let Some(ending) = self.tee.as_ref().and_then(|tee| tee.stopped(cx)) {
            return Poll::Ready(Some(ending));
        }
        if self.ended {
            return Poll::Ready(Some(self.over()));
        }
        let mut block = core.shard.blocks.take();
        let room = block.len() - TAIL_ROOM;
        let framed = match ready!(self.upstream.poll_read(cx, &mut block[HEAD_ROOM..room])) {
            Ok(read) if read > 0 => {
                let (now, before) = (core.shard.clock.micros(), self.events);
                client.deadlines.active(now / 1000);
                let framed = self.frame(&mut block, HEAD_ROOM..HEAD_ROOM + read);
                self.note_first(now, core);
                self.last = if self.events > before { now } else { self.last };
                framed
            }
            Ok(_) => self.closed(&mut block),
            Err(_) => Err(Cut::Reset),
        };
        Poll::Ready(framed.err().map(Ending::Cut))
    }

    /// The upstream has closed: the end of a body that ends so, a cut for any other.
    fn closed(&mut self, block: &mut [u8]) -> Result<Range<usize>, Cut> {
        if !matches!(self.decoder, BodyDecoder::Close) || !self.look.is_closed(self.says_end) {
            return Err(Cut::Closed);
        }
        self.ended = true;
        Ok(match self.framing {
            Framing::Chunked => rechunk::chunk(block, HEAD_ROOM..HEAD_ROOM, true),
            _ => HEAD_ROOM..HEAD_ROOM,
        })
    }

    /// Whether a heartbeat may follow what was written last.
    pub(crate) fn beat(&self) -> Beat {
        if self.is_whole() { Beat::Hold } else { self.look.beat(self.framing) }
    }

    /// The event that tells the client of a break, framed; none where it would stand in the middle of an event, or where
    /// there is no event stream. A last chunk never follows it.
    pub(crate) fn parting(&self, event: &[u8]) -> Vec<u8> {
        if self.beat() == Beat::Hold { Vec::new() } else { self.framing.event(event) }
    }

    /// Its observer.
    pub(crate) fn look_at(&self) -> &Look {
        &self.look
    }

    /// Whether all of it has been read, and it was whole.
    pub(crate) fn is_whole(&self) -> bool {
        self.ended && !self.unfinished
    }

    /// Whether the stream has said that it is over, so that a client which then leaves has not missed anything: its last event has
    /// come, or an error in its place.
    pub(crate) fn terminal(&self) -> bool {
        matches!(self.look, Look::Events(..)) && (self.look.terminal() || self.look.error_seen())
    }

    /// When a stream has said its first.
    pub(crate) fn first_content(&self) -> Option<Micros> {
        self.beginning.at()
    }

    /// Nobody wants what is left of it: the upstream learns that now, however long its client takes for what it is still told.
    pub(crate) fn cancel(&self) {
        if !self.ended {
            self.upstream.reset();
        }
    }

    /// How the client is told where the body ends.
    pub(crate) fn framing(&self) -> Framing {
        self.framing
    }

    /// The request that it answers, and the upstream's connection, if it stands right behind a complete answer.
    pub(crate) fn into_reusable(self) -> (Call, Option<Stream>) {
        let complete = self.is_whole() && !self.surplus && !matches!(self.decoder, BodyDecoder::Close);
        (self.call, complete.then_some(self.upstream))
    }
}
