//! An answer that becomes a durable stream while its client gets it: the same bytes, event by event.
//!
//! ```text
//!  upstream ──segment──► pump ──► client (may leave, may come back as a reader)
//!                          └────► tee ──whole events──► stream ──► readers, as many as there are
//!                                  │                      └──────► the client, while it reads more slowly (a laggard)
//!                                  └ at the end: closed; or an error event, and closed
//! ```
//!
//! What may never happen: a stream that ends as if it were whole when the answer was not; one that stays open when nobody
//! writes it any more. So the tee closes it with an error whenever it is dropped without an end. It never waits: what is
//! appended here becomes visible when it is durable, without the pump, and what goes to Redis has a queue of its own.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;

use bytes::{Bytes, BytesMut};
use serde::Deserialize;

use super::Ending;
use crate::proto::openai::{Api, ApiError};
use crate::proto::sse::{Blocks, blocks};
use crate::runtime::clock::unix_millis;
use crate::streams::store::journal::Journal;
use crate::streams::store::redis::Writer;
use crate::streams::{Append, Hub, Refused, Seat, Stopped, Stream, Streams};

/// What such a stream holds.
pub(crate) const CONTENT_TYPE: &str = "text/event-stream";

/// An event that has not ended after so many bytes is kept in parts.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// The writer of a stream.
pub(crate) struct Tee {
    seat: Seat,
    hub: Rc<Hub>,
    streams: Arc<Streams>,
    /// What writes it, where it is in Redis.
    writer: Option<Writer>,
    /// What was fed and is not in the stream: the beginning of an event; for a laggard, what was refused as well.
    held: BytesMut,
    ends: Blocks,
    /// Where the answer begins in its stream.
    begin: u64,
    /// Bytes of the answer that the stream has taken.
    kept: u64,
    /// Bytes that it has taken beside them: the event that says why there are no more.
    told: u64,
    /// It has taken its end as well.
    closed: bool,
    /// Its client gets from the stream what it has not got yet.
    lent: bool,
    /// Its answer has an identifier of its own, which has not been seen yet.
    nameless: bool,
    api: Api,
    ended: bool,
}

impl Tee {
    /// Writes a response of `api` to `stream` from now on. One of the Responses API will say what it is called.
    pub(crate) fn new(stream: &Arc<Stream>, hub: &Rc<Hub>, streams: &Arc<Streams>, api: Api) -> Box<Tee> {
        Box::new(Tee {
            seat: hub.watch(stream),
            hub: Rc::clone(hub),
            streams: Arc::clone(streams),
            writer: streams.writer(stream, api.error_event(&ApiError::answer_not_kept(), "", 0)),
            held: BytesMut::new(),
            ends: Blocks::default(),
            begin: stream.status().tail,
            kept: 0,
            told: 0,
            closed: false,
            lent: false,
            nameless: api == Api::Responses,
            api,
            ended: false,
        })
    }

    /// Takes a part of the answer.
    pub(crate) fn feed(&mut self, payload: &[u8]) {
        if self.ended {
            // The rest of what was read at once. No more of it is read until the client has this.
            if self.lent {
                self.held.extend_from_slice(payload);
            }
            return;
        }
        self.held.extend_from_slice(payload);
        let mut end = 0;
        while let Some(at) = self.ends.next_end(&self.held) {
            end = at;
        }
        if end == 0 && self.held.len() > EVENT_BYTES_MAX {
            end = self.held.len();
            self.ends = Blocks::default();
        } else {
            self.ends.consumed(end);
        }
        if end > 0 {
            let events = self.held.split_to(end).freeze();
            if std::mem::take(&mut self.nameless)
                && let Some(name) = name_of(&events)
            {
                match &self.writer {
                    Some(writer) => writer.name(&name),
                    None => self.streams.name_answer(self.seat.stream(), &name),
                }
            }
            self.keep(events, false);
        }
    }

    /// Appends a part of the answer, and with `close` its end; what is refused may still be wanted.
    fn keep(&mut self, part: Bytes, close: bool) {
        if self.append(&part, close) {
            self.kept += part.len() as u64;
        } else if self.lent {
            let after = self.held.split();
            self.held.extend_from_slice(&part);
            self.held.extend_from_slice(&after);
        }
    }

    /// Says whether the stream has taken it.
    fn append(&mut self, bytes: &Bytes, close: bool) -> bool {
        if let Some(writer) = &self.writer {
            let is_taken = writer.append(bytes, close);
            self.ended |= !is_taken;
            if is_taken && !bytes.is_empty() {
                self.hub.appended_elsewhere(bytes.len());
            }
            return is_taken;
        }
        let stream = self.seat.stream();
        let append = Append {
            bytes: bytes.clone(),
            close,
            content_type: Some(CONTENT_TYPE),
            own: true,
            ..Append::default()
        };
        let outcome = self.hub.append(stream, &append, unix_millis());
        // Somebody has deleted it, which stops the answer; or it cannot be kept, and its readers must not take it for whole.
        if let Err(refused) = &outcome.result {
            self.ended = true;
            if !matches!(refused, Refused::Gone | Refused::Closed(_)) {
                stream.fail();
            }
        }
        outcome.result.is_ok()
    }

