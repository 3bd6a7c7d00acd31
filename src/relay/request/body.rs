//! A request's body on its way from the client to the upstream.
//!
//! Received, decoded and looked through in the block it was read into; held while the route is not known or while a whole
//! small body can still be sent with its length; then passed on, one block at a time, and not read faster than the upstream
//! takes it.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::task::{Context, Poll, ready};

use super::body_scan::Decides;
use super::memory_share::Share;
use super::replay_buffer::{Kept, LetGo};
use crate::downstream::connection::Client;
use crate::downstream::deadlines::Timeout;
use crate::proto::http1::body::BodyDecoder;
use crate::proto::http1::request::RequestBody;
use crate::proto::openai::{Doubt, Media, Peek, PeekState};
use crate::relay::pump::rechunk;
use crate::runtime::Shard;
use crate::runtime::block::{BLOCK_BYTES, BULK_BYTES, Block, Span};
use crate::runtime::clock::Millis;
use crate::runtime::net::stream::Stream;

/// A body of up to this many bytes is received whole before it is sent, with its length and in one write with the head.
pub(crate) const WHOLE_BYTES: u64 = (BLOCK_BYTES - 2048) as u64;

/// From here on a body is received in blocks of 128 KiB instead of 16.
const BULK_FROM_BYTES: u64 = 64 * 1024;

/// The least a client must send, in bytes a millisecond (16 KB/s), to keep its time limit from running down.
const MINIMUM_RATE: u64 = 16;

/// The body of a request.
pub(crate) struct Upload {
    decoder: BodyDecoder,
    pub(crate) held: VecDeque<(Block, Range<usize>)>,
    /// Payload bytes received so far.
    pub(crate) received: u64,
    limit: u64,
    peek: Option<Box<Peek>>,
    /// What is found in it decides where it goes, so it must be found, and must be unmistakable.
    decides: Decides,
    /// All of it has been received.
    pub(crate) ended: bool,
    /// All of it that will be has been handed to the upstream.
    pub(crate) sent: bool,
    pub(crate) broken: bool,
    pub(crate) chunked_out: bool,
    /// The front of `held` has its framing already.
    pub(crate) framed: bool,
    pub(crate) last_chunk_sent: bool,
    /// What has been sent and is kept for another attempt; none if it is not, or has become too much.
    pub(crate) kept: Option<Kept>,
    /// Payload bytes of it, and the most that there may be.
    pub(crate) kept_bytes: u32,
    pub(crate) kept_max: u32,
    /// Why it is kept no more.
    pub(crate) let_go: Option<LetGo>,
    /// What it takes of its client's share of the memory; counted once it is held for longer than one piece needs.
    pub(crate) share: Option<Box<Share>>,
    /// The payload of the front of `held`, before parts of it were sent or it was framed.
    pub(crate) front: Span,
    pub(crate) begun: bool,
    /// Some of `held` may have been sent, or framed to be.
    pub(crate) touched: bool,
    time_limit: u32,
    until: Millis,
    /// How long the upstream may take nothing, and whether that time runs.
    upstream_limit: u32,
    pub(crate) blocked: bool,
}

/// Why a body did not get through.
#[derive(Debug)]
pub(crate) enum UploadError {
    /// The client left within it.
    Gone,
    /// Its framing is broken; what the parser said.
    Malformed(&'static str),
    /// It is larger than allowed.
    TooLarge,
    /// A decision would rest on a field of it that the upstream may read differently.
    Ambiguous(Doubt),
    /// It says that it is JSON and is not: what is hidden in it cannot be told.
    NotJson,
    /// The upstream did not take it.
    Upstream(io::Error),
}

impl Upload {
    /// A body that begins now. Its fields are read by `peek`; `decides` are the decisions that rest on them.
    pub(crate) fn new(
        body: &RequestBody,
        peek: Option<Box<Peek>>,
        decides: Decides,
        limit: u64,
        now: Millis,
        time_limit: u32,
    ) -> Upload {
        Upload {
            decoder: BodyDecoder::from(*body),
            held: VecDeque::new(),
            received: 0,
            limit,
            peek,
            decides,
            ended: matches!(body, RequestBody::None | RequestBody::Length(0)),
            sent: matches!(body, RequestBody::None | RequestBody::Length(0)),
            broken: false,
            chunked_out: false,
            framed: false,
            last_chunk_sent: false,
            kept: None,
            kept_bytes: 0,
            kept_max: 0,
            let_go: None,
            share: None,
            front: Span::default(),
            begun: false,
            touched: false,
            time_limit,
            until: now + Millis::from(time_limit),
            upstream_limit: 0,
            blocked: false,
        }
    }

