//! The first client of an answer that is kept, when it does not read as fast as the upstream writes. The upstream is read on
//! into the stream all the same, at the speed of the two, and the client gets what it lacks from there, as it reads.
//!
//! ```text
//!                 its socket is full                                  it has all that was read
//!  pump ────────────────────────────────► upstream ──► tee                          ▲
//!    ▲                                              stream ──► client ──────────────┤
//!    │                                                                              │
//!    └──────────────────────────────────────────────────────────────────────────────┘
//!
//!  the upstream ends        the client gets the rest, and then the end as it was
//!  it leaves, reads nothing for `client_stall`, or the stream has given up what it would read next
//!                           the upstream is read on without it
//! ```
//!
//! One task owns both sides; what is not sent yet is a position and nothing else. The client stands at a byte of the answer,
//! which is the same byte of the stream, so nothing is lost or doubled where it changes over: the block that its socket did not
//! take is written first, then what is in the stream behind it, then what the tee still holds of an event that has not ended.
//!
//! What may never happen: a last chunk for a client that was not sent the whole of a whole answer; an event within another; an
//! upstream that is read on while what it says can be kept nowhere.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::rechunk::{self, HEAD_ROOM, TAIL_ROOM};
use super::recorder::Tee;
use super::{Download, Ending, Framing};
use crate::downstream::connection::Client;
use crate::downstream::deadlines::Timeout;
use crate::downstream::outbox::Beat;
use crate::proto::http1::chunked::LAST_CHUNK;
use crate::proto::openai::ApiError;
use crate::proto::sse::Scanner;
use crate::relay::context::Core;
use crate::relay::finish::error_response::ErrorForm;
use crate::relay::request::body::Upload;
use crate::runtime::block::BLOCK_BYTES;
use crate::runtime::clock::unix_millis;
use crate::streams::Unreadable;
use crate::streams::store::journal::ReadError;
use crate::streams::store::payload_reader;

/// What is read from the stream at a time, in bytes: it is held until the socket has taken it.
const BATCH_BYTES: u64 = BLOCK_BYTES as u64;

/// Beyond so many bytes that wait for the disk or for Redis the upstream is not read on: an eighth of what may wait for Redis.
const UNSETTLED_BYTES_MAX: u64 = 1 << 20;

/// How often in a row Redis may fail to give what it should have.
const FAILURES_MAX: u32 = 8;

/// A client that has not got all that was read.
pub(crate) struct Laggard {
    /// Bytes of the answer that it was sent.
    pub(crate) position: u64,
    /// Events of it.
    pub(crate) events: u64,
    /// How its events stand there.
    pub(crate) scanner: Scanner,
    /// What was read from the stream for it, and is not sent.
    parts: VecDeque<Bytes>,
    reading: Option<Reading>,
    /// How often in a row that has failed.
    failures: u32,
    /// How the answer has ended, once it has, and its client does not know it.
    pub(crate) over: Option<Ending>,
    /// It was sent what tells the end of a whole answer.
    ended: bool,
    /// The stream has given up what it would have read next; it was told so.
    pub(crate) lost: bool,
    /// The upstream is read now.
    pub(crate) reads: bool,
}

type Reading = Pin<Box<dyn Future<Output = Result<Vec<Bytes>, ReadError>>>>;

/// What it has come to.
pub(crate) enum Step {
    /// The client has all that was read.
    CaughtUp,
    /// The upstream has ended.
    Over(Ending),
    /// The answer has ended for its client.
    Ended(Ending),
}

/// It is not in the stream, and never will be.
struct Lost;

/// What both sides need.
#[derive(Clone, Copy)]
pub(crate) struct Sides<'a> {
    pub(crate) client: &'a Client,
    pub(crate) core: &'a Core,
    /// How long the upstream may be silent, in milliseconds.
    pub(crate) idle: u32,
    /// How long the client may read nothing, likewise.
    pub(crate) stall: u32,
    /// How the client is told of errors.
    pub(crate) errors: ErrorForm<'a>,
}

impl Laggard {
    /// A client that was sent all that was read, and has not taken it.
    pub(crate) fn new(download: &mut Download) -> Laggard {
        if let Some(tee) = &mut download.tee {
            tee.lend(true);
        }
        Laggard {
            position: download.bytes,
            events: download.events,
            scanner: download.look_at().scanner(),
            parts: VecDeque::new(),
            reading: None,
            failures: 0,
            over: None,
            ended: download.is_whole(),
            lost: false,
            reads: true,
        }
    }

