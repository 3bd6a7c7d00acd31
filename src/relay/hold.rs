//! The beginning of a stream, held back until it says something, where the route's `commit` is `first_content`.
//!
//! An upstream may answer 200 and then fail, or never speak. As long as its head and what follows lie here, the client has
//! seen nothing of it and another upstream can be asked. Then they leave as they came, in one write.
//!
//! ```text
//! head of an event stream ──► HELD ── content, its end, or 64 KiB ──► passed on as it is
//!                              ├───── an error event ───────────────► passed on as it is, if nobody else can be asked
//!                              └───── closed, broken, silent for `first_byte` ──► the attempt has failed
//! ```

use std::task::{Context, Poll, ready};

use super::answer;
use super::ask::{Answered, Stop};
use super::core::Core;
use super::framing::TAIL_ROOM;
use crate::http::body::BodyDecoder;
use crate::net::stream::Stream;
use crate::openai::{FirstContent, Seen};
use crate::shard::block::BLOCK_BYTES;

/// The most of a body that is held back.
pub const HELD_BYTES_MAX: usize = 64 * 1024;

/// A stream that has begun and not been passed on.
pub struct Hold {
    answered: Option<Answered>,
    decoder: BodyDecoder,
    first: FirstContent,
    /// Where in the block the bytes begin that have not been looked at.
    looked: usize,
}

impl Hold {
    /// Holds an answer back if it is an event stream that can be looked into; gives any other one back.
    #[expect(clippy::result_large_err, reason = "it is no error: it goes on as it came")]
    pub fn begin(answered: Answered) -> Result<Box<Hold>, Answered> {
        let head = answered.head();
        let learnt = answer::learn(&head);
        let (decoder, looked) = (BodyDecoder::from(head.body), answered.rest.start);
        let held = head.status == 200 && learnt.events && !learnt.encoded;
        drop(head);
        if !held {
            return Err(answered);
        }
        Ok(Box::new(Hold { answered: Some(answered), decoder, first: FirstContent::default(), looked }))
    }

    /// Ready with the answer when it is to be passed on. Not to be called again after that.
    pub fn poll(
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
        match self.first.feed(&copy[..decoded.payload]) {
            Seen::Nothing => Ok(decoded.ended || answered.rest.len() >= HELD_BYTES_MAX),
            Seen::Content => Ok(true),
            Seen::Error => {
                answered.failed = true;
                Ok(true)
            }
        }
    }
}