    /// Whether it is not enough to find the model.
    pub(crate) fn must_learn_all(&self) -> bool {
        self.decides.tokens && self.peek.as_deref().is_some_and(|peek| !peek.is_form())
    }

    /// It may have this many bytes and no more, now that its route is known.
    pub(crate) fn limit(&mut self, limit: u64) -> Result<(), UploadError> {
        self.limit = limit;
        if self.received > self.limit { Err(UploadError::TooLarge) } else { Ok(()) }
    }

    /// The upstream may take nothing for so long, in milliseconds.
    pub(crate) fn limit_upstream(&mut self, limit: u32) {
        self.upstream_limit = limit;
    }

    /// What was found in the body, if it is looked through.
    pub(crate) fn peek(&self) -> Option<&Peek> {
        self.peek.as_deref()
    }

    /// Hands over what was found, once nothing more is to be found.
    pub(crate) fn take_peek(&mut self) -> Option<Box<Peek>> {
        self.peek.take()
    }

    /// Whether its way depends on its model, and that has not been found yet.
    pub(crate) fn must_learn(&self) -> bool {
        let open = |peek: &Peek| {
            peek.state() == PeekState::NeedMore
                && (self.must_learn_all() || self.decides.model && peek.model().is_none())
        };
        !self.ended && self.peek.as_deref().is_some_and(open)
    }

    /// The decisions that rest on it.
    pub(crate) fn decides(&self) -> Decides {
        self.decides
    }

    /// The rest will not be sent, whoever is to blame. The upstream's connection stands somewhere in the body and can carry
    /// nothing else.
    pub(crate) fn give_up(&mut self) {
        if self.kept.is_none() {
            self.held.clear();
        }
        (self.sent, self.broken) = (true, true);
    }

    /// Whether the upstream has been handed the body to its end.
    pub(crate) fn reached(&self) -> bool {
        self.sent && self.ended && !self.broken
    }

    /// Receives what the client has sent: bytes read already first, then one read. Ready when something came.
    pub(crate) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        client: &Client,
        shard: &Shard,
    ) -> Poll<Result<(), UploadError>> {
        if client.inbound().is_empty() {
            client.deadlines.phase_at(Timeout::RequestBody, self.until, self.time_limit);
            client.arm();
            // A body that has shown that it is large is read in large pieces.
            let bulk = self.received >= BULK_FROM_BYTES;
            match ready!(client.poll_fill(cx, if bulk { BULK_BYTES } else { BLOCK_BYTES })) {
                Ok(0) | Err(_) => return Poll::Ready(Err(UploadError::Gone)),
                Ok(_) => {}
            }
        }
        Poll::Ready(self.receive(client, shard))
    }

    /// Takes in what lies in the client's buffer.
    pub(crate) fn receive(&mut self, client: &Client, shard: &Shard) -> Result<(), UploadError> {
        let mut inbound = client.inbound();
        if self.ended || inbound.is_empty() {
            return Ok(());
        }
        let decoded = self.decoder.decode_in_place(inbound.bytes_mut());
        let decoded = decoded.map_err(|error| UploadError::Malformed(error.message()))?;
        self.received += decoded.payload as u64;
        if self.received > self.limit {
            return Err(UploadError::TooLarge);
        }
        // Only now: whoever ends here leaves the connection's buffer right behind the body.
        self.ended = decoded.ended;
        let now = shard.clock.millis();
        let earned = decoded.payload as u64 / MINIMUM_RATE;
        self.until = (self.until + earned).min(now + Millis::from(self.time_limit));
        let Some((block, range)) = inbound.take(shard, decoded.consumed) else { return Ok(()) };
        let payload = range.start..range.start + decoded.payload;
        if let Some(peek) = &mut self.peek {
            peek.feed(&block[payload.clone()]);
            if self.decides.any() {
                if let Some(doubt) = self.decides.doubt(peek) {
                    return Err(UploadError::Ambiguous(doubt));
                }
                if matches!(peek.state(), PeekState::Malformed | PeekState::NotUtf8) {
                    return Err(UploadError::NotJson);
                }
            }
        }
        self.hold(block, payload);
        self.count();
        Ok(())
    }

    /// Small pieces share a block: a client that sends single bytes does not get 16 KiB for each of them.
    fn hold(&mut self, block: Block, payload: Range<usize>) {
        let framed = self.framed && self.held.len() == 1;
        match self.held.back_mut() {
            _ if payload.is_empty() => {}
            Some((last, range))
                if !framed && range.end + payload.len() <= last.len() - rechunk::TAIL_ROOM =>
            {
                last[range.end..range.end + payload.len()].copy_from_slice(&block[payload.clone()]);
                range.end += payload.len();
            }
            _ => self.held.push_back((block, payload)),
        }
    }