    /// Moves what can be moved, on both sides.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        download: &mut Download,
        upload: &mut Upload,
        sides: Sides<'_>,
    ) -> Poll<Step> {
        let client = sides.client;
        match client.poll_expired(cx) {
            Poll::Ready(Timeout::Idle) if self.over.is_none() => {
                return Poll::Ready(Step::Over(Ending::Timeout(Timeout::Idle)));
            }
            Poll::Ready(timeout) => return Poll::Ready(Step::Ended(Ending::Timeout(timeout))),
            Poll::Pending => {}
        }
        // Whoever asks is told of what becomes readable from then on, so this comes before looking.
        if let Some(ending) = download.tee.as_ref().map_or(Some(Ending::Deleted), |tee| tee.stopped(cx)) {
            return Poll::Ready(Step::Ended(ending));
        }
        client.set_beat(Beat::Hold);
        loop {
            if let Poll::Ready(step) = self.poll_client(cx, download, sides) {
                return Poll::Ready(step);
            }
            match self.poll_upstream(cx, download, sides) {
                Poll::Ready(Some(step)) => return Poll::Ready(step),
                Poll::Ready(None) => {}
                Poll::Pending => break,
            }
        }
        // It may be the disk or Redis that it waits for.
        if !client.is_blocked() && self.scanner.at_boundary() && !self.ended && !self.lost {
            client.set_beat(download.framing().beat());
        }
        if self.over.is_none() {
            download.transmit(cx, client, sides.core, upload);
        }
        client.poll_gone(cx).map(|()| Step::Ended(Ending::Gone))
    }

    /// Sends what there is until the socket is full.
    fn poll_client(&mut self, cx: &mut Context<'_>, download: &Download, sides: Sides<'_>) -> Poll<Step> {
        let Sides { client, core, .. } = sides;
        let Some(tee) = &download.tee else { return Poll::Ready(Step::Ended(Ending::Deleted)) };
        loop {
            if client.is_blocked() && ready!(client.poll_pending(cx)).is_err() {
                return Poll::Ready(Step::Ended(Ending::Gone));
            }
            if self.lost {
                // It has its last words; what remains is what becomes of a client that does not read.
                return Poll::Ready(Step::Ended(Ending::Timeout(Timeout::ClientStall)));
            }
            let sent = if self.parts.is_empty() && self.position < tee.kept() {
                match ready!(self.poll_stream(cx, tee, sides)) {
                    Ok(()) => Ok(()),
                    Err(Lost) => {
                        self.lost = true;
                        let event = sides.errors.event(&ApiError::rest_not_kept(), self.events);
                        say(cx, &self.parting(download.framing(), &event), sides)
                    }
                }
            } else if !self.parts.is_empty() {
                self.send(cx, download.framing(), client, core)
            } else {
                let rest = tee.rest(self.position);
                match &self.over {
                    None if rest.is_empty() => return Poll::Ready(Step::CaughtUp),
                    None | Some(Ending::Finished) if !rest.is_empty() => {
                        let part = &rest[..rest.len().min(BLOCK_BYTES)];
                        self.parts.push_back(Bytes::copy_from_slice(part));
                        Ok(())
                    }
                    Some(Ending::Finished) if !self.ended => {
                        self.ended = true;
                        let chunked = download.framing() == Framing::Chunked;
                        say(cx, if chunked { LAST_CHUNK } else { b"" }, sides)
                    }
                    _ => match self.over.take() {
                        Some(ending) => return Poll::Ready(Step::Ended(ending)),
                        None => return Poll::Pending,
                    },
                }
            };
            if sent.is_err() {
                return Poll::Ready(Step::Ended(Ending::Gone));
            }
        }
    }

    /// Reads on in the stream; ready when there is something to send.
    fn poll_stream(&mut self, cx: &mut Context<'_>, tee: &Tee, sides: Sides<'_>) -> Poll<Result<(), Lost>> {
        loop {
            if let Some(reading) = &mut self.reading {
                let read = ready!(reading.as_mut().poll(cx));
                self.reading = None;
                match read {
                    Ok(parts) => {
                        self.failures = 0;
                        self.parts.extend(parts);
                        return Poll::Ready(Ok(()));
                    }
                    // It was given up, or is somewhere else now: that shows below.
                    Err(ReadError::Gone) => {}
                    // Whoever reads from Redis has waited for it, and it may come back.
                    Err(_) if tee.is_cut_off() => {}
                    Err(_) if tee.is_remote() && self.failures < FAILURES_MAX => self.failures += 1,
                    Err(_) => return Poll::Ready(Err(Lost)),
                }
            }
            let stream = tee.stream();
            // As somebody who reads it, until it must have taken what it gets.
            stream.touch(unix_millis() + u64::from(sides.stall));
            let page = match stream.page(tee.place(self.position), tee.place(tee.kept()), BATCH_BYTES) {
                Ok(page) => page,
                Err(Unreadable::Deleted) => return Poll::Pending,
                Err(_) => return Poll::Ready(Err(Lost)),
            };
            // Asked after it was read: an end that somebody else has made comes with all that he has appended.
            if tee.is_foreign() || page.pieces.is_empty() && tee.has_lost() {
                return Poll::Ready(Err(Lost));
            }
            if page.pieces.is_empty() {
                return Poll::Pending;
            }
            let streams = Arc::clone(tee.streams());
            self.reading = Some(Box::pin(async move { payload_reader::bytes(&streams, &page.pieces).await }));
        }
    }

    /// Sends a block of what was read.
    fn send(
        &mut self,
        cx: &mut Context<'_>,
        framing: Framing,
        client: &Client,
        core: &Core,
    ) -> io::Result<()> {
        let mut block = core.shard.blocks.take();
        let (mut end, room) = (HEAD_ROOM, block.len() - TAIL_ROOM);
        while end < room
            && let Some(part) = self.parts.front_mut()
        {
            let taken = part.split_to(part.len().min(room - end));
            block[end..end + taken.len()].copy_from_slice(&taken);
            end += taken.len();
            if part.is_empty() {
                self.parts.pop_front();
            }
        }
        let payload = HEAD_ROOM..end;
        let (bytes, events) = (payload.len() as u64, u64::from(self.scanner.feed(&block[payload.clone()])));
        (self.position, self.events) = (self.position + bytes, self.events + events);
        core.metrics.bytes_to_clients.add(bytes);
        core.metrics.events_relayed.add(events);
        let out = match framing {
            Framing::Chunked => rechunk::chunk(&mut block, payload, false),
            _ => payload,
        };
        client.send(cx, &mut Some(block), out)
    }

    /// Reads the upstream on into the stream. Ready if that has come to an end, or has changed what the client can be sent.
    fn poll_upstream(
        &mut self,
        cx: &mut Context<'_>,
        download: &mut Download,
        sides: Sides<'_>,
    ) -> Poll<Option<Step>> {
        let Sides { client, core, idle, .. } = sides;
        while self.over.is_none() {
            let takes = |tee: &Tee| tee.takes() && tee.unsettled() <= UNSETTLED_BYTES_MAX;
            let reads = download.tee.as_deref().is_some_and(takes);
            if reads != self.reads {
                self.reads = reads;
                // Its silence counts only while somebody listens.
                client.deadlines.active(core.shard.clock.millis());
                client.deadlines.idle(if reads { idle } else { 0 });
                client.arm();
            }
            if !reads {
                return Poll::Pending;
            }
            if let Some(ending) = ready!(download.poll_unsent(cx, client, core)) {
                return Poll::Ready(Some(match ending {
                    Ending::Deleted | Ending::Stopped => Step::Ended(ending),
                    ending => Step::Over(ending),
                }));
            }
            if download.tee.as_ref().is_some_and(|tee| !tee.takes()) {
                return Poll::Ready(None);
            }
        }
        Poll::Pending
    }

    /// The event that tells the client why it gets no more, framed; nothing where it cannot stand.
    pub(crate) fn parting(&self, framing: Framing, event: &[u8]) -> Vec<u8> {
        if self.scanner.at_boundary() && !self.ended { framing.event(event) } else { Vec::new() }
    }
}

/// Sends a few words of our own.
fn say(cx: &mut Context<'_>, words: &[u8], sides: Sides<'_>) -> io::Result<()> {
    let mut block = sides.core.shard.blocks.take_large(words.len());
    block[..words.len()].copy_from_slice(words);
    sides.client.send(cx, &mut Some(block), 0..words.len())
}
