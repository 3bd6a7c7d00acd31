//! What was read from a client and not used yet: its next head, the beginning of its body, or of the request after that.
//!
//! What may never happen:
//! - a block held by a silent connection: it goes back when it is empty, and a head that stops in its middle is moved into a
//!   buffer of its own size until it goes on ([`Inbound::park`]).

use std::ops::Range;

use crate::relay::pump::rechunk::{HEAD_ROOM, TAIL_ROOM};
use crate::runtime::Shard;
use crate::runtime::block::{BLOCK_BYTES, BULK_BYTES, Block, Span};

/// A head that has stopped in its middle is kept in so many bytes, or a multiple of it.
const PARKED_STEP_BYTES: usize = 256;

/// Bytes that were read and not used yet.
#[derive(Default)]
pub(crate) struct Inbound {
    block: Option<Block>,
    span: Span,
}

impl Inbound {
    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.block.as_deref().map_or(&[], |block| &block[self.span.range()])
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.span.is_empty()
    }

    /// Drops the first `count` bytes; an empty buffer gives its block back.
    pub(crate) fn consume(&mut self, count: usize) {
        self.span = Span::new(self.span.start() + count, self.span.end());
        self.release_if_empty();
    }

    /// Hands the block itself over, with the range of its bytes; there is room for framing before and after them. What
    /// follows the first `count` bytes stays here, in a block of its own.
    pub(crate) fn take(&mut self, shard: &Shard, count: usize) -> Option<(Block, Range<usize>)> {
        let block = self.block.take()?;
        let range = self.span.start()..self.span.start() + count;
        let rest = &block[range.end..self.span.end()];
        self.span = Span::default();
        if !rest.is_empty() {
            let mut other = if rest.len() > usable() {
                shard.blocks.take_large(block.len())
            } else {
                shard.blocks.take()
            };
            other[HEAD_ROOM..HEAD_ROOM + rest.len()].copy_from_slice(rest);
            self.span = Span::new(HEAD_ROOM, HEAD_ROOM + rest.len());
            self.block = Some(other);
        }
        Some((block, range))
    }

    /// The bytes, to be changed in place.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let range = self.span.range();
        self.block.as_deref_mut().map_or(&mut [], |block| &mut block[range])
    }

    /// Whether no more can be read into what is held.
    pub(crate) fn is_full(&self) -> bool {
        self.block.as_ref().is_some_and(|block| self.span.end() == block.len() - TAIL_ROOM)
    }

    /// So many more bytes have been read into [`Inbound::room`].
    pub(crate) fn filled(&mut self, read: usize) {
        self.span = Span::new(self.span.start(), self.span.end() + read);
    }

    /// Moves what is held into a buffer of about its size: a head that has stopped in its middle may take its time, but not
    /// a block with it. What is parked is never read into: more of a head is received in a block again.
    pub(crate) fn park(&mut self, shard: &Shard) {
        let held = self.span.len();
        let Some(block) = self.block.as_ref().filter(|block| held > 0 && !block.is_of(&shard.heads)) else {
            return;
        };
        let mut parked = shard.heads.take_exact(held.next_multiple_of(PARKED_STEP_BYTES) + TAIL_ROOM);
        parked[..held].copy_from_slice(&block[self.span.range()]);
        (self.block, self.span) = (Some(parked), Span::new(0, held));
    }

    /// Room to read into; a larger buffer is taken when one is needed and `limit` allows it.
    pub(crate) fn room(&mut self, shard: &Shard, limit: usize) -> &mut [u8] {
        let held = self.span.len();
        let block = match self.block.take() {
            None => {
                self.span = Span::new(HEAD_ROOM, HEAD_ROOM);
                if limit == BULK_BYTES { shard.blocks.take_bulk() } else { shard.blocks.take() }
            }
            Some(parked) if parked.is_of(&shard.heads) => {
                let needed = HEAD_ROOM + held + TAIL_ROOM;
                let mut block = if needed < BLOCK_BYTES {
                    shard.blocks.take()
                } else {
                    shard.blocks.take_large((2 * needed).min(limit.saturating_add(HEAD_ROOM + TAIL_ROOM)))
                };
                block[HEAD_ROOM..HEAD_ROOM + held].copy_from_slice(&parked[self.span.range()]);
                self.span = Span::new(HEAD_ROOM, HEAD_ROOM + held);
                block
            }
            Some(block) if self.span.end() < block.len() - TAIL_ROOM => block,
            Some(mut block) if self.span.start() > HEAD_ROOM => {
                block.copy_within(self.span.range(), HEAD_ROOM);
                self.span = Span::new(HEAD_ROOM, HEAD_ROOM + held);
                block
            }
            Some(block) if held < limit && limit != usize::MAX => {
                let mut larger =
                    shard.blocks.take_large((2 * block.len()).min(limit + HEAD_ROOM + TAIL_ROOM));
                larger[HEAD_ROOM..HEAD_ROOM + held].copy_from_slice(&block[self.span.range()]);
                self.span = Span::new(HEAD_ROOM, HEAD_ROOM + held);
                larger
            }
            Some(block) => block,
        };
        let end = block.len() - TAIL_ROOM;
        &mut self.block.insert(block)[self.span.end()..end]
    }

    pub(crate) fn release_if_empty(&mut self) {
        if self.is_empty() {
            *self = Inbound::default();
        }
    }
}

/// Bytes of a usual block that can hold payload.
fn usable() -> usize {
    BLOCK_BYTES - HEAD_ROOM - TAIL_ROOM
}
