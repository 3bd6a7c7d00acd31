//! A body that is kept after it has been sent, so that it can be sent again: to another upstream, or to a second one.
//!
//! Nothing is copied while it is sent: blocks go aside instead of back, and what left in one write with the head still lies
//! behind that head. It is kept as it came, whatever its framing, and whole or not at all: what becomes more than the route's
//! `retry.max_body`, or finds no room in its client's share of the memory, is let go, and the request has no other attempt from
//! there on. One of which nothing was sent yet can always begin anew.

use std::collections::VecDeque;
use std::ops::Range;

use super::body::{Upload, WHOLE_BYTES};
use super::memory_share::Share;
use super::splice::piece;
use crate::relay::pump::rechunk;
use crate::runtime::Shard;
use crate::runtime::block::Block;

/// Blocks that have been sent, and the payload in each.
pub(crate) type Kept = Vec<(Block, Range<usize>)>;

/// Why a body is not kept, so that its request cannot be sent again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LetGo {
    /// It is larger than the route's `retry.max_body`.
    TooLarge,
    /// Its client's share of the memory is used up.
    NoRoom,
}

impl LetGo {
    /// The word for it in the log and in metrics.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            LetGo::TooLarge => "body",
            LetGo::NoRoom => "memory",
        }
    }
}

impl Upload {
    /// From here on what is sent is kept, up to `max` bytes of payload, so that it can be sent to somebody else. `length` is the
    /// body's own, if it is known.
    pub(crate) fn keep(&mut self, max: u64, length: Option<u64>, share: impl FnOnce() -> Share) {
        (self.kept, self.kept_bytes) = (None, 0);
        if length.unwrap_or_else(|| self.held_bytes()) > max {
            self.let_go = Some(LetGo::TooLarge);
            return;
        }
        (self.kept, self.kept_max, self.let_go) = (Some(Vec::new()), max.min(u32::MAX.into()) as u32, None);
        // What leaves in one write with the head is not counted.
        if !self.ended || self.held_bytes() > WHOLE_BYTES {
            self.share.get_or_insert_with(|| Box::new(share()));
            self.count();
        }
    }

    /// It is not kept: there is no room.
    pub(crate) fn keep_nothing(&mut self) {
        (self.kept, self.let_go) = (None, Some(LetGo::NoRoom));
    }

    /// Whether what is sent is kept.
    pub(crate) fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// There will be no other attempt.
    pub(crate) fn forget(&mut self) {
        self.kept = None;
        if self.broken || self.held.is_empty() {
            // Its memory as well: a stream may wait for hours.
            (self.held, self.share) = (VecDeque::new(), None);
        }
    }

    /// Whether all that was received is still here.
    pub(crate) fn can_rewind(&self) -> bool {
        self.kept.is_some() || !self.touched
    }

    /// Why it is kept no more, if it is not.
    pub(crate) fn let_go(&self) -> Option<LetGo> {
        self.let_go.filter(|_| !self.can_rewind())
    }

    /// Whether its client may hold so much, which is counted from now on.
    pub(crate) fn has_share(&mut self, share: impl FnOnce() -> Share) -> bool {
        self.share.get_or_insert_with(|| Box::new(share()));
        self.count();
        self.share.as_deref().is_none_or(Share::fits)
    }

    /// Counts what it holds.
    pub(crate) fn count(&mut self) {
        if let Some(share) = &mut self.share {
            let kept = self.kept.iter().flatten();
            share.set(self.held.iter().chain(kept).map(|(block, _)| block.len()).sum());
        }
    }

    /// How many bytes were written for the body beside what left with the head, if that is known: not without what is kept, nor
    /// of chunks, whose framing is not.
    pub(crate) fn written(&self) -> Option<u64> {
        if !self.touched {
            return Some(0);
        }
        if self.chunked_out {
            return None;
        }
        let kept: u64 = self.kept.as_ref()?.iter().map(|(_, range)| range.len() as u64).sum();
        let front = self.held.front().filter(|_| self.begun);
        Some(kept + front.map_or(0, |(_, range)| (range.start - self.front.start()) as u64))
    }

    /// Takes everything back, to be sent again behind the same head: with what left with that, and framed as it says.
    pub(crate) fn rewind_to_head(&mut self, shard: &Shard) {
        let chunked = self.chunked_out;
        self.rewind(&[], shard);
        self.chunked_out = chunked;
    }

    /// The length of what has been sent, of which so many bytes left with the head.
    pub(crate) fn sent_bytes(&self, joined: usize) -> u64 {
        let kept = self.kept.iter().flatten().map(|(_, range)| range.len() as u64);
        joined as u64 + kept.sum::<u64>()
    }

    /// `head` and behind it the whole body, if all of it has been sent and is still here. `joined` is what left with the head.
    pub(crate) fn copy(&self, head: &[u8], joined: &[u8], shard: &Shard) -> Option<Block> {
        let kept = self.kept.as_ref().filter(|_| self.sent && self.ended && !self.broken)?;
        let mut request = shard.blocks.take_exact(head.len() + self.sent_bytes(joined.len()) as usize);
        let parts = kept.iter().map(|(block, range)| &block[range.clone()]);
        let mut at = 0;
        for part in [head, joined].into_iter().chain(parts) {
            request[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        Some(request)
    }

    /// Takes everything back, to be sent again from its beginning. `joined` is what left with the head.
    pub(crate) fn rewind(&mut self, joined: &[u8], shard: &Shard) {
        let kept = self.kept.take().unwrap_or_default();
        if let Some((_, range)) = self.held.front_mut() {
            if self.framed {
                *range = self.front.range();
            } else if self.begun {
                range.start = self.front.start();
            }
        }
        let held = std::mem::take(&mut self.held);
        self.held.extend((!joined.is_empty()).then(|| piece(joined, shard)));
        self.held.extend(kept);
        self.held.extend(held.into_iter().filter(|(_, range)| !range.is_empty()));
        self.sent = self.ended && self.held.is_empty();
        (self.broken, self.blocked, self.begun, self.touched) = (false, false, false, false);
        (self.chunked_out, self.framed, self.last_chunk_sent, self.kept_bytes) = (false, false, false, 0);
        self.count();
    }

    /// The front of what is held has been sent.
    pub(crate) fn spend(&mut self) {
        let Some((block, range)) = self.held.pop_front() else { return };
        // What it was framed with is not kept.
        let payload = if self.framed { self.front.range() } else { self.front.start()..range.end };
        (self.framed, self.begun) = (false, false);
        self.put_aside(block, payload);
        self.count();
    }

    fn put_aside(&mut self, block: Block, payload: Range<usize>) {
        let Some(kept) = &mut self.kept else { return };
        self.kept_bytes = self.kept_bytes.saturating_add(payload.len() as u32);
        if self.kept_bytes > self.kept_max {
            (self.kept, self.let_go) = (None, Some(LetGo::TooLarge));
            return;
        }
        // Small pieces share a block here, too: what a client dribbles would hold 16 KiB for each of its bytes.
        match kept.last_mut() {
            _ if payload.is_empty() => {}
            Some((last, end)) if end.end + payload.len() <= last.len() - rechunk::TAIL_ROOM => {
                last[end.end..end.end + payload.len()].copy_from_slice(&block[payload.clone()]);
                end.end += payload.len();
            }
            _ if self.share.as_deref().is_some_and(|share| !share.has_spare()) => {
                (self.kept, self.let_go) = (None, Some(LetGo::NoRoom));
            }
            _ => kept.push((block, payload)),
        }
    }
}
