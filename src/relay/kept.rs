//! A body that is kept after it has been sent, so that it can be sent again: to another upstream, or to a second one.
//!
//! Nothing is copied while it is sent: blocks go aside instead of back, and what left in one write with the head still lies
//! behind that head. It is kept whole or not at all; what becomes more than [`KEPT_BYTES_MAX`] is let go, and the request has no
//! other attempt from there on. One of which nothing was sent yet can always begin anew.

use std::collections::VecDeque;
use std::ops::Range;

use super::framing;
use super::upload::{Upload, piece};
use crate::shard::Shard;
use crate::shard::block::Block;

/// The most memory in which a body is kept for another attempt after it has been sent.
pub const KEPT_BYTES_MAX: u64 = 1024 * 1024;

/// Blocks that have been sent, and what of each.
pub type Kept = Vec<(Block, Range<usize>)>;

impl Upload {
    /// From here on what is sent is kept, up to [`KEPT_BYTES_MAX`], so that it can be sent to somebody else. Not a body that
    /// goes out in chunks: its length is not known, nor whether it will be small.
    pub fn keep(&mut self) {
        if !self.chunked_out && self.held_bytes() <= KEPT_BYTES_MAX {
            self.kept = Some(Vec::new());
        }
    }

    /// There will be no other attempt.
    pub fn forget(&mut self) {
        self.kept = None;
        if self.broken || self.held.is_empty() {
            // Its memory as well: a stream may wait for hours.
            self.held = VecDeque::new();
        }
    }

    /// Whether all that was received is still here.
    pub fn can_rewind(&self) -> bool {
        self.kept.is_some() || !self.touched
    }

    /// The length of what has been sent, of which so many bytes left with the head.
    pub fn sent_bytes(&self, joined: usize) -> u64 {
        let kept = self.kept.iter().flatten().map(|(_, range)| range.len() as u64);
        joined as u64 + kept.sum::<u64>()
    }

    /// Appends the whole body to `request`, if all of it has been sent and is still here. `joined` is what left with the head.
    pub fn copy_to(&self, request: &mut Vec<u8>, joined: &[u8]) -> bool {
        let Some(kept) = self.kept.as_ref().filter(|_| self.sent && self.ended && !self.broken) else {
            return false;
        };
        request.extend_from_slice(joined);
        kept.iter().for_each(|(block, range)| request.extend_from_slice(&block[range.clone()]));
        true
    }

    /// Takes everything back, to be sent again from its beginning. `joined` is what left with the head.
    pub fn rewind(&mut self, joined: &[u8], shard: &Shard) {
        let kept = self.kept.take().unwrap_or_default();
        if self.begun
            && let Some((_, range)) = self.held.front_mut()
        {
            range.start = self.front;
        }
        let held = std::mem::take(&mut self.held);
        self.held.extend((!joined.is_empty()).then(|| piece(joined, shard)));
        self.held.extend(kept);
        self.held.extend(held);
        self.sent = self.ended && self.held.is_empty();
        (self.broken, self.blocked, self.begun, self.touched) = (false, false, false, false);
        (self.chunked_out, self.kept_bytes) = (false, 0);
    }

    /// The front of what is held has been sent.
    pub(super) fn spend(&mut self) {
        let Some((block, mut range)) = self.held.pop_front() else { return };
        (self.framed, range.start) = (false, self.front);
        self.begun = false;
        let Some(kept) = &mut self.kept else { return };
        // Small pieces share a block here, too: what a client dribbles would hold 16 KiB for each of its bytes.
        if let Some((last, end)) = kept.last_mut()
            && end.end + range.len() <= last.len() - framing::TAIL_ROOM
        {
            last[end.end..end.end + range.len()].copy_from_slice(&block[range.clone()]);
            end.end += range.len();
            return;
        }
        self.kept_bytes += block.len() as u64;
        match self.kept_bytes <= KEPT_BYTES_MAX {
            true => kept.push((block, range)),
            false => self.kept = None,
        }
    }
}
