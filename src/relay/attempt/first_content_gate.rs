//! The beginning of a response, held back until it is known to be one: that of a stream until it says something, where the route's
//! `commit` is `first_content`; a JSON document until its end, there and where the route says `repeat`.
//!
//! An upstream may answer 200 and then fail, or never speak. As long as its head and what follows lie here, the client has
//! seen nothing of it and another upstream can be asked. Then they leave as they came, in one write.
//!
//! ```text
//! head of an event stream ──► HELD ── content, or 64 KiB ──► passed on as it is
//!   or of a JSON document      │      its end, where that is one
//!                              ├───── an error ────────────► passed on as it is, if nobody else can be asked
//!                              └───── closed, broken, ended without a word, silent for `first_byte` ──► the attempt has failed
//! ```

use std::task::{Context, Poll, ready};

use crate::config::Route;
use crate::proto::http1::body::BodyDecoder;
use crate::proto::openai::{Api, FirstContent, Seen, Sideband};
use crate::relay::context::Core;
use crate::relay::pump::rechunk::TAIL_ROOM;
use crate::relay::request::Request;
use crate::relay::response_head;
use crate::runtime::block::BLOCK_BYTES;
use crate::runtime::net::stream::Stream;
use crate::upstream::client::{Answered, Stop};

/// The most of a body that is held back.
pub(crate) const HELD_BYTES_MAX: usize = 64 * 1024;

/// A stream that has begun and not been passed on.
pub(crate) struct Hold {
    answered: Option<Answered>,
    decoder: BodyDecoder,
    awaited: Awaited,
    /// Where in the block the bytes begin that have not been looked at.
    looked: usize,
}

/// Reason to hold it.
enum Awaited {
    /// The first content of a stream, which says so if it is over.
    Content(FirstContent, bool),
    /// The end of a document.
    Document(Sideband),
}

/// Kinds of responses to a request that are held back.
#[derive(Clone, Copy)]
pub(crate) struct Held {
    /// The beginnings of streams.
    pub(crate) streams: bool,
    /// JSON.
    pub(crate) documents: bool,
    /// The API of the request.
    pub(crate) api: Api,
}

impl Held {
    /// As the route says for `request`.
    pub(crate) fn of(route: &Route, request: &Request) -> Held {
        let is_known = !request.is_head();
        Held {
            streams: is_known && route.first_content,
            documents: is_known && (route.first_content || route.retry.repeat) && request.is_inference(),
            api: request.api(),
        }
    }
}

impl Hold {
    /// Holds an answer back if it is one of those, and can be looked into; gives any other one back.
    #[expect(clippy::result_large_err, reason = "it is no error: it goes on as it came")]
    pub(crate) fn begin(answered: Answered, held: Held) -> Result<Box<Hold>, Answered> {
        let head = answered.head();
        let learnt = response_head::learn(&head);
        let (decoder, looked) = (BodyDecoder::from(head.body), answered.rest.start);
        let is_open = head.status == 200 && !learnt.encoded;
        drop(head);
        let awaited = match is_open {
            true if learnt.events && held.streams => {
                Awaited::Content(FirstContent::default(), held.api.says_end())
            }
            true if learnt.json && held.documents => Awaited::Document(Sideband::json(held.api)),
            _ => return Err(answered),
        };
        Ok(Box::new(Hold { answered: Some(answered), decoder, awaited, looked }))
    }

    /// Ready with the answer when it is to be passed on. Not to be called again after that.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        core: &Core,
    ) -> Poll<Result<Answered, Stop>> {
        loop {
            let commit = self.look()?;
            let Some(answered) = &mut self.answered else {
                return Poll::Ready(Err(Stop::Closed { untouched: false }));
            };
            if commit {
                return Poll::Ready(self.answered.take().ok_or(Stop::Closed { untouched: false }));
            }
            if answered.rest.end == answered.block.len() - TAIL_ROOM {
                let bytes = answered.rest.start + HELD_BYTES_MAX + BLOCK_BYTES + TAIL_ROOM;
                let mut larger = core.shard.blocks.take_large(bytes);
                larger[..answered.rest.end].copy_from_slice(&answered.block[..answered.rest.end]);
                answered.block = larger;
            }
            let room = answered.rest.end..answered.block.len() - TAIL_ROOM;
            match ready!(stream.poll_read(cx, &mut answered.block[room])) {
                Ok(read) if read > 0 => answered.rest.end += read,
                // A document whose framing is that the connection closes.
                Ok(_) if self.is_closed() => {
                    return Poll::Ready(self.answered.take().ok_or(Stop::Closed { untouched: false }));
                }
                _ => return Poll::Ready(Err(Stop::Closed { untouched: false })),
            }
        }
    }

    /// Looks at what is new. Says whether the answer is to be passed on.
    fn look(&mut self) -> Result<bool, Stop> {
        let Some(answered) = &mut self.answered else { return Ok(true) };
        // Decoded in a copy: the bytes themselves are to leave as they came.
        let mut copy = answered.block[self.looked..answered.rest.end].to_vec();
        self.looked = answered.rest.end;
        let decoded = self.decoder.decode_in_place(&mut copy);
        let decoded = decoded.map_err(|error| Stop::Invalid(error.message()))?;
        let is_full = answered.rest.len() >= HELD_BYTES_MAX;
        let seen = match &mut self.awaited {
            Awaited::Content(first, says_end) => match first.feed(&copy[..decoded.payload]) {
                // It has said nothing, and should have said at least that it is over.
                Seen::Nothing if decoded.ended && *says_end => return Err(Stop::Closed { untouched: false }),
                seen => seen,
            },
            Awaited::Document(sideband) => {
                sideband.feed(&copy[..decoded.payload]);
                if sideband.error_seen() { Seen::Error } else { Seen::Nothing }
            }
        };
        answered.failed = seen == Seen::Error;
        Ok(seen != Seen::Nothing || decoded.ended || is_full)
    }

    /// Whether it is whole where the connection closes.
    fn is_closed(&self) -> bool {
        let Awaited::Document(sideband) = &self.awaited else { return false };
        matches!(self.decoder, BodyDecoder::Close) && sideband.is_complete()
    }
}