    /// The base64 among what is held: its letters, and the tokens that it is estimated at.
    pub(crate) fn media(&self) -> (u64, u64) {
        let mut media = Media::default();
        self.held.iter().for_each(|(block, range)| media.feed(&block[range.clone()]));
        media.finish()
    }

    /// The first bytes of it that are held.
    pub(crate) fn beginning(&self) -> &[u8] {
        self.held.front().map_or(&[], |(block, range)| &block[range.clone()])
    }

    /// Bytes that are held.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.held.iter().map(|(_, range)| range.len() as u64).sum()
    }

    /// Copies what is held to the front of `place`, which has room for it, and lets go of it.
    pub(crate) fn copy_held(&mut self, place: &mut [u8]) {
        let mut at = 0;
        for (block, range) in self.held.drain(..) {
            place[at..at + range.len()].copy_from_slice(&block[range.clone()]);
            at += range.len();
        }
    }

    /// How the upstream is told where the body ends: with its length where that is known, in chunks otherwise. From here on
    /// the body may be sent.
    pub(crate) fn framing(&mut self, declared: &RequestBody) -> RequestBody {
        let held = self.held_bytes();
        match declared {
            RequestBody::None => RequestBody::None,
            // What was rewritten while it was held has changed the length by what is held more or less than was received.
            RequestBody::Length(length) => RequestBody::Length(length + held - self.received),
            RequestBody::Chunked if self.ended => RequestBody::Length(held),
            RequestBody::Chunked => {
                self.chunked_out = true;
                RequestBody::Chunked
            }
        }
    }

    /// Appends the first held bytes to `head` if they fit, so that they leave in one write with it.
    pub(crate) fn join(&mut self, head: &mut Vec<u8>, room: usize) {
        if self.chunked_out {
            return;
        }
        while let Some((block, range)) = self.held.front()
            && head.len() + range.len() <= room
        {
            head.extend_from_slice(&block[range.clone()]);
            self.held.pop_front();
        }
        self.sent = self.ended && self.held.is_empty();
    }

    /// Passes on what there is. Ready when the whole body has been handed to the upstream.
    pub(crate) fn poll_transmit(
        &mut self,
        cx: &mut Context<'_>,
        upstream: &mut Stream,
        client: &Client,
        shard: &Shard,
    ) -> Poll<Result<(), UploadError>> {
        while !self.sent {
            if self.held.is_empty() && !self.ended {
                ready!(self.poll_receive(cx, client, shard))?;
                continue;
            }
            self.touched = true;
            self.frame(shard);
            let Some((block, range)) = self.held.front_mut() else {
                self.sent = true;
                break;
            };
            if !self.begun {
                self.begun = true;
                if !self.framed {
                    self.front = Span::new(range.start, range.end);
                }
            }
            match upstream.poll_write(cx, &block[range.clone()]) {
                Poll::Ready(Ok(written)) => {
                    range.start += written;
                    self.blocked = false;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(UploadError::Upstream(error))),
                Poll::Pending => {
                    // It is the upstream that is slow now.
                    let now = shard.clock.millis();
                    self.until = now + Millis::from(self.time_limit);
                    if !self.blocked {
                        self.blocked = true;
                        client.deadlines.phase(Timeout::FirstByte, now, self.upstream_limit);
                        client.arm();
                    }
                    return Poll::Pending;
                }
            }
            if range.start == range.end {
                self.spend();
            }
        }
        upstream.poll_flush(cx).map_err(UploadError::Upstream)
    }

    /// Gives the front of what is held its chunk framing, if it needs one.
    fn frame(&mut self, shard: &Shard) {
        if !self.chunked_out || self.framed || self.last_chunk_sent {
            return;
        }
        let last = self.ended && self.held.len() <= 1;
        match self.held.front_mut() {
            Some((block, range)) => {
                self.front = Span::new(range.start, range.end);
                *range = rechunk::chunk(block, range.clone(), last);
            }
            None => {
                let mut block = shard.blocks.take();
                self.front = Span::new(rechunk::HEAD_ROOM, rechunk::HEAD_ROOM);
                let range = rechunk::chunk(&mut block, self.front.range(), true);
                self.held.push_back((block, range));
            }
        }
        self.framed = true;
        self.last_chunk_sent = last;
    }
}