    /// How a client has ended the response by its stream: by deleting or by closing it. The caller is woken when it happens.
    pub(crate) fn stopped(&self, cx: &Context<'_>) -> Option<Ending> {
        self.ended_by(cx).map(|stopped| match stopped {
            Stopped::Closed => Ending::Stopped,
            Stopped::Deleted => Ending::Deleted,
        })
    }

    /// The same before it has begun.
    pub(crate) fn ended_by(&self, cx: &Context<'_>) -> Option<Stopped> {
        self.seat.listen(cx);
        self.seat.stream().stopped()
    }

    /// The answer is over: whole, or not, as the event `error` says.
    pub(crate) fn finish(&mut self, error: Option<Vec<u8>>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        match error {
            None => {
                let last = self.held.split().freeze();
                let before = self.kept + last.len() as u64;
                self.keep(last, true);
                self.closed = self.kept == before;
            }
            // What is held is a part of an event, which nobody would ever see the end of.
            Some(error) => {
                let event = Bytes::from(error);
                self.closed = self.append(&event, true);
                self.told = if self.closed { event.len() as u64 } else { 0 };
            }
        }
    }

    /// Whether a client may be given from the stream what it does not take now. One that would wait for Redis could have waited
    /// for itself.
    #[cold]
    pub(crate) fn can_lend(&self) -> bool {
        self.takes() && !self.is_cut_off()
    }

    /// Whether its client gets what it lacks from the stream from now on.
    pub(crate) fn lend(&mut self, does: bool) {
        self.lent = does;
        if self.ended && !does {
            self.held = BytesMut::new();
        }
    }

    /// Whether it takes more of the answer.
    pub(crate) fn takes(&self) -> bool {
        !self.ended
    }

    /// The stream.
    pub(crate) fn stream(&self) -> &Arc<Stream> {
        self.seat.stream()
    }

    /// All streams.
    pub(crate) fn streams(&self) -> &Arc<Streams> {
        &self.streams
    }

    /// Where a byte of the answer is in the stream.
    pub(crate) fn place(&self, position: u64) -> u64 {
        self.begin + position
    }

    /// Bytes of the answer that the stream has taken; readers may not know of all of them yet.
    pub(crate) fn kept(&self) -> u64 {
        self.kept
    }

    /// How many of them readers do not know of yet.
    pub(crate) fn unsettled(&self) -> u64 {
        self.place(self.kept).saturating_sub(self.stream().status().tail)
    }

    /// What was read of the answer behind `position`, and is not in the stream.
    pub(crate) fn rest(&self, position: u64) -> &[u8] {
        let skip = position.checked_sub(self.kept).and_then(|skip| usize::try_from(skip).ok());
        skip.and_then(|skip| self.held.get(skip..)).unwrap_or_default()
    }

    /// Whether what the stream holds is not what was written here: somebody else has ended it, who took this node for dead.
    pub(crate) fn is_foreign(&self) -> bool {
        let status = self.stream().status();
        status.closed && !(self.closed && status.tail == self.place(self.kept + self.told))
    }

    /// Whether readers will not be told what they do not know yet: never, or not before the disk has room.
    pub(crate) fn has_lost(&self) -> bool {
        let lacks = |journal: &Journal| journal.failure().is_some() || journal.no_room().is_some();
        self.streams.journal().is_some_and(lacks)
    }

    /// Whether the stream is in Redis.
    pub(crate) fn is_remote(&self) -> bool {
        self.streams.remote().is_some()
    }

    /// Whether that cannot be asked now.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.streams.remote().is_some_and(|remote| !remote.is_up())
    }
}

impl Drop for Tee {
    fn drop(&mut self) {
        if !self.ended {
            self.finish(Some(self.api.error_event(&ApiError::upstream_closed(), "", 0)));
        }
    }
}

/// The identifier in the first event of an answer of the Responses API.
fn name_of(events: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(borrow)]
        response: Response<'a>,
    }
    #[derive(Deserialize)]
    struct Response<'a> {
        #[serde(borrow)]
        id: Cow<'a, str>,
    }
    let first = blocks(events).next()?;
    let data = first.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"data:"))?;
    let event: Event<'_> = serde_json::from_slice(data.trim_ascii()).ok()?;
    Some(event.response.id.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_stands_in_the_first_event() {
        let events = b"event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\",\"x\":2}}\n\n";
        assert_eq!(name_of(events).as_deref(), Some("resp_1"));
        assert_eq!(name_of(b"data: {\"id\":\"x\"}\n\n"), None);
        assert_eq!(name_of(b""), None);
    }
}
